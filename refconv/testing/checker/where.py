"""Where a function fails: the conditions that all failing problems meet and that distinguish them from passing ones.

The shortest description wins. Its length is the bits of its conditions (:mod:`refconv.testing.checker.conditions`) plus
log2 of the number of ways to choose the failing problems among the problems that meet them. So a condition is named
only if it excludes more passing problems than an accidental one would.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from refconv.testing.checker.conditions import Array, Condition, conditions, joined
from refconv.testing.oracles.problems import Problem

FEWEST = 3
"""Minimum number of failing problems, and of passing problems, for a sentence."""

TOGETHER = 4
"""Maximum number of conditions in a sentence."""

KEPT = 60
"""Maximum number of descriptions that are extended by a further condition."""

WIDTH = 20
"""Candidates per description kept; more than one, because several may exclude the same problems."""

SURE = 6.0
"""Minimum number of bits that a description must save."""

AGAIN = 2.0
"""Extra bits per further condition, unless the description excludes all passing problems."""

EXCLUDED = 0.5
"""Minimum share of the passing problems that a description must exclude."""

PLAIN, UNLIKE = 7.5, 0.1
"""Limits if either of two conditions is enough: bits of each, and passing problems that meet them per failing one."""

EITHER = 2.0
"""Bits to say that one of two conditions is enough."""


class Description(NamedTuple):
    """Conditions met together (at least one of them if `either`), and the passing problems that meet them too."""

    bits: float
    chosen: tuple[Condition, ...]
    passing: Array
    either: bool = False


def where(failing: Sequence[Problem], passing: Sequence[Problem]) -> str | None:
    """Return a sentence on the sizes to which failures are confined, or None for fewer than 3 problems.

    Examples
    --------
    >>> problems = [Problem(n, 1, 1, (4,), (2,), (1,), (1,), ((0, 0),)) for n in range(1, 65)]
    >>> where(problems[3:], problems[:3])
    'all 61 problems with batch at least 4 fail, and no other'
    >>> where(problems[16::2], problems[:16] + problems[17::2])
    'all 24 problems with an odd batch and batch at least 17 fail, and no other'
    """
    if min(len(failing), len(passing)) < FEWEST:
        return None
    f = len(failing)
    best = described(failing, passing)
    if not best.chosen:
        return f"{f} of {f + len(passing)} problems fail; their sizes do not tell them from the others"
    left = int(best.passing.sum())
    many = f"{f} of the {f + left}" if left else f"all {f}"
    return f"{many} problems with {_said(best)} fail, and no other"


def described(failing: Sequence[Problem], passing: Sequence[Problem]) -> Description:
    """Return the shortest description of the failing problems."""
    f, problems = len(failing), [*failing, *passing]
    shared = _distinct(c for c in conditions(problems, f) if c.met < len(problems))
    best = _together(shared, f, len(passing))
    if best.passing.any() or len(best.chosen) == TOGETHER:
        best = _best(best, _together([*shared, *_on_one_axis(shared, f)], f, len(passing)))
    if best.passing.any():
        best = _best(best, _either(problems, f))
    if best.passing.sum() > EXCLUDED * len(passing):
        return Description(best.bits, (), np.ones(len(passing), bool))
    return best


def _best(*descriptions: Description) -> Description:
    return min(descriptions, key=lambda description: description.bits)


def _said(best: Description) -> str:
    """Return the conditions in words, grouped by place, except those on some axis."""
    if best.either:
        return " or ".join(map(str, best.chosen))
    words: dict[tuple[str, int], list[str]] = {}
    for number, term in enumerate(best.chosen):
        words.setdefault((term.place, number if term.axes is not None else -1), []).extend(term.words)
    text = ", and ".join(f"{joined(said)} {place}".strip() for (place, _), said in words.items())
    return re.sub(r"([a-z ]+) ((?:at least|at most|above) \d+) and \1 (at|not|a) ", r"\1 \2 and \3 ", text)


def _simplest(condition: Condition) -> tuple[float, int]:
    """Return a sort key: the simplest conditions first, and among equally simple ones the most general."""
    return condition.bits, -condition.met


def _distinct(terms: Iterable[Condition]) -> list[Condition]:
    """Return only the simplest of several conditions that hold for the same problems."""
    found: dict[bytes, Condition] = {}
    for term in sorted(terms, key=_simplest):
        found.setdefault(term.holds.tobytes(), term)
    return list(found.values())


def _ways(failing: int, passing: int) -> Array:
    """Return log2 of the number of ways to choose the failing among them and 0, 1, … passing problems."""
    n = np.arange(1, passing + 1)
    return np.concatenate([[0], np.cumsum(np.log2((failing + n) / n))])


def _together(terms: Sequence[Condition], f: int, passing: int) -> Description:
    """Return the shortest description by conditions that all failing problems meet."""
    ways = _ways(f, passing)
    masks = np.array([term.holds[f:] for term in terms]).reshape(-1, passing)
    own = np.array([term.bits for term in terms])
    share = np.array([term.share for term in terms])
    best = Description(float(ways[-1]) - SURE, (), np.ones(passing, bool))
    longest = [best]
    for depth in range(1, TOGETHER + 1):
        before = np.array([description.passing for description in longest])
        said = np.array([sum(term.bits for term in description.chosen) for description in longest])
        left = (before.astype("f4") @ masks.T.astype("f4")).astype(int)
        bits = said[:, None] + own + ways[left] + AGAIN * (depth - 1) * (left > 0)
        many = before.sum(1)[:, None]
        bits[many - left < np.maximum(1 + (depth > 1), share * many)] = np.inf  # it excludes too few
        found: dict[bytes, Description] = {}  # the shortest description for each set of excluded problems
        for index in _smallest(bits, WIDTH * KEPT):
            i, j = divmod(index, len(terms))
            met = longest[i].passing & masks[j]
            found.setdefault(met.tobytes(), Description(float(bits[i, j]), (*longest[i].chosen, terms[j]), met))
            if depth > 1 and len(found) == KEPT:
                break
        longest = list(found.values())
        best = _best(best, *longest)
        if not longest or best.bits <= np.sort(own)[: depth + 1].sum():
            break
    return best


def _smallest(values: Array, count: int) -> list[int]:
    """Return the flat indices of the `count` smallest values that are finite, in order."""
    flat = values.ravel()
    if count < flat.size:
        limit = np.partition(flat, count)[count]
        near = np.flatnonzero(flat <= limit)
    else:
        near = np.arange(flat.size)
    order = near[np.argsort(flat[near], kind="stable")][:count]
    return [int(i) for i in order if flat[i] < np.inf]


def _on_one_axis(terms: Sequence[Condition], f: int) -> list[Condition]:
    """Return combinations of two or three conditions on some axis; one axis must meet all of them."""
    single = [term for term in terms if term.axes is not None]
    axes: Array = np.array([term.axes for term in single])
    found: list[Condition] = []
    last, ways = single, _ways(f, len(terms[0].holds) - f if terms else 0)
    for _ in range(2):
        new: dict[frozenset[str], Condition] = {}
        for term in last:
            both: Array = axes & term.axes
            holds: Array = both.any(1)
            for i in np.flatnonzero(holds[:, :f].all(1)):
                one, count = single[i], int(holds[i].sum())
                if term.met - count > one.share * (term.met - f) and one.met - count > term.share * (one.met - f):
                    words = (*term.words, *one.words)
                    made = Condition(words, term.place, term.bits + one.bits, holds[i], count, both[i])
                    new.setdefault(frozenset(words), made)
        last = sorted(new.values(), key=lambda term: term.bits + ways[term.met - f])[:KEPT]
        found += last
    return _distinct(found)


def _either(problems: Sequence[Problem], f: int) -> Description:
    """Return the shortest description by two conditions: every failing problem meets one of them."""
    passing, ways = len(problems) - f, _ways(f, len(problems) - f)
    terms = [c for c in _distinct(conditions(problems, 0)) if c.bits <= PLAIN and c.holds[f:].sum() <= f * UNLIKE]
    if not terms:
        return Description(math.inf, (), np.ones(passing, bool), True)
    neither = 1 - np.array([term.holds for term in terms], "f4")
    missed = neither[:, :f] @ neither[:, :f].T
    left = (passing - neither[:, f:] @ neither[:, f:].T).astype(int)
    own = np.array([term.bits for term in terms])
    bits = own[:, None] + own + EITHER + ways[left]
    bits[(missed > 0) | (left > min(f * UNLIKE, passing * EXCLUDED))] = np.inf
    i, j = divmod(int(np.argmin(bits)), len(terms))
    both = tuple(sorted([terms[i], terms[j]], key=_simplest))
    return Description(float(bits[i, j]), both, (terms[i].holds | terms[j].holds)[f:], True)
