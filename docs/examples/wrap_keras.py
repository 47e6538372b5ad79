# ruff: noqa: T201
"""The convolution of Keras 3, and the wrapper that lets ``check_conv`` call it.

Keras pads with "valid" or "same" only, so the wrapper refuses other paddings with a NotImplementedError: the report
counts them as not supported. Keras has no gradients of its own; take the ones of its backend, or check the forward pass
alone as here. Run the file: ``python docs/examples/wrap_keras.py``.
"""

import sys

import keras
import numpy as np

from refconv.testing import check_conv

# --- The layer -------------------------------------------------------------------------------------------------------


def conv(x, kernel, bias, strides, padding, dilation_rate):
    """Convolve (N, D1, …, Dd, C) with (k1, …, kd, C/G, K), as ``keras.layers.Conv2D`` does."""
    y = keras.ops.conv(x, kernel, strides, padding, "channels_last", dilation_rate)
    return y if bias is None else keras.ops.add(y, bias)


# --- The wrapper -----------------------------------------------------------------------------------------------------


def padding_word(x, weight, stride, padding, dilation):
    """Return the word for these paddings, or raise NotImplementedError if there is none."""
    if not any(padding):
        return "valid"
    for n, k, s, p, d in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True):
        if max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) != 2 * p:
            raise NotImplementedError('Keras pads with "valid" or "same"')
    return "same"


def forward(x, weight, bias, stride, padding, dilation, groups):
    """Move the channels to the end and back; Keras reads the number of groups from the shapes."""
    word = padding_word(x, weight, stride, padding, dilation)
    kernel = np.moveaxis(weight, (1, 0), (-2, -1))
    y = conv(np.moveaxis(x, 1, -1), kernel, bias, stride, word, dilation)
    return np.moveaxis(keras.ops.convert_to_numpy(y), -1, 1)


def check(spatial_dims=2):
    """Check everything that Keras supports; a stride and a dilation exclude each other."""
    supports = ("bias", "stride", "padding", "dilation", "groups", "stride_or_dilation")
    return check_conv(forward, spatial_dims=spatial_dims, supports=supports)


# --- The report ------------------------------------------------------------------------------------------------------

if __name__ == "__main__":
    report = check()
    print(report)
    sys.exit(not report.passed)
