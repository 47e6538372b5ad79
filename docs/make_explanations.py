"""Write explanations.md: what explain_conv says about every catalogued mistake, without looking into the catalogue.

python docs/make_explanations.py
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refconv.testing.checker.calls import Caller
from refconv.testing.explain import Part, explain, standard_problem
from refconv.testing.mutants import CATALOGUE, Mutant
from refconv.testing.oracles.problems import Problem

PAGE = Path(__file__).with_name("explanations.md")
RIGHT = "Right: on whole numbers it computes a convolution."


def problems(mutant: Mutant) -> Iterator[tuple[str, Problem]]:
    """Yield the problems on which a mistake is looked for, the standard one first."""
    standard = standard_problem(2, mutant.supports, mutant.transposed)
    yield "standard", standard
    if "causal" in mutant.supports:
        yield "causal", standard_problem(1, ("bias", "stride", "dilation", "groups", "causal"))
    yield "no padding", dataclasses.replace(standard, padding=((0, 0), (0, 0)))
    yield "K columns", dataclasses.replace(standard, size=(standard.size[0], standard.size[1] + standard.stride[1]))
    extra = (0, 0) if mutant.transposed else ()
    wide = Problem(2, 1, 2, (2, 19), (2, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), output_padding=extra)
    yield "wide", dataclasses.replace(wide, transposed=mutant.transposed)
    yield "no remainder", dataclasses.replace(standard, size=(9, 9))
    if not mutant.transposed and "groups" in mutant.supports:
        yield "depthwise", dataclasses.replace(standard, c_in=3, c_out=6, groups=3)
    if "output_padding" in mutant.supports:
        yield "output padding", dataclasses.replace(standard, output_padding=(standard.stride[0], 0))


class Row(NamedTuple):
    """A mistake and its explanation."""

    name: str
    family: str
    problem: str
    explanation: str

    def __str__(self) -> str:
        return f"| {self.name} | {self.family} | {self.problem} | {self.explanation} |"


def row(mutant: Mutant) -> Row:
    """Explain one mistake: on the first problem where a part is wrong, and not merely by an exception."""
    raised = ""
    for name, problem in problems(mutant):
        wrong = mutant.make()
        with np.errstate(all="ignore"), Caller(2.0) as call:
            explanation = explain(call, wrong.forward, wrong.backward, problem, mutant.dtype, mutant.supports)
        parts = [part for part in explanation.parts.values() if not part.is_right]
        text = " ".join(f"**{part.name}**: {part.text}" for part in parts).replace("|", "\\|")
        if mutant.endless or any(map(_found, parts)):
            return Row(mutant.name, mutant.family, name, text)
        raised = raised or text
    return Row(mutant.name, mutant.family, "all", raised or RIGHT)


def _found(part: Part) -> bool:
    return " raised " not in part.text


def page(rows: Iterable[Row]) -> str:
    """Return the page."""
    rows = list(rows)
    right = sum(r.explanation == RIGHT for r in rows)
    lines = [
        "# Explanations: what each mistake computes",
        "",
        "`explain_conv` does not know the mistakes of `refconv.testing.mutants.CATALOGUE`. The table shows how it",
        "explains each part that is wrong: on the standard problem or, where it is right there, on another small one.",
        "`python docs/make_explanations.py` makes the page; `make test` makes every fifteenth row again, `make check`",
        "every row.",
        "",
        f"* {len(rows)} mistakes, {len(rows) - right} of them explained.",
        f"* {right} compute a right convolution on whole numbers: they concern memory, precision, types, NaN and ∞.",
        "",
        "| mistake | family | problem | explanation |",
        "|---|---|---|---|",
        *map(str, rows),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(map(row, CATALOGUE)), encoding="utf-8")
