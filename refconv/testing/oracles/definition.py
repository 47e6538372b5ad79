"""Convolution by its definition: one loop over output positions, one over kernel taps, and a sum.

Everything here is slow, and plain enough to verify by reading. It shares the reading of arguments
(:mod:`refconv.integers`) with the implementation under test, but no arithmetic: it computes even paddings and output
sizes itself.
Layout is channels first and batched, (N, C, D1, …, Dd) with weights (K, C/G, k1, …, kd); transposed weights are
(C, K/G, k1, …, kd).

With E the input extended to infinity by the padding mode, and the kernel not flipped and not conjugated,

    y[n, k, o] = bias[k] + Σ_{c, t}  w[k, c, t] · E[n, c, o·stride + t·dilation − before]

and, because E copies every element of x to some positions, the adjoints are the same sum read the other way:

    grad_x[n, c, i] = Σ_{k, o, t : position of (o, t) shows i}  conj(w[k, c, t]) · g[n, k, o]
    grad_w[k, c, t] = Σ_{n, o}                                  conj(E[n, c, position of (o, t)]) · g[n, k, o]
    grad_bias[k]    = Σ_{n, o}                                  g[n, k, o]

Floating-point data is summed in float64 (or wider, if it is given wider) and rounded once to the operands'
data type, or to `output_dtype`, so that integer-valued data gives exact results. Integers are summed in 64 bits and
wrap around to the result's data type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from refconv.integers import padding_pairs, per_axis

Array = Any
"""A NumPy array (``Any``, because a type checker cannot follow ``x[:, channels, *position]``)."""
Index = tuple[int, ...]
PerAxis = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[tuple[int, int]]
Groups = int | Sequence[tuple[Sequence[int], Sequence[int]]]
"""A number of groups, or for each group a pair (input channels that it reads, output channels that it writes)."""
Weight = Array | Sequence[Array]
"""One array (groups in order along its first axis), or one array per group."""


# Sizes, paddings and positions of one axis or of all of them


def output_size(padded: int, kernel: int, stride: int, dilation: int) -> int:
    """Return the number of windows that fit in one padded axis, by counting their starts.

    >>> output_size(7, 3, 2, 1), output_size(8, 3, 2, 1), output_size(2, 3, 1, 1)
    (3, 3, 0)
    """
    last_start = padded - 1 - dilation * (kernel - 1)
    return len(range(0, last_start + 1, stride))


def paddings(
    padding: Padding,
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> tuple[tuple[int, int], ...]:
    """Return (before, after) for each axis.

    >>> paddings("same", (7,), (4,), (2,), (1,)), paddings("same_lower", (7,), (4,), (2,), (1,))
    (((1, 2),), ((2, 1),))
    >>> paddings("causal", (7,), (4,), (2,), (3,))
    ((9, 0),)
    """
    pads = padding_pairs(padding, len(size))
    if not isinstance(pads, str):
        return pads
    pairs = []
    for n, k, s, dil in zip(size, kernel, stride, dilation, strict=True):
        if pads == "causal":  # the last tap of each window is at the output's own position
            pairs.append((dil * (k - 1), 0))
            continue
        wanted = len(range(0, n, s))  # ceil(n / stride) windows, the last of which starts at (wanted − 1)·stride
        total = max(0, (wanted - 1) * s + dil * (k - 1) + 1 - n)
        less, more = total // 2, total - total // 2
        pairs.append({"same": (less, more), "same_lower": (more, less)}[pads])
    return tuple(pairs)


def source(position: int, n: int, mode: str) -> int | None:
    """Return the element, from 0 to n − 1, at a position of an axis extended to infinity, or None for a zero.

    >>> [source(p, 4, "reflect") for p in range(-3, 7)]
    [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]
    >>> [source(p, 2, "circular") for p in range(-2, 4)], [source(p, 2, "replicate") for p in range(-2, 4)]
    ([0, 1, 0, 1, 0, 1], [0, 0, 0, 1, 1, 1])
    """
    if 0 <= position < n:
        return position
    if mode == "zeros":
        return None
    if mode == "replicate":
        return 0 if position < 0 else n - 1
    if mode == "circular":
        return position % n
    if mode != "reflect":
        raise ValueError(f"unknown padding mode {mode!r}")
    period = 2 * (n - 1)  # 0 1 2 3 2 1 | 0 1 2 3 2 1 | …
    position = position % period if period else 0
    return position if position < n else period - position


def output_sizes(
    size: Sequence[int],
    kernel: Sequence[int],
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
) -> Index:
    """Return the spatial output sizes of a convolution.

    >>> output_sizes((227, 227), (11, 11), stride=4)
    (55, 55)
    """
    strides, dilations = per_axis(stride, "stride", len(size)), per_axis(dilation, "dilation", len(size))
    pads = paddings(padding, size, kernel, strides, dilations)
    axes = zip(size, pads, kernel, strides, dilations, strict=True)
    return tuple(output_size(n + before + after, k, s, dil) for n, (before, after), k, s, dil in axes)


def transposed_output_sizes(
    size: Sequence[int],
    kernel: Sequence[int],
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    output_size: PerAxis | None = None,
    dilation: PerAxis = 1,
) -> Index:
    """Return the spatial output sizes of a transposed convolution.

    A convolution with the same padding maps an image of these sizes to `size`. Of all sizes that it maps to n, "same"
    and "same_lower" choose n·stride; its padding of that image is the crop.

    >>> transposed_output_sizes((3,), (3,), stride=2)
    (7,)
    >>> transposed_output_sizes((3,), (3,), stride=2, output_padding=1)
    (8,)
    >>> transposed_output_sizes((3,), (3,), stride=2, padding="same")
    (6,)
    """
    d = len(size)
    if output_size is not None:
        return per_axis(output_size, "output_size", d)
    strides, dilations = per_axis(stride, "stride", d), per_axis(dilation, "dilation", d)
    if padding in ("same", "same_lower"):
        return tuple(n * s for n, s in zip(size, strides, strict=True))
    extras = per_axis(output_padding, "output_padding", d)
    pads = paddings(padding, size, kernel, strides, dilations)
    axes = zip(size, pads, kernel, strides, dilations, extras, strict=True)
    return tuple((n - 1) * s + dil * (k - 1) + 1 + extra - b - a for n, (b, a), k, s, dil, extra in axes)


def _reads(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    mode: str,
) -> Iterator[tuple[Index, Index, Index | None]]:
    """Yield (output position o, kernel tap t, input position that they read, or None for a padded zero)."""
    strides, dilations = per_axis(stride, "stride", len(size)), per_axis(dilation, "dilation", len(size))
    pads = paddings(padding, size, kernel, strides, dilations)
    for o in np.ndindex(output_sizes(size, kernel, stride=stride, padding=padding, dilation=dilation)):
        for t in np.ndindex(*kernel):
            axes = zip(o, t, strides, dilations, pads, size, strict=True)
            i = [source(oj * s + tj * dil - before, n, mode) for oj, tj, s, dil, (before, _), n in axes]
            yield o, t, None if None in i else tuple(j for j in i if j is not None)


def _writes(
    size: Sequence[int],
    kernel: Sequence[int],
    outputs: Sequence[int],
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
) -> Iterator[tuple[Index, Index, Index]]:
    """Yield (input position l, kernel tap t, output position p to which their product is added)."""
    strides, dilations = per_axis(stride, "stride", len(size)), per_axis(dilation, "dilation", len(size))
    pads = paddings(padding, outputs, kernel, strides, dilations)
    for i in np.ndindex(*size):
        for t in np.ndindex(*kernel):
            axes = zip(i, t, strides, dilations, pads, strict=True)
            p = tuple(ij * s + tj * dil - before for ij, tj, s, dil, (before, _) in axes)
            if all(0 <= pj < n for pj, n in zip(p, outputs, strict=True)):
                yield i, t, p


# Groups and data types


def channel_lists(groups: Groups, c_in: int, c_out: int) -> list[tuple[list[int], list[int]]]:
    """Return, for each group, the input channels that it reads and the output channels that it writes.

    >>> channel_lists(2, 4, 6)
    [([0, 1], [0, 1, 2]), ([2, 3], [3, 4, 5])]
    """
    if not isinstance(groups, int | np.integer):
        return [(list(ins), list(outs)) for ins, outs in groups]
    a, b = c_in // groups, c_out // groups
    return [(list(range(g * a, g * a + a)), list(range(g * b, g * b + b))) for g in range(groups)]


def _per_group(weight: Weight, first_sizes: Sequence[int]) -> list[Array]:
    """Return one weight array per group; a single array contains the groups in order along its first axis."""
    if isinstance(weight, np.ndarray):
        return np.split(weight, np.cumsum(first_sizes)[:-1])
    return list(weight)


def _working(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.int64) if dtype.kind in "iu" else np.result_type(dtype, np.float64)


def _round(result: Array, dtype: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        return result.astype(dtype)


def _with_bias(y: Array, bias: Array | None) -> Array:
    return y if bias is None else y + bias.astype(y.dtype).reshape(-1, *[1] * (y.ndim - 2))


# The convolution and its gradients


def definition_conv(
    x: Array,
    weight: Weight,
    bias: Array | None = None,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: Groups = 1,
    padding_mode: str = "zeros",
    output_dtype: Any = None,
) -> Array:
    """Convolve (cross-correlate) by the definition.

    Parameters
    ----------
    x : numpy.ndarray
        (N, C, D1, …, Dd).
    weight : numpy.ndarray or sequence of numpy.ndarray
        (K, C/G, k1, …, kd), or for each group an array (its outputs, its inputs, k1, …, kd).
    bias : numpy.ndarray, optional
        (K,).
    stride, padding, dilation, padding_mode, output_dtype
        As in :func:`refconv.conv`.
    groups : int or sequence of pairs
        A number of equal groups, or a list of (input channels, output channels) for each group.

    Returns
    -------
    numpy.ndarray
        (N, K, o1, …, od). Padded zeros are multiplied like other numbers: ∞ · 0 is NaN.

    Examples
    --------
    >>> definition_conv(np.array([[[1, 2, 3]]]), np.array([[[10, 1]]]))
    array([[[12, 23]]])
    """
    size, work = x.shape[2:], _working(x.dtype)
    kernel, c_out = _kernel(weight), _channels(weight, 0)
    lists = channel_lists(groups, x.shape[1], c_out)
    parts = _per_group(weight, [len(outs) for _, outs in lists])
    outputs = output_sizes(size, kernel, stride=stride, padding=padding, dilation=dilation)
    y: Array = np.zeros((len(x), c_out, *outputs), work)
    triples = list(_reads(size, kernel, stride, padding, dilation, padding_mode))
    with np.errstate(invalid="ignore", over="ignore"):
        for (ins, outs), w in zip(lists, parts, strict=True):
            for o, t, i in triples:
                shown = _shown(x, ins, i).astype(work)
                y[:, outs, *o] += shown @ w[..., *t].astype(work).T
        return _round(_with_bias(y, bias), np.dtype(output_dtype or x.dtype))


def definition_input_grad(
    grad_output: Array,
    weight: Weight,
    input_shape: Sequence[int],
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: Groups = 1,
    padding_mode: str = "zeros",
) -> Array:
    """Return the gradient of :func:`definition_conv` with respect to x, from its index sum.

    Examples
    --------
    >>> definition_input_grad(np.array([[[1, 1]]]), np.array([[[10, 1]]]), (1, 1, 3))
    array([[[10, 11,  1]]])
    """
    g, size, work = grad_output, tuple(input_shape[2:]), _working(grad_output.dtype)
    lists = channel_lists(groups, input_shape[1], g.shape[1])
    parts = _per_group(weight, [len(outs) for _, outs in lists])
    grad_x: Array = np.zeros(tuple(input_shape), work)
    triples = list(_reads(size, _kernel(weight), stride, padding, dilation, padding_mode))
    with np.errstate(invalid="ignore", over="ignore"):
        for (ins, outs), w in zip(lists, parts, strict=True):
            for o, t, i in triples:
                if i is not None:
                    upstream = g[:, outs, *o].astype(work)
                    grad_x[:, ins, *i] += upstream @ w[..., *t].astype(work).conj()
        return _round(grad_x, g.dtype)


def definition_weight_grad(
    grad_output: Array,
    x: Array,
    kernel_size: Sequence[int],
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: Groups = 1,
    padding_mode: str = "zeros",
) -> Array | tuple[Array, ...]:
    """Return the gradient of :func:`definition_conv` with respect to the weight, from its index sum.

    The result is one array if `groups` is a number, else one array per group.

    Examples
    --------
    >>> definition_weight_grad(np.array([[[1, 10]]]), np.array([[[1, 2, 3]]]), (2,))
    array([[[21, 32]]])
    """
    g, kernel, work = grad_output, tuple(kernel_size), _working(grad_output.dtype)
    triples = list(_reads(x.shape[2:], kernel, stride, padding, dilation, padding_mode))
    grads = []
    with np.errstate(invalid="ignore", over="ignore"):
        for ins, outs in channel_lists(groups, x.shape[1], g.shape[1]):
            grad_w: Array = np.zeros((len(outs), len(ins), *kernel), work)
            for o, t, i in triples:
                upstream = g[:, outs, *o].astype(work)
                grad_w[..., *t] += upstream.T @ _shown(x, ins, i).astype(work).conj()
            grads.append(_round(grad_w, g.dtype))
    return np.concatenate(grads) if isinstance(groups, int | np.integer) else tuple(grads)


def definition_bias_grad(grad_output: Array) -> Array:
    """Return the gradient with respect to the bias, which every output position of a channel contains once.

    Examples
    --------
    >>> definition_bias_grad(np.array([[[1, 10], [2, 20]], [[100, 0], [0, 0]]]))
    array([111,  22])
    """
    work = _working(grad_output.dtype)
    grad_bias = np.zeros(grad_output.shape[1], work)
    with np.errstate(invalid="ignore", over="ignore"):
        for o in np.ndindex(grad_output.shape[2:]):
            for sample in grad_output[..., *o].astype(work):
                grad_bias += sample
        return _round(grad_bias, grad_output.dtype)


# The transposed convolution and its gradients


def definition_conv_transpose(
    x: Array,
    weight: Weight,
    bias: Array | None = None,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    output_size: PerAxis | None = None,
    dilation: PerAxis = 1,
    groups: Groups = 1,
    output_dtype: Any = None,
) -> Array:
    """Convolve transposed, by the definition.

    y[n, k, p] = bias[k] + Σ { x[n, c, l] · w[c, k, t] : p = l·stride + t·dilation − before }

    Parameters
    ----------
    x : numpy.ndarray
        (N, C, D1, …, Dd).
    weight : numpy.ndarray or sequence of numpy.ndarray
        (C, K/G, k1, …, kd), or for each group an array (its inputs, its outputs, k1, …, kd).
    bias : numpy.ndarray, optional
        (K,).
    stride, padding, output_padding, output_size, dilation, output_dtype
        As in :func:`refconv.conv_transpose`.
    groups : int or sequence of pairs
        A number of equal groups, or a list of (input channels, output channels) for each group.

    Returns
    -------
    numpy.ndarray
        (N, K, p1, …, pd).

    Examples
    --------
    >>> definition_conv_transpose(np.array([[[1, 2]]]), np.array([[[10, 1]]]), stride=2)
    array([[[10,  1, 20,  2]]])
    """
    kernel, work = _kernel(weight), _working(x.dtype)
    c_out = _transposed_outputs(weight, groups)
    lists = channel_lists(groups, x.shape[1], c_out)
    parts = _per_group(weight, [len(ins) for ins, _ in lists])
    outputs = transposed_output_sizes(
        x.shape[2:], kernel, stride=stride, padding=padding, output_padding=output_padding, output_size=output_size,
        dilation=dilation,
    )  # fmt: skip
    y: Array = np.zeros((len(x), c_out, *outputs), work)
    triples = list(_writes(x.shape[2:], kernel, outputs, stride, padding, dilation))
    with np.errstate(invalid="ignore", over="ignore"):
        for (ins, outs), w in zip(lists, parts, strict=True):
            for i, t, p in triples:
                y[:, outs, *p] += x[:, ins, *i].astype(work) @ w[..., *t].astype(work)
        return _round(_with_bias(y, bias), np.dtype(output_dtype or x.dtype))


def definition_transpose_input_grad(
    grad_output: Array,
    weight: Weight,
    input_shape: Sequence[int],
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: Groups = 1,
) -> Array:
    """Return the gradient of :func:`definition_conv_transpose` with respect to x, from its index sum.

    Examples
    --------
    >>> grad_output, weight = np.array([[[1, 2, 3, 4]]]), np.array([[[10, 1]]])
    >>> definition_transpose_input_grad(grad_output, weight, (1, 1, 2), stride=2)
    array([[[12, 34]]])
    """
    g, size, work = grad_output, tuple(input_shape[2:]), _working(grad_output.dtype)
    lists = channel_lists(groups, input_shape[1], g.shape[1])
    parts = _per_group(weight, [len(ins) for ins, _ in lists])
    grad_x: Array = np.zeros(tuple(input_shape), work)
    triples = list(_writes(size, _kernel(weight), g.shape[2:], stride, padding, dilation))
    with np.errstate(invalid="ignore", over="ignore"):
        for (ins, outs), w in zip(lists, parts, strict=True):
            for i, t, p in triples:
                upstream = g[:, outs, *p].astype(work)
                grad_x[:, ins, *i] += upstream @ w[..., *t].astype(work).conj().T
        return _round(grad_x, g.dtype)


def definition_transpose_weight_grad(
    grad_output: Array,
    x: Array,
    kernel_size: Sequence[int],
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: Groups = 1,
) -> Array | tuple[Array, ...]:
    """Return the gradient of :func:`definition_conv_transpose` with respect to the weight.

    The result is one array if `groups` is a number, else one array per group.

    Examples
    --------
    >>> definition_transpose_weight_grad(np.array([[[1, 2, 3, 4]]]), np.array([[[1, 10]]]), (2,), stride=2)
    array([[[31, 42]]])
    """
    g, kernel, work = grad_output, tuple(kernel_size), _working(grad_output.dtype)
    triples = list(_writes(x.shape[2:], kernel, g.shape[2:], stride, padding, dilation))
    grads = []
    with np.errstate(invalid="ignore", over="ignore"):
        for ins, outs in channel_lists(groups, x.shape[1], g.shape[1]):
            grad_w: Array = np.zeros((len(ins), len(outs), *kernel), work)
            for i, t, p in triples:
                read = x[:, ins, *i].astype(work).conj()
                grad_w[..., *t] += read.T @ g[:, outs, *p].astype(work)
            grads.append(_round(grad_w, g.dtype))
    return np.concatenate(grads) if isinstance(groups, int | np.integer) else tuple(grads)


def _kernel(weight: Weight) -> Index:
    one = weight if isinstance(weight, np.ndarray) else weight[0]
    return tuple(one.shape[2:])


def _channels(weight: Weight, axis: int) -> int:
    return sum(w.shape[axis] for w in ([weight] if isinstance(weight, np.ndarray) else weight))


def _transposed_outputs(weight: Weight, groups: Groups) -> int:
    if isinstance(groups, int | np.integer):
        assert isinstance(weight, np.ndarray)
        return int(weight.shape[1] * groups)
    return sum(len(outs) for _, outs in groups)


def _shown(x: Array, channels: list[int], position: Index | None) -> Array:
    """Return (N, channels): the elements of the extended input at one position."""
    if position is None:
        return np.zeros((len(x), len(channels)), x.dtype)
    return x[:, channels, *position]


# A second opinion


def scipy_conv(
    x: Array,
    weight: Weight,
    bias: Array | None = None,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: Groups = 1,
    padding_mode: str = "zeros",
) -> Array:
    """Convolve with :func:`scipy.signal.correlate`; arguments and result as for :func:`definition_conv`.

    The input is padded by :func:`numpy.pad`, the dilated kernel is built with explicit zeros (so the data must
    be finite), and a stride takes every s-th element of the dense result. ``method="direct"`` because the
    automatic choice may be an inexact FFT. SciPy conjugates the kernel, which is undone here.

    Examples
    --------
    >>> scipy_conv(np.array([[[1.0, 2, 3]]]), np.array([[[10.0, 1]]]))
    array([[[12., 23.]]])
    """
    from scipy.signal import correlate

    size, kernel, d = x.shape[2:], _kernel(weight), x.ndim - 2
    strides, dilations = per_axis(stride, "stride", d), per_axis(dilation, "dilation", d)
    c_out = _channels(weight, 0)
    lists = channel_lists(groups, x.shape[1], c_out)
    parts = _per_group(weight, [len(outs) for _, outs in lists])
    padded = _numpy_pad(x, paddings(padding, size, kernel, strides, dilations), padding_mode)
    dense = [p - dil * (k - 1) for p, k, dil in zip(padded.shape[2:], kernel, dilations, strict=True)]
    y: Array = np.zeros((len(x), c_out, *dense), _working(x.dtype))
    spans = [dil * (k - 1) + 1 for k, dil in zip(kernel, dilations, strict=True)]
    for (ins, outs), w in zip(lists, parts, strict=True):
        spread: Array = np.zeros((*w.shape[:2], *spans), y.dtype)
        spread[..., *(slice(None, None, dil) for dil in dilations)] = w.conj()
        for n in range(len(x)):
            for a, c in enumerate(ins):
                for b, k in enumerate(outs):
                    image = padded[n, c].astype(y.dtype)
                    y[n, k] += correlate(image, spread[b, a], mode="valid", method="direct")
    return _with_bias(y[..., *(slice(None, None, s) for s in strides)], bias).astype(x.dtype)


def _numpy_pad(x: Array, pads: Sequence[tuple[int, int]], mode: str) -> Array:
    name: Any = {"zeros": "constant", "replicate": "edge", "circular": "wrap", "reflect": "reflect"}[mode]
    widths = [(max(before, 0), max(after, 0)) for before, after in pads]
    padded: Array = np.pad(x, [(0, 0), (0, 0), *widths], mode=name)
    sizes = padded.shape[2:]
    crops = (slice(max(-b, 0), n - max(-a, 0)) for (b, a), n in zip(pads, sizes, strict=True))
    return padded[..., *crops]
