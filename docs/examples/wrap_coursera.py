# ruff: noqa: T201
"""A layer with the signatures of Coursera's deep learning course, and the wrapper that lets ``check_conv`` call it.

Images are (m, H, W, C), filters (f, f, C, K), biases (1, 1, 1, K). Replace the two functions of the layer by yours, and
run the file: ``python docs/examples/wrap_coursera.py``.
"""

import sys

import numpy as np

from refconv.testing import check_conv

# --- The layer -------------------------------------------------------------------------------------------------------


def conv_forward(A_prev, W, b, hparameters):
    """Convolve images with filters; return the output and a cache."""
    stride, pad = hparameters["stride"], hparameters["pad"]
    m, n_H_prev, n_W_prev, _ = A_prev.shape
    f, _, _, n_C = W.shape
    A_pad = np.pad(A_prev, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    Z = np.zeros((m, (n_H_prev + 2 * pad - f) // stride + 1, (n_W_prev + 2 * pad - f) // stride + 1, n_C))
    for h in range(Z.shape[1]):
        for w in range(Z.shape[2]):
            top, left = h * stride, w * stride
            Z[:, h, w] = np.tensordot(A_pad[:, top : top + f, left : left + f], W, 3) + b[0, 0, 0]
    return Z, (A_prev, W, b, hparameters)


def conv_backward(dZ, cache):
    """Return the gradients of A_prev, W and b."""
    A_prev, W, b, hparameters = cache
    stride, pad = hparameters["stride"], hparameters["pad"]
    _, n_H_prev, n_W_prev, _ = A_prev.shape
    f = len(W)
    A_pad = np.pad(A_prev, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    dA_pad, dW = np.zeros(A_pad.shape), np.zeros(W.shape)
    for h in range(dZ.shape[1]):
        for w in range(dZ.shape[2]):
            top, left = h * stride, w * stride
            place = (slice(None), slice(top, top + f), slice(left, left + f))
            dA_pad[place] += np.tensordot(dZ[:, h, w], W, (1, 3))
            dW += np.tensordot(A_pad[place], dZ[:, h, w], (0, 0))
    return dA_pad[:, pad : pad + n_H_prev, pad : pad + n_W_prev], dW, dZ.sum((0, 1, 2)).reshape(b.shape)


# --- The wrapper -----------------------------------------------------------------------------------------------------


def arguments(x, weight, bias, stride, padding):
    """Return A_prev, W, b and hparameters."""
    bias = np.zeros(len(weight)) if bias is None else bias
    hparameters = {"stride": stride[0], "pad": padding[0]}
    return x.transpose(0, 2, 3, 1), weight.transpose(2, 3, 1, 0), bias.reshape(1, 1, 1, -1), hparameters


def forward(x, weight, bias, stride, padding, dilation, groups):
    """Return the output, channels first."""
    return conv_forward(*arguments(x, weight, bias, stride, padding))[0].transpose(0, 3, 1, 2)


def backward(grad_output, x, weight, stride, padding, dilation, groups):
    """Call both passes, because the backward pass takes the forward pass's cache."""
    _, cache = conv_forward(*arguments(x, weight, None, stride, padding))
    dA_prev, dW, db = conv_backward(grad_output.transpose(0, 2, 3, 1), cache)
    return dA_prev.transpose(0, 3, 1, 2), dW.transpose(3, 2, 0, 1), db.reshape(-1)


def check():
    """Check square filters, one stride and one padding; the layer allocates float64."""
    return check_conv(forward, backward, supports=("bias", "stride", "padding", "equal_axes"), dtype="float64")


# --- The report ------------------------------------------------------------------------------------------------------

if __name__ == "__main__":
    report = check()
    print(report)
    sys.exit(not report.passed)
