"""The validator: it turns integers into a frozen description of a convolution, before any array work.

This module sees shapes only, never arrays. It states every rule for a convolution's arguments once, and every message
gives the rule, the argument's name and the numbers that broke it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from refconv.groups import Block, ChannelGroups, ChannelSide, uniform_groups
from refconv.integers import Pads, as_bool, as_int, is_sequence, members, padding_pairs, per_axis, shown

Shape = tuple[int, ...]

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")

MAX_ELEMENTS = 2**40
"""Requests for larger arrays are refused before anything is allocated."""


MAX_SPATIAL_DIMS = 31


def as_shape(value: Any, name: str) -> Shape:
    """Return `value` as a shape: a sequence of integers ≥ 0."""
    if not is_sequence(value):
        raise TypeError(f"{name} must be a sequence of integers, a shape; got {shown(value)}")
    values = members(value)
    if len(values) > 64:
        raise ValueError(f"{name} must have at most 64 axes; got {shown(value)}")
    return tuple(as_int(v, f"{name}[{axis}]", 0) for axis, v in enumerate(values))


@dataclass(frozen=True)
class Geometry:
    """The spatial axes of a convolution; a transposed convolution is described by its adjoint.

    Along each axis, output position o reads padded input position o·stride + t·dilation at kernel tap t.
    """

    size: Shape  # the input size; for a transposed convolution, the output size
    kernel: Shape
    stride: Shape
    dilation: Shape
    pads: Pads
    padding_mode: str
    output: Shape

    @property
    def spans(self) -> Shape:
        """Effective kernel sizes: dilation·(k − 1) + 1 per axis."""
        return tuple([d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True)])

    @functools.cached_property
    def padded(self) -> Shape:
        """Input sizes after padding and cropping."""
        return tuple([n + before + after for n, (before, after) in zip(self.size, self.pads, strict=True)])


def geometry(
    size: Shape, kernel: Shape, *, stride: Any, padding: Any, dilation: Any, padding_mode: str = "zeros", hint: str = ""
) -> Geometry:
    """Check the spatial arguments of a convolution and compute its output sizes.

    `hint` ends the message for a kernel that does not fit.
    """
    d = len(size)
    stride = per_axis(stride, "stride", d, 1)
    dilation = per_axis(dilation, "dilation", d, 1)
    spans = tuple(step * (k - 1) + 1 for step, k in zip(dilation, kernel, strict=True))
    pads = _pads(padding_pairs(padding, d), size, spans, stride)
    _check_mode(padding_mode, pads, size)
    output = []
    for axis in range(d):
        n, (before, after), span = size[axis], pads[axis], spans[axis]
        room = n + before + after - span
        if room < 0:
            raise ValueError(
                f"the effective kernel must fit the padded input: spatial axis {axis} has input size {n} + "
                f"padding {before} + {after} = {n + before + after}, but dilation·(k−1) + 1 = "
                f"{dilation[axis]}·({kernel[axis]}−1) + 1 = {span} (kernel_size={kernel}, dilation={dilation}){hint}"
            )
        output.append(room // stride[axis] + 1)
    return _geometry(size, kernel, stride, dilation, pads, padding_mode, tuple(output))


def transposed_geometry(
    size: Shape, kernel: Shape, *, stride: Any, padding: Any, output_padding: Any, output_size: Any, dilation: Any
) -> Geometry:
    """Check the spatial arguments of a transposed convolution; describe it as the convolution whose adjoint it is."""
    d = len(size)
    stride = per_axis(stride, "stride", d, 1)
    dilation = per_axis(dilation, "dilation", d, 1)
    extra = per_axis(output_padding, "output_padding", d, 0)
    wanted = None if output_size is None else per_axis(output_size, "output_size", d, 1)
    spans = tuple(step * (k - 1) + 1 for step, k in zip(dilation, kernel, strict=True))
    pads = padding_pairs(padding, d, transposed=True)
    if any(extra) and (isinstance(pads, str) or wanted is not None):
        other = f"padding={pads!r}" if wanted is None else f"output_size={wanted}"
        raise ValueError(f"output_padding must be 0 with {other}, which chooses the size; got {shown(output_padding)}")
    if isinstance(pads, str):
        if wanted is None:
            wanted = tuple(max(n, 1) * s for n, s in zip(size, stride, strict=True))
        for axis, (n, m, s) in enumerate(zip(size, wanted, stride, strict=True)):
            if n and -(-m // s) != n:
                raise ValueError(
                    f"padding={pads!r} gives (n−1)·stride + 1 to n·stride outputs, {(n - 1) * s + 1} to {n * s} on "
                    f"spatial axis {axis} (n={n}, stride={s}); got output_size={m}"
                )
        pads = _pads(pads, wanted, spans, stride)  # the padding of the convolution from y to x
    output = []
    for axis in range(d):
        n, (before, after), s, step = size[axis], pads[axis], stride[axis], dilation[axis]
        least = (n - 1) * s - before - after + spans[axis]
        most = least + max(s, step) - 1
        if wanted is not None and n and most > 0 and not least <= wanted[axis] <= most:
            raise ValueError(
                f"output_size must be from {max(least, 1)} to {most} on spatial axis {axis}, since "
                f"output_padding is smaller than stride or dilation; got {wanted[axis]} (n={n}, stride={s}, "
                f"padding=({before}, {after}), dilation={step}, k={kernel[axis]})"
            )
        if extra[axis] >= max(s, step):
            raise ValueError(
                f"output_padding must be smaller than stride or dilation; got output_padding={extra[axis]}, "
                f"stride={s}, dilation={step} on spatial axis {axis}"
            )
        full = least + extra[axis] if wanted is None or n < 1 or most < 1 else wanted[axis]
        if n < 1 or full < 1:
            raise ValueError(
                f"the output of a transposed convolution must have an element on every axis: spatial axis {axis} "
                f"has (n−1)·stride − before − after + dilation·(k−1) + 1 + output_padding = {full} "
                f"(n={n}, stride={s}, padding=({before}, {after}), dilation={step}, k={kernel[axis]})"
            )
        output.append(full)
    return _geometry(tuple(output), kernel, stride, dilation, pads, "zeros", size)


def _geometry(
    size: Shape, kernel: Shape, stride: Shape, dilation: Shape, pads: Pads, mode: str, output: Shape
) -> Geometry:
    # A stride over a single output position, or a dilation of a single tap, has no effect. Huge values are replaced by
    # 1, so that they cannot overflow an array module's index arithmetic.
    return Geometry(
        size=size,
        kernel=kernel,
        stride=tuple(s if o > 1 else 1 for s, o in zip(stride, output, strict=True)),
        dilation=tuple(step if k > 1 else 1 for step, k in zip(dilation, kernel, strict=True)),
        pads=pads,
        padding_mode=mode,
        output=output,
    )


def _pads(pads: Pads | str, size: Shape, spans: Shape, stride: Shape) -> Pads:
    """Return one (before, after) pair per axis; the amounts of "same" and "causal" depend on sizes and steps."""
    if not isinstance(pads, str):
        return pads
    if pads == "causal":  # an output reads nothing after its own position
        return ((spans[0] - 1, 0),)
    pairs = []
    for n, span, s in zip(size, spans, stride, strict=True):
        total = max(0, (-(-n // s) - 1) * s + span - n)  # this gives ceil(n / stride) outputs
        small, large = total // 2, total - total // 2
        pairs.append((small, large) if pads == "same" else (large, small))
    return tuple(pairs)


def _check_mode(mode: Any, pads: Pads, size: Shape) -> None:
    if not isinstance(mode, str):
        raise TypeError(f"padding_mode must be a string; got {shown(mode)}")
    if mode not in PADDING_MODES:
        raise ValueError(f"padding_mode must be one of {', '.join(PADDING_MODES)}; got {shown(mode)}")
    for axis, (n, pair) in enumerate(zip(size, pads, strict=True)):
        if mode != "zeros" and n == 0 and max(pair) > 0:
            raise ValueError(
                f"padding_mode={mode!r} needs an element to extend; got an input of size 0 and padding {pair} on "
                f"spatial axis {axis}"
            )


def is_long(n: int, before: int, after: int, mode: str) -> bool:
    """Return whether an axis of n elements needs more than one reflection or wrap on a side.

    >>> is_long(4, 3, 0, "reflect"), is_long(4, 4, 0, "reflect"), is_long(4, 4, 0, "circular")
    (False, True, False)
    """
    return n > 1 and max(before, after) > {"reflect": n - 1, "circular": n}.get(mode, math.inf)


@dataclass(frozen=True, slots=True)
class ListedBlock:
    """A block of equal groups: their number, and their slice of the listed channels on each side."""

    count: int
    image: slice
    positions: slice


@dataclass(frozen=True, eq=False)  # compared by identity, which costs nothing
class Convolution:
    """One checked call: shapes, groups and layout of a convolution or a transposed convolution.

    Both kinds join an *image* (the array that is padded and read through windows: x of a convolution, y of a
    transposed convolution) to *positions* (one element per window: y, or x).
    """

    geometry: Geometry
    groups: ChannelGroups
    batch: int
    batched: bool
    channels_last: bool
    transposed: bool
    stacked: bool  # the weight is one array rather than a sequence with one array per group

    def weight_shape(self, block: Block) -> Shape:
        """Return the shape of the weight of each group of a block."""
        channels = (block.in_size, block.out_size) if self.transposed else (block.out_size, block.in_size)
        return (*channels, *self.geometry.kernel)

    @functools.cached_property
    def long_axes(self) -> tuple[int, ...]:
        """The spatial axes that need more than one reflection or wrap of the image."""
        geo = self.geometry
        return tuple(a for a, n in enumerate(geo.size) if is_long(n, *geo.pads[a], geo.padding_mode))

    @functools.cached_property
    def extended(self) -> Convolution:
        """The same call, on an image whose long axes are already extended."""
        if not self.long_axes:
            return self
        geo, axes = self.geometry, range(len(self.geometry.size))
        size = tuple(geo.padded[a] if a in self.long_axes else geo.size[a] for a in axes)
        pads = tuple((0, 0) if a in self.long_axes else geo.pads[a] for a in axes)
        return dataclasses.replace(self, geometry=dataclasses.replace(geo, size=size, pads=pads))

    @functools.cached_property
    def image_side(self) -> ChannelSide:
        """The channels of the image: the inputs, or the outputs if transposed."""
        return self.groups.outputs if self.transposed else self.groups.inputs

    @functools.cached_property
    def position_side(self) -> ChannelSide:
        """The channels of the positions: the outputs, or the inputs if transposed."""
        return self.groups.inputs if self.transposed else self.groups.outputs

    @functools.cached_property
    def sides(self) -> list[tuple[int, int, int]]:
        """Group count, image channels and position channels of each block of equal groups."""
        if self.transposed:
            return [(block.count, block.out_size, block.in_size) for block in self.groups.blocks]
        return [(block.count, block.in_size, block.out_size) for block in self.groups.blocks]

    @functools.cached_property
    def blocks(self) -> list[ListedBlock]:
        """The blocks of equal groups, as slices of the listed channels."""
        found, image, positions = [], 0, 0
        for count, C, K in self.sides:
            ends = image + count * C, positions + count * K
            found.append(ListedBlock(count, slice(image, ends[0]), slice(positions, ends[1])))
            image, positions = ends
        return found

    @functools.cached_property
    def kernel_shapes(self) -> list[Shape]:
        """Shape (G, K, C·T) of each block's kernels; K are the channels of the positions."""
        taps = math.prod(self.geometry.kernel)
        firsts = [(block.count, self.weight_shape(block)) for block in self.groups.blocks]
        return [(count, shape[0], shape[1] * taps) for count, shape in firsts]

    @property
    def stacked_weight_shape(self) -> Shape:
        """Shape of the weight as one array: the groups' weights, all of one shape, joined along the first axis."""
        first = self.weight_shape(self.groups.blocks[0])
        return (first[0] * self.groups.n, *first[1:])

    @property
    def x_shape(self) -> Shape:
        """Shape of x in the caller's layout."""
        size = self.geometry.output if self.transposed else self.geometry.size
        return self._layout(self.groups.c_in, size)

    @property
    def y_shape(self) -> Shape:
        """Shape of y and of its gradient in the caller's layout."""
        size = self.geometry.size if self.transposed else self.geometry.output
        return self._layout(self.groups.c_out, size)

    def _layout(self, channels: int, size: Shape) -> Shape:
        batch = (self.batch,) if self.batched else ()
        return (*batch, *size, channels) if self.channels_last else (*batch, channels, *size)


def describe(x_shape: Shape, weight_shape: Shape | Sequence[Shape], **options: Any) -> Convolution:
    """Check a whole call against the rules and describe it; repeated calls are cached.

    `weight_shape` is one shape, or one shape per group; for the options see :func:`_describe`.
    """
    if isinstance(weight_shape, list):
        weight_shape = tuple(weight_shape)
    if _EXACT.issuperset(map(type, options.values())) or all(map(_is_exact, options.values())):
        return _describe_once(x_shape, weight_shape, **options)
    return _describe(x_shape, weight_shape, **options)


_EXACT = {int, bool, str, ChannelGroups, type(None)}


def _is_exact(option: Any) -> bool:
    """Return whether an option is a safe cache key: (True, 2.0) equals (1, 2), but is an error.

    At the top level, the cache itself distinguishes types.
    """
    return type(option) in _EXACT or (type(option) is tuple and all(type(member) is int for member in option))


def _describe(
    x_shape: Shape,
    weight_shape: Shape | Sequence[Shape],
    *,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    channels_last: Any,
    padding_mode: Any = "zeros",
    output_padding: Any = 0,
    output_size: Any = None,
    transposed: bool = False,
    x_name: str = "x",
) -> Convolution:
    channels_last = as_bool(channels_last, "channels_last")
    stacked = not weight_shape or not isinstance(weight_shape[0], tuple)
    shapes: list[Shape] = [tuple(weight_shape)] if stacked else list(weight_shape)  # type: ignore[arg-type]
    if not isinstance(groups, ChannelGroups):
        groups = as_int(groups, "groups", 1)
        if not stacked:
            raise TypeError(
                f"weight must be one array where groups={groups} is an integer; a sequence of {len(shapes)} arrays "
                "needs groups to be a ChannelGroups"
            )
    elif not stacked and len(shapes) != groups.n:
        raise ValueError(f"weight must have one array for each of the n={groups.n} groups; got {len(shapes)}")
    d = _spatial_dims(shapes[0])
    kernel = shapes[0][2:]
    if len(x_shape) not in (d + 1, d + 2):
        raise ValueError(
            f"{x_name} must have {d + 2} axes, or {d + 1} if unbatched, for {d} spatial axes (weight has shape "
            f"{shapes[0]}); got {len(x_shape)} axes: shape {x_shape}"
        )
    if min(kernel) < 1:
        raise ValueError(f"kernel_size must be at least 1 on every axis; got weight of shape {shapes[0]}")
    batched = len(x_shape) == d + 2
    inner = x_shape[1:] if batched else x_shape
    channels, size = (inner[-1], inner[:-1]) if channels_last else (inner[0], inner[1:])
    other = _of_other_layout(shapes[0], channels, groups, channels_last, transposed)
    if not isinstance(groups, ChannelGroups):
        groups = _int_groups(groups, channels, x_name, x_shape, shapes[0], transposed, other)
    if channels != groups.c_in:
        raise ValueError(
            f"{x_name} must have the C={groups.c_in} input channels of its ChannelGroups; got C={channels} "
            f"({x_name} has shape {x_shape})"
        )
    if transposed:
        geo = transposed_geometry(
            size, kernel, stride=stride, padding=padding, output_padding=output_padding, output_size=output_size,
            dilation=dilation,
        )  # fmt: skip
    else:
        geo = geometry(
            size, kernel, stride=stride, padding=padding, dilation=dilation, padding_mode=padding_mode, hint=other
        )
    call = Convolution(
        geometry=geo,
        groups=groups,
        batch=x_shape[0] if batched else 1,
        batched=batched,
        channels_last=channels_last,
        transposed=transposed,
        stacked=stacked,
    )
    _check_weights(call, shapes)
    _check_memory(call)
    return call


_describe_once = functools.lru_cache(maxsize=256, typed=True)(_describe)


def _spatial_dims(weight_shape: Shape) -> int:
    d = len(weight_shape) - 2
    if d < 1:
        raise ValueError(
            f"weight must have at least 3 axes (two for channels, the others for the kernel); got shape {weight_shape}"
        )
    if d > MAX_SPATIAL_DIMS:
        raise ValueError(
            f"weight must have at most {MAX_SPATIAL_DIMS} spatial axes, because windows have two axes for each and "
            f"NumPy arrays have at most 64; got {d}"
        )
    return d


def _of_other_layout(weight_shape: Shape, channels: int, groups: Any, channels_last: bool, transposed: bool) -> str:
    """Return how to transpose a weight that seems to have its channels last, as x has; "" for any other."""
    if transposed or not channels_last or weight_shape[-2] * getattr(groups, "n", groups) != channels:
        return ""
    d = len(weight_shape) - 2
    order = (d + 1, d, *range(d))
    return f"; put the axes of a weight (k1, …, C/G, K) in the order {order}, with NumPy by weight.transpose{order}"


def _int_groups(
    n: int, channels: int, x_name: str, x_shape: Shape, weight_shape: Shape, transposed: bool, other: str
) -> ChannelGroups:
    """Return contiguous channel groups for ``groups=n`` that fit x and the weight."""
    if channels % n:
        raise ValueError(f"groups={n} does not divide C={channels} input channels ({x_name} has shape {x_shape})")
    if transposed:
        if weight_shape[0] != channels:
            raise ValueError(
                f"weight of a transposed convolution must have shape (C, K/groups, …) with C={channels} "
                f"({x_name} has shape {x_shape}); got {weight_shape}"
            )
        return uniform_groups(channels, weight_shape[1] * n, n)
    if weight_shape[0] % n:
        raise ValueError(
            f"groups={n} does not divide K={weight_shape[0]} output channels (weight has shape {weight_shape}){other}"
        )
    if weight_shape[1] * n != channels:
        raise ValueError(
            f"weight must have shape (K, C/groups, …) with C/groups = {channels}/{n} = {channels // n} "
            f"({x_name} has shape {x_shape}); got {weight_shape}{other}"
        )
    return uniform_groups(channels, weight_shape[0], n)


def _check_weights(call: Convolution, shapes: list[Shape]) -> None:
    blocks = call.groups.blocks
    if call.stacked:
        if len(blocks) != 1:
            raise ValueError(
                f"weight must be a sequence of {call.groups.n} arrays, one per group, because the groups' weights "
                f"differ in shape: {_some([call.weight_shape(b) for b in blocks[:5]])}; got one array of shape "
                f"{shapes[0]}"
            )
        if shapes[0] != call.stacked_weight_shape:
            raise ValueError(
                f"weight must have shape {call.stacked_weight_shape} for groups={call.groups!r}; got {shapes[0]}"
            )
        return
    for block in blocks:
        right = call.weight_shape(block)
        for g in range(block.first, block.first + block.count):
            if shapes[g] != right:
                raise ValueError(f"weight[{g}] must have shape {right} for its channel group; got {shapes[g]}")


def _some(shapes: Sequence[Shape]) -> str:
    return ", ".join(map(str, shapes[:4])) + (", …" if len(shapes) > 4 else "")


def _check_memory(call: Convolution) -> None:
    geo = call.geometry
    channels = call.groups.c_out if call.transposed else call.groups.c_in
    cropped = any(map(any, geo.pads))
    image = "the output before its crop" if cropped else "the output"
    if not call.transposed:
        image = "the padded input" if cropped else "the input"
    refuse_absurd(
        image,
        (call.batch, channels, *(max(p, 0) for p in geo.padded)),
    )
    refuse_absurd("the output", call.y_shape)
    for block in call.groups.blocks:
        weight = call.weight_shape(block)
        refuse_absurd("the weight", (block.count, *weight))
        columns = block.out_size if call.transposed else block.in_size
        refuse_absurd("the columns of one output row", (columns, *geo.kernel, *geo.output[1:]))


def refuse_absurd(what: str, shape: Shape) -> None:
    """Raise ValueError if an array of this shape would have more than 2^40 elements."""
    # A dimension of 0 leaves no elements, but the other dimensions still take time to loop over.
    count = math.prod(max(n, 1) for n in shape)
    if count > MAX_ELEMENTS:
        raise ValueError(f"{what} would need {count} elements, more than 2^40; its shape is {tuple(shape)}")


def check_shape(name: str, shape: Shape, expected: Shape, why: str) -> None:
    """Raise ValueError unless an array has the expected shape."""
    if shape != expected:
        raise ValueError(f"{name} must have shape {expected}, {why}; got {shape}")
