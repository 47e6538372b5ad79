"""Problems for the checker, from the smallest to larger ones.

The order is what makes the first failure a minimal one. The smallest problems are systematic: every single feature
(a stride, a second group, …) and every pair of features, each as small as it can be. Random problems with
many features at once follow, and a few special ones: larger than a tile, real-valued, empty, not finite.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refconv.testing.oracles.definition import Array
from refconv.testing.oracles.problems import Operands, Problem

SUPPORTS = ("bias", "stride", "padding", "dilation", "groups", "asymmetric_padding", "output_padding")
"""What an implementation may claim."""


@dataclass(frozen=True, eq=False)
class Case:
    """One problem with its arrays, as a checked function is called with them.

    Attributes
    ----------
    x, weight, bias, grad_output : numpy.ndarray
        The operands; bias may be None.
    stride, padding, dilation : tuple
        One int per spatial axis; padding holds (before, after) pairs if "asymmetric_padding" is claimed.
    groups : int
        Number of groups.
    output_padding : tuple of int or None
        For a transposed convolution that claims it.
    kind : str
        Why the case is there: "integers", "larger", "real", "not finite", "layout", "empty" or "repeat".
    """

    problem: Problem
    x: Array
    weight: Array
    bias: Array | None
    grad_output: Array
    stride: tuple[int, ...]
    padding: tuple[Any, ...]
    dilation: tuple[int, ...]
    groups: int
    output_padding: tuple[int, ...] | None
    kind: str

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of x."""
        return tuple(self.x.shape)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return tuple(self.weight.shape)

    @property
    def operands(self) -> Operands:
        """The four arrays."""
        return Operands(self.x, self.weight, self.bias, self.grad_output)

    @property
    def integers(self) -> tuple[Any, ...]:
        """(stride, padding, dilation, groups)."""
        return self.stride, self.padding, self.dilation, self.groups

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of a call."""
        return {} if self.output_padding is None else {"output_padding": self.output_padding}

    @property
    def size(self) -> tuple[int, ...]:
        """What cases are ordered by: elements of x, then of the weight, then of the output."""
        return _elements(self.problem)

    def __str__(self) -> str:
        extra = "" if self.output_padding is None else f" output_padding={self.output_padding}"
        bias = "" if self.bias is None else f" bias{self.bias.shape}"
        return (
            f"x{self.x_shape} weight{self.weight_shape}{bias} stride={self.stride} padding={self.padding} "
            f"dilation={self.dilation} groups={self.groups}{extra}"
        )


# --- Shapes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a problem; `positions` counts windows (for a transposed convolution, inputs)."""

    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    pads: tuple[int, int] = (0, 0)
    positions: int = 1
    rest: int = 0  # elements beyond the last window; for a transposed convolution, its output padding

    def valid(self, transposed: bool) -> bool:
        """Tell whether the axis is a valid problem."""
        if transposed:
            return self.length >= 1 and self.rest < max(self.stride, self.dilation)
        return self.length >= 1 and self.rest < self.stride

    @property
    def length(self) -> int:
        """Elements of the image on this axis."""
        span = self.dilation * (self.kernel - 1) + 1
        return (self.positions - 1) * self.stride + span + self.rest - sum(self.pads)


def _problem(
    axes: Sequence[Axis], batch: int, c_in: int, c_out: int, groups: int, bias: bool, transposed: bool
) -> Problem:
    """Make a problem of `groups` groups with c_in and c_out channels each."""
    image = tuple(axis.length for axis in axes)
    positions = tuple(axis.positions for axis in axes)
    return Problem(
        batch=batch,
        c_in=c_in * groups,
        c_out=c_out * groups,
        size=positions if transposed else image,
        kernel=tuple(axis.kernel for axis in axes),
        stride=tuple(axis.stride for axis in axes),
        dilation=tuple(axis.dilation for axis in axes),
        padding=tuple(axis.pads for axis in axes),
        groups=groups,
        output_padding=tuple(axis.rest for axis in axes) if transposed else (),
        transposed=transposed,
        bias=bias,
    )


def _axis_features(supports: Sequence[str], transposed: bool) -> dict[str, dict[str, Any]]:
    features: dict[str, dict[str, Any]] = {"positions": {"positions": 2}, "kernel": {"kernel": 2}}
    if "stride" in supports:
        features["stride"] = {"stride": 2}
        features["strided"] = {"stride": 2, "positions": 2}
        if not transposed:
            features["rest"] = {"stride": 2, "rest": 1}
    if transposed and "output_padding" in supports and "stride" in supports:
        features["output_padding"] = {"stride": 2, "rest": 1}
    if "dilation" in supports:
        features["dilation"] = {"dilation": 2, "kernel": 2}
    if "padding" in supports:
        features["padding"] = {"pads": (1, 1)}
    if "asymmetric_padding" in supports:
        features["before"] = {"pads": (1, 0)}
        features["after"] = {"pads": (0, 1)}
    return features


def systematic(d: int, supports: Sequence[str], transposed: bool) -> tuple[list[Problem], list[Problem]]:
    """Return every feature and every pair of features, each in the smallest problem that has it.

    Apart, because they are many: the pairs of features on two different axes.
    """
    channel_features: dict[str, dict[str, int]] = {"batch": {"batch": 2}, "c_in": {"c_in": 2}, "c_out": {"c_out": 2}}
    if "groups" in supports:
        channel_features["groups"] = {"groups": 2}
    names: list[tuple[str, int | None]] = [(name, None) for name in channel_features]
    # The last axis, and the first where there is another: what is right on one may be wrong on the other.
    for index in sorted({0, d - 1}, reverse=True):
        names += [(name, index) for name in _axis_features(supports, transposed)]
    found: dict[Problem, Problem] = {}  # by what they are but for the bias
    across: set[Problem] = set()
    for count in (0, 1, 2):
        for i, chosen in enumerate(itertools.combinations(names, count)):
            numbers = {"batch": 1, "c_in": 1, "c_out": 1, "groups": 1}
            axes: list[dict[str, Any]] = [{} for _ in range(d)]
            for name, where in chosen:
                if where is None:
                    numbers |= channel_features[name]
                else:
                    axes[where] |= _axis_features(supports, transposed)[name]
            made = [_fitted(Axis(**axis), transposed) for axis in axes]
            fitted = [axis for axis in made if axis is not None]
            if len(fitted) == d:
                problem = _problem(fitted, **numbers, bias=False, transposed=transposed)
                bias = "bias" in supports and i % 2 == 0
                if problem not in found and len({where for _, where in chosen} - {None}) == 2:
                    across.add(problem)
                found.setdefault(problem, dataclasses.replace(problem, bias=bias))
    return [p for key, p in found.items() if key not in across], [p for key, p in found.items() if key in across]


def _fitted(axis: Axis, transposed: bool) -> Axis | None:
    """Return the axis with as many positions as it takes to leave an element on both sides."""
    while axis.length < 1 and axis.positions < 8:
        axis = Axis(**{**axis.__dict__, "positions": axis.positions + 1})
    return axis if axis.valid(transposed) else None


def mixed_problem(rng: np.random.Generator, d: int, supports: Sequence[str], transposed: bool, most: int) -> Problem:
    """Draw a problem with many features at once; `most` bounds kernel sizes and positions."""

    def integer(low: int, high: int) -> int:
        return int(rng.integers(low, high, endpoint=True))

    def axis() -> Axis | None:
        stride = integer(1, 3) if "stride" in supports else 1
        dilation = integer(1, 3) if "dilation" in supports else 1
        before = integer(0, 2) if "padding" in supports else 0
        after = integer(0, 2) if "asymmetric_padding" in supports else before
        if transposed:
            rest = integer(0, max(stride, dilation) - 1) if "output_padding" in supports else 0
        else:
            rest = integer(0, stride - 1)
        return _fitted(Axis(integer(1, most), stride, dilation, (before, after), integer(1, most), rest), transposed)

    axes: list[Axis] = []
    while len(axes) < d:
        drawn = axis()
        if drawn is not None:
            axes.append(drawn)
    groups = integer(1, 3) if "groups" in supports else 1
    channels = integer(1, 3), integer(1, 3)
    return _problem(axes, integer(1, 3), *channels, groups, "bias" in supports and integer(0, 2) > 0, transposed)


def _special(d: int, kind: str, index: int, supports: Sequence[str], transposed: bool) -> Problem:
    """Return a problem of fixed shape with all that is claimed: larger than a tile, or small for the other kinds."""

    def claimed(feature: str, value: Any, otherwise: Any) -> Any:
        return value if feature in supports else otherwise

    stride = claimed("stride", 1 + index % 2, 1)
    dilation = claimed("dilation", 1 + index // 2 % 2, 1)
    if kind == "not finite":
        dilation = claimed("dilation", 2, 1)
    pad = claimed("padding", 1, 0)
    groups = claimed("groups", 1 + (index + 1) % 2, 1)
    # No two of these have one shape: what a function keeps from an earlier call is the business of "repeat" alone.
    if kind == "larger":
        positions, kernel, c_in, c_out, batch = 19 + 16 * (index % 2) + index, 3, 3, 2, 2
    elif kind == "real":
        positions, kernel, c_in, c_out, batch = 3 + index, 2 + index % 2, 4, 3, 2
    else:
        c_out = {"repeat": 2, "layout": 3, "empty": 4, "not finite": 5}[kind]
        positions, kernel, c_in, batch = 3 + index, 2 + index % 2, 2, 2
    if kind == "empty":
        batch = 0
    last = _fitted(Axis(kernel, stride, dilation, (pad, pad), positions, 0), transposed)
    other = _fitted(Axis(2, 1, 1, (0, 0), 2, 0), transposed)
    assert last is not None
    assert other is not None
    return _problem([*[other] * (d - 1), last], batch, c_in, c_out, groups, "bias" in supports, transposed)


# --- Arrays ----------------------------------------------------------------------------------------------------------


def whole_numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, most: int = 4) -> Array:
    """Return small whole numbers, none of them 0, neighbours different: nothing that a mistake leaves unchanged.

    >>> whole_numbers(np.random.default_rng(0), (6,), "float32")
    array([-2.,  1., -1.,  3.,  2., -4.], dtype=float32)
    """
    dtype = np.dtype(dtype)
    count = math.prod(shape)
    pool = np.array([v for v in range(-most, most + 1) if v])
    if dtype.kind == "u":
        pool = np.arange(1, 2 * most + 1)

    def draw() -> Array:
        rounds = [rng.permutation(pool) for _ in range(-(-count // len(pool)))]
        return np.concatenate([*rounds, pool[:0]])[:count].reshape(shape)

    values = draw().astype(dtype)
    if dtype.kind == "c":
        values.imag = draw()
    return values


def real_numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, positive: bool) -> Array:
    """Return normally distributed numbers, or numbers from 1 to 2."""

    def draw() -> Array:
        return 1 + rng.random(shape) if positive else rng.standard_normal(shape)

    values = draw().astype(dtype)
    if values.dtype.kind == "c":
        values.imag = draw()
    return values


def make_case(problem: Problem, kind: str, rng: np.random.Generator, dtype: Any, supports: Sequence[str]) -> Case:
    """Fill a problem with arrays."""

    def draw(shape: tuple[int, ...]) -> Array:
        if kind in ("real", "accumulation"):
            return real_numbers(rng, shape, dtype, positive=kind == "accumulation")
        return whole_numbers(rng, shape, dtype, 1 if kind == "larger" else 4)

    x = draw(problem.x_shape)
    if kind == "not finite":  # one element each, so that no ∞ meets another
        x.reshape(-1)[int(rng.integers(x.size))] = (np.nan, np.inf, -np.inf)[int(rng.integers(3))]
    pairs = "asymmetric_padding" in supports
    return Case(
        problem=problem,
        x=x,
        weight=draw(problem.weight_shape),
        bias=draw((problem.c_out,)) if problem.bias else None,
        grad_output=draw(problem.output_shape),
        stride=problem.stride,
        padding=problem.pairs if pairs else tuple(before for before, _ in problem.pairs),
        dilation=problem.dilation,
        groups=int(problem.groups),  # type: ignore[arg-type]
        output_padding=problem.output_padding if "output_padding" in supports else None,
        kind="real" if kind == "accumulation" else kind,
    )


def long_sum(d: int, supports: Sequence[str], transposed: bool) -> Problem:
    """Return a problem whose sums have 1,536 terms, where a narrow accumulator shows."""
    axes = [Axis(kernel=1) for _ in range(d - 1)] + [Axis(kernel=3, positions=3 if transposed else 1)]
    return _problem(axes, 1, 512, 2, 1, "bias" in supports, transposed)


def plan(d: int, supports: Sequence[str], transposed: bool, dtype: Any, cases: int, seed: int) -> Iterator[Case]:
    """Yield `cases` cases, smallest first; the same for the same arguments."""
    dtype = np.dtype(dtype)
    kinds: list[tuple[str, int]] = [("repeat", 4), ("layout", 4), ("empty", 2), ("larger", 6)]
    if dtype.kind in "fc":
        kinds += [("real", 8), ("accumulation", 1)]
    if dtype.kind == "f":  # of complex products, standards leave open which are NaN
        kinds += [("not finite", 6)]
    specials = [
        (
            long_sum(d, supports, transposed) if kind == "accumulation" else _special(d, kind, i, supports, transposed),
            kind,
        )
        for kind, count in kinds
        for i in range(count)
    ]
    specials = _thinned(specials, min(len(specials), cases // 3))
    plain = cases - len(specials)
    small: list[Problem] = []
    for problems in systematic(d, supports, transposed):
        room = -(-plain * 7 // 8) - len(small)
        small += _thinned(sorted(problems, key=_elements), min(len(problems), room))
    rng = np.random.default_rng(seed)
    most = {1: 4, 2: 3}.get(d, 2)
    found = {dataclasses.replace(problem, bias=False): problem for problem in small}
    attempt = 0
    while len(found) < plain:  # no problem twice; where there are too few, larger ones
        problem = mixed_problem(rng, d, supports, transposed, most + attempt // (4 * plain))
        found.setdefault(dataclasses.replace(problem, bias=False), problem)
        attempt += 1
    everything = [(problem, "integers") for problem in found.values()] + specials
    for index, (problem, kind) in enumerate(sorted(everything, key=lambda entry: _elements(entry[0]))):
        # A generator for each, so that a case stays the same whatever stands before it.
        yield make_case(problem, kind, np.random.default_rng([seed, index]), dtype, supports)


def _thinned(entries: list[Any], count: int) -> list[Any]:
    """Return `count` entries, evenly spread, the first among them."""
    return [entries[i * len(entries) // count] for i in range(count)]


def _elements(problem: Problem) -> tuple[int, ...]:
    shapes = problem.x_shape, problem.weight_shape, problem.output_shape
    # An empty batch counts as one sample, lest the emptiest problem pass for the simplest.
    counts = (math.prod(max(n, 1) for n in shape) for shape in shapes)
    return (*counts, sum(problem.stride) + sum(problem.dilation))
