"""What the wrong parts of a checked function compute instead, read out on one problem each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from refconv.testing.checker.calls import Caller
from refconv.testing.checker.diagnose import Run
from refconv.testing.checker.examine import TRAIT_CHECKS
from refconv.testing.checker.plan import work
from refconv.testing.checker.report import Failure, ordered
from refconv.testing.explain import explain, standard_problem
from refconv.testing.oracles.problems import Problem

PART_OF = {"y": "forward", "grad_x": "grad_x", "grad_weight": "grad_weight", "grad_bias": "grad_bias"}

CALLS = 400
"""For the first round of one part, and as many again; a limit of time would make reports vary from run to run."""

WORK_READ = 2000
"""Multiply-adds of the largest failing problem that is read out."""

NO_EXPLANATION = (*TRAIT_CHECKS, "time", "type", "real values", "non-finite", "empty", "repeat", "layout", "needs")
"""Checks of which reading out whole numbers says nothing."""


def explained(
    failures: Sequence[Failure],
    runs: Sequence[Run],
    forward: Callable[..., Any],
    backward: Callable[..., Any] | None,
    supports: Sequence[str],
    dtype: str,
    call: Caller,
) -> list[Failure]:
    """Return the failures with the explanations of wrong values and shapes.

    Every part is read out on a standard problem, where all numbers differ; if it is right there, on a problem that
    failed: one with as many numbers above 1 as possible, because on the smallest a single element is everything.
    """
    asked = [failure for failure in ordered(failures) if failure.check not in NO_EXPLANATION]
    if not asked:
        return list(failures)
    texts: dict[str, str] = {}
    problem = asked[0].case.problem
    standard = standard_problem(problem.spatial_dims, supports, problem.transposed)

    def read(problem: Problem, name: str, failed: Sequence[Problem]) -> None:
        others = [other for other in failed if other.batch and _is_small(other, name) and other != problem]
        second = max(others, key=lambda other: _unlike(other, problem), default=None)
        found = explain(
            call, forward, backward, problem, dtype, supports, parts=[name], calls=CALLS, second=second or problem
        )
        for part in found.parts.values():
            if not part.is_right and (part.is_linear is not None or part.inputs):
                texts[name] = f"Read out on {_shown(problem)}: {part.text}"

    for failure in asked:
        name = PART_OF[failure.part]
        if name not in texts:
            failed = [p.case.problem for p, seen in runs if any(c.check == failure.check for c in seen.complaints)]
            read(standard, name, failed)
        if name not in texts:
            affordable = [problem for problem in failed if problem.batch and _is_small(problem, name)]
            read(max(affordable, key=_variety, default=failure.case.problem), name, failed)
            texts.setdefault(name, "")
    return [
        failure
        if failure.check in NO_EXPLANATION
        else replace(failure, explanation=texts[PART_OF[failure.part]] or None)
        for failure in failures
    ]


def _is_small(problem: Problem, part: str) -> bool:
    """Return whether a part can be read out on a problem: a gradient of the bias needs a call for each element of g."""
    calls = math.prod(problem.output_shape) if part == "grad_bias" else 0
    return work(problem) <= WORK_READ and calls <= CALLS


def _variety(problem: Problem) -> tuple[int, int]:
    """Return how many numbers of a problem are above 1; of equally many, the least work is best."""
    groups = problem.n_groups
    sizes = (problem.batch or 0, problem.c_in // groups, problem.c_out // groups, groups)
    return sum(n > 1 for n in (*sizes, *problem.kernel, *problem.size, *problem.output_size)), -work(problem)


def _unlike(problem: Problem, first: Problem) -> tuple[int, int]:
    """Return how many numbers above 1 a problem has that are not those of the first."""
    numbers = zip(_numbers(problem), _numbers(first), strict=True)
    return sum(n > 1 and n != m for n, m in numbers), -work(problem)


def _numbers(problem: Problem) -> list[int]:
    steps = (*problem.kernel, *problem.stride, *problem.dilation, *(sum(pair) for pair in problem.pairs))
    channels = (problem.n_groups, problem.c_in // problem.n_groups, problem.c_out // problem.n_groups)
    return [problem.batch or 1, *channels, *steps, *problem.size, *problem.output_size]


def _shown(problem: Problem) -> str:
    equal = all(before == after for before, after in problem.pairs)
    padding = tuple(before for before, _ in problem.pairs) if equal else problem.pairs
    steps = f"stride={problem.stride} padding={padding} dilation={problem.dilation} groups={problem.groups}"
    extra = f" output_padding={problem.output_padding}" if any(problem.output_padding) else ""
    return f"x{problem.x_shape} weight{problem.weight_shape} {steps}{extra}"
