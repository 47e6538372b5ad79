"""Where a function fails: the sizes that all failing problems share, and that tell them from the passing ones."""

from __future__ import annotations

from collections.abc import Sequence

from refconv.testing.oracles.problems import Problem
from refconv.testing.regimes import SIZES, sizes_of

CONDITIONS = 4
"""Conditions in a sentence at most."""

SHARE = 0.05
"""Share of the passing problems that a further condition must exclude."""


def where(failing: Sequence[Problem], passing: Sequence[Problem]) -> str | None:
    """Return a sentence on the sizes to which failures are confined, or None if nothing can be said.

    Of every size (the largest where axes differ) the range over the failing problems is a condition. Those that
    exclude most passing problems are named.

    Examples
    --------
    >>> problems = [Problem(n, 1, 1, (4,), (2,), (1,), (1,), ((0, 0),)) for n in range(1, 9)]
    >>> where(problems[3:], problems[:3])
    'all 5 problems with batch at least 4 fail, and no other'
    """
    if not failing or not passing:
        return None
    ranges, left = _ranges(failing), [_largest(problem) for problem in passing]
    everything = [*map(_largest, failing), *left]
    enough = SHARE * len(passing)
    conditions: list[str] = []
    while left and len(conditions) < CONDITIONS:
        excluded = {name: sum(not low <= sizes[name] <= high for sizes in left) for name, (low, high) in ranges.items()}
        name = max(excluded, key=excluded.__getitem__)
        if excluded[name] <= enough:
            break
        low, high = ranges[name]
        conditions.append(_words(name, low, high, [sizes[name] for sizes in everything]))
        left = [sizes for sizes in left if low <= sizes[name] <= high]
    if not conditions:
        return None
    many = f"{len(failing)} of the {len(failing) + len(left)}" if left else f"all {len(failing)}"
    return f"{many} problems with {', '.join(conditions)} fail, and no other"


def _largest(problem: Problem) -> dict[str, int]:
    return {name: max(sizes, default=1) for name, sizes in sizes_of(problem).items() if name in SIZES}


def _ranges(problems: Sequence[Problem]) -> dict[str, tuple[int, int]]:
    found = [_largest(problem) for problem in problems]
    return {name: (min(sizes[name] for sizes in found), max(sizes[name] for sizes in found)) for name in found[0]}


def _words(name: str, low: int, high: int, run: Sequence[int]) -> str:
    """Say a range, without an end at which the problems that were run end too."""
    if low == high:
        return f"{name} {low}"
    if high == max(run):
        return f"{name} at least {low}"
    return f"{name} at most {high}" if low == min(run) else f"{name} from {low} to {high}"
