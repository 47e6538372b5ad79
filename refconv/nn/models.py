"""Models: functions that put layers together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refconv.arrays import Namespace
from refconv.groups import ChannelGroups
from refconv.nn.base import Residual, Sequential
from refconv.nn.layers import Conv, Flatten, Linear, ReLU
from refconv.nn.pooling import MaxPool

Grouping = Callable[[int, int], int | ChannelGroups]
"""Chooses the groups of a convolution from its input and output channels: ``lambda c_in, c_out: 2``."""


def digits_network(
    groups: Grouping,
    *,
    channels: int = 32,
    blocks: int = 2,
    rng: np.random.Generator,
    xp: Namespace | None = None,
    dtype: str = "float32",
    device: Any = None,
) -> Sequential:
    r"""Return a small residual network for 8×8 grey digits, with convolutions grouped as you choose.

    ========================  =================
    layer                     output (N, …)
    ========================  =================
    conv 3×3, ReLU            (channels, 8, 8)
    max pool 2                (channels, 4, 4)
    x + conv 3×3(ReLU(x)),    (channels, 4, 4)
    once per block
    ReLU, flatten, linear     (10,)
    ========================  =================

    Only the convolutions in the blocks are grouped, so that networks with different groups differ in nothing else: the
    first sees a single channel, and the linear layer sees everything. The linear layer's weight starts small, with
    standard deviation 0.01, so that at first all ten classes are nearly as likely. The blocks' weights start at zero:
    at first every block is the identity, whatever its groups.

    Parameters
    ----------
    groups : callable (c_in, c_out) -> int or ChannelGroups
        Chooses the groups of each block's convolution, here always asked with ``(channels, channels)``.
    channels : int
        Channels of every convolution.
    blocks : int
        Residual blocks.
    rng, xp, dtype, device
        As for :class:`refconv.nn.Conv`.

    Returns
    -------
    Sequential
        (N, 1, 8, 8) -> (N, 10) logits.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, or `groups` chooses groups that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import logarithmic_groups
    >>> from refconv.nn import digits_network
    >>> def log3(c_in, c_out):
    ...     return logarithmic_groups(c_in, c_out, 3)
    >>> model = digits_network(log3, rng=np.random.default_rng(0))
    >>> model.forward(np.zeros((5, 1, 8, 8), dtype="float32")).shape
    (5, 10)
    """
    where: dict[str, Any] = {"rng": rng, "xp": xp, "dtype": dtype, "device": device}
    return Sequential(
        Conv(1, channels, 3, padding=1, **where),
        ReLU(),
        MaxPool(2),
        *(
            Residual(
                ReLU(), Conv(channels, channels, 3, groups=groups(channels, channels), padding=1, std=0.0, **where)
            )
            for _ in range(blocks)
        ),
        ReLU(),
        Flatten(),
        Linear(channels * 4 * 4, 10, std=0.01, **where),
    )
