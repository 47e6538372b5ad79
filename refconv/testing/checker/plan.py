"""The problems that the checker runs, from the smallest to larger ones.

The order makes the first failure minimal. These problems are generated in turn and then sorted by size:

- :func:`systematic`: every single feature (a stride, a second group, …) and every pair of features, each as small as
  possible;
- :func:`witnesses`: a small problem for every regime of :mod:`refconv.testing.regimes`;
- :func:`pairs`: covering designs, in which every pair of small numbers, of sizes, and of a layer and a size occurs;
- :func:`mixed_problem`: random problems with many features together;
- a few special ones: real-valued, with long sums, empty, not finite, with large integers, with unusual memory layouts.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np

from refconv.testing.checker.cases import Case, make_case, size_of
from refconv.testing.oracles.problems import Problem
from refconv.testing.regimes import SIZES, SPECIAL, Axis, Layer, Special, axes_of, layers, regimes_of

SUPPORTS = (
    "bias", "stride", "padding", "dilation", "groups", "asymmetric_padding", "output_padding", "causal",
    "equal_axes", "depthwise_only", "stride_or_dilation",
)  # fmt: skip
"""Features that an implementation may claim; the last three narrow the problems down."""

WORK = 4096
"""Multiply-adds of the largest regular problem: a convolution in plain Python still takes milliseconds."""

TAPS = 128
"""Elements of the largest kernel that is paired with sizes; a loop over the taps of larger ones is slow."""

TOGETHER = 1000
"""Random problems that are sorted together; this limit bounds the memory."""


@dataclass(frozen=True)
class Domain:
    """The problems that an implementation is given: `d` spatial axes, and only the features that `words` claim."""

    d: int
    words: tuple[str, ...]
    transposed: bool

    def claims(self, *words: str) -> bool:
        """Return whether one of these words is claimed."""
        return any(word in self.words for word in words)

    def contains(self, problem: Problem) -> bool:
        """Return whether a problem uses nothing that is not claimed."""
        steps = problem.kernel, problem.stride, problem.dilation, problem.pairs, problem.output_padding
        strided, dilated = max(problem.stride) > 1, max(problem.dilation) > 1
        causal = problem.padding == "causal"
        padded = any(map(any, problem.pairs)) and not causal
        return (
            (self.claims("bias") or not problem.bias)
            and (self.claims("stride") or not strided)
            and (self.claims("dilation") or not dilated)
            and (self.claims("padding", "asymmetric_padding") or not padded)
            and (self.claims("asymmetric_padding") or causal or all(before == after for before, after in problem.pairs))
            and (self.claims("causal") or not causal)
            and (self.claims("groups", "depthwise_only") or problem.groups == 1)
            and (self.claims("output_padding") or not any(problem.output_padding))
            and not (self.claims("equal_axes") and any(len(set(numbers)) > 1 for numbers in steps))
            and not (self.claims("depthwise_only") and problem.groups != problem.c_in)
            and not (self.claims("stride_or_dilation") and strided and dilated)
        )

    def problem(
        self,
        axes: Sequence[Axis],
        *,
        batch: int = 1,
        c_in: int = 1,
        c_out: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> Problem | None:
        """Return a problem of `groups` groups with c_in and c_out channels each, or None if it is not in the domain."""
        fitted = [axis for axis in map(self.fitted, axes) if axis is not None]
        if len(fitted) < self.d:
            return None
        images = tuple(axis.length for axis in fitted)
        positions = tuple(axis.positions for axis in fitted)
        problem = Problem(
            batch=batch,
            c_in=c_in * groups,
            c_out=c_out * groups,
            size=positions if self.transposed else images,
            kernel=tuple(axis.kernel for axis in fitted),
            stride=tuple(axis.stride for axis in fitted),
            dilation=tuple(axis.dilation for axis in fitted),
            padding=tuple(axis.pads for axis in fitted),
            groups=groups,
            output_padding=tuple(axis.rest for axis in fitted) if self.transposed else (),
            transposed=self.transposed,
            bias=bias,
        )
        return problem if self.contains(problem) else None

    def fitted(self, axis: Axis) -> Axis | None:
        """Return the axis with enough positions to have an element, or None if it is not valid."""
        if axis.length < 1:
            axis = replace(axis, positions=axis.positions - (axis.length - 1) // axis.stride)
        return axis if axis.valid(self.transposed) else None

    def alone(self, axis: Axis, other: Axis = Axis()) -> list[list[Axis]]:  # noqa: B008  (it is immutable)
        """Return the ways to use an axis in a problem, best first: as the last axis only, then as every axis."""
        if self.claims("equal_axes"):
            same = replace(axis, positions=other.positions, rest=0 if not self.transposed else axis.rest)
            return [[same] * (self.d - 1) + [axis], [axis] * self.d]
        return [[other] * (self.d - 1) + [axis], [axis] * self.d]


def work(problem: Problem) -> int:
    """Return the multiply-adds of a problem."""
    windows = problem.size if problem.transposed else problem.output_size
    depth = problem.c_in // problem.n_groups
    return max(problem.batch or 0, 1) * problem.c_out * depth * math.prod(problem.kernel) * math.prod(windows)


# --- Features and pairs of features ----------------------------------------------------------------------------------


def _axis_features(domain: Domain) -> dict[str, dict[str, Any]]:
    features: dict[str, dict[str, Any]] = {"positions": {"positions": 2}, "kernel": {"kernel": 2}}
    if domain.claims("stride"):
        features["stride"] = {"stride": 2}
        features["strided"] = {"stride": 2, "positions": 2}
        if not domain.transposed:
            features["rest"] = {"stride": 2, "rest": 1}
    if domain.transposed and domain.claims("output_padding") and domain.claims("stride"):
        features["output_padding"] = {"stride": 2, "rest": 1}
    if domain.claims("dilation"):
        features["dilation"] = {"dilation": 2, "kernel": 2}
    if domain.claims("padding"):
        features["padding"] = {"pads": (1, 1)}
    if domain.claims("asymmetric_padding"):
        features["before"] = {"pads": (1, 0)}
        features["after"] = {"pads": (0, 1)}
    return features


def systematic(domain: Domain) -> tuple[list[Problem], list[Problem]]:
    """Return every feature and every pair of features, each in the smallest problem that has it.

    The second list contains the pairs of features on two different axes, because they are many.
    """
    d, bias = domain.d, domain.claims("bias")
    axis_features = _axis_features(domain)
    channel_features = {"batch": 2, "c_in": 2, "c_out": 2, "groups": 2}
    names: list[tuple[str, int | None]] = [(name, None) for name in channel_features]
    # The last axis, and the first if it is another one: a function may be right on one and wrong on the other.
    for index in sorted({0, d - 1}, reverse=True):
        names += [(name, index) for name in axis_features]
    found: dict[Problem, Problem] = {}  # keyed by the problem without its bias
    across: set[Problem] = set()
    for count in (0, 1, 2):
        for i, chosen in enumerate(itertools.combinations(names, count)):
            numbers: dict[str, Any] = {}
            axes: list[dict[str, Any]] = [{} for _ in range(d)]
            for name, where in chosen:
                if where is None:
                    numbers[name] = channel_features[name]
                else:
                    axes[where] |= axis_features[name]
            if domain.claims("equal_axes"):  # of the features, only the number of positions may differ
                shared = {key: value for axis in axes for key, value in axis.items() if key != "positions"}
                axes = [axis | shared for axis in axes]
            problem = domain.problem([Axis(**axis) for axis in axes], **numbers)
            if problem is not None:
                if problem not in found and len({where for _, where in chosen} - {None}) == 2:
                    across.add(problem)
                found.setdefault(problem, replace(problem, bias=bias and i % 2 == 0))
    return [p for key, p in found.items() if key not in across], [p for key, p in found.items() if key in across]


def causal(domain: Domain, problems: Iterable[Problem]) -> list[Problem]:
    """Return the unpadded problems again with causal padding, if the domain has it."""
    if not domain.claims("causal"):
        return []
    bare = (p for p in problems if p.kernel[0] > 1 and not any(map(any, p.pairs)))
    found = [replace(problem, padding="causal") for problem in bare]
    return [problem for problem in found if work(problem) <= 2 * WORK]


# --- A problem for every regime --------------------------------------------------------------------------------------


def witnesses(domain: Domain) -> list[Problem]:
    """Return a small problem for every regime that the domain allows."""
    ways: list[Iterable[Problem | None]] = [
        _of_size(domain, name, size) for name, sizes in SIZES.items() for size in sizes
    ]
    ways += [_of_relation(domain, relation) for relation in SPECIAL]
    ways += [_of_layer(domain, layer, steps) for layer, _, steps in layers(domain.d, domain.transposed)]
    first = (next((p for p in way if p is not None and work(p) <= 2 * WORK), None) for way in ways)
    # With a bias, which a special path may forget.
    return [replace(problem, bias=domain.claims("bias")) for problem in first if problem is not None]


def _of_size(domain: Domain, name: str, n: int) -> Iterator[Problem | None]:
    """Yield the ways to make a problem with a size, smallest first."""
    plain = Axis()
    match name:
        case "batch":
            yield domain.problem([plain] * domain.d, batch=n)
        case "input channels per group":
            yield domain.problem([plain] * domain.d, c_in=n)
        case "output channels per group":
            yield domain.problem([plain] * domain.d, c_out=n)
        case "groups":
            yield domain.problem([plain] * domain.d, groups=n)
        case "output rows" | "input rows":
            if domain.d > 1:
                yield domain.problem([Axis(positions=n), *[plain] * (domain.d - 1)])
        case "output columns" | "input columns":
            yield domain.problem([*[plain] * (domain.d - 1), Axis(positions=n)])
        case "output positions":
            rows = max(r for r in range(1, math.isqrt(n) + 1) if n % r == 0) if domain.d > 1 else 1
            axes = [Axis(positions=rows), *[plain] * (domain.d - 1)]
            axes[-1] = Axis(positions=n // rows)
            yield domain.problem(axes)
        case "reduction length":
            for k in range(2, n + 1):
                if n % k == 0:
                    yield domain.problem([*[plain] * (domain.d - 1), Axis(k)], c_in=n // k)
            yield domain.problem([plain] * domain.d, c_in=n)
            root = round(n ** (1 / domain.d))
            if root**domain.d == n:
                yield domain.problem([Axis(root)] * domain.d)
        case _:
            ways = {
                "kernel side": [Axis(n)],
                "stride": [Axis(2, n, positions=2)],
                "dilation": [Axis(2, 1, n)],
                "padding": [Axis(2 * n + 1 if n < 4 else 3, pads=(n, n)), Axis(2 * n + 1, pads=(n, n))],
            }[name]
            if name == "kernel side" and n**domain.d <= TAPS:
                yield domain.problem(ways * domain.d)
            for axis in ways:
                for axes in domain.alone(axis):
                    yield domain.problem(axes)


def _of_relation(domain: Domain, relation: Special) -> Iterator[Problem]:
    """Yield the ways to make a problem with a relation."""
    numbers = {"groups": relation.groups, "c_in": relation.c_in, "c_out": relation.c_out}
    for axes in domain.alone(relation.last, relation.first):
        problem = domain.problem(axes, **numbers, bias=relation.name == "bias")
        if problem is not None and relation.test(problem, axes_of(problem)):
            yield problem


def _of_layer(domain: Domain, layer: Layer, steps: tuple[tuple[int, ...], ...]) -> Iterator[Problem | None]:
    """Yield the ways to make a problem of a layer of a network, with three positions along each axis, two or one."""
    depth, groups = 1, layer.groups
    if groups == "depthwise":
        groups = 2
    elif groups != 1:
        depth = 2
    for positions in (3, 2, 1):
        axes = [Axis(k, s, d, (pad, pad), positions, layer.output_padding) for k, s, pad, d in zip(*steps, strict=True)]
        yield domain.problem(axes, c_in=depth, c_out=depth, groups=int(groups))
        if groups == 1 and domain.claims("depthwise_only"):
            yield domain.problem(axes, groups=2)


# --- Pairs -----------------------------------------------------------------------------------------------------------

BANDS = ((1,), (2,), (3, 4), (5, 6, 7, 8), (9, 10, 12, 15, 16), (17, 20, 24, 31, 32, 33))
"""Bands of sizes that pairs do not distinguish; rows take the sizes of a band in turn.

They contain multiples of 2, 4, 8 and 16, and other numbers on both sides of them: a tile's tail is a remainder, not a
size.
"""

TAILS = (18, 20, 24, 48)
"""Sizes above 16; the largest powers of two that divide them are 2, 4, 8 and 16."""

STEPS: dict[str, tuple[int, ...]] = {
    "kernel": (1, 2, 3, 4, 5),
    "stride": (1, 2, 3, 4),
    "dilation": (1, 2, 3, 4),
    "padding": (0, 1, 2, 3),
    "rest": (0, 1),
    "batch": (1, 2, 3, 4, 8),
    "c_in": (1, 2, 3, 4, 8, 16),
    "c_out": (1, 2, 3, 4, 8, 16),
    "groups": (1, 2, 3, 4, 8, 16, 32),
    "positions": (1, 2, 3),
}
"""Small numbers; problems contain every pair of them exactly."""

CHANNELS = (1, 2, 4)
"""Numbers of groups, and of input and output channels per group; problems contain every combination of the three."""

SIZE_FACTORS = ("batch", "c_in", "c_out", "groups", "rows", "columns")


def pairs(domain: Domain) -> list[Problem]:
    """Return problems that contain every pair of two small numbers, of two sizes, and of a layer and a size.

    Sizes are paired by bands, whose values take turns. Pairs that alone exceed :data:`WORK` are omitted.
    """
    return [*_pairs_of_steps(domain), *_pairs_of_sizes(domain), *_channels(domain), *_tails(domain), *_near(domain)]


def _channels(domain: Domain) -> list[Problem]:
    axes = [Axis(3, pads=(1, 1), positions=2)] * domain.d
    found = []
    for groups, c_in, c_out in itertools.product(CHANNELS, repeat=3):
        ways = (
            domain.problem(way, groups=groups, c_in=c_in, c_out=c_out)
            for way in (axes, [Axis(2, positions=2)] * domain.d)
        )
        found += [next((problem for problem in ways if problem is not None), None)]
    return [problem for problem in found if problem is not None and work(problem) <= WORK]


def _tails(domain: Domain) -> list[Problem]:
    """Return problems in which every size takes each of :data:`TAILS`; two sizes at a time, to save problems."""
    found = []
    for one, other in zip(SIZE_FACTORS[::2], SIZE_FACTORS[1::2], strict=True):
        for turn, size in enumerate(TAILS):
            sizes: dict[str, Any] = {one: size, other: TAILS[turn - 1]}
            axes = [Axis()] * domain.d
            axes[0] = Axis(positions=sizes.pop("rows", 1))
            axes[-1] = Axis(positions=sizes.pop("columns", 1))
            found.append(domain.problem(axes, **sizes))
    return [problem for problem in found if problem is not None]


NEAR = (Axis(2, pads=(1, 1)), Axis(4, pads=(1, 1)), Axis(5, pads=(1, 1)), Axis(3, pads=(2, 2)), Axis(3, 1, 2, (1, 1)))
"""Steps that differ in one number from the commonest layer's, for which fast paths are written."""


def _near(domain: Domain) -> list[Problem]:
    found = [domain.problem([replace(axis, positions=3)] * domain.d) for axis in NEAR]
    return [problem for problem in found if problem is not None]


def _pairs_of_steps(domain: Domain) -> list[Problem]:
    levels = {
        "kernel": STEPS["kernel"],
        "stride": STEPS["stride"] if domain.claims("stride") else (1,),
        "dilation": STEPS["dilation"] if domain.claims("dilation") else (1,),
        "padding": STEPS["padding"] if domain.claims("padding", "asymmetric_padding") else (0,),
        "rest": STEPS["rest"] if domain.claims("output_padding" if domain.transposed else "stride") else (0,),
        "batch": STEPS["batch"],
        "c_in": (1,) if domain.claims("depthwise_only") else STEPS["c_in"],
        "c_out": STEPS["c_out"],
        "groups": STEPS["groups"] if domain.claims("groups", "depthwise_only") else (1,),
        "positions": STEPS["positions"],
    }
    free = ("stride", "dilation", "padding", "rest")  # they add no work

    def work_of(name: str, value: int) -> int:
        return 1 if name in free else int(value**domain.d) if name in ("kernel", "positions") else value

    rows = _covering(levels, work_of)
    found = [_of_steps(domain, number, row) for number, row in enumerate(rows)]
    # Padding requires more positions. Where that is too much work, the row's pairs get separate problems.
    pairs_of = [frozenset(itertools.combinations(row.items(), 2)) for row in rows]
    covered = set().union(*itertools.compress(pairs_of, found))
    least = {name: values[0] for name, values in levels.items()}
    for one, other in sorted(set().union(*pairs_of) - covered):
        found.append(_of_steps(domain, len(found), least | dict([one, other])))
    return [problem for problems in found for problem in problems]


def _of_steps(domain: Domain, number: int, row: Mapping[str, int]) -> list[Problem]:
    """Return the problems of a row that are not too much work: with its steps on all axes, and on one."""
    stride = row["stride"]
    dilation = 1 if domain.claims("stride_or_dilation") and stride > 1 else row["dilation"]
    rest = min(row["rest"], (max(stride, dilation) if domain.transposed else stride) - 1)
    axis = Axis(row["kernel"], stride, dilation, (row["padding"], row["padding"]), row["positions"], rest)
    alone = [Axis(positions=2)] * domain.d
    alone[-(number % 2)] = axis  # the first or the last
    ways = [[axis] * domain.d] if domain.claims("equal_axes") or domain.d == 1 else [[axis] * domain.d, alone]
    sizes = {name: row[name] for name in ("batch", "c_in", "c_out", "groups")}
    made = [domain.problem(axes, **sizes, bias=domain.claims("bias") and number % 4 > 0) for axes in ways]
    if any(problem is None or work(problem) > 2 * WORK for problem in made[:1]):
        return []
    return [problem for problem in made if problem is not None]


def _pairs_of_sizes(domain: Domain) -> list[Problem]:
    known = dict.fromkeys(steps for _, _, steps in layers(domain.d, domain.transposed))
    known.setdefault(((1,) * domain.d, (1,) * domain.d, (0,) * domain.d, (1,) * domain.d))
    usual = [s for s in known if math.prod(s[0]) <= TAPS and domain.problem(_axes_of_layer(s, 3, 3))]
    levels: dict[str, Sequence[Any]] = {"layer": usual, **dict.fromkeys(SIZE_FACTORS, BANDS)}
    if not domain.claims("groups", "depthwise_only"):
        levels["groups"] = BANDS[:1]
    if domain.claims("depthwise_only"):
        levels["c_in"] = BANDS[:1]
    if domain.d == 1:
        levels["rows"] = BANDS[:1]

    def work_of(name: str, level: Any) -> int:
        least: int = math.prod(level[0]) if name == "layer" else level[0]
        return least

    found = []
    for number, row in enumerate(_covering(levels, work_of)):
        layer = row.pop("layer")
        turns = enumerate(row.items(), number)
        sizes = {name: band[turn % len(band)] for turn, (name, band) in turns}
        if math.prod(layer[0]) * math.prod(sizes.values()) > WORK:
            sizes = {name: band[0] for name, band in row.items()}
        axes = _axes_of_layer(layer, sizes.pop("rows"), sizes.pop("columns"))
        problem = domain.problem(axes, **sizes, bias=domain.claims("bias") and number % 4 > 0)
        if problem is not None:
            found.append(problem)
    return found


def _axes_of_layer(steps: tuple[tuple[int, ...], ...], rows: int, columns: int) -> list[Axis]:
    axes = [Axis(k, s, d, (pad, pad)) for k, s, pad, d in zip(*steps, strict=True)]
    axes[0] = replace(axes[0], positions=rows)
    axes[-1] = replace(axes[-1], positions=columns)
    return axes


def _covering(levels: Mapping[str, Sequence[Any]], work_of: Callable[[str, Any], int]) -> list[dict[str, Any]]:
    """Return rows {factor: level} that cover every pair of levels within :data:`WORK`.

    Each row takes the uncovered pair with the most work and then, for every other factor, the level that covers the
    most new pairs. The work of a row is the product of its levels' work.
    """
    names = list(levels)
    costs = {name: [work_of(name, level) for level in levels[name]] for name in names}
    least = {name: min(costs[name]) for name in names}
    rest = math.prod(least.values())
    left = {
        (a, i, b, j): costs[a][i] * costs[b][j]
        for a, b in itertools.combinations(names, 2)
        for i, j in itertools.product(range(len(levels[a])), range(len(levels[b])))
        if rest // (least[a] * least[b]) * costs[a][i] * costs[b][j] <= WORK
    }
    rows = []
    for a, i, b, j in sorted(left, key=left.__getitem__, reverse=True):
        if (a, i, b, j) not in left:
            continue
        row = {a: i, b: j}
        spent = rest // (least[a] * least[b]) * costs[a][i] * costs[b][j]
        for name in names:
            if name in row:
                continue
            base, best, most = spent // least[name], 0, (-1, 0)
            for level, cost in enumerate(costs[name]):
                if base * cost <= WORK:
                    new = sum(_ordered(names, name, level, other, row[other]) in left for other in row)
                    if (new, -cost) > most:
                        best, most = level, (new, -cost)
            row[name], spent = best, base * costs[name][best]
        for one, other in itertools.combinations(names, 2):
            left.pop((one, row[one], other, row[other]), None)
        rows.append({name: levels[name][level] for name, level in row.items()})
    return rows


def _ordered(names: list[str], a: str, i: int, b: str, j: int) -> tuple[str, int, str, int]:
    return (a, i, b, j) if names.index(a) < names.index(b) else (b, j, a, i)


# --- Random problems -------------------------------------------------------------------------------------------------


def mixed_problem(rng: np.random.Generator, domain: Domain, most: int) -> Problem:
    """Draw a problem with many features together; `most` bounds kernel sizes and positions.

    On average, one number of every second problem is drawn from the sizes of :data:`~refconv.testing.regimes.SIZES`
    instead, and every eighth problem has the steps of a network's layer.
    """
    while True:
        problem = _drawn(rng, domain, most)
        if problem is not None and work(problem) <= WORK:
            return problem


def _drawn(rng: np.random.Generator, domain: Domain, most: int) -> Problem | None:
    def integer(low: int, high: int) -> int:
        return int(rng.integers(low, high, endpoint=True))

    wide = ("batch", "c_in", "c_out", "groups", "positions", "kernel", "stride", "dilation", "padding")
    chosen = wide[integer(0, len(wide) - 1)] if integer(0, 1) else ""

    def number(name: str, low: int, high: int) -> int:
        if name != chosen:
            return integer(low, high)
        sizes = SIZES[{"kernel": "kernel side"}.get(name, name)] if name in _STEPS else SIZES["batch"]
        return sizes[integer(0, len(sizes) - 1)]

    def axis() -> Axis:
        stride = number("stride", 1, 3) if domain.claims("stride") else 1
        dilation = number("dilation", 1, 3) if domain.claims("dilation") else 1
        if domain.claims("stride_or_dilation") and stride > 1:
            dilation = 1
        before = number("padding", 0, 2) if domain.claims("padding", "asymmetric_padding") else 0
        after = integer(0, 2) if domain.claims("asymmetric_padding") else before
        if domain.transposed:
            rest = integer(0, max(stride, dilation) - 1) if domain.claims("output_padding") else 0
        else:
            rest = integer(0, stride - 1)
        return Axis(number("kernel", 1, most), stride, dilation, (before, after), number("positions", 1, most), rest)

    known = layers(domain.d, domain.transposed)
    if known and integer(0, 7) == 7:
        steps = known[integer(0, len(known) - 1)][2]
        axes = [replace(a, positions=integer(1, most)) for a in _axes_of_layer(steps, 1, 1)]
    elif domain.claims("equal_axes"):
        first = axis()
        free = ("positions",) if domain.transposed else ("positions", "rest")
        axes = [replace(first, **{name: getattr(axis(), name) for name in free}) for _ in range(domain.d)]
        axes = [a if a.valid(domain.transposed) or a.length < 1 else replace(a, rest=0) for a in axes]
    else:
        axes = [axis() for _ in range(domain.d)]
    problem = domain.problem(
        axes,
        batch=number("batch", 1, 3),
        c_in=1 if domain.claims("depthwise_only") else number("c_in", 1, 3),
        c_out=number("c_out", 1, 3),
        groups=number("groups", 1, 3) if domain.claims("groups", "depthwise_only") else 1,
        bias=domain.claims("bias") and integer(0, 2) > 0,
    )
    if problem is not None and domain.claims("causal") and integer(0, 1):
        problem = replace(problem, padding="causal")
    return problem


_STEPS = ("kernel", "stride", "dilation", "padding")


# --- Special problems ------------------------------------------------------------------------------------------------


def special(domain: Domain, kind: str, index: int) -> Problem:
    """Return a problem of one of the special kinds, with the claimed features."""
    if kind == "long sum" or (kind == "large" and index == 0):  # 1,536 terms, where a narrow accumulator shows
        last = Axis(kernel=3, positions=3 if domain.transposed else 1)
        axes = [replace(last, positions=1)] * (domain.d - 1) + [last]
        if not domain.claims("equal_axes"):
            axes[:-1] = [Axis()] * (domain.d - 1)
        terms = 512 if not domain.claims("equal_axes") else -(-1536 // 3**domain.d)
        return _asserted(
            domain.problem(
                axes, c_in=1 if domain.claims("depthwise_only") else terms, c_out=8 if kind == "large" else 2
            )
        )
    stride = 1 + index % 2 if domain.claims("stride") else 1
    dilation = 1 + index // 2 % 2 if domain.claims("dilation") else 1
    if kind == "not finite" and domain.claims("dilation"):
        dilation = 2
    if domain.claims("stride_or_dilation") and dilation > 1:
        stride = 1
    pads = (1, 1) if domain.claims("padding") else (0, 0)
    c_out = {"repeat": 2, "layout": 3, "empty": 4, "not finite": 5, "large": 6}[kind]
    last = Axis(2 + index % 2, stride, dilation, pads, 3 + index)
    axes = [replace(last, positions=2)] * (domain.d - 1) + [last]
    if not domain.claims("equal_axes"):
        axes[:-1] = [Axis(2, positions=2)] * (domain.d - 1)
    depthwise = domain.claims("depthwise_only")
    groups = 1 + (index + 1) % 2 if domain.claims("groups") or depthwise else 1
    batch, c_in = 2, 1 if depthwise else 2
    if kind == "layout" and index % 4 == 3:  # axes of one element, whose strides have no effect
        batch = c_in = groups = 1
        axes[0] = replace(axes[0], positions=1)
    if kind == "empty":
        batch = 0
    problem = _asserted(
        domain.problem(axes, batch=batch, c_in=c_in, c_out=c_out, groups=groups, bias=domain.claims("bias"))
    )
    return replace(problem, padding="causal") if domain.claims("causal") and index % 2 else problem


def _asserted(problem: Problem | None) -> Problem:
    assert problem is not None
    return problem


# --- All of them -----------------------------------------------------------------------------------------------------


class plan(Sequence[Case]):  # noqa: N801  (it is called like a function)
    """The cases of a check, smallest first; the same for the same arguments.

    In addition to `cases` random ones, the plan contains all cases that cover the regimes. Random problems beyond the
    first :data:`TOGETHER` follow in batches of that size, each sorted separately and made when it is reached, so that
    any number of them needs little memory.
    """

    def __init__(
        self,
        spatial_dims: int,
        supports: Sequence[str],
        transposed: bool,
        dtype: Any,
        cases: int,
        seed: int,
        with_pairs: bool = True,
        output_dtype: str | None = None,
    ) -> None:
        self.domain = Domain(spatial_dims, tuple(supports), transposed)
        self.dtype, self.output_dtype, self.seed = np.dtype(dtype), output_dtype, seed
        used: dict[Problem, tuple[Problem, str]] = {}

        def add(problems: Iterable[Problem], kind: str) -> None:
            # No problem occurs twice: only cases of the kind "repeat" test the effects of earlier calls.
            for problem in problems:
                used.setdefault(replace(problem, bias=False), (problem, kind))

        for kind, count in _kinds(self.dtype, np.dtype(output_dtype or dtype)):
            add((special(self.domain, kind, index) for index in range(count)), kind)
        (near, across), alone = systematic(self.domain), witnesses(self.domain)
        covered = pairs(self.domain) if with_pairs else []
        planned = (*near, *across, *alone, *covered)
        add((*planned, *causal(self.domain, planned)), "integers")
        if self.dtype.kind in "fc":
            add(_real(covered[::2], alone, used), "real")
        first = min(cases, TOGETHER)
        add(_mixed(np.random.default_rng(seed), self.domain, first, used), "integers")
        self._first = sorted(used.values(), key=lambda entry: size_of(entry[0]))
        self._later = cases - first

    def __len__(self) -> int:
        return len(self._first) + self._later

    def __iter__(self) -> Iterator[Case]:
        return (self._case(number, *entry) for number, entry in self._entries(0))

    @overload
    def __getitem__(self, index: int) -> Case: ...
    @overload
    def __getitem__(self, index: slice) -> list[Case]: ...
    def __getitem__(self, index: int | slice) -> Case | list[Case]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"the plan has {len(self)} cases; got index {index}")
        return next(self._case(n, *entry) for n, entry in self._entries(number) if n == number)

    def _entries(self, start: int) -> Iterator[tuple[int, tuple[Problem, str]]]:
        """Yield (number, (problem, kind)) from the batch that contains number `start` on."""
        first = len(self._first)
        if start < first:
            yield from enumerate(self._first)
        for batch in range(max(0, start - first) // TOGETHER, -(-self._later // TOGETHER)):
            done = batch * TOGETHER
            rng = np.random.default_rng([self.seed, batch])
            drawn = _mixed(rng, self.domain, min(TOGETHER, self._later - done), {})
            entries = [(problem, "integers") for problem in sorted(drawn, key=size_of)]
            yield from enumerate(entries, first + done)

    def _case(self, number: int, problem: Problem, kind: str) -> Case:
        # A generator per case, so that a case does not depend on those before it.
        rng = np.random.default_rng([self.seed, number])
        return make_case(problem, kind, rng, self.dtype, self.domain.words, self.output_dtype)


def _kinds(dtype: np.dtype[Any], output: np.dtype[Any]) -> list[tuple[str, int]]:
    """Return the special kinds of case for a data type, and the number of cases of each kind."""
    kinds = [("repeat", 4), ("layout", 4), ("empty", 2)]
    if dtype.kind in "iu" and output.itemsize >= 4:  # narrower integers are exact in any floating-point sum
        kinds.append(("large", 2))
    if dtype.kind in "fc":
        kinds.append(("long sum", 1))
    if dtype.kind == "f":  # standards leave open which complex products are NaN
        kinds.append(("not finite", 6))
    return kinds


def _mixed(
    rng: np.random.Generator, domain: Domain, count: int, used: dict[Problem, tuple[Problem, str]]
) -> Iterator[Problem]:
    """Yield `count` random problems that are not in use, and larger ones if there are too few."""
    most, found = {1: 4, 2: 3}.get(domain.d, 2), 0
    for attempt in itertools.count():
        if found == count:
            return
        problem = mixed_problem(rng, domain, most + attempt // (4 * count))
        if replace(problem, bias=False) not in used:
            found += 1
            yield problem


def _real(covered: Sequence[Problem], witnessed: Sequence[Problem], used: Container[Problem]) -> list[Problem]:
    """Return a few problems that together cover the regimes of `witnessed`; few, because real values cost more.

    They are the given problems with more samples or output channels, so that no problem is run twice.
    """
    due = dict.fromkeys(name for p in witnessed for name in regimes_of(p))
    bit = {name: 1 << number for number, name in enumerate(due)}

    def covers(problem: Problem) -> int:
        """Return the bits of the regimes of a problem."""
        return sum(bit[name] for name in regimes_of(problem) if name in bit)

    candidates: list[tuple[Problem, int]] = []
    reached = 0
    for more in (
        [replace(p, batch=(p.batch or 0) + 1) for p in covered],
        [replace(p, c_out=p.c_out + p.n_groups) for p in witnessed],
        [replace(p, c_out=p.c_out + 4 * p.n_groups) for p in witnessed],
        [replace(p, batch=(p.batch or 0) + n) for p in witnessed for n in (1, 2)],
    ):
        if reached.bit_count() < len(bit):
            candidates += [(p, covers(p)) for p in sorted(more, key=size_of) if replace(p, bias=False) not in used]
            reached = functools.reduce(operator.or_, (bits for _, bits in candidates), 0)
    chosen = []
    while reached:
        problem, bits = max(candidates, key=lambda entry: (entry[1] & reached).bit_count())
        chosen.append(problem)
        reached &= ~bits
    return chosen
