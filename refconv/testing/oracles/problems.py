"""Random convolution problems: always valid, small, and difficult in several ways together.

Groups, stride, dilation, padding, output padding and the number of axes are drawn jointly, because errors in practice
need a combination of them (grouped *and* strided, strided *and* asymmetrically padded). One problem in three has an
unusual size, one in three the steps of a layer of a well-known network (:mod:`refconv.testing.regimes`). Problems are
drawn by calling a function ``integer(low, high)``. :func:`random_problem` makes one from a random generator, and
:mod:`refconv.testing.strategies` makes another from Hypothesis.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from refconv.groups import ChannelGroups
from refconv.testing.oracles.definition import (
    Array,
    Groups,
    Weight,
    channel_lists,
    definition_bias_grad,
    definition_conv,
    definition_conv_transpose,
    definition_input_grad,
    definition_transpose_input_grad,
    definition_transpose_weight_grad,
    definition_weight_grad,
    paddings,
    transposed_output_sizes,
)
from refconv.testing.oracles.definition import output_size as size_along
from refconv.testing.regimes import SIDES, layers

Integer = Callable[[int, int], int]
"""``integer(low, high)`` chooses a number from low to high, both included."""
Shape = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]
Lists = tuple[tuple[Shape, Shape], ...]

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
GROUPINGS = ("one", "uniform", "depthwise", "unequal", "lists")
PADDING_FORMS = ("pairs", "valid", "same", "same_lower", "causal")
WIDER = {"int8": "int32", "uint8": "int32", "float16": "float32"}
"""For narrow operands, the wider data type in which quantised and half-precision kernels return their results."""


@dataclass(frozen=True)
class Problem:
    """A complete description of a convolution, except the values of its arrays.

    Parameters
    ----------
    batch : int or None
        Number of samples, or None for unbatched arrays.
    c_in, c_out : int
        Input and output channels.
    size, kernel, stride, dilation : tuple of int
        One number per spatial axis.
    padding : tuple of (before, after) or str
        One pair per spatial axis, or one of the strings in :data:`PADDING_FORMS`.
    groups : int or tuple of (input channels, output channels)
        A number of equal contiguous groups, or for each group the channels that it reads and writes.
    padding_mode : str
        One of :data:`PADDING_MODES`.
    output_padding : tuple of int
        One number per spatial axis; used if `transposed`.
    wanted_size : tuple of int
        For a transposed convolution, the argument ``output_size``, which replaces `output_padding`.
    transposed, channels_last, bias : bool
        Whether the convolution is transposed, channels come last in x and y, and there is a bias.
    """

    batch: int | None
    c_in: int
    c_out: int
    size: Shape
    kernel: Shape
    stride: Shape
    dilation: Shape
    padding: Pairs | str
    groups: int | Lists = 1
    padding_mode: str = "zeros"
    output_padding: Shape = ()
    wanted_size: Shape = ()
    transposed: bool = False
    channels_last: bool = False
    bias: bool = True

    @property
    def spatial_dims(self) -> int:
        """Number of spatial axes."""
        return len(self.size)

    @property
    def n_groups(self) -> int:
        """Number of groups; an error if they are lists."""
        if not isinstance(self.groups, int):
            raise ValueError(f"the groups are lists of channels: {self.groups}")
        return self.groups

    @functools.cached_property
    def pairs(self) -> Pairs:
        """Padding as one (before, after) pair per axis."""
        if not isinstance(self.padding, str):
            return self.padding
        image = self.output_size if self.transposed else self.size
        return paddings(self.padding, image, self.kernel, self.stride, self.dilation)

    @functools.cached_property
    def lists(self) -> list[tuple[list[int], list[int]]]:
        """For each group, the channels that it reads and the channels that it writes."""
        return channel_lists(self.groups, self.c_in, self.c_out)

    @functools.cached_property
    def weight_shapes(self) -> tuple[Shape, ...]:
        """Shape of the weight of each group."""
        ends = [(len(ins), len(outs)) if self.transposed else (len(outs), len(ins)) for ins, outs in self.lists]
        return tuple((*pair, *self.kernel) for pair in ends)

    @functools.cached_property
    def weight_shape(self) -> Shape:
        """Shape of the weight as one array; the groups must have one shape."""
        shapes = self.weight_shapes
        if len(set(shapes)) > 1:
            raise ValueError(f"the groups' weights have different shapes {shapes}")
        return (shapes[0][0] * len(shapes), *shapes[0][1:])

    @functools.cached_property
    def output_size(self) -> Shape:
        """Spatial sizes of the output."""
        if not self.transposed:
            axes = zip(self.size, self.pairs, self.kernel, self.stride, self.dilation, strict=True)
            return tuple(size_along(n + before + after, k, s, dil) for n, (before, after), k, s, dil in axes)
        return transposed_output_sizes(
            self.size,
            self.kernel,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            output_size=self.wanted_size or None,
            dilation=self.dilation,
        )

    @functools.cached_property
    def x_shape(self) -> Shape:
        """Shape of x in the problem's layout."""
        return self._layout(self.c_in, self.size)

    @functools.cached_property
    def output_shape(self) -> Shape:
        """Shape of y and of its gradient in the problem's layout."""
        return self._layout(self.c_out, self.output_size)

    def _layout(self, channels: int, size: Shape) -> Shape:
        batch = () if self.batch is None else (self.batch,)
        return (*batch, *size, channels) if self.channels_last else (*batch, channels, *size)

    def to_plain(self, array: Array) -> Array:
        """Return x or y as (N, C, …), from the problem's layout."""
        if self.batch is None:
            array = array[None]
        return np.moveaxis(array, -1, 1) if self.channels_last else array

    def from_plain(self, array: Array) -> Array:
        """Return x or y in the problem's layout, from (N, C, …)."""
        if self.channels_last:
            array = np.moveaxis(array, 1, -1)
        return array[0] if self.batch is None else array

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments of the problem for refconv's convolutions."""
        groups: int | ChannelGroups
        if isinstance(self.groups, int):
            groups = self.groups
        else:
            reads, writes = zip(*self.groups, strict=True)
            groups = ChannelGroups(reads, writes, c_in=self.c_in)
        options: dict[str, Any] = {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": groups,
            "channels_last": self.channels_last,
        }
        if self.transposed and self.wanted_size:
            return options | {"output_size": self.wanted_size}
        if self.transposed:
            return options | {"output_padding": self.output_padding}
        return options | {"padding_mode": self.padding_mode}


class Operands(NamedTuple):
    """The arrays of a problem: a tuple of weights if its groups are lists, and no bias if it has none."""

    x: Array
    weight: Weight
    bias: Array | None
    grad_output: Array

    def mapped(self, function: Callable[[Array], Array]) -> Operands:
        """Return the operands with a function applied to every array; a bias of None stays None."""
        weight = tuple(map(function, self.weight)) if isinstance(self.weight, tuple) else function(self.weight)
        bias = None if self.bias is None else function(self.bias)
        return Operands(function(self.x), weight, bias, function(self.grad_output))


class Results(NamedTuple):
    """Results of a convolution and its backward pass."""

    y: Array
    grad_x: Array
    grad_weight: Weight
    grad_bias: Array


def draw_problem(
    integer: Integer,
    *,
    spatial_dims: Sequence[int] = (1, 2, 3),
    transposed: bool = False,
    groupings: Sequence[str] = GROUPINGS,
    padding_forms: Sequence[str] = PADDING_FORMS,
    padding_modes: Sequence[str] = PADDING_MODES,
    layouts: bool = True,
    crops: bool = True,
) -> Problem:
    """Draw a valid problem; lower numbers from `integer` make it simpler.

    Parameters
    ----------
    integer : callable
        ``integer(low, high)`` chooses a number, both ends included.
    spatial_dims : sequence of int
        Numbers of axes to choose from.
    transposed : bool
        Whether the convolution is transposed (then it is padded with zeros, never "causal", and its output may be
        given by ``output_size``).
    groupings, padding_forms, padding_modes : sequence of str
        Choices among :data:`GROUPINGS`, :data:`PADDING_FORMS` and :data:`PADDING_MODES`.
    layouts : bool
        Whether to draw unbatched and channels-last arrays too.
    crops : bool
        Whether to draw negative padding too.

    Returns
    -------
    Problem
        It has at least one output position, and output sizes that do not divide evenly are common.

    Examples
    --------
    >>> draw_problem(lambda low, high: low)
    Problem(batch=1, c_in=1, c_out=1, size=(1,), kernel=(1,), stride=(1,), dilation=(1,), padding=((0, 0),), \
groups=1, padding_mode='zeros', output_padding=(), wanted_size=(), transposed=False, channels_last=False, bias=False)
    """

    def pick(choices: Sequence[Any]) -> Any:
        return choices[integer(0, len(choices) - 1)]

    d = pick(spatial_dims)
    sort = integer(0, 2)  # small numbers only, one unusual size, or a layer of a network
    large = dict([pick(UNUSUAL)]) if sort == 1 else {}
    known = layers(d, transposed) if sort == 2 else ()
    steps = known[integer(0, integer(0, len(known) - 1))][2] if known else None  # the first are the most common
    fitting = [grouping for grouping in groupings if all(grouping in FITTING.get(name, groupings) for name in large)]
    c_in, c_out, groups = _draw_groups(integer, pick(fitting or groupings), large)
    mode = "zeros" if transposed else pick(padding_modes)
    forms = [form for form in padding_forms if form != "causal" or (d == 1 and not transposed)]
    form = "pairs" if known and "pairs" in forms else pick(forms)
    ways = [_draw_steps(integer, d, form, crops, large if j == d - 1 else {}) for j in range(d)]
    if steps is not None:
        ways = [(k, s, dilation, (pad, pad)) for k, s, pad, dilation in zip(*steps, strict=True)]
    axes = [
        _draw_axis(integer, d, form, transposed, way, large.get("positions") if j == d - 1 else None)
        for j, way in enumerate(ways)
    ]
    size, kernel, stride, dilation, pads, extra = zip(*axes, strict=True)
    batch: int | None = large.get("batch", integer(1, 3))
    problem = Problem(
        batch=None if layouts and integer(0, 5) == 5 else batch,
        c_in=c_in,
        c_out=c_out,
        size=size,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        padding=pads if form == "pairs" else form,
        groups=groups,
        padding_mode=mode,
        output_padding=extra if transposed else (),
        transposed=transposed,
        channels_last=layouts and integer(0, 3) == 3,
        bias=integer(0, 2) > 0,
    )
    if not transposed or integer(0, 3) < 3:
        return problem
    wanted = problem.output_size  # with numbers for the padding, any output_padding reaches it
    if form.startswith("same"):
        wanted = tuple(n - integer(0, s - 1) for n, s in zip(wanted, stride, strict=True))
    return replace(problem, output_padding=(0,) * d, wanted_size=wanted)


UNUSUAL = tuple(
    (name, size)
    for size in SIDES
    if size > 3
    for name in ("stride", "groups", "batch", "positions", "dilation", "kernel", "c_in", "c_out", "padding")
)
"""Numbers that may be unusual, one per problem, and their sizes: both sides of every power of two."""

FITTING = {"c_in": ("one", "uniform"), "c_out": ("one", "uniform", "depthwise"), "groups": ("uniform", "depthwise")}
"""Groupings in which each number (of channels or groups) may be unusual."""


def _draw_groups(integer: Integer, grouping: str, large: Mapping[str, int]) -> tuple[int, int, int | Lists]:
    """Draw (c_in, c_out, groups). Inputs and outputs are drawn independently, so that usually K ≠ C."""
    if grouping == "one":
        return large.get("c_in", integer(1, 4)), large.get("c_out", integer(1, 4)), 1
    n = integer(1, 3)
    if grouping in ("uniform", "depthwise"):
        n = large.get("groups", n)
        depth = 1 if grouping == "depthwise" else large.get("c_in", integer(1, 3))
        return n * depth, n * large.get("c_out", integer(1, 3)), n
    out_sizes = [integer(1, 3) for _ in range(n)]
    if grouping == "unequal":  # contiguous blocks of different sizes
        in_sizes = [integer(1, 3) for _ in range(n)]
        return sum(in_sizes), sum(out_sizes), tuple(zip(_blocks(in_sizes), _blocks(out_sizes), strict=True))
    # any lists: shared input channels, unread ones, any order on both sides
    c_in, c_out = integer(1, 5), sum(out_sizes)
    out_order = _draw_order(integer, c_out)
    outs = [tuple(out_order[k] for k in block) for block in _blocks(out_sizes)]
    ins = [tuple(_draw_order(integer, c_in)[: integer(1, c_in)]) for _ in range(n)]
    return c_in, c_out, tuple(zip(ins, outs, strict=True))


def _blocks(sizes: Sequence[int]) -> list[Shape]:
    return [tuple(range(sum(sizes[:g]), sum(sizes[: g + 1]))) for g in range(len(sizes))]


def _draw_order(integer: Integer, n: int) -> list[int]:
    """Draw a permutation; lowest draws leave everything in place."""
    order = list(range(n))
    for i in range(n - 1):
        j = integer(i, n - 1)
        order[i], order[j] = order[j], order[i]
    return order


Steps = tuple[int, int, int, tuple[int, int]]
"""(kernel, stride, dilation, (before, after)) of one axis."""


def _most(d: int) -> int:
    return {1: 4, 2: 3}.get(d, 2)  # keeps three-dimensional problems small


def _draw_steps(integer: Integer, d: int, form: str, crops: bool, large: Mapping[str, int]) -> Steps:
    k = min(large.get("kernel", integer(1, _most(d))), 9)
    s, dil = (min(large.get(name, integer(1, 3)), 9) for name in ("stride", "dilation"))
    if "dilation" in large:
        k = max(k, 2)
    before, after = _draw_padding(integer, crops), _draw_padding(integer, crops)
    if "padding" in large:
        before = after = min(large["padding"], 9)
    return k, s, dil, (before, after) if form == "pairs" else (0, 0)


def _draw_axis(
    integer: Integer, d: int, form: str, transposed: bool, steps: Steps, positions: int | None
) -> tuple[int, int, int, int, tuple[int, int], int]:
    """Draw (size, kernel, stride, dilation, (before, after), output padding) of one axis."""
    k, s, dil, (before, after) = steps
    if form != "pairs":
        before = after = 0
    between = (positions or integer(1, _most(d))) - 1  # output positions, or input positions if transposed
    span, extra = dil * (k - 1) + 1, 0
    if transposed:
        n, extra = between + 1, integer(0, max(s, dil) - 1)
        if form.startswith("same"):  # it determines the size; one draw fewer would count as simpler
            return n, k, s, dil, (0, 0), 0
        while between * s + span + extra - before - after < 1:  # until there is an output
            before, after = max(before - 1, min(before, 0)), max(after - 1, min(after, 0))
    elif form.startswith("same") or form == "causal":
        n = between * s + 1 + integer(0, s - 1)
    else:  # the input size that gives these outputs, and a remainder that the stride skips
        n = max(1, between * s + span + integer(0, s - 1) - before - after)
    return n, k, s, dil, (before, after), extra


def _draw_padding(integer: Integer, crops: bool) -> int:
    amount = integer(0, 3)
    return -1 if crops and amount == 3 and integer(0, 1) else amount


def random_problem(rng: np.random.Generator, **choices: Any) -> Problem:
    """Draw a valid problem from a random generator.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the random numbers.
    **choices
        Keyword arguments of :func:`draw_problem`.

    Returns
    -------
    Problem
        A small one.

    Examples
    --------
    >>> problem = random_problem(np.random.default_rng(3), spatial_dims=(2,))
    >>> problem.spatial_dims, len(problem.kernel)
    (2, 2)
    """
    return draw_problem(lambda low, high: int(rng.integers(low, high, endpoint=True)), **choices)


def integer_arrays(problem: Problem, rng: np.random.Generator, dtype: Any = "float32") -> Operands:
    """Return operands of whole numbers, on which any correct implementation is exact.

    Floating-point data are −3 … 3, whose products and sums are exact in float32 at these sizes (in complex
    data, both parts). Integer data cover the whole range of their type, so that sums wrap around.

    Parameters
    ----------
    problem : Problem
        Determines the shapes.
    rng : numpy.random.Generator
        Source of the random numbers.
    dtype : dtype
        Data type of all operands.

    Returns
    -------
    Operands
        One weight array if ``problem.groups`` is a number, else a tuple.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> integer_arrays(random_problem(rng), rng, "int8").x.dtype
    dtype('int8')
    """
    dtype = np.dtype(dtype)

    def draw(shape: Shape) -> Array:
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        values = rng.integers(-3, 3, shape, endpoint=True).astype(dtype)
        if dtype.kind == "c":
            values.imag = rng.integers(-3, 3, shape, endpoint=True)
        return values

    return _operands(problem, draw)


def normal_arrays(problem: Problem, rng: np.random.Generator, dtype: Any = "float32") -> Operands:
    """Return operands drawn from N(0, 1), rounded to `dtype`; arguments as for :func:`integer_arrays`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> normal_arrays(random_problem(rng), rng, "float16").grad_output.dtype
    dtype('float16')
    """
    dtype = np.dtype(dtype)

    def draw(shape: Shape) -> Array:
        values = rng.standard_normal(shape).astype(dtype)
        if dtype.kind == "c":
            values.imag = rng.standard_normal(shape)
        return values

    return _operands(problem, draw)


def _operands(problem: Problem, draw: Callable[[Shape], Array]) -> Operands:
    one = isinstance(problem.groups, int)
    return Operands(
        x=draw(problem.x_shape),
        weight=draw(problem.weight_shape) if one else tuple(map(draw, problem.weight_shapes)),
        bias=draw((problem.c_out,)) if problem.bias else None,
        grad_output=draw(problem.output_shape),
    )


def definition_results(problem: Problem, operands: Operands, output_dtype: Any = None) -> Results:
    """Return output and gradients by definition, in the problem's layout; the output in `output_dtype` if given.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> problem = random_problem(rng)
    >>> definition_results(problem, integer_arrays(problem, rng)).y.shape == problem.output_shape
    True
    """
    x, g = problem.to_plain(operands.x), problem.to_plain(operands.grad_output)
    weight, kernel = operands.weight, problem.kernel
    groups: Groups = problem.groups
    common: dict[str, Any] = {
        "stride": problem.stride, "padding": problem.padding, "dilation": problem.dilation, "groups": groups,
    }  # fmt: skip
    if problem.transposed:
        extra: dict[str, Any] = {"output_padding": problem.output_padding, "output_size": problem.wanted_size or None}
        y = definition_conv_transpose(x, weight, operands.bias, output_dtype=output_dtype, **extra, **common)
        grad_x = definition_transpose_input_grad(g, weight, x.shape, **common)
        grad_weight = definition_transpose_weight_grad(g, x, kernel, **common)
    else:
        common["padding_mode"] = problem.padding_mode
        y = definition_conv(x, weight, operands.bias, output_dtype=output_dtype, **common)
        grad_x = definition_input_grad(g, weight, x.shape, **common)
        grad_weight = definition_weight_grad(g, x, kernel, **common)
    return Results(problem.from_plain(y), problem.from_plain(grad_x), grad_weight, definition_bias_grad(g))


def inner(a: Any, b: Any) -> Any:
    """Return ⟨a, b⟩ = Σ conj(a)·b of arrays or tuples of arrays, exact on whole numbers; integers wrap as usual.

    None in a tuple means zeros. With it, the adjoint identities of a convolution read, for y = conv(x, w), ẏ its
    derivative along (ẋ, ẇ, ḃ), (x̄, w̄, b̄) the gradients and (ḡ, x̄̄, w̄̄) the backward pass's gradients along (ẋ, ẇ, ḃ)::

        inner(g, y) == inner(x̄, x) == inner(w̄, w)
        inner(g, ẏ) == inner((x̄, w̄, b̄), (ẋ, ẇ, ḃ))
        inner(g, ḡ) == inner((x̄, w̄, b̄), (ẋ, ẇ, ḃ)), because ḡ = ẏ
        inner(x̄̄, x) == inner(w̄, ẇ) and inner(w̄̄, w) == inner(x̄, ẋ)

    Examples
    --------
    >>> inner((np.array([1.0, 2]), np.array([1j])), (np.array([3.0, 4]), np.array([2.0])))
    np.complex128(11-2j)
    >>> inner(np.array([100], "int8"), np.array([2], "int8"))
    np.int8(-56)
    """
    if isinstance(a, tuple):
        return sum(inner(p, q) for p, q in zip(a, b, strict=True) if p is not None and q is not None)
    if b.dtype.kind in "iu":
        return np.sum(a.astype(np.int64) * b.astype(np.int64)).astype(b.dtype)
    wide = np.result_type(a, b, np.float64)
    return np.vdot(a.astype(wide), b.astype(wide))


def elements(problem: Problem) -> int:
    """Return the number of elements of all operands, a measure of a problem's size.

    Examples
    --------
    >>> elements(draw_problem(lambda low, high: low))
    3
    """
    shapes = [problem.x_shape, problem.output_shape, *problem.weight_shapes]
    return sum(math.prod(shape) for shape in shapes)
