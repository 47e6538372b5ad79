# ruff: noqa: T201
"""A student's homework: a convolution layer with its backward pass, in plain loops: ``homework.py``, corrected.

One line differs: the input gradient, too, must step by the stride.
"""

import sys

import numpy as np

from refconv.testing import check_conv


def conv_forward(x, w, b, stride, pad):
    """Slide every filter over every padded image."""
    N, _, H, W = x.shape
    F, _, HH, WW = w.shape
    x_pad = np.pad(x, ((0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1])))
    H_out = (H + 2 * pad[0] - HH) // stride[0] + 1
    W_out = (W + 2 * pad[1] - WW) // stride[1] + 1
    out = np.zeros((N, F, H_out, W_out), dtype=x.dtype)
    for n in range(N):
        for f in range(F):
            for i in range(H_out):
                for j in range(W_out):
                    top, left = i * stride[0], j * stride[1]
                    window = x_pad[n, :, top : top + HH, left : left + WW]
                    out[n, f, i, j] = np.sum(window * w[f])
            if b is not None:
                out[n, f] += b[f]
    return out


def conv_backward(dout, x, w, stride, pad):
    """Send every upstream gradient back through its window."""
    N, _, H, W = x.shape
    F, _, HH, WW = w.shape
    _, _, H_out, W_out = dout.shape
    x_pad = np.pad(x, ((0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1])))
    dx_pad = np.zeros_like(x_pad)
    dw = np.zeros(w.shape, dtype=w.dtype)
    db = np.zeros(F, dtype=w.dtype)
    for n in range(N):
        for f in range(F):
            for i in range(H_out):
                for j in range(W_out):
                    top, left = i * stride[0], j * stride[1]
                    dw[f] += dout[n, f, i, j] * x_pad[n, :, top : top + HH, left : left + WW]
                    dx_pad[n, :, top : top + HH, left : left + WW] += dout[n, f, i, j] * w[f]
                    db[f] += dout[n, f, i, j]
    dx = dx_pad[:, :, pad[0] : pad[0] + H, pad[1] : pad[1] + W].copy()
    return dx, dw, db


# What the checker calls. Dilation and groups are not claimed below, so they are always 1 here.


def forward(x, weight, bias, stride, padding, dilation, groups):
    """Call the homework's forward pass."""
    return conv_forward(x, weight, bias, stride, padding)


def backward(grad_output, x, weight, stride, padding, dilation, groups):
    """Call the homework's backward pass."""
    return conv_backward(grad_output, x, weight, stride, padding)


def check():
    """Check both passes, on what the homework claims to do."""
    return check_conv(forward, backward, supports=("bias", "stride", "padding"))


if __name__ == "__main__":
    report = check()
    print(report)
    sys.exit(not report.passed)
