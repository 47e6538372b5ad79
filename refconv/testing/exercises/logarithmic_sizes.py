"""Logarithmic sizes: the rule, from its definition, and common mistakes.

With base b, c channels are divided into n sizes near c·(b−1)/b^i for i = 1 … n−1, then c/b^(n−1). They equal these
where b^(n−1) divides c, and otherwise differ by at most one channel. They sum to c, none is 0, and none is larger than
the previous one. Several sequences may obey this rule, and all of them are right. So a mistake is also a rule, a wrong
one, and explains the answers that obey it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from itertools import islice, pairwise
from typing import Any, NamedTuple

from refconv.testing.checker.report import Diagnosis

Sizes = tuple[int, ...]


class Division(NamedTuple):
    """One question: divide c channels into n groups, with base b."""

    c: int
    n: int
    base: int

    @property
    def is_exact(self) -> bool:
        """Whether no size needs rounding."""
        return bool(self.c % self.base ** (self.n - 1) == 0)

    @property
    def kind(self) -> int:
        """Difficulty: 0 for exact with base 2, 1 for exact with another base, 2 for rounded; 3, last, for one group."""
        return 3 if self.n == 1 else 2 if not self.is_exact else int(self.base != 2)

    @property
    def ideals(self) -> list[Fraction]:
        """The sizes if channels could be cut."""
        return [*self.shares(range(1, self.n)), Fraction(self.c, self.base ** (self.n - 1))]

    def shares(self, powers: range) -> list[Fraction]:
        """Return c·(b−1)/b^i for each power i."""
        return [Fraction(self.c * (self.base - 1), self.base**i) for i in powers]


def _divisions() -> tuple[Division, ...]:
    """Return the divisions to check: the simplest kind first, and the smallest first within a kind."""
    found = [
        Division(c, n, base) for c in range(1, 41) for base in (2, 3, 4, 7) for n in range(1, 7) if base ** (n - 1) <= c
    ]
    large = [(64, 6, 2), (96, 5, 2), (100, 3, 10), (1000, 4, 10), (4096, 13, 2), (1_000_003, 12, 3)]
    return tuple(sorted([*found, *(Division(*numbers) for numbers in large)], key=lambda d: (d.kind, d)))


DIVISIONS = _divisions()
"""The cases of the check."""


def right_sizes(division: Division) -> Sizes:
    """Return sizes that obey the rule: each group takes its share of the remaining channels, rounded up.

    Examples
    --------
    >>> right_sizes(Division(64, 4, 2)), right_sizes(Division(7, 3, 2)), right_sizes(Division(27, 3, 3))
    ((32, 16, 8, 8), (4, 2, 1), (18, 6, 3))
    """
    left = [division.c // division.base**i for i in range(division.n)]
    return (*(before - after for before, after in pairwise(left)), left[-1])


def as_sizes(answer: Any, most: int) -> Sizes:
    """Return an answer as a tuple of ints, reading at most `most` of them.

    Raises
    ------
    TypeError
        If it is not a sequence of ints.
    OverflowError
        If a size has more than a hundred digits.
    """
    sizes = []
    for item in islice(iter(answer), most):
        if isinstance(item, bool):
            raise TypeError("a size must not be a bool")
        size = operator.index(item)
        if abs(size) >= 10**100:
            raise OverflowError("too large to be a number of channels")
        sizes.append(size)
    return tuple(sizes)


def broken_rule(sizes: Sizes, division: Division) -> str:
    """Return the part of the rule that sizes break, with the numbers; empty if they are right.

    Examples
    --------
    >>> broken_rule((2, 1, 2), Division(5, 3, 2))
    'size 3 is 2, larger than the previous one, 1'
    >>> broken_rule((3, 1, 1), Division(5, 3, 2)), broken_rule((2, 2, 1), Division(5, 3, 2))
    ('', '')
    """
    c, n, base = division
    if len(sizes) != n:
        return f"there must be n = {n} sizes, not {len(sizes)}"
    if sum(sizes) != c:
        off = c - sum(sizes)
        what = f"{off} left over" if off > 0 else f"{-off} too many"
        return f"the sizes do not add up: their sum is {sum(sizes)}, not {c} ({what})"
    if min(sizes) < 1:
        return f"size {sizes.index(min(sizes)) + 1} is {min(sizes)}: an empty group"
    for place, (size, ideal) in enumerate(zip(sizes, division.ideals, strict=True), 1):
        if division.is_exact and size != ideal:
            return f"size {place} is {size}, and must be {ideal}: {base}^{n - 1} divides {c}"
        if abs(size - ideal) > 1:
            return f"size {place} is {size}, more than one channel from {ideal}"
    for place, (before, size) in enumerate(pairwise(sizes), 2):
        if size > before:
            return f"size {place} is {size}, larger than the previous one, {before}"
    return ""


# --- Mistakes --------------------------------------------------------------------------------------------------------


def _near(sizes: Sequence[int], ideals: Sequence[Fraction]) -> bool:
    """Return whether each size is its ideal, rounded up or down."""
    return len(sizes) == len(ideals) and all(
        math.floor(ideal) <= size <= math.ceil(ideal) for size, ideal in zip(sizes, ideals, strict=True)
    )


def _factor_forgotten(sizes: Sizes, d: Division) -> bool:
    parts = [Fraction(d.c, d.base**i) for i in range(1, d.n)]
    rest = d.c - sum(sizes[:-1])
    return _near(sizes[:-1], parts) and (_near(sizes[-1:], d.ideals[-1:]) or sizes[-1:] == (rest,))


def _each_for_itself(sizes: Sizes, d: Division) -> bool:
    return _near(sizes, d.ideals) and (sum(sizes) != d.c or not broken_rule(sizes, d))


def _last_takes_the_rest(sizes: Sizes, d: Division) -> bool:
    return len(sizes) == d.n and sum(sizes) == d.c and _near(sizes[:-1], d.ideals[:-1])


def _first_takes_the_rest(sizes: Sizes, d: Division) -> bool:
    if not broken_rule(sizes, d):
        return True
    return sum(sizes) == d.c and _near(sizes[1:], d.ideals[1:]) and not _near(sizes[:1], d.ideals[:1])


MISTAKES: tuple[tuple[Diagnosis, Callable[[Sizes, Division], bool]], ...] = (
    (
        Diagnosis(
            "last size missing",
            "The sizes c·(b−1)/b^i for i = 1 … n−1 are one too few, and leave c/b^(n−1) channels over.",
            "Add these as the last group: for b = 2 the last size comes twice.",
        ),
        lambda sizes, d: _near(sizes, d.ideals[:-1]),
    ),
    (
        Diagnosis(
            "divided on to the end",
            "The sizes c·(b−1)/b^i for i = 1 … n do not add up: c/b^n channels are left over.",
            "The last size is c/b^(n−1), all that is left: for b = 2 the last size must come twice.",
        ),
        lambda sizes, d: _near(sizes, d.shares(range(1, d.n + 1))),
    ),
    (
        Diagnosis(
            "first size skipped a division",
            "The exponent starts at 0, so that the first size is c·(b−1) and not c·(b−1)/b.",
            "Count i from 1.",
        ),
        lambda sizes, d: len(sizes) == d.n and _near(sizes[:-1], d.shares(range(d.n - 1))),
    ),
    (
        Diagnosis(
            "last size a copy of the one before",
            "The last two sizes are equal for base 2 only; in general the last is c/b^(n−1), without the factor b − 1.",
            "Give the last group the channels that the others leave.",
        ),
        lambda sizes, d: _near(sizes, [*d.ideals[:-1], *d.shares(range(d.n - 1, d.n))]),
    ),
    (
        Diagnosis(
            "factor b − 1 forgotten",
            "A group takes the share (b−1)/b of what is left, so the sizes are c·(b−1)/b^i; c/b^i is right for base 2.",
            "Multiply by b − 1.",
        ),
        _factor_forgotten,
    ),
    (
        Diagnosis("base ignored", "The sizes are those of base 2, whatever the base is.", "Use the argument."),
        lambda sizes, d: not broken_rule(sizes, d._replace(base=2)),
    ),
    (
        Diagnosis("order reversed", "The sizes grow from the first group to the last.", "The largest comes first."),
        lambda sizes, d: not broken_rule(sizes[::-1], d),
    ),
    (
        Diagnosis(
            "equal groups", "All groups are of one size, as nearly as they can be.", "Divide the remaining channels."
        ),
        lambda sizes, d: _near(sizes, [Fraction(d.c, d.n)] * d.n),
    ),
    (
        Diagnosis("one group too many", "These are the sizes of n + 1 groups.", "n groups need n − 1 divisions."),
        lambda sizes, d: _near(sizes, d._replace(n=d.n + 1).ideals),
    ),
    (
        Diagnosis("one group too few", "These are the sizes of n − 1 groups.", "n groups need n − 1 divisions."),
        lambda sizes, d: d.n > 1 and _near(sizes, d._replace(n=d.n - 1).ideals),
    ),
    (
        Diagnosis(
            "each size rounded for itself",
            "Every size is right but for its rounding, and what the roundings add or drop is given to no group.",
            "Subtract what a group takes from what is left, and divide that on.",
        ),
        _each_for_itself,
    ),
    (
        Diagnosis(
            "last group gets what the roundings leave",
            "The others are rounded as they come, and the last has to make up for it: it becomes empty, or larger than "
            "the one before.",
            "Round so that the last is never larger: let each group take its share of what is left, rounded up.",
        ),
        _last_takes_the_rest,
    ),
    (
        Diagnosis(
            "first group gets what the roundings leave",
            "The others are rounded as they come, and the first makes up for all of it: it is more than a channel from "
            "its share.",
            "Spread the channels left over, one to a group.",
        ),
        _first_takes_the_rest,
    ),
)
"""Every known mistake, with a function that returns whether an answer fits it."""


def diagnoses(answers: Mapping[Division, Sizes | None]) -> tuple[Diagnosis, ...]:
    """Return the mistakes that explain all answers up to the simplest kind of division that goes wrong.

    Parameters
    ----------
    answers : mapping
        Answers to all `DIVISIONS`, at least one wrong. None means that there were no sizes, which no mistake explains.

    Examples
    --------
    >>> def halved(c, n, base):
    ...     return tuple(c // 2**i for i in range(1, n + 1))
    >>> [mistake.name for mistake in diagnoses({d: halved(*d) for d in DIVISIONS})]
    ['divided on to the end']
    """
    wrong = min(d.kind for d, sizes in answers.items() if sizes is None or broken_rule(sizes, d))
    seen = [(sizes, d) for d, sizes in answers.items() if d.kind <= wrong]
    return tuple(m for m, gives in MISTAKES if all(s is not None and gives(s, d) for s, d in seen))
