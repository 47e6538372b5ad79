"""The problem on which a function is read out: small, with every supported feature and unequal sizes."""

from __future__ import annotations

from collections.abc import Sequence

from refconv.testing.oracles.problems import Problem

AXES = ((3, 2, 3, (3, 1), 5, 0), (2, 5, 2, (2, 1), 3, 2))
"""Kernel, stride, dilation, padding, positions, and the elements left over, of each axis of a plane.

On the first axis windows overlap. The numbers are chosen so that common mistakes give different sizes and lines: a
padding differs from the stride less 1, and from the dilation less 1.
"""
SPACE = ((3, 2, 3, (3, 1), 4, 0), (2, 3, 2, (1, 0), 2, 2), (1, 2, 1, (0, 0), 2, 1), (1, 1, 1, (0, 0), 2, 0))
"""The same for three axes or more, with fewer elements; the last is repeated."""


def standard_problem(spatial_dims: int = 2, supports: Sequence[str] = (), transposed: bool = False) -> Problem:
    """Return the problem on which :func:`explain_conv` reads a function out.

    Parameters
    ----------
    spatial_dims : int
        Number of spatial axes.
    supports : sequence of str
        What the function supports, as for :func:`refconv.testing.check_conv`. The problem uses everything in it.
    transposed : bool
        Whether the convolution is transposed.

    Returns
    -------
    Problem
        Two samples, up to six channels, and sizes that differ wherever `supports` allows it.

    Examples
    --------
    >>> problem = standard_problem(2, ("stride", "padding", "dilation", "groups"))
    >>> problem.x_shape, problem.weight_shape, problem.output_shape
    ((2, 6, 9, 11), (4, 3, 3, 2), (2, 4, 5, 3))
    """
    equal = "equal_axes" in supports
    table = AXES[:1] if spatial_dims == 1 or equal else AXES if spatial_dims == 2 else SPACE
    axes = [table[min(a, len(table) - 1)] for a in range(spatial_dims)]
    strides = [axis[1] if "stride" in supports else 1 for axis in axes]
    dilations = [axis[2] if "dilation" in supports else 1 for axis in axes]
    if "stride_or_dilation" in supports and max(strides) > 1:
        dilations = [1] * spatial_dims
    size, pads, rests = [], [], []
    for index, (kernel, _, _, (before, after), positions, rest) in enumerate(axes):
        stride, dilation = strides[index], dilations[index]
        pad = (0, 0)
        if "padding" in supports:
            pad = (before, before)
        if "asymmetric_padding" in supports:
            pad = (before, after)
        count = max(2, positions - index) if equal else positions
        span = dilation * (kernel - 1) + 1
        if transposed:
            rest, count = index + 1, count - (spatial_dims == 2 and index == 0)
            rests.append(min(rest, max(stride, dilation) - 1) if "output_padding" in supports else 0)
            size.append(count)
        else:
            size.append((count - 1) * stride + span + min(rest, stride - 1) - sum(pad))
        pads.append(pad)
    groups = 2 if "groups" in supports else 1
    c_in, c_out = (2 * groups, 3 * groups) if transposed else (3 * groups, 2 * groups)
    if "depthwise_only" in supports:
        groups = 3
        c_in, c_out = 3, 6
    return Problem(
        batch=2,
        c_in=c_in,
        c_out=c_out,
        size=tuple(size),
        kernel=tuple(axis[0] for axis in axes),
        stride=tuple(strides),
        dilation=tuple(dilations),
        padding=tuple(pads),
        groups=groups,
        output_padding=tuple(rests) if transposed else (),
        transposed=transposed,
        bias="bias" in supports,
    )
