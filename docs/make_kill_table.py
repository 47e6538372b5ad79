"""Write kill_table.md: which check of refconv.testing.check_conv catches which catalogued mistake.

python docs/make_kill_table.py
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from refconv.testing.checker.check import check_conv
from refconv.testing.checker.examine import CHECKS
from refconv.testing.checker.report import CheckReport
from refconv.testing.mutants import CATALOGUE, Mutant
from refconv.testing.regimes import SIZES, SPECIAL

TABLE = Path(__file__).with_name("kill_table.md")


COLUMNS = tuple(check for check in CHECKS if check != "needs")
"""The checks, without the one that is made only if asked for."""

KINDS = ("layers", *SIZES, "relations")
"""Kinds of regimes: networks' layers, each size, and relations between numbers."""


class Row(NamedTuple):
    """What the checker says about one mistake."""

    name: str
    family: str
    checks: frozenset[str]
    elements: int  # of x in the smallest failing case
    named: str  # "first", "tie" or "no"
    regimes: tuple[int, ...]  # of each kind of regime, how many have a problem that fails

    def __str__(self) -> str:
        marks = " | ".join("●" if check in self.checks else " " for check in COLUMNS)
        counts = " | ".join(map(str, self.regimes))
        return f"| {self.name} | {self.family} | {self.elements} | {self.named} | {marks} | {counts} |"


def kind_of(regime: str) -> str:
    """Return the kind of a regime: the name of its size, "relations" or "layers"."""
    size = regime.rpartition(" ")[0]
    return size if size in SIZES else "relations" if regime in {s.name for s in SPECIAL} else "layers"


def row(mutant: Mutant) -> Row:
    """Check one mistake."""
    wrong = mutant.make()
    return judged(mutant, check_conv(wrong.forward, wrong.backward, time_limit=2.0, **mutant.settings()))


def numbered(number: int) -> Row:
    """Check the mistake of this number."""
    return row(CATALOGUE[number])


def judged(mutant: Mutant, report: CheckReport) -> Row:
    """Return the row of a mistake, from the report on it."""
    first = report.failures[0]
    best = [diagnosis.name for diagnosis in first.diagnoses if diagnosis.rank == 1]
    named = "no" if mutant.name not in best else "first" if len(best) == 1 else "tie"
    counts = Counter(map(kind_of, report.failed_regimes))
    checks = frozenset(failure.check for failure in report.failures)
    return Row(mutant.name, mutant.family, checks, first.case.x.size, named, tuple(counts[kind] for kind in KINDS))


def page(rows: Iterable[Row]) -> str:
    """Return the page."""
    rows = list(rows)
    first, tied = (sum(r.named == how for r in rows) for how in ("first", "tie"))
    elements = [r.elements for r in rows]
    only = {check: sum(r.checks == {check} for r in rows) for check in COLUMNS}
    lines = [
        "# Kill table: which check catches which mistake",
        "",
        "Every mistake of `refconv.testing.mutants.CATALOGUE` was given to `check_conv`, forward and backward, with",
        "its default arguments. ● marks a check that failed, as it should. The last columns count the regimes of each",
        "kind in which a problem failed ([what the checker runs](what-is-checked.md)).",
        "`python docs/make_kill_table.py` makes the table; `make test` runs every mistake and makes every fortieth row",
        "again, `make check` every row.",
        "",
        f"* {len(rows)} mistakes, all caught.",
        f"* The diagnosis of the first failure names {first} of them alone at its first rank, and {tied} in a tie.",
        f"* Elements of x in the smallest failing case: {statistics.median(elements):g} in the median,"
        f" {max(elements)} at most.",
        "* Mistakes that one check alone catches: "
        + ", ".join(f"{check} {count}" for check, count in only.items())
        + ".",
        "",
        f"| mistake | family | elements of x | named | {' | '.join(COLUMNS)} | {' | '.join(KINDS)} |",
        f"|---|---|--:|---|{':-:|' * len(COLUMNS)}{'--:|' * len(KINDS)}",
        *map(str, rows),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    with ProcessPoolExecutor() as pool:  # some minutes
        TABLE.write_text(page(pool.map(numbered, range(len(CATALOGUE)))), encoding="utf-8")
