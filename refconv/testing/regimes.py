"""The regimes that checks must reach: common uses of convolution, and sizes at which implementations switch code paths.

A convolution may be right on every small problem and wrong for 3×3 windows with padding 1, because they take a special
fast path; or for 17 channels, because a tile has 16. Two tables list such cases: :data:`LAYERS` has the layers of
well-known networks, :data:`SIZES` the sizes on both sides of every power of two. :data:`SPECIAL` has relations between
numbers that are easy to forget. :func:`regimes_of` returns the names of a problem's regimes. The checker, the random
problems and the Hypothesis strategies all draw from these tables.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Problem = Any
"""A :class:`refconv.testing.oracles.problems.Problem`, whose module imports this one."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial axis of a problem: the windows of the image, which is x, or y if transposed.

    Parameters
    ----------
    kernel, stride, dilation : int
        Steps of the convolution along this axis.
    pads : tuple of int
        Padding before and after.
    positions : int
        Number of windows: outputs, or inputs of a transposed convolution.
    rest : int
        Elements beyond the last window: what the stride leaves over, or the output padding.
    """

    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    pads: tuple[int, int] = (0, 0)
    positions: int = 1
    rest: int = 0

    @property
    def span(self) -> int:
        """Elements from a window's first to its last."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def length(self) -> int:
        """Elements of the image along this axis."""
        return (self.positions - 1) * self.stride + self.span + self.rest - sum(self.pads)

    def valid(self, transposed: bool) -> bool:
        """Return whether a problem may have this axis."""
        most = max(self.stride, self.dilation) if transposed else self.stride
        return self.length >= 1 and self.rest < most


def axes_of(problem: Problem) -> list[Axis]:
    """Return the axes of a problem."""
    images = problem.output_size if problem.transposed else problem.size
    windows = problem.size if problem.transposed else problem.output_size
    steps = zip(problem.kernel, problem.stride, problem.dilation, problem.pairs, windows, images, strict=True)
    axes = []
    for k, s, d, pads, positions, image in steps:
        rest = image + sum(pads) - (positions - 1) * s - d * (k - 1) - 1
        axes.append(Axis(k, s, d, pads, positions, rest))
    return axes


Numbers = int | tuple[int, ...]
"""One number for all axes, or one number per axis, which then also fixes the number of axes."""


@dataclass(frozen=True)
class Layer:
    """The steps of one layer of a well-known network, at any number of channels and positions.

    Parameters
    ----------
    name : str
        Network and layer.
    kernel, stride, padding, dilation : int or tuple of int
        As in the network.
    groups : int or "depthwise"
        1 means any number of groups, because each group computes the same.
    transposed : bool
        Whether it is a transposed convolution.
    output_padding : int
        For a transposed convolution.
    axes : tuple of int
        Numbers of spatial axes with which the layer is common.
    """

    name: str
    kernel: Numbers
    stride: Numbers = 1
    padding: Numbers = 0
    dilation: Numbers = 1
    groups: int | str = 1
    transposed: bool = False
    output_padding: int = 0
    axes: tuple[int, ...] = (1, 2, 3)

    def steps(self, d: int) -> tuple[tuple[int, ...], ...] | None:
        """Return (kernel, stride, padding, dilation) for `d` axes, or None if the layer does not exist there."""
        given = self.kernel, self.stride, self.padding, self.dilation
        if d not in self.axes or any(isinstance(numbers, tuple) and len(numbers) != d for numbers in given):
            return None
        return tuple(numbers if isinstance(numbers, tuple) else (numbers,) * d for numbers in given)

    def title(self) -> str:
        """Return the regime's name: the network, and the numbers that differ from 1 and 0."""
        numbers = [f"kernel {_text(self.kernel)}"]
        for name, value, usual in (
            ("stride", self.stride, 1),
            ("padding", self.padding, 0),
            ("dilation", self.dilation, 1),
            ("output padding", self.output_padding, 0),
        ):
            if value != usual:
                numbers.append(f"{name} {_text(value)}")
        if self.groups != 1:
            numbers.append("depthwise" if self.groups == "depthwise" else f"{self.groups} groups")
        return f"{self.name}: {', '.join(numbers)}"

    def has(self, problem: Problem) -> bool:
        """Return whether a problem with the layer's steps has its groups and its output padding as well."""
        if self.groups == 1:
            return set(problem.output_padding) <= {self.output_padding}
        groups: int = problem.n_groups
        depth = int(problem.c_in) // groups
        if self.groups == "depthwise":
            return depth == 1 and groups > 1
        return depth > 1 and groups == self.groups


def _text(numbers: Numbers) -> str:
    return "×".join(map(str, numbers)) if isinstance(numbers, tuple) else str(numbers)


LAYERS = (
    Layer("VGG, ResNet, C3D", 3, padding=1),
    Layer("MobileNet", 3, padding=1, groups="depthwise"),
    Layer("ResNet, halving", 3, stride=2, padding=1),
    Layer("AlexNet's first layer", 11, stride=4, padding=2, axes=(1, 2)),
    Layer("AlexNet's second layer", 5, padding=2),
    Layer("AlexNet's second layer", 5, padding=2, groups=2),
    Layer("AlexNet's last layers", 3, padding=1, groups=2),
    Layer("ResNeXt", 3, padding=1, groups=32),
    Layer("ResNeXt", 3, stride=2, padding=1, groups=32),
    Layer("U-Net without padding", 3),
    Layer("ResNet's first layer", 7, stride=2, padding=3),
    Layer("ResNet, pointwise", 1),
    Layer("ResNet's short cut", 1, stride=2),
    Layer("ShuffleNet, pointwise", 1, groups=4),
    Layer("LeNet-5", 5),
    Layer("Inception", (1, 7), padding=(0, 3)),
    Layer("Inception", (7, 1), padding=(3, 0)),
    Layer("Inception", (1, 3), padding=(0, 1)),
    Layer("Inception", (3, 1), padding=(1, 0)),
    Layer("MobileNet, halving", 3, stride=2, padding=1, groups="depthwise"),
    Layer("EfficientNet", 5, stride=2, padding=2, groups="depthwise"),
    Layer("ConvNeXt", 7, padding=3, groups="depthwise", axes=(1, 2)),
    Layer("ConvNeXt, halving", 2, stride=2),
    Layer("ConvNeXt's first layer", 4, stride=4),
    Layer("vision transformer's patches", 16, stride=16, axes=(1, 2)),
    Layer("DCGAN's discriminator, PatchGAN", 4, stride=2, padding=1),
    Layer("Inception's first layer", 3, stride=2),
    Layer("DeepLab", 3, padding=2, dilation=2),
    Layer("DeepLab", 3, padding=6, dilation=6, axes=(1, 2)),
    Layer("DeepLab", 3, padding=2, dilation=2, groups="depthwise"),
    Layer("WaveNet", 2, dilation=2, axes=(1,)),
    Layer("WaveNet", 2, dilation=8, axes=(1,)),
    Layer("TCN", 3, padding=4, dilation=2, axes=(1,)),
    Layer("wav2vec", 10, stride=5, axes=(1,)),
    Layer("Mamba", 4, padding=3, groups="depthwise", axes=(1,)),
    Layer("Conformer", 31, padding=15, groups="depthwise", axes=(1,)),
    Layer("R(2+1)D, in space", (1, 3, 3), padding=(0, 1, 1)),
    Layer("R(2+1)D, in time", (3, 1, 1), padding=(1, 0, 0)),
    Layer("R(2+1)D's first layer", (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3)),
    Layer("SlowFast, halving in space", (3, 3, 3), stride=(1, 2, 2), padding=1),
    Layer("X3D", (3, 3, 3), padding=1, groups="depthwise"),
    Layer("decoder, same size", 3, padding=1, transposed=True),
    Layer("U-Net, up", 2, stride=2, transposed=True),
    Layer("DCGAN's first layer", 4, transposed=True),
    Layer("DCGAN", 4, stride=2, padding=1, transposed=True),
    Layer("DCGAN in TensorFlow", 5, stride=2, padding=2, output_padding=1, transposed=True),
    Layer("CycleGAN, up", 3, stride=2, padding=1, output_padding=1, transposed=True),
    Layer("decoder, doubling", 3, stride=2, padding=1, transposed=True),
    Layer("decoder, dilated", 3, padding=2, dilation=2, transposed=True),
    Layer("decoder, grouped", 4, stride=2, padding=1, groups=2, transposed=True),
    Layer("FCN, up by 8; HiFi-GAN", 16, stride=8, padding=4, transposed=True, axes=(1, 2)),
    Layer("FCN, up by bilinear kernels", 4, stride=2, padding=1, groups="depthwise", transposed=True),
    Layer("decoder, pointwise", 1, transposed=True),
)
"""The layers, most common first, with the numbers of the papers and of torchvision's models."""

SIDES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33)
"""Both sides of every power of two up to 32: tiles and vectors end there."""

SIZES: Mapping[str, tuple[int, ...]] = {
    "batch": SIDES,
    "input channels per group": SIDES,
    "output channels per group": SIDES,
    "groups": SIDES,
    "output rows": SIDES,
    "output columns": SIDES,
    "input rows": SIDES,
    "input columns": SIDES,
    "output positions": (*SIDES, 63, 64, 65),
    "reduction length": SIDES,
    "kernel side": (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13),
    "stride": (1, 2, 3, 4, 5, 6, 8),
    "dilation": (1, 2, 3, 4, 5, 6, 8),
    "padding": (0, 1, 2, 3, 4, 5, 6, 8),
}
"""The sizes. A row is a position along the first of several axes, a column a position along the last."""


def sizes_of(problem: Problem) -> dict[str, set[int]]:
    """Return the sizes of a problem under the names of :data:`SIZES`; several where its axes differ."""
    groups, d = problem.n_groups, problem.spatial_dims
    outputs, depth = problem.output_size, problem.c_in // problem.n_groups
    sizes = {
        "batch": {problem.batch or 0},
        "input channels per group": {depth},
        "output channels per group": {problem.c_out // groups},
        "groups": {groups},
        "output columns": {outputs[-1]},
        "input columns": {problem.size[-1]},
        "output positions": {math.prod(outputs)},
        "reduction length": {depth * math.prod(problem.kernel)},
        "kernel side": set(problem.kernel),
        "stride": set(problem.stride),
        "dilation": {d for d, k in zip(problem.dilation, problem.kernel, strict=True) if k > 1},
        "padding": {amount for pair in problem.pairs for amount in pair},
    }
    return sizes | ({"output rows": {outputs[0]}, "input rows": {problem.size[0]}} if d > 1 else {})


@dataclass(frozen=True)
class Special:
    """A relation between the numbers of a problem.

    The fields describe a small problem with this relation: its last axis, its first axis (if there are several), its
    groups and its channels per group.
    """

    name: str
    test: Callable[[Problem, list[Axis]], bool]
    last: Axis = Axis()
    first: Axis = Axis()
    groups: int = 1
    c_in: int = 1
    c_out: int = 1


def _some(name: str, test: Callable[[Axis], bool], last: Axis, **more: Any) -> Special:
    """Return a relation that holds along at least one axis."""
    return Special(name, lambda problem, axes: any(map(test, axes)), last, **more)


def _unequal(name: str, number: Callable[[Axis], Any], last: Axis, **more: Any) -> Special:
    """Return a relation that holds where a number differs from axis to axis."""
    return Special(name, lambda problem, axes: len(set(map(number, axes))) > 1, last, **more)


SPECIAL = (
    _some("stride above the kernel", lambda a: a.stride > a.kernel > 1, Axis(2, 3, positions=2)),
    _some("stride with a kernel of 1", lambda a: a.stride > a.kernel == 1, Axis(1, 2, positions=2)),
    _some("padding equal to the kernel", lambda a: a.pads[0] == a.kernel > 1, Axis(2, pads=(2, 2), positions=4)),
    _some("padding above the kernel", lambda a: a.pads[0] > a.kernel > 1, Axis(2, pads=(3, 3), positions=6)),
    _some("padding with a kernel of 1", lambda a: a.pads[0] > 0 and a.kernel == 1, Axis(pads=(1, 1), positions=3)),
    _some("padding before only", lambda a: a.pads[0] > a.pads[1] == 0, Axis(2, pads=(1, 0), positions=2)),
    _some("padding after only", lambda a: a.pads[1] > a.pads[0] == 0, Axis(2, pads=(0, 1), positions=2)),
    _some("kernel as large as the image", lambda a: a.span == a.length > 1, Axis(2)),
    _some("kernel larger than the image", lambda a: a.span > a.length, Axis(2, pads=(1, 1), positions=2)),
    _some("kernel of even size", lambda a: a.kernel % 2 == 0, Axis(2, positions=2)),
    _some("stride and dilation", lambda a: a.stride > 1 < a.dilation and a.kernel > 1, Axis(2, 2, 3, positions=2)),
    _some("stride equal to dilation", lambda a: a.stride == a.dilation > 1 < a.kernel, Axis(2, 2, 2, positions=2)),
    _unequal("kernel with unequal sides", lambda a: a.kernel, Axis(2, positions=2)),
    _unequal("unequal strides", lambda a: a.stride, Axis(2, 2, positions=2), first=Axis(2)),
    _unequal("unequal dilations", lambda a: a.dilation if a.kernel > 1 else 0, Axis(2, 1, 2), first=Axis(2)),
    _unequal("unequal padding", lambda a: a.pads[0], Axis(2, pads=(1, 1), positions=2)),
    Special("stride leaves input over", lambda p, axes: not p.transposed and _rests(axes), Axis(2, 3, rest=2)),
    Special("output padding", lambda p, axes: p.transposed and _rests(axes), Axis(2, 2, rest=1)),
    Special("tall image", lambda p, axes: _is_long(axes[0], axes[-1]), first=Axis(positions=9)),
    Special("wide image", lambda p, axes: _is_long(axes[-1], axes[0]), Axis(positions=9)),
    Special("kernel of one row", lambda p, axes: axes[0].kernel == 1 < axes[-1].kernel, Axis(3, positions=2)),
    Special("kernel of one column", lambda p, axes: axes[-1].kernel == 1 < axes[0].kernel, first=Axis(3, positions=2)),
    Special("one row", lambda p, axes: axes[0].length == 1 < axes[-1].length, Axis(positions=2)),
    Special("one column", lambda p, axes: axes[-1].length == 1 < axes[0].length, first=Axis(positions=2)),
    Special("one position", lambda p, axes: all(a.positions == 1 for a in axes)),
    Special("depthwise", lambda p, axes: p.c_in == p.n_groups == p.c_out > 1, groups=2),
    Special("depthwise with multiplier", lambda p, axes: p.c_out > p.c_in == p.n_groups > 1, groups=3, c_out=3),
    Special("groups of one output channel", lambda p, axes: p.c_in > p.c_out == p.n_groups > 1, groups=2, c_in=2),
    Special("stride and groups", lambda p, axes: p.n_groups > 1 < max(p.stride), Axis(2, 2), groups=2),
    Special("dilation and groups", lambda p, axes: p.n_groups > 1 < max(p.dilation), Axis(2, 1, 2), groups=2),
    Special("bias", lambda p, axes: p.bias),
    Special("no bias", lambda p, axes: not p.bias),
)  # fmt: skip
"""The relations."""


def _rests(axes: list[Axis]) -> bool:
    return any(axis.rest for axis in axes)


def _is_long(axis: Axis, other: Axis) -> bool:
    return axis is not other and axis.length >= 8 * other.length


@functools.cache
def layers(d: int, transposed: bool) -> tuple[tuple[Layer, str, tuple[tuple[int, ...], ...]], ...]:
    """Return (layer, title, (kernel, stride, padding, dilation)) of the layers that exist with `d` axes."""
    found = [(layer, layer.title(), layer.steps(d)) for layer in LAYERS if layer.transposed == transposed]
    return tuple((layer, title, steps) for layer, title, steps in found if steps is not None)


def regimes_of(problem: Problem) -> list[str]:
    """Return the names of all regimes of a problem; its groups must be a number.

    Examples
    --------
    >>> from refconv.testing.oracles.problems import Problem
    >>> problem = Problem(1, 4, 4, (8, 8), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), groups=2, bias=False)
    >>> [name for name in regimes_of(problem) if "Net" in name]
    ['VGG, ResNet, C3D: kernel 3, padding 1', "AlexNet's last layers: kernel 3, padding 1, 2 groups"]
    """
    axes = axes_of(problem)
    names = [f"{name} {size}" for name, sizes in sizes_of(problem).items() for size in sizes if size in SIZES[name]]
    names += [special.name for special in SPECIAL if special.test(problem, axes)]
    if all(before == after for before, after in problem.pairs):
        steps = problem.kernel, problem.stride, tuple(before for before, _ in problem.pairs), problem.dilation
        known = layers(problem.spatial_dims, problem.transposed)
        names += [title for layer, title, own in known if own == steps and layer.has(problem)]
    return names
