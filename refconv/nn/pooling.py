"""Pooling: one number for each window of each channel."""

from __future__ import annotations

from collections.abc import Sequence

from refconv.arrays import Array, array_namespace, device, namespace_of
from refconv.im2col import col2im, im2col
from refconv.integers import is_sequence
from refconv.nn.base import Layer, check_real
from refconv.shapes import per_axis


class MaxPool(Layer):
    r"""Largest element of every window of every channel, in any number of spatial axes.

    .. math:: y[n, c, l] = \max_t\, x[n, c, l \cdot \mathrm{stride} + t]

    Each channel is an image of its own, so the windows are the columns of im2col of the (N·C, 1, D1, …, Dd) view; the
    gradient of a maximum goes to the element that was the largest, the first of several equal ones (as PyTorch),
    and col2im adds up what overlapping windows send to one element.

    Parameters
    ----------
    kernel_size : int or sequence of int
        Window size; an int stands for all spatial axes of x.
    stride : int or sequence of int, optional
        Step between windows; by default `kernel_size`. Smaller than it, windows overlap (AlexNet: 3 and 2).
        Elements after the last whole window are not read.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, or the window does not fit x.

    References
    ----------
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS
    2012, section 3.4 (overlapping pooling).

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import MaxPool
    >>> layer = MaxPool(3, stride=2)
    >>> layer.forward(np.array([[[1., 2., 7., 4., 5.]]]))
    array([[[7., 7.]]])
    >>> layer.backward(np.array([[[10., 1.]]]))
    array([[[ 0.,  0., 11.,  0.,  0.]]])
    """

    def __init__(self, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None) -> None:
        stride = kernel_size if stride is None else stride
        for value, name in ((kernel_size, "kernel_size"), (stride, "stride")):
            per_axis(value, name, len(value) if is_sequence(value) else 1, 1)  # type: ignore[arg-type]
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, x: Array) -> Array:
        """Return the maximum of each window: (N, C, D1, …, Dd) -> (N, C, o1, …, od)."""
        xp = namespace_of({"x": x})
        check_real(self, x)
        if x.ndim < 3:
            raise ValueError(f"x must have shape (N, C, D1, …, Dd) with d ≥ 1 for MaxPool; got {tuple(x.shape)}")
        kernel = per_axis(self.kernel_size, "kernel_size", x.ndim - 2, 1)
        stride = per_axis(self.stride, "stride", x.ndim - 2, 1)
        images = xp.reshape(x, (x.shape[0] * x.shape[1], 1, *x.shape[2:]))  # (N·C, 1, D1, …, Dd)
        columns = im2col(images, kernel, stride=stride)  # (N·C, T, L)
        output = tuple((n - k) // s + 1 for n, k, s in zip(x.shape[2:], kernel, stride, strict=True))
        y = xp.reshape(xp.max(columns, axis=1), (*x.shape[:2], *output))  # (N, C, o1, …, od)
        largest = xp.argmax(columns, axis=1)  # (N·C, L), the first of equal ones
        return self._keep(y, largest, columns.shape, tuple(images.shape), kernel, stride)

    def backward(self, grad_output: Array) -> Array:
        """Return g where each window had its maximum, added up over windows."""
        largest, (channels, taps, positions), images, kernel, stride = self._recall(grad_output)
        xp = array_namespace(grad_output, largest)
        taps = xp.reshape(xp.arange(taps, dtype=largest.dtype, device=device(largest)), (1, taps, 1))
        chosen = taps == largest[:, None, :]  # (N·C, T, L)
        grad = xp.reshape(grad_output, (channels, 1, positions))  # (N·C, 1, L)
        columns = xp.where(chosen, grad, xp.zeros_like(grad))  # (N·C, T, L)
        grad_images = col2im(columns, images, kernel, stride=stride)  # (N·C, 1, D1, …, Dd)
        return xp.reshape(grad_images, (*grad_output.shape[:2], *images[2:]))  # (N, C, D1, …, Dd)
