"""LeNet-5, whose layer C3 has the first channel groups, unequal and overlapping."""

from __future__ import annotations

from typing import Any

import numpy as np

from refconv.arrays import Namespace
from refconv.integers import as_int
from refconv.nn.layers import Conv, Flatten, Linear, Scale, Tanh
from refconv.nn.models.grouping import Grouping, as_grouping
from refconv.nn.pooling import AvgPool
from refconv.nn.sequential import Sequential

SMALLEST = 32
"""The paper's side, for which C5 has one position."""


def lenet5(
    groups: int | str | Grouping = "table",
    *,
    c_in: int = 1,
    classes: int = 10,
    side: int = 32,
    rng: np.random.Generator,
    xp: Namespace | None = None,
    dtype: str = "float32",
    device: Any = None,
) -> Sequential:
    r"""Return LeNet-5, with layer C3 connected by the paper's table or in other groups.

    ======================================  =================  ==========
    layer                                   output, side 32    parameters
    ======================================  =================  ==========
    C1: conv 5×5                            (6, 28, 28)        156
    S2: means of 2×2, scale per map         (6, 14, 14)        12
    C3: conv 5×5, 16 groups of one map      (16, 10, 10)       1,516
    S4: as S2                               (16, 5, 5)         32
    C5: conv 5×5                            (120, 1, 1)        48,120
    F6: linear                              (84,)              10,164
    output: linear                          (`classes`,)       850
    ======================================  =================  ==========

    Every layer except the last ends in the paper's sigmoid, 1.7159·tanh(2x/3), named after the layer, such as C1_tanh.
    In S2 and S4 each map has a trained coefficient and bias. The paper's coefficient multiplies the sum of four
    elements, here it multiplies their mean.

    One thing differs from the paper. The paper's output layer measures distances from F6 to a fixed picture of each
    digit, 7×12 pixels of ±1 drawn by hand, which would not exist for other classes. Here the output layer is linear,
    with 850 trained parameters in addition to the paper's 60,000 (which :func:`refconv.cost.lenet5` counts), and the
    loss is a softmax cross-entropy. Initial weights are as for :class:`refconv.nn.Conv`, but with standard deviation
    0.01 in the output layer, so that initially all classes are about equally likely.

    Parameters
    ----------
    groups : int, str, or callable (c_in, c_out) -> int or ChannelGroups
        Groups of C3: a number, a word for :func:`refconv.cost.parse_groups`, or a function that chooses them, called
        with ``(6, 16)``. "table" is the paper's.
    c_in, classes, side : int
        Channels of the images, number of classes, and height and width, at least 32.
    rng, xp, dtype, device
        As for :class:`refconv.nn.Conv`.

    Returns
    -------
    Sequential
        (N, c_in, side, side) -> (N, classes) logits.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, or the groups do not fit 6 and 16 channels.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE 86
    (1998), section II.B, table I and appendix A.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import lenet5
    >>> model = lenet5(rng=np.random.default_rng(0))
    >>> sum(parameter.value.size for parameter in model.parameters())
    60850
    >>> model.forward(np.zeros((5, 1, 32, 32), dtype="float32")).shape
    (5, 10)
    """
    where: dict[str, Any] = {"rng": rng, "xp": xp, "dtype": dtype, "device": device}
    place: dict[str, Any] = {"xp": xp, "dtype": dtype, "device": device}
    side = ((as_int(side, "side", SMALLEST) - 4) // 2 - 4) // 2 - 4  # C5's

    def tanh() -> Tanh:
        return Tanh(amplitude=1.7159, slope=2 / 3)

    return Sequential(
        C1=Conv(c_in, 6, 5, **where),
        C1_tanh=tanh(),
        S2=Sequential(mean=AvgPool(2), scale=Scale(6, **place)),
        S2_tanh=tanh(),
        C3=Conv(6, 16, 5, groups=as_grouping(groups)(6, 16), **where),
        C3_tanh=tanh(),
        S4=Sequential(mean=AvgPool(2), scale=Scale(16, **place)),
        S4_tanh=tanh(),
        C5=Conv(16, 120, 5, **where),
        C5_tanh=tanh(),
        flatten=Flatten(),
        F6=Linear(120 * side * side, 84, **where),
        F6_tanh=tanh(),
        output=Linear(84, classes, std=0.01, **where),
    )
