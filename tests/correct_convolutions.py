"""Correct convolutions in the styles in which people write them: the checker must not complain about any.

None shares code with refconv or the oracles. Each is a pair of functions for ``refconv.testing.check_conv``, for any
number of spatial axes, with asymmetric padding.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Pair(NamedTuple):
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    dtypes: tuple[str, ...]


def pad(x, padding):
    return np.pad(x, [(0, 0), (0, 0), *([p, p] if isinstance(p, int) else p for p in padding)])


def unpad(padded, shape, padding):
    first = [p if isinstance(p, int) else p[0] for p in padding]
    return padded[(..., *(slice(p, p + n) for p, n in zip(first, shape[2:], strict=True)))].copy()


def sizes(padded, kernel, stride, dilation):
    axes = zip(padded, kernel, stride, dilation, strict=True)
    return tuple((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in axes)


def spread(bias, d):
    """The bias, to be added to an output with d spatial axes; 0 for none."""
    return 0 if bias is None else bias.reshape(-1, *[1] * d)


def bias_gradient(g):
    return g.sum(axis=(0, *range(2, g.ndim)), dtype=g.dtype)


# --- Loops from the definition: one multiplication at a time, no array is padded -----------------------------------


def terms(y_shape, x_shape, weight_shape, stride, padding, dilation, groups):
    """Yield (index of y, index of x, index of the weight) of every product, except those with padding."""
    first = [p if isinstance(p, int) else p[0] for p in padding]
    c_each, k_each = weight_shape[1], weight_shape[0] // groups
    for n, k, *o in np.ndindex(*y_shape):
        for c, *t in np.ndindex(*weight_shape[1:]):
            at = [oi * s + ti * d - p for oi, ti, s, d, p in zip(o, t, stride, dilation, first, strict=True)]
            if all(0 <= i < size for i, size in zip(at, x_shape[2:], strict=True)):
                yield (n, k, *o), (n, k // k_each * c_each + c, *at), (k, c, *t)


def loops_forward(x, weight, bias, stride, padding, dilation, groups):
    padded = [n + (2 * p if isinstance(p, int) else sum(p)) for n, p in zip(x.shape[2:], padding, strict=True)]
    y = np.zeros((len(x), len(weight), *sizes(padded, weight.shape[2:], stride, dilation)), x.dtype)
    y += spread(bias, len(stride))
    for i, j, t in terms(y.shape, x.shape, weight.shape, stride, padding, dilation, groups):
        y[i] += x[j] * weight[t]
    return y


def loops_backward(g, x, weight, stride, padding, dilation, groups):
    grad_x, grad_weight = np.zeros(x.shape, x.dtype), np.zeros(weight.shape, x.dtype)
    for i, j, t in terms(g.shape, x.shape, weight.shape, stride, padding, dilation, groups):
        grad_x[j] += g[i] * weight[t].conj()
        grad_weight[t] += g[i] * x[j].conj()
    grad_bias = np.zeros(len(weight), x.dtype)
    for i in np.ndindex(*g.shape):
        grad_bias[i[1]] += g[i]
    return grad_x, grad_weight, grad_bias


# --- einsum over a view of all windows -------------------------------------------------------------------------------


def windows(x, kernel, stride, padding, dilation, groups):
    """(N, G, C/G, outputs…, taps…), a view of the padded x."""
    padded = pad(x, padding)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, x.ndim)))
    steps = *(slice(None, None, s) for s in stride), *(slice(None, None, d) for d in dilation)
    view = view[(slice(None), slice(None), *steps)]
    return view.reshape(len(x), groups, x.shape[1] // groups, *view.shape[2:])


def letters(d):
    return "defhij"[:d], "pqrstu"[:d]


def einsum_forward(x, weight, bias, stride, padding, dilation, groups):
    o, t = letters(len(stride))
    kernels = weight.reshape(groups, -1, *weight.shape[1:])
    view = windows(x, weight.shape[2:], stride, padding, dilation, groups)
    y = np.einsum(f"ngc{o}{t},gkc{t}->ngk{o}", view, kernels)
    return y.reshape(len(x), len(weight), *y.shape[3:]) + spread(bias, len(stride))


def einsum_backward(g, x, weight, stride, padding, dilation, groups):
    o, t = letters(len(stride))
    kernels = weight.reshape(groups, -1, *weight.shape[1:])
    upstream = g.reshape(len(g), groups, -1 if g.size else len(weight) // groups, *g.shape[2:])
    view = windows(x, weight.shape[2:], stride, padding, dilation, groups)
    grad_weight = np.einsum(f"ngk{o},ngc{o}{t}->gkc{t}", upstream, view.conj()).reshape(weight.shape)
    padded = np.zeros_like(pad(x, padding))
    for tap in np.ndindex(*weight.shape[2:]):
        part = np.einsum(f"ngk{o},gkc->ngc{o}", upstream, kernels[(..., *tap)].conj())
        axes = zip(tap, dilation, stride, g.shape[2:], strict=True)
        where = tuple(slice(ti * d, ti * d + s * (n - 1) + 1, s) for ti, d, s, n in axes)
        padded[(..., *where)] += part.reshape(x.shape[0], x.shape[1], *g.shape[2:])
    return unpad(padded, x.shape, padding), grad_weight, bias_gradient(g)


# --- im2col by an index array, then a matrix product; col2im by np.add.at --------------------------------------------


def positions(padded, kernel, stride, dilation):
    """(taps, outputs): flat index in the padded image of the element that a tap reads at an output."""
    outputs = sizes(padded, kernel, stride, dilation)
    flat = np.zeros((1, 1), int)
    for n, k, o, s, d in zip(padded, kernel, outputs, stride, dilation, strict=True):
        axis = np.arange(k)[:, None] * d + np.arange(o) * s
        flat = (flat[:, None, :, None] * n + axis[:, None, :]).reshape(flat.shape[0] * k, -1)
    return flat, outputs


def im2col_forward(x, weight, bias, stride, padding, dilation, groups):
    padded = pad(x, padding)
    index, outputs = positions(padded.shape[2:], weight.shape[2:], stride, dilation)
    each = x.shape[1] // groups
    columns = padded.reshape(*x.shape[:2], np.prod(padded.shape[2:]))[:, :, index]
    columns = columns.reshape(len(x), groups, each * len(index), index.shape[1])
    y = weight.reshape(groups, -1, each * len(index)) @ columns
    return y.reshape(len(x), len(weight), *outputs) + spread(bias, len(stride))


def im2col_backward(g, x, weight, stride, padding, dilation, groups):
    padded = pad(x, padding)
    index, _ = positions(padded.shape[2:], weight.shape[2:], stride, dilation)
    each, length = x.shape[1] // groups, index.shape[1]
    flat = padded.reshape(*x.shape[:2], np.prod(padded.shape[2:]))
    columns = flat[:, :, index].reshape(len(x), groups, each * len(index), length)
    matrix = weight.reshape(groups, -1, each * len(index))
    upstream = g.reshape(len(x), groups, matrix.shape[1], length)
    grad_weight = (upstream @ columns.conj().swapaxes(-1, -2)).sum(axis=0, dtype=x.dtype).reshape(weight.shape)
    grad_columns = (matrix.conj().swapaxes(-1, -2) @ upstream).reshape(*x.shape[:2], *index.shape)
    grad_flat = np.zeros_like(flat)
    np.add.at(grad_flat, (slice(None), slice(None), index), grad_columns)
    return unpad(grad_flat.reshape(padded.shape), x.shape, padding), grad_weight, bias_gradient(g)


# --- Channels last inside: the channels are contracted, tap by tap ---------------------------------------------------


def taps(kernel, outputs, stride, dilation):
    for tap in np.ndindex(*kernel):
        axes = zip(tap, outputs, stride, dilation, strict=True)
        yield tap, tuple(slice(t * d, t * d + s * (o - 1) + 1, s) for t, o, s, d in axes)


def channels_last_forward(x, weight, bias, stride, padding, dilation, groups):
    padded = np.ascontiguousarray(np.moveaxis(pad(x, padding), 1, -1))
    outputs = sizes(padded.shape[1:-1], weight.shape[2:], stride, dilation)
    parts = []
    for w, block in zip(np.split(weight, groups), np.split(padded, groups, axis=-1), strict=True):
        part = np.zeros((len(x), *outputs, len(w)), x.dtype)
        for tap, where in taps(weight.shape[2:], outputs, stride, dilation):
            part += np.tensordot(block[(slice(None), *where)], w[(..., *tap)], axes=(-1, 1))
        parts.append(part)
    y = np.concatenate(parts, axis=-1)
    if bias is not None:
        y += bias
    return np.moveaxis(y, -1, 1)


def channels_last_backward(g, x, weight, stride, padding, dilation, groups):
    padded = np.ascontiguousarray(np.moveaxis(pad(x, padding), 1, -1))
    upstream = np.ascontiguousarray(np.moveaxis(g, 1, -1))
    grad_padded, grad_weight = np.zeros_like(padded), np.zeros(weight.shape, x.dtype)
    each_c, each_k = weight.shape[1], len(weight) // groups
    every = tuple(range(g.ndim - 1))
    for group in range(groups):
        ins, outs = slice(group * each_c, (group + 1) * each_c), slice(group * each_k, (group + 1) * each_k)
        for tap, where in taps(weight.shape[2:], g.shape[2:], stride, dilation):
            at = (slice(None), *where, ins)
            grad_padded[at] += np.tensordot(upstream[..., outs], weight[(outs, slice(None), *tap)].conj(), axes=1)
            grad_weight[(outs, slice(None), *tap)] = np.tensordot(
                upstream[..., outs], padded[at].conj(), axes=(every, every)
            )
    grad_x = unpad(np.moveaxis(grad_padded, -1, 1), x.shape, padding)
    return grad_x, grad_weight, bias_gradient(g)


# --- Accumulation in float64, rounded once ---------------------------------------------------------------------------


def wide(a):
    return None if a is None else a.astype(np.result_type(a.dtype, np.float64))


def float64_forward(x, weight, bias, *integers):
    return einsum_forward(wide(x), wide(weight), wide(bias), *integers).astype(x.dtype)


def float64_backward(g, x, weight, *integers):
    return tuple(grad.astype(x.dtype) for grad in einsum_backward(wide(g), wide(x), wide(weight), *integers))


# --- SciPy's correlation, directly computed --------------------------------------------------------------------------


def correlate(a, b):
    """Σ a[o + t]·b[t] where b fits. SciPy conjugates b, which is undone."""
    from scipy import signal  # only where the pair is used

    return signal.correlate(a, b.conj(), mode="valid", method="direct")


def inflated(a, steps):
    """Zeros between the elements; only for finite values."""
    full = np.zeros([(n - 1) * s + 1 for n, s in zip(a.shape, steps, strict=True)], a.dtype)
    full[tuple(slice(None, None, s) for s in steps)] = a
    return full


def scipy_forward(x, weight, bias, stride, padding, dilation, groups):
    padded = pad(x, padding)
    dense = sizes(padded.shape[2:], weight.shape[2:], (1,) * len(stride), dilation)
    y = np.zeros((len(x), len(weight), *dense), x.dtype)
    each_c, each_k = weight.shape[1], len(weight) // groups
    for n, k, c in itertools.product(range(len(x)), range(len(weight)), range(each_c)):
        image = padded[n, k // each_k * each_c + c]
        # A dilated correlation is several plain ones: of every d-th element, from each of the first d.
        for phase in np.ndindex(*(min(d, o) for d, o in zip(dilation, dense, strict=True))):
            every = tuple(slice(r, None, d) for r, d in zip(phase, dilation, strict=True))
            y[(n, k, *every)] += correlate(image[every], weight[k, c])
    return y[(..., *(slice(None, None, s) for s in stride))] + spread(bias, len(stride))


def scipy_backward(g, x, weight, stride, padding, dilation, groups):
    from scipy import signal  # only where the pair is used

    padded = pad(x, padding)
    grad_padded, grad_weight = np.zeros_like(padded), np.zeros(weight.shape, x.dtype)
    each_c, each_k = weight.shape[1], len(weight) // groups
    for n, k, c in itertools.product(range(len(x)), range(len(weight)), range(each_c)):
        channel, upstream = k // each_k * each_c + c, inflated(g[n, k], stride)
        full = signal.convolve(upstream, inflated(weight[k, c].conj(), dilation), mode="full", method="direct")
        grad_padded[(n, channel, *(slice(0, m) for m in full.shape))] += full
        found = correlate(padded[n, channel].conj(), upstream)
        steps = zip(weight.shape[2:], dilation, strict=True)
        grad_weight[k, c] += found[tuple(slice(0, d * (m - 1) + 1, d) for m, d in steps)]
    return unpad(grad_padded, x.shape, padding), grad_weight, bias_gradient(g)


PLAIN = ("float32", "float64", "complex64", "complex128", "int32")
CORRECT = {
    "loops": Pair(loops_forward, loops_backward, PLAIN),
    "einsum": Pair(einsum_forward, einsum_backward, PLAIN),
    "im2col": Pair(im2col_forward, im2col_backward, PLAIN),
    "channels last": Pair(channels_last_forward, channels_last_backward, PLAIN),
    # Rounded once, it is right in float16 as well; int32 would be cut off, not wrapped.
    "float64": Pair(float64_forward, float64_backward, ("float16", *PLAIN[:4])),
    "scipy": Pair(scipy_forward, scipy_backward, PLAIN),
}
