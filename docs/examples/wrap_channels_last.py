# ruff: noqa: T201
"""A convolution with channels last, and the wrapper that lets ``check_conv`` call it, for any number of axes.

Images are (N, D1, …, Dd, C), weights (k1, …, kd, C, K). Replace the two functions of the layer by yours, and run the
file: ``python docs/examples/wrap_channels_last.py``.
"""

import sys

import numpy as np

from refconv.testing import check_conv

# --- The layer -------------------------------------------------------------------------------------------------------


def taps(size, weight, stride, padding, dilation):
    """Yield each tap of the kernel and the part of the padded image that it multiplies."""
    kernel = weight.shape[:-2]
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    counts = [(n + 2 * p - span) // s for n, p, span, s in zip(size, padding, spans, stride, strict=True)]
    for t in np.ndindex(kernel):
        axes = zip(t, dilation, counts, stride, strict=True)
        yield t, (slice(None), *(slice(i * d, i * d + n * s + 1, s) for i, d, n, s in axes))


def padded(x, padding):
    """Return the image with zeros around it."""
    return np.pad(x, [(0, 0), *((p, p) for p in padding), (0, 0)])


def conv_last(x, weight, bias, stride, padding, dilation):
    """Add up the products of all taps."""
    x_pad = padded(x, padding)
    y = sum(x_pad[part] @ weight[t] for t, part in taps(x.shape[1:-1], weight, stride, padding, dilation))
    return y if bias is None else y + bias


def conv_last_backward(grad_y, x, weight, stride, padding, dilation):
    """Return the gradients of x, the weight and the bias."""
    x_pad, axes = padded(x, padding), tuple(range(x.ndim - 1))
    grad_x, grad_weight = np.zeros_like(x_pad), np.zeros_like(weight)
    for t, part in taps(x.shape[1:-1], weight, stride, padding, dilation):
        grad_x[part] += grad_y @ weight[t].T
        grad_weight[t] = np.tensordot(x_pad[part], grad_y, (axes, axes))
    inner = tuple(slice(p, p + n) for p, n in zip(padding, x.shape[1:-1], strict=True))
    return grad_x[(slice(None), *inner)], grad_weight, grad_y.sum(axes)


# --- The wrapper -----------------------------------------------------------------------------------------------------


def last(x):
    """(N, C, …) -> (N, …, C)."""
    return np.moveaxis(x, 1, -1)


def first(x):
    """(N, …, C) -> (N, C, …)."""
    return np.moveaxis(x, -1, 1)


def taps_first(weight):
    """(K, C, …) -> (…, C, K). Leave it out if your weights are (K, C, …)."""
    return np.moveaxis(weight, (1, 0), (-2, -1))


def forward(x, weight, bias, stride, padding, dilation, groups):
    """Move the channels to the end and back."""
    return first(conv_last(last(x), taps_first(weight), bias, stride, padding, dilation))


def backward(grad_output, x, weight, stride, padding, dilation, groups):
    """Move the channels of the gradients too."""
    grads = conv_last_backward(last(grad_output), last(x), taps_first(weight), stride, padding, dilation)
    return first(grads[0]), np.moveaxis(grads[1], (-2, -1), (1, 0)), grads[2]


def check(spatial_dims=2):
    """Check everything but groups."""
    supports = ("bias", "stride", "padding", "dilation")
    return check_conv(forward, backward, spatial_dims=spatial_dims, supports=supports)


# --- The report ------------------------------------------------------------------------------------------------------

if __name__ == "__main__":
    report = check()
    print(report)
    sys.exit(not report.passed)
