"""Where a function fails: the sizes that all failing problems share, and that tell them from the passing ones."""

from __future__ import annotations

from collections.abc import Sequence

from refconv.testing.oracles.problems import Problem
from refconv.testing.regimes import SIZES, sizes_of

CONDITIONS = 4
"""Conditions in a sentence at most."""

FEWEST = 3
"""Failing problems of which something can be said."""

SHARE, SHARE_OF_SMALL = 0.05, 0.25
"""Share of the passing problems that a further condition must exclude; a limit on size must exclude more."""


def where(failing: Sequence[Problem], passing: Sequence[Problem]) -> str | None:
    """Return a sentence on the sizes to which failures are confined, or None if nothing can be said.

    Of every size (the largest where axes differ), its smallest and largest value in the failing problems are
    conditions. Those that exclude most passing problems are named.

    Examples
    --------
    >>> problems = [Problem(n, 1, 1, (4,), (2,), (1,), (1,), ((0, 0),)) for n in range(1, 9)]
    >>> where(problems[3:], problems[:3])
    'all 5 problems with batch at least 4 fail, and no other'
    """
    if len(failing) < FEWEST or not passing:
        return None
    ranges, left = _ranges(failing), [_largest(problem) for problem in passing]
    conditions = [
        (name, *condition)
        for name, (low, high) in ranges.items()
        for condition in ([(low, high)] if low == high else [(low, ANY), (0, high)])
    ]
    named: list[str] = []
    while left and len(named) < CONDITIONS:
        gains = [sum(not low <= sizes[name] <= high for sizes in left) for name, low, high in conditions]
        enough = [len(passing) * (SHARE if low else SHARE_OF_SMALL) for _, low, _ in conditions]
        best = max(range(len(gains)), key=lambda i: gains[i] if gains[i] > enough[i] else 0)
        if gains[best] <= enough[best]:
            break
        name, low, high = conditions[best]
        named.append(f"{name} {low}" if low == high else f"{name} at least {low}" if low else f"{name} at most {high}")
        left = [sizes for sizes in left if low <= sizes[name] <= high]
    if not named:
        return None
    many = f"{len(failing)} of the {len(failing) + len(left)}" if left else f"all {len(failing)}"
    return f"{many} problems with {', '.join(named)} fail, and no other"


ANY = 2**62


def _largest(problem: Problem) -> dict[str, int]:
    largest = {name: max(sizes, default=1) for name, sizes in sizes_of(problem).items() if name in SIZES}
    return largest | {"output padding": max(problem.output_padding, default=0)}


def _ranges(problems: Sequence[Problem]) -> dict[str, tuple[int, int]]:
    found = [_largest(problem) for problem in problems]
    return {name: (min(sizes[name] for sizes in found), max(sizes[name] for sizes in found)) for name in found[0]}
