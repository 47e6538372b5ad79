"""Normalisation: each number is divided by the size of related numbers in its sample or in the batch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from refconv.arrays import (
    Array,
    Namespace,
    accumulating_dtype,
    array_namespace,
    device,
    dtype_of,
    elements,
    item_bytes,
    native_dtype,
    plain,
)
from refconv.engine import spread_rows
from refconv.integers import as_bool, as_float, as_int, is_sequence, members
from refconv.nn.base import (
    Layer,
    Parameter,
    Place,
    channel_sums,
    check_affine,
    check_channels,
    check_floating,
    per_channel,
    widened,
)


class LocalResponseNorm(Layer):
    r"""Local response normalisation across adjacent channels, as in AlexNet.

    .. math:: s[i] = k + \alpha \sum_{j \in W(i)} x[j]^2, \qquad y[i] = x[i]\, s[i]^{-\beta}

    .. math:: \bar x[i] = g[i]\, s[i]^{-\beta}
              - 2 \alpha \beta\, x[i] \sum_{j\;:\; i \in W(j)} g[j]\, x[j]\, s[j]^{-\beta - 1}

    for each sample and position separately; i and j are channels. W(i) = {i − ⌊size/2⌋, …, i + ⌊(size−1)/2⌋}, without
    channels that do not exist: centred on i if `size` is odd, with one more channel before i than after it if `size`
    is even (as in PyTorch). Channel i is in the windows W(j) of j = i − ⌊(size−1)/2⌋, …, i + ⌊size/2⌋.

    Parameters
    ----------
    size : int
        Number of channels in a window, the paper's n.
    k, alpha, beta : float
        k > 0, α ≥ 0, β ≥ 0. The defaults are the paper's.
    divide_by_size : bool
        Whether α is divided by `size`, as in Caffe and PyTorch but not in the paper.
    sizes : sequence of int, optional
        Channel counts of consecutive blocks, with sum C. No window crosses from one block to another: each of AlexNet's
        two GPUs normalised its own channels, ``sizes=(48, 48)``. By default all channels are one block.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, x is not floating-point, or `sizes` do not add up to its channels.

    References
    ----------
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS
    2012, section 3.3.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import LocalResponseNorm
    >>> x = np.array([[[3.], [1.], [2.], [0.]]])
    >>> LocalResponseNorm(3, k=1, alpha=1, beta=1).forward(x)[0, :, 0]   # 3/(1+9+1), 1/(1+9+1+4), 2/(1+1+4), 0
    array([0.27272727, 0.06666667, 0.33333333, 0.        ])
    >>> LocalResponseNorm(3, k=1, alpha=1, beta=1, sizes=(2, 2)).forward(x)[0, :, 0]   # 3/11, 1/11, 2/5, 0
    array([0.27272727, 0.09090909, 0.4       , 0.        ])
    """

    def __init__(
        self,
        size: int = 5,
        *,
        k: float = 2.0,
        alpha: float = 1e-4,
        beta: float = 0.75,
        divide_by_size: bool = False,
        sizes: Sequence[int] | None = None,
    ) -> None:
        self.size = as_int(size, "size", 1)
        self.k = as_float(k, "k", above=0)  # channels of zeros divide by it
        self.alpha, self.beta = as_float(alpha, "alpha", 0), as_float(beta, "beta", 0)
        self.divide_by_size = as_bool(divide_by_size, "divide_by_size")
        if sizes is not None and not is_sequence(sizes):
            raise TypeError(f"sizes must be a sequence of integers; got {sizes!r}")
        self.sizes = (
            None if sizes is None else tuple(as_int(n, f"sizes[{i}]", 1) for i, n in enumerate(members(sizes, 2**20)))
        )

    def forward(self, x: Array) -> Array:
        """Return x·s^−β: (N, C, D1, …, Dd) -> the same shape."""
        xp = check_floating(self, x)
        check_channels(self, x)
        blocks = self._blocks(x.shape[1])
        x = plain(x)
        y = xp.empty(x.shape, dtype=native_dtype(xp, x), device=device(x))
        scale = xp.empty(x.shape, dtype=getattr(xp, accumulating_dtype(xp, dtype_of(x))), device=device(x))

        def work(rows: slice) -> None:
            a = widened(xp, x[rows, ...])
            s = self.k + self._alpha * _window_sums(xp, a * a, self.size // 2, (self.size - 1) // 2, blocks)
            scale[rows, ...] = s
            y[rows, ...] = xp.astype(a * xp.pow(s, self._power(xp, s, -self.beta)), y.dtype, copy=False)

        spread_rows(xp, work, x.shape[0], _sample_bytes(x))
        return self._keep(y, x, scale, blocks)

    def backward(self, grad_output: Array) -> Array:
        """Return g·s^−β − 2αβ·x·Σ g·x·s^−β−1, the sum over the windows that contain a channel."""
        x, scale, blocks = self._recall(grad_output)
        xp = array_namespace(grad_output)
        grad_output = plain(grad_output)
        grad_x = xp.empty(x.shape, dtype=native_dtype(xp, x), device=device(x))

        def work(rows: slice) -> None:
            a, s, g = widened(xp, x[rows, ...]), scale[rows, ...], widened(xp, grad_output[rows, ...])
            g = g * xp.pow(s, self._power(xp, s, -self.beta))  # g·s^−β
            seen = _window_sums(xp, g * a / s, (self.size - 1) // 2, self.size // 2, blocks)
            grad_x[rows, ...] = xp.astype(g - 2 * self._alpha * self.beta * a * seen, grad_x.dtype, copy=False)

        spread_rows(xp, work, x.shape[0], _sample_bytes(x))
        return grad_x

    @property
    def _alpha(self) -> float:
        return self.alpha / self.size if self.divide_by_size else self.alpha

    @staticmethod
    def _power(xp: Namespace, like: Array, power: float) -> Array:
        return xp.full((), power, dtype=like.dtype, device=device(like))

    def _blocks(self, channels: int) -> list[slice]:
        """Return the channels of each block."""
        sizes = (channels,) if self.sizes is None else self.sizes
        if sum(sizes) != channels:
            raise ValueError(f"sizes must add up to the C={channels} channels of x; got {sizes} with sum {sum(sizes)}")
        ends = list(itertools.accumulate(sizes))
        return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _window_sums(xp: Namespace, x: Array, before: int, after: int, blocks: list[slice]) -> Array:
    """Return Σ x[j] over j = i − before, …, i + after for each channel i, within its block, by shifted additions."""
    total = xp.asarray(x, copy=True)
    for block in blocks:
        size = block.stop - block.start
        for shift in range(1, min(before, size - 1) + 1):
            total[:, block.start + shift : block.stop, ...] += x[:, block.start : block.stop - shift, ...]
        for shift in range(1, min(after, size - 1) + 1):
            total[:, block.start : block.stop - shift, ...] += x[:, block.start + shift : block.stop, ...]
    return total


def _sample_bytes(x: Array) -> int:
    """Return the bytes of one sample, its output, its scale and its intermediate arrays."""
    return 4 * elements(x.shape[1:]) * item_bytes(dtype_of(x))


class BatchNorm(Layer):
    r"""Batch normalisation of every channel over the batch and all spatial axes.

    In training, with the mean μ and the biased variance σ² of the m values of a channel in this batch,

    .. math:: \hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}, \qquad y = w\, \hat x + b

    .. math:: \bar b = \sum g, \qquad \bar w = \sum g\, \hat x, \qquad
              \bar x = \frac{w}{\sqrt{\sigma^2 + \epsilon}} \Bigl(g - \frac{\bar b}{m} - \hat x\, \frac{\bar w}{m}\Bigr)

    and the running statistics are updated, r ← (1 − momentum)·r + momentum·(μ, or the unbiased variance σ²·m/(m−1)).
    In testing, after `eval`, the running mean and variance replace μ and σ²; they are constants, so
    x̄ = w·g/√(σ² + ε).

    Parameters
    ----------
    channels : int
        C.
    momentum : float
        Weight of a new batch in the running statistics, from 0 to 1.
    eps : float
        ε > 0.
    xp, dtype, device
        As for :class:`Conv`.

    Attributes
    ----------
    weight, bias : Parameter
        The paper's γ and β, of shape (C,): initially 1 and 0.
    running_mean, running_var : array (C,)
        Initially 0 and 1. They are part of `state`.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, x does not have C channels and the parameters' data type, or a training batch has
        fewer than two values per channel.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
    Shift", arXiv 1502.03167, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import BatchNorm
    >>> layer = BatchNorm(1, eps=1e-12, dtype="float64")
    >>> layer.forward(np.array([[1.], [3.]]))
    array([[-1.],
           [ 1.]])
    >>> layer.running_mean, layer.running_var   # 0.1·2, and 0.9·1 + 0.1·2
    (array([0.2]), array([1.1]))
    """

    _buffers = ("running_mean", "running_var")

    def __init__(
        self,
        channels: int,
        *,
        momentum: float = 0.1,
        eps: float = 1e-5,
        xp: Namespace | None = None,
        dtype: str = "float32",
        device: Any = None,
    ) -> None:
        shape = (as_int(channels, "channels", 1),)
        self.channels = shape[0]
        self.momentum, self.eps = as_float(momentum, "momentum", 0), as_float(eps, "eps", above=0)
        if self.momentum > 1:
            raise ValueError(f"momentum must be from 0 to 1; got {self.momentum}")
        place = Place(xp, dtype, device)
        self.weight, self.bias = Parameter("weight", place.full(shape, 1)), Parameter("bias", place.full(shape, 0))
        self.running_mean, self.running_var = place.full(shape, 0), place.full(shape, 1)

    def forward(self, x: Array) -> Array:
        """Return w·x̂ + b: (N, C, D1, …, Dd) -> the same shape."""
        xp = check_floating(self, x)
        weight, bias = self.weight.value, self.bias.value
        check_affine(self, x, weight)
        a = widened(xp, x)
        if self.training:
            count = x.shape[0] * elements(x.shape[2:])
            if count < 2:
                raise ValueError(
                    f"x must have at least 2 values per channel to train BatchNorm; got shape {tuple(x.shape)}"
                )
            mean = channel_sums(xp, a) / count
            centred = a - per_channel(xp, mean, x)
            variance = channel_sums(xp, centred * centred) / count
            self.running_mean = self._mixed(xp, self.running_mean, mean)
            self.running_var = self._mixed(xp, self.running_var, variance * (count / (count - 1)))
        else:
            centred = a - per_channel(xp, widened(xp, self.running_mean), x)
            variance = widened(xp, self.running_var)
        inverse = 1 / xp.sqrt(variance + self.eps)
        normal = centred * per_channel(xp, inverse, x)
        y = normal * per_channel(xp, widened(xp, weight), x) + per_channel(xp, widened(xp, bias), x)
        return self._keep(xp.astype(y, weight.dtype, copy=False), normal, inverse, self.training)

    def backward(self, grad_output: Array) -> Array:
        """Return w/√(σ² + ε)·(g − b̄/m − x̂·w̄/m), or w·g/√(σ² + ε) in testing, and set w̄ and b̄."""
        normal, inverse, training = self._recall(grad_output)
        xp = array_namespace(grad_output)
        grad, dtype = widened(xp, grad_output), self.weight.value.dtype
        grad_weight, grad_bias = channel_sums(xp, grad * normal), channel_sums(xp, grad)
        self.weight.grad = xp.astype(grad_weight, dtype, copy=False)
        self.bias.grad = xp.astype(grad_bias, dtype, copy=False)
        if training:
            count = grad.shape[0] * elements(grad.shape[2:])
            grad = grad - per_channel(xp, grad_bias / count, grad) - normal * per_channel(xp, grad_weight / count, grad)
        grad_x = grad * per_channel(xp, widened(xp, self.weight.value) * inverse, grad)
        return xp.astype(grad_x, dtype, copy=False)

    def parameters(self) -> list[Parameter]:
        """Return the weight, then the bias."""
        return [self.weight, self.bias]

    def _mixed(self, xp: Namespace, running: Array, new: Array) -> Array:
        mixed = (1 - self.momentum) * widened(xp, running) + self.momentum * new
        return xp.astype(mixed, running.dtype, copy=False)
