"""Pooling: one number per window of each channel.

Letters: T = k1·…·kd taps of a window, p the padding, g = ∂loss/∂y. A window may begin in the padding before the input
and end in the padding after it. Padding is never stored: for every tap, the windows whose tap is inside the input are a
slice of the output, and the elements that they read are a strided slice of the input.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refconv.arrays import (
    Array,
    DType,
    Namespace,
    array_namespace,
    device,
    dtype_kind,
    dtype_of,
    elements,
    get_dtype,
    item_bytes,
    masked,
    may_have_nan,
    namespace_of,
    native_dtype,
    plain,
)
from refconv.engine import spread_rows
from refconv.integers import as_bool, is_sequence, members, per_axis
from refconv.nn.base import Layer, check_floating, check_real, widened
from refconv.shapes import Shape, refuse_absurd

Slices = tuple[Any, ...]


@dataclass(frozen=True)
class _Windows:
    """The windows of one input; all sizes are per spatial axis."""

    size: Shape
    kernel: Shape
    stride: Shape
    padding: Shape
    output: Shape

    def taps(self) -> Iterator[tuple[int, Slices, Slices]]:
        """Yield each tap's number, the windows where it is inside the input, and the elements that these windows read.

        Taps are in row-major order. The slices index one axis of images, then the spatial axes.
        """
        sizes = zip(self.size, self.kernel, self.stride, self.padding, self.output, strict=True)
        axes = [[_inside(n, s, p, o, t) for t in range(k)] for n, k, s, p, o in sizes]
        for number, axis_slices in enumerate(itertools.product(*axes)):
            windows, inputs = zip(*axis_slices, strict=True)
            yield number, (slice(None), *windows), (slice(None), *inputs)

    def image_bytes(self, x: Array) -> int:
        """Return the bytes of one image, its output, and an intermediate array of the output's size."""
        return (elements(self.size) + 2 * elements(self.output)) * item_bytes(dtype_of(x))

    def counts(self, *, padding: bool) -> list[np.ndarray[Any, Any]]:
        """Return, per axis, the number of elements in each window, with or without the padding."""
        found = []
        for n, k, s, p, o in zip(self.size, self.kernel, self.stride, self.padding, self.output, strict=True):
            first = np.arange(o) * s - p
            end = np.minimum(first + k, n + p)  # with ceil_mode, the last window may extend even beyond the padding
            found.append(end - first if padding else np.minimum(end, n) - np.maximum(first, 0))
        return found


def _inside(n: int, stride: int, padding: int, output: int, tap: int) -> tuple[slice, slice]:
    """Return the windows l with 0 ≤ l·stride + tap − padding < n, and the elements that they read."""
    start = max(0, -((tap - padding) // stride))
    stop = max(start, min(output, (n - 1 + padding - tap) // stride + 1))
    first = start * stride + tap - padding
    return slice(start, stop), slice(first, first + (stop - start - 1) * stride + 1 if stop > start else first, stride)


class _Pool(Layer):
    """The base of the pooling layers: their arguments and windows."""

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        *,
        padding: int | Sequence[int] = 0,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size, self.padding = kernel_size, padding
        self.stride = kernel_size if stride is None else stride
        self.ceil_mode = as_bool(ceil_mode, "ceil_mode")
        lengths = [len(members(v)) for v in (kernel_size, self.stride, padding) if is_sequence(v)]
        self._per_axis(lengths[0] if lengths else 1)

    def _per_axis(self, d: int) -> tuple[Shape, Shape, Shape]:
        kernel = per_axis(self.kernel_size, "kernel_size", d, 1)
        stride = per_axis(self.stride, "stride", d, 1)
        padding = per_axis(self.padding, "padding", d, 0)
        if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
            raise ValueError(
                f"padding must be at most half of kernel_size for {type(self).__name__}; got padding={padding} and "
                f"kernel_size={kernel}"
            )
        return kernel, stride, padding

    def _windows(self, x: Array) -> _Windows:
        name = type(self).__name__
        if x.ndim < 3:
            raise ValueError(f"x must have shape (N, C, D1, …, Dd) with d ≥ 1 for {name}; got {tuple(x.shape)}")
        size = tuple(x.shape[2:])
        kernel, stride, padding = self._per_axis(len(size))
        output = []
        for n, k, s, p in zip(size, kernel, stride, padding, strict=True):
            beyond = n + 2 * p - k
            count = (-(-beyond // s) if self.ceil_mode else beyond // s) + 1
            if self.ceil_mode and (count - 1) * s >= n + p:  # the last window would begin after the input
                count -= 1
            output.append(count)
        if min(output) < 1 or min(size) < 1:
            raise ValueError(
                f"kernel_size={kernel} must fit the spatial axes of x for {name} with padding={padding}; got x of "
                f"shape {tuple(x.shape)}"
            )
        refuse_absurd("the output", (*x.shape[:2], *output))
        return _Windows(size, kernel, stride, padding, tuple(output))


def _images(xp: Namespace, x: Array) -> Array:
    """Return each channel as a separate image: (N, C, D1, …, Dd) -> (N·C, D1, …, Dd)."""
    return xp.reshape(plain(x), (x.shape[0] * x.shape[1], *x.shape[2:]))


class MaxPool(_Pool):
    r"""Largest element of every window of every channel, in any number of spatial axes.

    .. math:: y[n, c, l] = \max_t\, x[n, c, l \cdot \mathrm{stride} + t - \mathrm{padding}]

    .. math:: \bar x[n, c, i] = \sum_{l\;:\; l \cdot \mathrm{stride} + t^*(l) - \mathrm{padding} = i} g[n, c, l]

    over the taps t inside x; t*(l) is the tap of the largest element, the first if several are equal (as in PyTorch).
    A NaN counts as larger than every number: the maximum is NaN, and the first NaN receives the gradient.

    Parameters
    ----------
    kernel_size : int or sequence of int
        Window size; an int applies to all spatial axes of x.
    stride : int or sequence of int, optional
        Step between windows; by default `kernel_size`. With a smaller step, windows overlap (AlexNet: 3 and 2).
    padding : int or sequence of int
        How far windows may begin before the input and end after it, at most half of `kernel_size`. Padding is never
        the maximum.
    ceil_mode : bool
        Whether elements after the last whole window get an additional window, which extends past the end by less than
        `stride`. It must begin inside the input or the padding before it. By default these elements are not read.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, or the window does not fit x, or x is complex.

    References
    ----------
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS
    2012, section 3.4 (overlapping pooling). Padding and ``ceil_mode``: ``torch.nn.MaxPool2d``.

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

    def forward(self, x: Array) -> Array:
        """Return the maximum of each window: (N, C, D1, …, Dd) -> (N, C, o1, …, od)."""
        xp = namespace_of({"x": x})
        check_real(self, x)
        win = self._windows(x)
        images = _images(xp, x)
        y = xp.empty((images.shape[0], *win.output), dtype=native_dtype(xp, x), device=device(x))
        chosen = xp.empty(y.shape, dtype=get_dtype(xp, _smallest(elements(win.kernel))), device=device(x))

        def work(rows: slice) -> None:
            y[rows, ...], chosen[rows, ...] = _largest(xp, images[rows, ...], win, chosen.dtype)

        spread_rows(xp, work, images.shape[0], win.image_bytes(x))
        return self._keep(xp.reshape(y, (*x.shape[:2], *win.output)), chosen, win)

    def backward(self, grad_output: Array) -> Array:
        """Return g at the maximum of each window, summed over windows."""
        chosen, win = self._recall(grad_output)
        taps = elements(win.kernel)
        xp = array_namespace(grad_output)
        grads = _images(xp, grad_output)
        grad_x = xp.empty((grads.shape[0], *win.size), dtype=native_dtype(xp, grad_output), device=device(grad_output))

        def work(rows: slice) -> None:
            grad, ranks = widened(xp, grads[rows, ...]), chosen[rows, ...]
            total = xp.zeros((grad.shape[0], *win.size), dtype=grad.dtype, device=device(grad))
            for tap, windows, inputs in win.taps():
                total[inputs] += masked(xp, grad[windows], ranks[windows] == taps - tap)
            grad_x[rows, ...] = xp.astype(total, grad_x.dtype, copy=False)

        spread_rows(xp, work, grads.shape[0], win.image_bytes(grad_output))
        return xp.reshape(grad_x, (*grad_output.shape[:2], *win.size))


def _largest(xp: Namespace, x: Array, win: _Windows, dtype: DType) -> tuple[Array, Array]:
    """Return the maximum of each window of the images x, and T − t for its first tap t."""
    real = dtype_kind(dtype_of(x)) == "real"
    lowest = -math.inf if real else xp.iinfo(x.dtype).min
    y = xp.full((x.shape[0], *win.output), lowest, dtype=x.dtype, device=device(x))
    for _, windows, inputs in win.taps():
        y[windows] = xp.maximum(y[windows], x[inputs])
    nan = real and may_have_nan(xp, y)
    chosen = xp.zeros(y.shape, dtype=dtype, device=device(x))
    for tap, windows, inputs in win.taps():
        found = x[inputs] == y[windows]
        if nan:
            found = found | xp.isnan(x[inputs])
        # T − t is largest for the first of equal taps, and a maximum is cheaper than a selection at every element.
        rank = xp.full((), elements(win.kernel) - tap, dtype=dtype, device=device(x))
        chosen[windows] = xp.maximum(chosen[windows], xp.astype(found, dtype) * rank)
    return y, chosen


def _smallest(taps: int) -> str:
    """Return the name of the smallest data type that can represent 1, …, T."""
    return "uint8" if taps < 2**8 else "int16" if taps < 2**15 else "int32"


class AvgPool(_Pool):
    r"""Mean of every window of every channel, in any number of spatial axes.

    .. math:: y[n, c, l] = \frac{1}{m[l]} \sum_t x[n, c, l \cdot \mathrm{stride} + t - \mathrm{padding}]

    .. math:: \bar x[n, c, i] = \sum_{(t, l)\;:\; l \cdot \mathrm{stride} + t - \mathrm{padding} = i}
              \frac{g[n, c, l]}{m[l]}

    over the taps t inside x. m[l] is the number of elements of the window in x and, with `count_include_pad`, in the
    padding. Elements beyond the padding, in the last window of `ceil_mode`, never count.

    Parameters
    ----------
    kernel_size : int or sequence of int
        Window size; an int applies to all spatial axes of x.
    stride : int or sequence of int, optional
        Step between windows; by default `kernel_size`.
    padding : int or sequence of int
        Zeros around the input, at most half of `kernel_size`.
    ceil_mode : bool
        As for :class:`MaxPool`.
    count_include_pad : bool
        Whether the mean counts the zeros of the padding.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, or the window does not fit x, or x is not floating-point.

    References
    ----------
    ``torch.nn.AvgPool2d``, which has the same rule for m.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import AvgPool
    >>> layer = AvgPool(2, padding=1)
    >>> layer.forward(np.array([[[4., 2., 6., 8.]]]))
    array([[[2., 4., 4.]]])
    >>> layer.backward(np.array([[[10., 20., 30.]]]))
    array([[[ 5., 10., 10., 15.]]])
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        *,
        padding: int | Sequence[int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding=padding, ceil_mode=ceil_mode)
        self.count_include_pad = as_bool(count_include_pad, "count_include_pad")

    def forward(self, x: Array) -> Array:
        """Return the mean of each window: (N, C, D1, …, Dd) -> (N, C, o1, …, od)."""
        xp = check_floating(self, x)
        win = self._windows(x)
        images = _images(xp, x)
        y = xp.empty((images.shape[0], *win.output), dtype=native_dtype(xp, x), device=device(x))

        def work(rows: slice) -> None:
            image = widened(xp, images[rows, ...])
            total = xp.zeros((image.shape[0], *win.output), dtype=image.dtype, device=device(image))
            for _, windows, inputs in win.taps():
                total[windows] += image[inputs]
            y[rows, ...] = xp.astype(total / self._divisor(xp, total, win), y.dtype, copy=False)

        spread_rows(xp, work, images.shape[0], win.image_bytes(x))
        return self._keep(xp.reshape(y, (*x.shape[:2], *win.output)), win)

    def backward(self, grad_output: Array) -> Array:
        """Return g / m at every element of each window, summed over windows."""
        (win,) = self._recall(grad_output)
        xp = array_namespace(grad_output)
        grads = _images(xp, grad_output)
        grad_x = xp.empty((grads.shape[0], *win.size), dtype=native_dtype(xp, grad_output), device=device(grad_output))

        def work(rows: slice) -> None:
            grad = widened(xp, grads[rows, ...])
            grad = grad / self._divisor(xp, grad, win)
            total = xp.zeros((grad.shape[0], *win.size), dtype=grad.dtype, device=device(grad))
            for _, windows, inputs in win.taps():
                total[inputs] += grad[windows]
            grad_x[rows, ...] = xp.astype(total, grad_x.dtype, copy=False)

        spread_rows(xp, work, grads.shape[0], win.image_bytes(grad_output))
        return xp.reshape(grad_x, (*grad_output.shape[:2], *win.size))

    def _divisor(self, xp: Namespace, like: Array, win: _Windows) -> Array:
        """Return m, of shape (o1, …, od): the product of the counts along each axis."""
        counts = functools.reduce(np.multiply.outer, win.counts(padding=self.count_include_pad))
        return xp.asarray(counts, dtype=like.dtype, device=device(like))
