"""A residual network for small images, with any channel groups."""

from __future__ import annotations

import string
from typing import Any

import numpy as np

from refconv.arrays import Namespace
from refconv.groups import MAX_CHANNELS
from refconv.integers import as_int
from refconv.nn.base import Layer
from refconv.nn.layers import Conv, Flatten, Linear, ReLU, convolution_weights
from refconv.nn.models.grouping import Grouping, as_grouping
from refconv.nn.pooling import MaxPool
from refconv.nn.sequential import Residual, Sequential
from refconv.shapes import refuse_absurd


def residual_network(
    groups: int | str | Grouping = "log:3",
    *,
    channels: int = 32,
    blocks: int = 2,
    c_in: int = 1,
    classes: int = 10,
    side: int = 8,
    rng: np.random.Generator,
    xp: Namespace | None = None,
    dtype: str = "float32",
    device: Any = None,
) -> Sequential:
    r"""Return a residual network for small square images, with any channel groups in its convolutions.

    ============================  =============================
    layer                         output (N, …)
    ============================  =============================
    conv 3×3, ReLU                (channels, side, side)
    a stage for each halving of
    the side, down to 4:
    max pool 2                    (channels, side/2, side/2)
    x + conv 3×3(ReLU(x)),        the same
    `blocks` times
    ReLU, flatten, linear         (classes,)
    ============================  =============================

    Lee et al. propose the module x + conv(ReLU(x)) with logarithmic groups. How they assemble their networks is not
    known here. This network repeats the module to any depth (`blocks`) and width (`channels`).

    Only the convolutions in the blocks are grouped, so that networks with different groups differ in nothing else. The
    first convolution reads all of the image's channels, and the linear layer reads everything. The linear layer's
    initial weight is small, with standard deviation 0.01, so that initially all classes are about equally likely. The
    blocks' initial weights are zero, so that initially every block is the identity, for all groups.

    Parameters
    ----------
    groups : int, str, or callable (c_in, c_out) -> int or ChannelGroups
        Groups of each block's convolution: a number, a word for :func:`refconv.cost.parse_groups`, or a function that
        chooses them, called with ``(channels, channels)``.
    channels : int
        Channels of every convolution, at most 2^24.
    blocks : int
        Residual modules per stage.
    c_in, classes, side : int
        Channels of the images, number of classes, and height and width, at least 4. Halving an odd side rounds down.
    rng, xp, dtype, device
        As for :class:`refconv.nn.Conv`.

    Returns
    -------
    Sequential
        (N, c_in, side, side) -> (N, classes) logits.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, or the groups do not fit.

    References
    ----------
    H. Lee, W. J. Baddar, H. G. Kim, Y. M. Ro, "Convolution with Logarithmic Filter Groups for Efficient Shallow CNN",
    arXiv 1707.09855.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import residual_network
    >>> model = residual_network("log:3", side=16, rng=np.random.default_rng(0))
    >>> list(model.children())
    ['conv', 'relu', 'pool1', 'block1a', 'block1b', 'pool2', 'block2a', 'block2b', 'last', 'flatten', 'linear']
    >>> model.forward(np.zeros((5, 1, 16, 16), dtype="float32")).shape
    (5, 10)
    """
    where: dict[str, Any] = {"rng": rng, "xp": xp, "dtype": dtype, "device": device}
    grouping = as_grouping(groups)
    channels = as_int(channels, "channels", 1, MAX_CHANNELS)
    blocks, side = as_int(blocks, "blocks", 0, 26), as_int(side, "side", 4)
    if blocks and side >= 8:  # before the other weights, which take a while to draw
        for _, shape, _ in convolution_weights(grouping(channels, channels), channels, channels, (3, 3), False):
            refuse_absurd(f"channels={channels}: the weight of a block", shape)
    layers: dict[str, Layer] = {"conv": Conv(c_in, channels, 3, padding=1, **where), "relu": ReLU()}
    stage = 0
    while side >= 8:
        stage, side = stage + 1, side // 2
        layers[f"pool{stage}"] = MaxPool(2)
        for letter in string.ascii_lowercase[:blocks]:
            grouped = Conv(channels, channels, 3, groups=grouping(channels, channels), padding=1, std=0.0, **where)
            layers[f"block{stage}{letter}"] = Residual(relu=ReLU(), conv=grouped)
    layers |= {"last": ReLU(), "flatten": Flatten()}
    layers["linear"] = Linear(channels * side * side, classes, std=0.01, **where)
    return Sequential(**layers)
