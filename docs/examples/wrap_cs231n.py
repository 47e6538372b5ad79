# ruff: noqa: T201
"""A layer with the signatures of CS231n, and the wrapper that lets ``check_conv`` call it.

Replace the two functions of the layer by yours, and run the file: ``python docs/examples/wrap_cs231n.py``.
"""

import sys

import numpy as np

from refconv.testing import check_conv

# --- The layer -------------------------------------------------------------------------------------------------------


def conv_forward_naive(x, w, b, conv_param):
    """Convolve images (N, C, H, W) with filters (F, C, HH, WW); return the output and a cache."""
    s, pad = conv_param["stride"], conv_param["pad"]
    N, _, H, W = x.shape
    F, _, HH, WW = w.shape
    x_pad = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    out = np.zeros((N, F, 1 + (H + 2 * pad - HH) // s, 1 + (W + 2 * pad - WW) // s))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            window = x_pad[:, :, i * s : i * s + HH, j * s : j * s + WW]
            out[:, :, i, j] = np.tensordot(window, w, ((1, 2, 3), (1, 2, 3))) + b
    return out, (x, w, b, conv_param)


def conv_backward_naive(dout, cache):
    """Return the gradients of x, w and b."""
    x, w, b, conv_param = cache
    s, pad = conv_param["stride"], conv_param["pad"]
    _, _, H, W = x.shape
    _, _, HH, WW = w.shape
    x_pad = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    dx_pad, dw = np.zeros(x_pad.shape), np.zeros(w.shape)
    for i in range(dout.shape[2]):
        for j in range(dout.shape[3]):
            place = (..., slice(i * s, i * s + HH), slice(j * s, j * s + WW))
            dx_pad[place] += np.tensordot(dout[:, :, i, j], w, 1)
            dw += np.tensordot(dout[:, :, i, j].T, x_pad[place], 1)
    return dx_pad[:, :, pad : pad + H, pad : pad + W], dw, dout.sum((0, 2, 3)).reshape(b.shape)


# --- The wrapper -----------------------------------------------------------------------------------------------------


def forward(x, weight, bias, stride, padding, dilation, groups):
    """Call the forward pass; without a bias, add zeros."""
    bias = np.zeros(len(weight)) if bias is None else bias
    return conv_forward_naive(x, weight, bias, {"stride": stride[0], "pad": padding[0]})[0]


def backward(grad_output, x, weight, stride, padding, dilation, groups):
    """Call both passes, because the backward pass takes the forward pass's cache."""
    conv_param = {"stride": stride[0], "pad": padding[0]}
    _, cache = conv_forward_naive(x, weight, np.zeros(len(weight)), conv_param)
    return conv_backward_naive(grad_output, cache)


def check():
    """Check one stride and one padding for both axes; the layer allocates float64."""
    return check_conv(forward, backward, supports=("bias", "stride", "padding", "equal_axes"), dtype="float64")


# --- The report ------------------------------------------------------------------------------------------------------

if __name__ == "__main__":
    report = check()
    print(report)
    sys.exit(not report.passed)
