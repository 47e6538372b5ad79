"""The problem on which a function is read out: small, with every supported feature and unequal sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from refconv.testing.checker.cases import passed_padding
from refconv.testing.oracles.problems import Problem

LINE = ((6, 4, 3, (7, 4), 7, 1, 2),)
"""Kernel, stride, dilation, padding, positions, elements left over, and output padding, of the axis of a line."""
AXES = ((3, 2, 3, (4, 6), 5, 1, 1), (2, 8, 6, (1, 5), 3, 2, 3))
"""The same for each axis of a plane.

On the first axis windows overlap. The numbers are chosen so that common mistakes give different sizes and lines: no two
of the causes in :func:`refconv.testing.explain.causes.shift_causes` have the same numbers on both axes.
"""
SQUARE = ((3, 2, 3, (3, 5), 5, 0, 2),)
"""The same for all axes of a function that takes one number for all of them."""
SPACE = (
    (2, 3, 2, (2, 4), 4, 0, 1),
    (3, 2, 5, (6, 7), 4, 1, 2),
    (4, 5, 3, (3, 5), 2, 2, 3),
    (1, 1, 1, (0, 0), 2, 0, 0),
)
"""The same for three axes or more; the last is repeated.

The first three axes have different kernels, strides, dilations and paddings, none of them 0 or 1, here and on the
problem that `another` makes of them: no other cause gives a number of another axis on both.
"""


def standard_problem(spatial_dims: int = 2, supports: Sequence[str] = (), transposed: bool = False) -> Problem:
    """Return the problem on which :func:`refconv.testing.explain_conv` reads a function out.

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
        Three samples, up to eight channels, and sizes that differ wherever `supports` allows it.

    Examples
    --------
    >>> problem = standard_problem(2, ("stride", "padding", "dilation", "groups"))
    >>> problem.x_shape, problem.weight_shape, problem.output_shape
    ((3, 8, 8, 23), (4, 4, 3, 2), (3, 4, 5, 3))
    """
    equal = "equal_axes" in supports
    table = SQUARE if equal else {1: LINE, 2: AXES}.get(spatial_dims, SPACE)
    axes = [table[min(a, len(table) - 1)] for a in range(spatial_dims)]
    strides = [axis[1] if "stride" in supports else 1 for axis in axes]
    dilations = [axis[2] if "dilation" in supports else 1 for axis in axes]
    if "stride_or_dilation" in supports and max(strides) > 1:
        dilations = [1] * spatial_dims
    size, pads, rests = [], [], []
    for index, (kernel, _, _, (before, after), positions, left, extra) in enumerate(axes):
        stride, dilation = strides[index], dilations[index]
        span = dilation * (kernel - 1) + 1
        pad = (0, 0)
        count = max(2, positions - index) if equal else positions
        if "padding" in supports:  # no window is in the padding alone, and x has at least as many elements as y
            fewest = max(2, positions - spatial_dims + 1) if equal else count  # equal axes share the smallest padding
            most = min(span - 1, ((fewest - 1) * stride + span - fewest) // 2)
            before, after = min(before, most), min(after, most)
            pad = (before, after if "asymmetric_padding" in supports else before)
        if transposed:
            rests.append(min(extra, max(stride, dilation) - 1) if "output_padding" in supports else 0)
            size.append(count)
        else:
            size.append((count - 1) * stride + span + min(left, stride - 1) - sum(pad))
        pads.append(pad)
    causal = "causal" in supports and not {"padding", "asymmetric_padding"} & set(supports)
    groups = 4 if "depthwise_only" in supports else 2 if "groups" in supports else 1
    c_in, c_out = (2 * groups, 4 * groups) if transposed else (4 * groups, 2 * groups)
    if "depthwise_only" in supports:
        c_in, c_out = groups, 2 * groups
    return Problem(
        batch=3,
        c_in=c_in,
        c_out=c_out,
        size=tuple(size),
        kernel=tuple(axis[0] for axis in axes),
        stride=tuple(strides),
        dilation=tuple(dilations),
        padding="causal" if causal else tuple(pads),
        groups=groups,
        output_padding=tuple(rests) if transposed else (),
        transposed=transposed,
        bias="bias" in supports,
    )


def another(problem: Problem, less_padding: bool = False) -> Problem:
    """Return a problem with other numbers, on which the cause of a mistake must show again.

    Every number above 1 changes: no kernel keeps its parity, and no two counts that factors come from keep their ratio.
    A 1 (or a padding or a remainder of 0) stays, and axes that are equal stay equal. With less padding, windows that
    start too early still reach the image.

    Examples
    --------
    >>> other = another(standard_problem(2, ("stride", "padding", "dilation", "groups")))
    >>> other.x_shape, other.weight_shape, other.output_shape, other.stride, other.dilation
    ((2, 9, 12, 29), (12, 3, 4, 3), (2, 12, 6, 4), (3, 7), (2, 5))
    """

    def changed(number: int, step: int = 1) -> int:
        return number + step if number == 2 else max(1, number - 1)

    groups = changed(problem.n_groups)
    c_in, c_out = (groups * changed(c // problem.n_groups, 2) for c in (problem.c_in, problem.c_out))
    kernel = tuple(k + (k > 1) for k in problem.kernel)
    stride, dilation = tuple(map(changed, problem.stride)), tuple(map(changed, problem.dilation))
    spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    lines = list(zip(problem.kernel, problem.stride, problem.dilation, problem.pairs, strict=True))
    more = [2 + a * (len(set(lines)) > 1) for a in range(len(lines))]
    pads = tuple(
        (min(w, b + m) if b else 0, min(w, a + m) if a else 0)
        for (b, a), w, m in zip(problem.pairs, spans, more, strict=True)
    )
    if less_padding:
        pads = tuple((min(b, 1 + a), min(c, 1 + a)) for a, (b, c) in enumerate(pads))
    if isinstance(problem.padding, str):  # "causal"
        pads = tuple((w, 0) for w in spans)
    if problem.transposed:
        size = tuple(map(changed, problem.size))
    else:
        counts = [n + (n > 1) for n in problem.output_size]
        size = tuple(
            max(1, (n - 1) * s + w + 1 + min(s - 1, {0: 0, 1: 2, 2: 5}.get(r, r - 1)) - sum(pair))
            for n, s, w, r, pair in zip(counts, stride, spans, remainders(problem), pads, strict=True)
        )
    extra = tuple(
        min(changed(r), max(s, d) - 1) if r else 0
        for r, s, d in zip(problem.output_padding, stride, dilation, strict=False)
    )
    return replace(
        problem, batch=problem.batch and changed(problem.batch), c_in=c_in, c_out=c_out, size=size, kernel=kernel,
        stride=stride, dilation=dilation, padding=problem.padding if isinstance(problem.padding, str) else pads,
        groups=groups, output_padding=extra,
    )  # fmt: skip


def remainders(problem: Problem) -> list[int]:
    """Return for each axis how many elements the stride leaves over at the end; 0 for a transposed convolution.

    >>> remainders(standard_problem(2, ("stride", "padding", "dilation", "groups")))
    [1, 2]
    """
    if problem.transposed:
        return [0] * problem.spatial_dims
    axes = zip(problem.size, problem.kernel, problem.dilation, problem.pairs, problem.stride, strict=True)
    return [(n + sum(pair) - d * (k - 1) - 1) % s for n, k, d, pair, s in axes]


def shown(problem: Problem) -> str:
    """Return the shapes and numbers of a problem."""
    equal = all(before == after for before, after in problem.pairs)
    padding = passed_padding(problem, () if equal else ("asymmetric_padding",))
    steps = f"stride={problem.stride} padding={padding} dilation={problem.dilation} groups={problem.groups}"
    extra = f" output_padding={problem.output_padding}" if any(problem.output_padding) else ""
    return f"x{problem.x_shape} weight{problem.weight_shape} {steps}{extra}"
