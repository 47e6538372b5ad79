"""What the wrong parts of a checked function compute instead, read out on one problem each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from refconv.testing.checker.at_the_case import NO_EXPLANATION, PART_OF, at_the_case
from refconv.testing.checker.calls import Caller
from refconv.testing.checker.diagnose import Run
from refconv.testing.checker.examine import TITLES, VALUE_CHECKS, Complaint
from refconv.testing.checker.plan import work
from refconv.testing.checker.report import Failure, ordered
from refconv.testing.explain import explain, standard_problem, words
from refconv.testing.explain.causes import paddings, steps
from refconv.testing.explain.pointwise import saturated, wrapped
from refconv.testing.explain.problems import shown
from refconv.testing.explain.table import Asked, Table
from refconv.testing.oracles.definition import Array
from refconv.testing.oracles.problems import Problem

CALLS = 1200
"""For the first round of one part, and as many again; a limit of time would make reports vary from run to run."""

WORK_READ = 2000
"""Products of the largest failing problem that is read out, without products of the padding."""


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
    failures = [
        replace(f, explanation=_in_few_bits(f, runs) or at_the_case(f, forward, backward, call)) for f in failures
    ]
    asked = sorted(
        (f for f in ordered(failures) if _is_asked(f) and not f.explanation), key=lambda failure: failure.part != "y"
    )
    if not asked:
        return list(failures)
    texts: dict[str, str] = {}
    tables: dict[Problem, dict[str, Table]] = {}
    problem = asked[0].case.problem
    standard = standard_problem(problem.spatial_dims, supports, problem.transposed)

    def read(problem: Problem, name: str, failed: Sequence[Problem]) -> None:
        second, more = None, []
        if problem != standard:
            others = [other for other in failed if other.batch and _is_small(other, name) and other != problem]
            second, *more = sorted(others, key=lambda other: _unlike(other, problem), reverse=True)[:4] or [problem]
        found = explain(
            call, forward, backward, problem, dtype, supports, parts=[name], calls=CALLS, second=second, others=more,
            fractions=False, tables=tables.setdefault(problem, {}),
        )  # fmt: skip
        for part in found.parts.values():
            without_elements = part.shape is not None and 0 in part.shape
            better = name not in texts or words.ZERO not in part.text
            if better and not part.is_right and (part.is_linear is not None or part.inputs or without_elements):
                texts[name] = f"Read out on {shown(problem)}: {part.text}"

    for failure in asked:
        name = PART_OF[failure.part]
        if name not in texts:
            failed = [p.case.problem for p, seen in runs if any(c.check == failure.check for c in seen.complaints)]
            read(standard, name, failed)
        if words.ZERO in texts.get(name, words.ZERO):
            smallest = failure.case.problem
            blank = {p.case.problem for p, seen in runs if any(_is_blank(c) for c in seen.complaints)}
            affordable = [problem for problem in failed if problem.batch and _is_small(problem, name)]
            best = max(affordable, key=lambda problem: (problem not in blank, _variety(problem)), default=smallest)
            for problem in dict.fromkeys((best, smallest)):
                if words.ZERO in texts.get(name, words.ZERO):
                    read(problem, name, failed)
            texts.setdefault(name, "")
    return [
        replace(failure, explanation=failure.explanation or texts.get(PART_OF[failure.part]) or None)
        if _is_asked(failure)
        else failure
        for failure in failures
    ]


def _is_asked(failure: Failure) -> bool:
    """Return whether reading out says something; of calls that are wrong only when repeated, if no name does."""
    return failure.check not in NO_EXPLANATION or (failure.check == "repeat" and not failure.diagnoses)


def _in_few_bits(failure: Failure, runs: Sequence[Run]) -> str | None:
    """Explain whole numbers that wrap around, or stop, at the limits of a number of bits in every failing case."""
    if failure.check not in (*VALUE_CHECKS.values(), "large numbers"):
        return None
    wrong = [
        c
        for _, seen in runs
        for c in seen.complaints
        if (c.check, c.part) == (failure.check, failure.part) and c.expected is not None and c.actual is not None
    ]
    right, actual = _joined(c.expected for c in wrong), _joined(c.actual for c in wrong)
    if not np.isfinite(actual).all() or actual.dtype.kind == "c":
        return None
    wide, title = np.int64 if actual.dtype.kind in "biu" else np.float64, TITLES[failure.part]
    bits = 8 * actual.dtype.itemsize if actual.dtype.kind in "iu" else 64
    right, actual = right.astype(wide), actual.astype(wide)
    found = wrapped(right, actual, title) or saturated(right, actual, title, bits)
    if found or failure.part != "y":
        return found
    bias = _joined(map(_bias_of, wrong)).astype(wide)
    return saturated(right - bias, actual - bias, f"{title} without its bias", bits)


def _joined(arrays: Iterable[Array | None]) -> Array:
    """Return all elements of several arrays."""
    return np.concatenate([array.reshape(-1) for array in arrays if array is not None])


def _bias_of(complaint: Complaint) -> Array:
    """Return what the bias adds to each element of the output."""
    assert complaint.expected is not None
    bias, problem, shape = complaint.case.operands.bias, complaint.case.problem, complaint.expected.shape
    if bias is None:
        return np.broadcast_to(0.0, shape)
    return np.broadcast_to(bias.reshape(-1, *[1] * problem.spatial_dims), shape)


def _is_small(problem: Problem, part: str) -> bool:
    """Return whether a part can be read out on a problem: a gradient of the bias needs a call for each element of g."""
    if part == "grad_bias":
        return work(problem) <= WORK_READ and math.prod(problem.output_shape) <= CALLS
    asked = Asked(problem)
    pairs = (len(rows) for rows in asked.spatial(asked.shapes))  # positions and taps that meet an element
    return (problem.batch or 0) * len(asked.channels(asked.shapes)) * math.prod(pairs) <= WORK_READ


def _is_blank(complaint: Complaint) -> bool:
    """Return whether a result is the same number everywhere in each channel, and so shows only that all is missing."""
    actual = complaint.actual
    if actual is None or not actual.size:
        return True
    channels = np.moveaxis(actual, 1, 0).reshape(actual.shape[1], -1) if actual.ndim > 1 else actual.reshape(-1, 1)
    return not (actual if complaint.part != "y" else channels - channels[:, :1]).any()


def _variety(problem: Problem) -> tuple[float, int]:
    """Return how many numbers of a problem are above 1, and a little for 2; of equally many, the least work is best.

    Positions and taps count if they are used: those whose elements are all in the padding show nothing.
    """
    groups, asked = problem.n_groups, Asked(problem)
    used = [[len(np.unique(column)) for column in rows[:, :2].T] for rows in asked.spatial(asked.shapes)]
    positions, taps = zip(*used, strict=True)
    sizes = (problem.batch or 0, problem.c_in // groups, problem.c_out // groups, groups, *taps)
    sizes += (*problem.stride, *problem.dilation, *problem.size, *positions)
    several = sum(n > 2 for n in positions)  # two positions may as well be reversed as exchanged
    return sum((n > 1) + 0.1 * (n > 2) for n in sizes) + several, -work(problem)


def _unlike(problem: Problem, first: Problem) -> tuple[int, int]:
    """Return how well a problem distinguishes causes and numbers that may agree by chance on the first."""
    asked = Asked(problem)
    known = [
        each
        for a in range(problem.spatial_dims)
        for each in (paddings(asked, a), steps(asked, a, 0), steps(asked, a, 1))
    ]
    causes = [len({used for used, _ in each.values()}) for each in known]
    causes += [len(set(values)) for values in (problem.kernel, problem.stride, problem.dilation, asked.before)]
    numbers = list(zip(_numbers(problem), _numbers(first), strict=True))
    enough = sum(min(n, m, 3) for n, m in numbers)
    lines = zip(problem.kernel, problem.stride, problem.dilation, asked.before, strict=True)
    unlike = sum(n > 1 and n != m for n, m in numbers) + sum(len(set(line)) for line in lines)
    changed = sum(n != m for n, m in zip(_steps(problem), _steps(first), strict=True))
    return 3 * (enough + changed) + unlike + sum(causes), -work(problem)


def _steps(problem: Problem) -> list[int]:
    return [*problem.kernel, *problem.stride, *problem.dilation, *(sum(pair) for pair in problem.pairs)]


def _numbers(problem: Problem) -> list[int]:
    channels = (problem.n_groups, problem.c_in // problem.n_groups, problem.c_out // problem.n_groups)
    return [problem.batch or 1, *channels, *_steps(problem), *problem.size, *problem.output_size]
