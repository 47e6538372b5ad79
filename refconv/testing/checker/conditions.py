"""Conditions on the sizes of a problem, in words, that may decide whether a function fails.

Two tables list numbers, whose thresholds, values, parity and multiples are conditions; three list relations. Their
functions take :class:`Sizes`, the sizes of many problems.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from refconv.testing.oracles.problems import Problem

Array = Any


@dataclass(frozen=True)
class Sizes:
    """The sizes of n problems: arrays of n numbers, and of n × d for numbers per axis."""

    batch: Array
    c_in: Array
    c_out: Array
    groups: Array
    bias: Array
    x: Array
    y: Array
    kernel: Array
    stride: Array
    dilation: Array
    before: Array
    after: Array
    causal: Array
    transposed: bool

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> Sizes:
        """Return the sizes of problems with the same number of axes."""
        batch, c_in, c_out, groups, bias = np.array(
            [(p.batch or 0, p.c_in, p.c_out, p.n_groups, p.bias) for p in problems]
        ).T
        x, y, kernel, stride, dilation = np.array(
            [(p.size, p.output_size, p.kernel, p.stride, p.dilation) for p in problems]
        ).swapaxes(0, 1)
        before, after = np.array([p.pairs for p in problems]).T.swapaxes(1, 2)
        causal = np.array([[p.padding == "causal"] for p in problems])
        transposed = problems[0].transposed
        return cls(batch, c_in, c_out, groups, bias, x, y, kernel, stride, dilation, before, after, causal, transposed)

    @property
    def span(self) -> Array:
        """Elements from a window's first to its last, both included."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def image(self) -> Array:
        """Size of the image: of x, or of y if transposed."""
        return self.y if self.transposed else self.x

    @property
    def rest(self) -> Array:
        """Elements left over by the stride, or the output padding."""
        windows = self.x if self.transposed else self.y
        return self.image + self.before + self.after - (windows - 1) * self.stride - self.span

    @property
    def depth(self) -> Array:
        """Input channels per group."""
        return self.c_in // self.groups

    @property
    def width(self) -> Array:
        """Output channels per group."""
        return self.c_out // self.groups


Numbers = Mapping[str, Callable[[Sizes], Array]]

OF_AXES: Numbers = {
    "kernel side": lambda s: s.kernel,
    "stride": lambda s: s.stride,
    "dilation": lambda s: s.dilation,
    "padding": lambda s: np.maximum(s.before, s.after),
    "input size": lambda s: s.x,
    "output size": lambda s: s.y,
    "dilated kernel side": lambda s: s.span,
    "elements left over by the stride": lambda s: s.rest,
}
"""Numbers of every axis."""

OF_PROBLEMS: Numbers = {
    "batch": lambda s: s.batch,
    "groups": lambda s: s.groups,
    "input channels per group": lambda s: s.depth,
    "output channels per group": lambda s: s.width,
    "input channels": lambda s: s.c_in,
    "output channels": lambda s: s.c_out,
    "output positions": lambda s: s.y.prod(1),
    "input positions": lambda s: s.x.prod(1),
    "elements of the kernel": lambda s: s.kernel.prod(1),
    "reduction length": lambda s: s.depth * s.kernel.prod(1),
    "positions of the batch": lambda s: s.batch * s.y.prod(1),
    "elements of x": lambda s: s.batch * s.c_in * s.x.prod(1),
    "elements of the output": lambda s: s.batch * s.c_out * s.y.prod(1),
    "elements of the weight": lambda s: s.c_out * s.depth * s.kernel.prod(1),
}
"""Numbers of a problem."""

ON_AXES: Numbers = {
    "windows that fit exactly": lambda s: s.rest == 0,
    "at least as many elements left over as the dilation": lambda s: s.rest >= s.dilation,
    "padding half the kernel side": lambda s: s.before == s.kernel // 2,
    "padding above half the kernel side": lambda s: s.before > s.kernel // 2,
    "padding below half the kernel side": lambda s: s.before < s.kernel // 2,
    "padding half the dilated kernel side": lambda s: s.before == (s.span - 1) // 2,
    "padding unlike half the kernel side": lambda s: s.before != s.kernel // 2,
    "padding at least the kernel side": lambda s: s.before >= s.kernel,
    "padding at least the dilated kernel side": lambda s: s.before >= s.span,
    "nonzero causal padding": lambda s: s.causal & (s.before > 0),
    "padding before and after that differ": lambda s: ~s.causal & (s.before != s.after),
    "padding before": lambda s: s.before > 0,
    "padding after": lambda s: s.after > 0,
    "stride above the kernel side": lambda s: s.stride > s.kernel,
    "stride equal to the kernel side": lambda s: s.stride == s.kernel,
    "stride below the kernel side": lambda s: s.stride < s.kernel,
    "kernel side a multiple of the stride": lambda s: s.kernel % s.stride == 0,
    "kernel side not a multiple of the stride": lambda s: s.kernel % s.stride != 0,
    "stride above the dilated kernel side": lambda s: s.stride > s.span,
    "stride equal to the dilation": lambda s: s.stride == s.dilation,
    "stride unlike the dilation": lambda s: s.stride != s.dilation,
    "stride and dilation with a common factor": lambda s: np.gcd(s.stride, s.dilation) > 1,
    "a dilated kernel as large as the image": lambda s: s.span == s.image,
    "a dilated kernel larger than the image": lambda s: s.span > s.image,
    "a dilated kernel at least as large as the image": lambda s: s.span >= s.image,
    "input and output of equal size": lambda s: s.x == s.y,
}
"""Relations that an axis may have."""

ON_PROBLEMS: Numbers = {
    "a bias": lambda s: s.bias > 0,
    "no bias": lambda s: s.bias == 0,
    "causal padding": lambda s: s.causal[:, 0],
    "as many input as output channels": lambda s: s.c_in == s.c_out,
    "unequal numbers of input and output channels": lambda s: s.c_in != s.c_out,
    "more input than output channels": lambda s: s.c_in > s.c_out,
    "more output than input channels": lambda s: s.c_out > s.c_in,
    "one input channel in each of several groups": lambda s: (s.depth == 1) & (s.groups > 1),
    "one input and one output channel in each of several groups": lambda s: (
        (s.depth == s.width) & (s.depth == 1) & (s.groups > 1)
    ),
    "as many groups as channels per group": lambda s: s.groups == s.depth,
    "batch equal to the input channels": lambda s: s.batch == s.c_in,
    "batch equal to the output channels": lambda s: s.batch == s.c_out,
    "output channels equal to the output size on the last axis": lambda s: s.c_out == s.y[:, -1],
    "input channels equal to the input size on the last axis": lambda s: s.c_in == s.x[:, -1],
}
"""Relations that a problem may have."""

RARE = {
    "dilated kernel side", "elements left over by the stride", *list(OF_PROBLEMS)[4:],
    "stride equal to the dilation", "stride unlike the dilation", "stride and dilation with a common factor",
    "as many groups as channels per group",
    "batch equal to the input channels", "batch equal to the output channels",
    "output channels equal to the output size on the last axis",
    "input channels equal to the input size on the last axis",
}  # fmt: skip
"""Numbers and relations that are seldom decisive."""

USUAL = {"stride": 1, "dilation": 1, "padding": 0, "groups": 1}
"""Values that fast paths require."""

BETWEEN_AXES = ("kernel side", "stride", "dilation", "padding", "input size", "output size")
"""Numbers that may be equal on two axes, or greater on one of them."""

MULTIPLES = (4, 8, 16)
"""Common sizes of tiles."""


class Place(NamedTuple):
    """The axes on which a condition holds, and whether it holds on all of them or on at least one."""

    words: str
    axes: slice
    every: bool


def places(d: int) -> list[Place]:
    """Return the places of d axes."""
    if d == 1:
        return [Place("", slice(1), True)]
    single = [Place(f"on axis {axis}", slice(axis, axis + 1), True) for axis in range(d)]
    return [Place("on some axis", slice(d), False), *single, Place("on every axis", slice(d), True)]


class Condition(NamedTuple):
    """A condition in words, with the bits to choose it, the problems for which it holds, and their number."""

    words: tuple[str, ...]
    place: str
    bits: float
    holds: Array
    met: int
    axes: Array | None = None  # d × n: the axes on which it holds, if one is enough

    @property
    def share(self) -> float:
        """Share of the passing problems that it must exclude to be named: larger if it is seldom decisive."""
        seldom = (" at most ", " not a multiple of ", *RARE)
        return SHARE_OF_SELDOM if any(part in words for words in self.words for part in seldom) else SHARE

    def __str__(self) -> str:
        return f"{joined(self.words)} {self.place}".strip()


def joined(words: Sequence[str]) -> str:
    """Return words as a list in a sentence."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def conditions(problems: Sequence[Problem], count: int) -> Iterator[Condition]:
    """Yield the conditions that the first `count` problems all meet.

    Thresholds are the narrowest that these problems allow, or the widest ones if `count` is 0.
    """
    sizes = Sizes.of(problems)
    d = sizes.kernel.shape[1]
    for place in places(d):
        more = float(place.words.startswith("on axis"))
        for words, bits, truth in _of_axes(sizes, place, count):
            holds = truth.all(0) if place.every else truth.any(0)
            if holds[:count].all():
                axes = None if place.every else truth
                yield Condition((words,), place.words, bits + more, holds, int(holds.sum()), axes)
    for words, bits, holds in itertools.chain(_of_problems(sizes, count), _between(sizes, d)):
        if holds[:count].all():
            yield Condition((words,), "", bits, holds, int(holds.sum()))


USUALLY, AT_LEAST, VALUE, PARITY, RELATION, MULTIPLE, AT_MOST, RARELY = 4.0, 6.0, 7.0, 7.0, 7.5, 8.0, 9.0, 4.0
"""Bits of a condition: fewer for simple, general and common ones, which are preferred."""

SHARE, SHARE_OF_SELDOM = 0.05, 0.25
"""Share of the passing problems that a condition must exclude: larger for conditions that are seldom decisive."""

Judged = Iterator[tuple[str, float, Array]]
"""Words, bits, and for which of n problems, or of their axes × n, a condition holds."""

WIDEST = 5
"""Lowest values of a number among which thresholds are tried, where no problem narrows them down."""


def _of_axes(sizes: Sizes, place: Place, count: int) -> Judged:
    for name, relation in ON_AXES.items():
        yield _in(sizes, name), RELATION + RARELY * (name in RARE), _by_axis(relation(sizes), place)
    for name, number in OF_AXES.items():
        yield from _of_number(_in(sizes, name), _by_axis(number(sizes), place), count, place.every)


def _of_problems(sizes: Sizes, count: int) -> Judged:
    for name, relation in ON_PROBLEMS.items():
        yield name, RELATION + RARELY * (name in RARE), relation(sizes)
    for name, number in OF_PROBLEMS.items():
        for words, bits, truth in _of_number(name, number(sizes)[None], count, True):
            yield words, bits, truth[0]


def _by_axis(values: Array, place: Place) -> Array:
    """Return the rows of a place's axes, contiguous, from values of n × d."""
    return np.ascontiguousarray(values.T[place.axes])


def _in(sizes: Sizes, name: str) -> str:
    """Return the name of a number or relation, which may differ for a transposed convolution."""
    return {"elements left over by the stride": "output padding", "windows that fit exactly": "no output padding"}.get(
        name if sizes.transposed else "", name
    )


def _of_number(name: str, values: Array, count: int, every: bool) -> Judged:
    """Yield the conditions on one number, given for m axes × n problems."""
    more = RARELY if name in RARE else 0.0
    if first := values[:, :count].T.tolist():
        low = min(map(min if every else max, first))
        high = max(map(max if every else min, first))
        yield f"{name} at most {high}", AT_MOST + more, values <= high
        lows = [low]
    else:
        lows = np.unique(values)[1:WIDEST].tolist()
    for low in lows:
        yield _at_least(name, low, values), AT_LEAST + more, values >= low
    for value in sorted(set(values[:, 0].tolist())):
        bits = USUALLY if value == USUAL.get(name) else VALUE + more
        yield f"{name} {value}", bits + (not every), values == value
    of = f"number of {name}" if any(word.endswith("s") for word in name.split()) else name
    yield f"an even {of}", PARITY + more, values % 2 == 0
    yield f"an odd {of}", PARITY + more, values % 2 == 1
    for n in MULTIPLES:
        yield f"{name} a multiple of {n}", MULTIPLE + more, values % n == 0
        yield f"{name} not a multiple of {n}", MULTIPLE + more, values % n != 0
    for remainder in (1, 2, 3):
        yield f"{name} {remainder} more than a multiple of 4", MULTIPLE + more + 2, values % 4 == remainder


def _at_least(name: str, low: int, values: Array) -> str:
    """Return a threshold in words: above a power of two, if the next lower value permits that."""
    below = int(values.max(initial=0, where=values < low))
    power = 1 << max(0, low - 1).bit_length() - 1 if low > 1 else 0
    return f"{name} above {power}" if below <= power < low - 1 else f"{name} at least {low}"


def _between(sizes: Sizes, d: int) -> Judged:
    for name in BETWEEN_AXES if d > 1 else ():
        values = OF_AXES[name](sizes)
        names = name if name == "padding" else f"{name}s"
        for i, j in itertools.combinations(range(d), 2):
            a, b = values[:, i], values[:, j]
            those = f" on axes {i} and {j}" if d > 2 else ""
            yield f"equal {names}{those}", RELATION + (d > 2), a == b
            yield f"unequal {names}{those}", RELATION + (d > 2), a != b
            yield f"{name} greater on axis {i} than on axis {j}", RELATION + 2, a > b
            yield f"{name} greater on axis {j} than on axis {i}", RELATION + 2, b > a
        if d > 2:
            equal = (values == values[:, :1]).all(1)
            yield f"equal {names}", RELATION, equal
            yield f"{names} that are not all equal", RELATION, ~equal
