"""AlexNet as one network with grouped convolutions, and as towers with one group on each device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from refconv.arrays import Array, Namespace, array_namespace
from refconv.cost import GroupSpec, parse_groups
from refconv.groups import ChannelGroups
from refconv.integers import as_float, as_int
from refconv.nn.base import Layer
from refconv.nn.dropout import Dropout, DropoutShare
from refconv.nn.layers import Conv, Flatten, Linear, ReLU
from refconv.nn.models.grouping import Grouping, as_grouping
from refconv.nn.normalisation import LocalResponseNorm
from refconv.nn.pooling import MaxPool
from refconv.nn.sequential import Sequential
from refconv.nn.towers import Towers
from refconv.shapes import refuse_absurd

STD = 0.01
"""Standard deviation of all initial weights."""

SMALLEST = 63
"""The smallest side with a whole window for each of the three poolings."""


class _Widths(NamedTuple):
    """Output channels, or features, of the layers with weights."""

    conv1: int
    conv2: int
    conv3: int
    conv4: int
    conv5: int
    fc6: int
    fc7: int


_PAPER = _Widths(96, 256, 384, 384, 256, 4096, 4096)


def alexnet(
    groups: int | str | Grouping = 2,
    *,
    c_in: int = 3,
    classes: int = 1000,
    side: int = 224,
    width: float = 1.0,
    dropout_rng: np.random.Generator,
    rng: np.random.Generator,
    xp: Namespace | None = None,
    dtype: str = "float32",
    device: Any = None,
) -> Sequential:
    r"""Return AlexNet, with convolutions 2, 4 and 5 in groups: two in the paper, one for each of its GPUs.

    ==============================  ======================  =====================
    layer                           at side 224, width 1    at side s
    ==============================  ======================  =====================
    conv1 11×11 stride 4, relu1     (96, 55, 55)            n₁ = ⌊(s − 7)/4⌋ + 1
    norm1, pool1 3×3 stride 2       (96, 27, 27)            n₂ = ⌊(n₁ − 3)/2⌋ + 1
    conv2 5×5 grouped, relu2        (256, 27, 27)           n₂
    norm2, pool2                    (256, 13, 13)           n₃ = ⌊(n₂ − 3)/2⌋ + 1
    conv3 3×3, relu3                (384, 13, 13)           n₃
    conv4 3×3 grouped, relu4        (384, 13, 13)           n₃
    conv5 3×3 grouped, relu5        (256, 13, 13)           n₃
    pool5, flatten                  256·6·6 = 9216          256·(⌊(n₃ − 3)/2⌋ + 1)²
    fc6, relu6, drop6               4096                    4096
    fc7, relu7, drop7               4096                    4096
    fc8                             `classes`               `classes`
    ==============================  ======================  =====================

    The paper contains a puzzle: its images are 224×224, but an 11×11 kernel with stride 4 turns them into 54×54, not
    the stated 55×55. Either the images were 227×227 or they were padded. Here conv1 pads by 2 on every side. conv2 also
    pads by 2, and the other convolutions by 1.

    As in the paper, initial weights come from N(0, 0.01²), and initial biases are 1 in conv2, conv4, conv5, fc6 and
    fc7, else 0. Local response normalisation has k = 2, n = 5, β = 0.75 and α = 10⁻⁴, not divided by n. Dropout halves
    the activations in testing. Each GPU normalised its own maps. So if conv2's groups are consecutive blocks, norm1
    stays within the blocks that conv2 reads, and norm2 within the blocks that it writes.

    Parameters
    ----------
    groups : int, str, or callable (c_in, c_out) -> int or ChannelGroups
        Groups of conv2, conv4 and conv5: a number, a word for :func:`refconv.cost.parse_groups`, or a function that
        chooses them for each layer.
    c_in, classes, side : int
        Channels of the images, number of classes, and height and width, at least 63.
    width : float
        Factor of all channels and features except `c_in` and `classes`. They are rounded to the nearest multiple of the
        number of uniform groups, at least one channel per group; for other groups, to the nearest whole number.
    dropout_rng : numpy.random.Generator
        Draws the elements that drop6 and drop7 drop.
    rng, xp, dtype, device
        As for :class:`refconv.nn.Conv`.

    Returns
    -------
    Sequential
        (N, c_in, side, side) -> (N, classes) logits.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, or the groups do not fit: a number must divide 96, 256 and 384.

    References
    ----------
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS
    2012, sections 3 to 5.

    Examples
    --------
    A narrow network for small images; ``alexnet(dropout_rng=…, rng=…)`` is the paper's, with 60,965,224 parameters.

    >>> import numpy as np
    >>> from refconv.nn import alexnet
    >>> rng = np.random.default_rng(0)
    >>> model = alexnet(2, classes=7, side=64, width=1/16, dropout_rng=rng, rng=rng)
    >>> list(model.children())[:8]
    ['conv1', 'relu1', 'norm1', 'pool1', 'conv2', 'relu2', 'norm2', 'pool2']
    >>> model.forward(np.zeros((5, 3, 64, 64), dtype="float32")).shape
    (5, 7)
    """
    spec = None if callable(groups) else parse_groups(groups)
    widths = _scaled(width, spec.n if spec and spec.kind == "uniform" else 1, "groups")
    where = {"rng": rng, "xp": xp, "dtype": dtype, "device": device}

    def dropout(_: str) -> Layer:
        return Dropout(0.5, rng=dropout_rng, rescale="testing")

    layers: dict[str, Layer] = {}
    for segment in _segments(widths, widths, c_in, classes, side, as_grouping(groups), dropout, where):
        layers |= segment
    return Sequential(**layers)


def alexnet_towers(
    towers: int | str = 2,
    *,
    c_in: int = 3,
    classes: int = 1000,
    side: int = 224,
    width: float = 1.0,
    dropout_rng: np.random.Generator,
    rng: np.random.Generator,
    xp: Namespace | None = None,
    dtype: str = "float32",
    device: Any = None,
) -> Towers:
    """Return AlexNet as the paper ran it: towers, one per GPU, each with its share of every layer.

    Activations cross between the towers only before conv3, fc6, fc7 and fc8, which read all channels. A tower's conv2,
    conv4 and conv5 read only its own channels: they are one group of the grouped network. So the towers compute the
    same as ``alexnet(groups=towers)``; :func:`tower_state` distributes its weights.

    Parameters
    ----------
    towers : int or str
        The groups, one tower per group: N or "uniform:N", where N divides 96, 256 and 384; or "log:N", for unequal
        towers.
    c_in, classes, side, width, dropout_rng, rng, xp, dtype, device
        As for :func:`alexnet`.

    Returns
    -------
    Towers
        (N, c_in, side, side) -> (N, classes) logits, in five segments: conv1 … pool2, conv3 … pool5, fc6, fc7, fc8.

    References
    ----------
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS
    2012, section 3.2 and figure 2.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import alexnet, alexnet_towers, tower_state
    >>> rng, x = np.random.default_rng(0), np.ones((1, 3, 64, 64))
    >>> options = {"classes": 8, "side": 64, "width": 1/16, "dropout_rng": rng, "rng": rng, "dtype": "float64"}
    >>> single, two = alexnet(2, **options).eval(), alexnet_towers(2, **options).eval()
    >>> two.load_state(tower_state(single.state(), 2))
    >>> bool(np.allclose(two.forward(x), single.forward(x), rtol=1e-12, atol=0))
    True
    >>> two.crossings   # before conv3, fc6, fc7 and fc8: all activations, half of them each way
    (144, 16, 256, 256)
    """
    count = _tower_spec(towers).n
    where = {"rng": rng, "xp": xp, "dtype": dtype, "device": device}

    def dropout(_: str) -> Layer:
        return Dropout(0.5, rng=dropout_rng, rescale="testing")

    parts = [_tower(towers, t, c_in, classes, side, width, dropout, where) for t in range(count)]
    return Towers(list(zip(*parts, strict=True)))


def alexnet_tower(
    towers: int | str,
    tower: int,
    *,
    c_in: int = 3,
    classes: int = 1000,
    side: int = 224,
    width: float = 1.0,
    rng: np.random.Generator,
    xp: Namespace | None = None,
    dtype: str = "float32",
    device: Any = None,
) -> list[Sequential]:
    """Return the five segments of one tower of :func:`alexnet_towers`, for a process of its own.

    Its dropout layers are :class:`~refconv.nn.dropout.DropoutShare`, which drop the elements that ``alexnet`` drops.

    Parameters
    ----------
    towers : int or str
        As for :func:`alexnet_towers`.
    tower : int
        Number of the tower, from 0.
    c_in, classes, side, width, rng, xp, dtype, device
        As for :func:`alexnet`.
    """
    where = {"rng": rng, "xp": xp, "dtype": dtype, "device": device}
    widths = _tower_widths(towers, width)

    def dropout(name: str) -> Layer:
        features = getattr(widths, name)
        start = sum(tower_sizes(towers, features)[:tower])
        return DropoutShare(0.5, start=start, features=features, rescale="testing")

    return _tower(towers, tower, c_in, classes, side, width, dropout, where)


def tower_sizes(towers: int | str, outputs: int) -> tuple[int, ...]:
    """Return how many outputs of a layer each tower computes: consecutive ones, in the order of the towers.

    Parameters
    ----------
    towers : int or str
        N or "uniform:N": equal shares, or shares that differ by one; "log:N": the sizes of logarithmic groups.
    outputs : int
        Channels, features or classes.

    Raises
    ------
    ValueError, TypeError
        If `towers` is not such a word, or there are too few outputs.

    Examples
    --------
    >>> from refconv.nn.models.alexnet import tower_sizes
    >>> tower_sizes(2, 384), tower_sizes("log:3", 384), tower_sizes(3, 10)
    ((192, 192), (192, 96, 96), (3, 3, 4))
    """
    spec = _tower_spec(towers)
    if spec.kind == "log":
        try:
            return spec.build(outputs, outputs).out_sizes
        except ValueError as error:
            raise ValueError(f"towers={towers} must fit every layer: {error}") from error
    if outputs < spec.n:
        raise ValueError(f"towers={towers} must be at most {outputs}, the outputs of a layer")
    ends = [t * outputs // spec.n for t in range(spec.n + 1)]
    return tuple(stop - start for start, stop in pairwise(ends))


def tower_outputs(towers: int | str, classes: int = 1000, width: float = 1.0) -> dict[str, tuple[int, ...]]:
    """Return how many outputs each tower computes, for every layer with weights.

    Examples
    --------
    >>> from refconv.nn.models.alexnet import tower_outputs
    >>> tower_outputs("log:3")["conv2"], tower_outputs(2)["fc8"]
    ((128, 64, 64), (500, 500))
    """
    outputs = _tower_widths(towers, width)._asdict() | {"fc8": as_int(classes, "classes", 1)}
    return {layer: tower_sizes(towers, n) for layer, n in outputs.items()}


def tower_state(state: Mapping[str, Array], towers: int | str = 2) -> dict[str, Array]:
    """Return the state with which :func:`alexnet_towers` computes the same as a grouped :func:`alexnet`.

    Tower t takes the t-th share of every layer's outputs, which are the rows of its weight and of its bias.

    Parameters
    ----------
    state : mapping of str to array
        ``model.state()`` of ``alexnet(groups=towers)``, or other arrays with its paths and shapes, such as gradients.
    towers : int or str
        As for :func:`alexnet_towers`.

    Returns
    -------
    dict of str to array
        For ``load_state`` of ``alexnet_towers(towers)``. Arrays may share memory with `state`.

    Raises
    ------
    ValueError
        Unless the paths come from ``alexnet(groups=towers)``, and each array has a row for every tower.

    Examples
    --------
    >>> import numpy as np
    >>> {path: rows.tolist() for path, rows in tower_state({"fc8.bias": np.arange(4)}).items()}
    {'4.0.fc8.bias': [0, 1], '4.1.fc8.bias': [2, 3]}
    """
    spec, split = _tower_spec(towers), {}
    for path, array in state.items():
        layer, _, parameter = path.partition(".")
        name, _, group = parameter.partition("[")
        known = layer in _SEGMENT_OF and name in ("weight", "bias") and bool(group) == _in_parts(spec, layer, name)
        if not known or not (group or array.shape[0] >= spec.n):
            raise ValueError(
                f"state must come from alexnet(groups={towers}), with a row for each of {spec.n} towers in every "
                f"array; got {path!r} of shape {tuple(array.shape)}"
            )
        if group:
            split[_tower_path(int(group[:-1]), layer, name)] = array
            continue
        stop = 0
        for t, rows in enumerate(tower_sizes(towers, array.shape[0])):
            split[_tower_path(t, layer, name)] = array[stop : stop + rows, ...]
            stop += rows
    return split


def joined_state(split: Mapping[str, Array], towers: int | str = 2) -> dict[str, Array]:
    """Return the state of ``alexnet(groups=towers)`` from the state of its towers: the inverse of :func:`tower_state`.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn.models.alexnet import joined_state
    >>> joined_state(tower_state({"fc8.bias": np.arange(4)}))
    {'fc8.bias': array([0, 1, 2, 3])}
    """
    spec, joined = _tower_spec(towers), dict[str, Array]()
    for first in [path for path in split if path.split(".")[1] == "0"]:
        _, _, layer, name = first.split(".")
        parts = [split[_tower_path(t, layer, name)] for t in range(spec.n)]
        if _in_parts(spec, layer, name):
            joined |= {f"{layer}.{name}[{t}]": part for t, part in enumerate(parts)}
        else:
            joined[f"{layer}.{name}"] = array_namespace(*parts).concat(parts, axis=0)
    return joined


def _tower_path(tower: int, layer: str, parameter: str) -> str:
    return f"{_SEGMENT_OF[layer]}.{tower}.{layer}.{parameter}"


def _in_parts(spec: GroupSpec, layer: str, parameter: str) -> bool:
    """Return whether the grouped network has one array per group, as it has for the weights of unequal groups."""
    return spec.kind != "uniform" and layer in _GROUPED and parameter == "weight"


def _tower_spec(towers: int | str) -> GroupSpec:
    spec = parse_groups(towers, "towers")
    if spec.kind == "table":
        raise ValueError("towers must be a number N, 'uniform:N' or 'log:N': the groups of the table share channels")
    return spec


def _tower_widths(towers: int | str, width: float) -> _Widths:
    spec = _tower_spec(towers)
    return _scaled(width, spec.n if spec.kind == "uniform" else 1, "towers")


def _tower(
    towers: int | str,
    tower: int,
    c_in: int,
    classes: int,
    side: int,
    width: float,
    dropout: Callable[[str], Layer],
    where: dict[str, Any],
) -> list[Sequential]:
    """Return the segments of one tower."""
    *own, share = (sizes[tower] for sizes in tower_outputs(towers, classes, width).values())
    widths = _tower_widths(towers, width)
    segments = _segments(widths, _Widths(*own), c_in, share, side, as_grouping(1), dropout, where)
    return [Sequential(**layers) for layers in segments]


_GROUPED = ("conv2", "conv4", "conv5")
_SEGMENT_OF = {"conv1": 0, "conv2": 0, "conv3": 1, "conv4": 1, "conv5": 1, "fc6": 2, "fc7": 3, "fc8": 4}


def _scaled(width: float, step: int, name: str) -> _Widths:
    """Return the paper's widths times `width`, rounded to multiples of `step`."""
    width = as_float(width, "width", 0, 2**20)
    if any(n % step for n in _PAPER):
        raise ValueError(f"{name}={step} must divide AlexNet's 96, 256 and 384 channels")
    widths = _Widths(*(as_int(max(1, round(width * n / step)) * step, "width times channels") for n in _PAPER))
    refuse_absurd(f"width={width}: the weight of fc7", (widths.fc6, widths.fc7))
    return widths


def _segments(
    widths: _Widths,
    own: _Widths,
    c_in: int,
    classes: int,
    side: int,
    grouping: Grouping,
    dropout: Callable[[str], Layer],
    where: dict[str, Any],
) -> list[dict[str, Layer]]:
    """Return one tower's layers by name, cut where activations cross; a single tower is the whole network.

    `widths` are the channels that all towers compute together; `own` and `classes` are this tower's.
    """
    side = as_int(side, "side", SMALLEST)
    for window, stride in ((7, 4), (3, 2), (3, 2), (3, 2)):  # conv1, with 11 less twice the padding, and the poolings
        side = (side - window) // stride + 1
    groups = grouping(own.conv1, own.conv2)

    def grouped(name: str, c_in: int, c_out: int, kernel: int) -> dict[str, Layer]:
        chosen = groups if name == "conv2" else grouping(c_in, c_out)
        return conv(name, c_in, c_out, kernel, groups=chosen, padding=kernel // 2, initial_bias=1)

    def conv(name: str, c_in: int, c_out: int, kernel: int, **options: Any) -> dict[str, Layer]:
        return {name: Conv(c_in, c_out, kernel, std=STD, **options, **where), f"relu{name[-1]}": ReLU()}

    def norm(name: str, sizes: Any) -> dict[str, Layer]:
        return {name: LocalResponseNorm(sizes=sizes)}

    def pool(name: str) -> dict[str, Layer]:
        return {name: MaxPool(3, 2)}

    def hidden(name: str, features_in: int, features: int) -> dict[str, Layer]:
        linear = Linear(features_in, features, std=STD, initial_bias=1, **where)
        return {name: linear, f"relu{name[-1]}": ReLU(), f"drop{name[-1]}": dropout(name)}

    read, written = _blocks(groups, own.conv1, own.conv2)
    return [
        conv("conv1", c_in, own.conv1, 11, stride=4, padding=2)
        | norm("norm1", read)
        | pool("pool1")
        | grouped("conv2", own.conv1, own.conv2, 5)
        | norm("norm2", written)
        | pool("pool2"),
        conv("conv3", widths.conv2, own.conv3, 3, padding=1)
        | grouped("conv4", own.conv3, own.conv4, 3)
        | grouped("conv5", own.conv4, own.conv5, 3)
        | pool("pool5"),
        {"flatten": Flatten()} | hidden("fc6", widths.conv5 * side * side, own.fc6),
        hidden("fc7", widths.fc6, own.fc7),
        {"fc8": Linear(widths.fc7, classes, std=STD, **where)},
    ]


def _blocks(groups: int | ChannelGroups, c_in: int, c_out: int) -> tuple[Any, Any]:
    """Return the sizes of the consecutive blocks of channels that the groups read and write, or None for one block."""
    if isinstance(groups, ChannelGroups):
        return (groups.in_sizes, groups.out_sizes) if groups.is_contiguous else (None, None)
    return ((c_in // groups,) * groups, (c_out // groups,) * groups) if groups > 1 else (None, None)
