"""Write kill_table.md: which check of refconv.testing.check_conv catches which catalogued mistake.

python docs/make_kill_table.py
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from refconv.testing.checker.check import check_conv
from refconv.testing.checker.examine import CHECKS
from refconv.testing.mutants import CATALOGUE, Mutant

TABLE = Path(__file__).with_name("kill_table.md")


class Row(NamedTuple):
    """What the checker says about one mistake."""

    name: str
    family: str
    checks: frozenset[str]
    elements: int  # of x in the smallest failing case
    named: str  # "first", "tie" or "no"

    def __str__(self) -> str:
        marks = " | ".join("●" if check in self.checks else " " for check in CHECKS)
        return f"| {self.name} | {self.family} | {self.elements} | {self.named} | {marks} |"


def row(mutant: Mutant) -> Row:
    """Check one mistake."""
    wrong = mutant.make()
    report = check_conv(wrong.forward, wrong.backward, time_limit=2.0, **mutant.settings())
    first = report.failures[0]
    best = [diagnosis.name for diagnosis in first.diagnoses if diagnosis.rank == 1]
    named = "no" if mutant.name not in best else "first" if len(best) == 1 else "tie"
    return Row(mutant.name, mutant.family, frozenset(f.check for f in report.failures), first.case.x.size, named)


def page(rows: Iterable[Row]) -> str:
    """Return the page."""
    rows = list(rows)
    first, tied = (sum(r.named == how for r in rows) for how in ("first", "tie"))
    elements = [r.elements for r in rows]
    only = {check: sum(r.checks == {check} for r in rows) for check in CHECKS}
    lines = [
        "# Kill table: which check catches which mistake",
        "",
        "Every mistake of `refconv.testing.mutants.CATALOGUE` was given to `check_conv`, forward and backward, with",
        "200 cases. A dot says that the check in that column failed, as it should. Made by",
        "`python docs/make_kill_table.py`; the tests make each row again.",
        "",
        f"* {len(rows)} mistakes, all caught.",
        f"* The diagnosis of the first failure names {first} of them alone at its first rank, and {tied} in a tie.",
        f"* In the smallest failing case, x has {statistics.median(elements):g} elements in the median,"
        f" {max(elements)} at most.",
        "* Mistakes that one check alone catches: "
        + ", ".join(f"{check} {count}" for check, count in only.items())
        + ".",
        "",
        f"| mistake | family | elements of x | named | {' | '.join(CHECKS)} |",
        f"|---|---|--:|---|{':-:|' * len(CHECKS)}",
        *map(str, rows),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    TABLE.write_text(page(map(row, CATALOGUE)), encoding="utf-8")
