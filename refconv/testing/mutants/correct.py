"""The correct convolutions, cut into the pieces that mistakes replace.

Letters: N batch, C and K input and output channels of one group, t kernel tap, g upstream gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from refconv.integers import padding_pairs
from refconv.testing.oracles.definition import Array

Grads = tuple[Any, Any, Any]
Pairs = Sequence[tuple[int, int]]


class Steps(NamedTuple):
    """The integers of one convolution, one per spatial axis; padding as (before, after) pairs."""

    stride: Sequence[int]
    padding: Pairs
    dilation: Sequence[int]
    groups: int
    output_padding: Sequence[int] = ()


def steps(stride: Any, padding: Any, dilation: Any, groups: int, output_padding: Any = None) -> Steps:
    """Return the arguments of a checked function in one form."""
    pairs: Any = padding_pairs(padding, len(stride))
    return Steps(tuple(stride), pairs, tuple(dilation), groups, output_padding or (0,) * len(pairs))


class Conv:
    """A correct convolution: for each kernel tap, one strided slice of the padded input.

    The output has the operands' data type, or `output_dtype`.
    """

    output_dtype: Any = None

    # --- The checked functions ---

    def forward(self, x: Array, weight: Array, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        """Return y."""
        return self.y(
            x, weight, bias, steps(stride, self.amounts(padding, x, weight, stride, dilation), dilation, groups)
        )

    def backward(
        self, grad_output: Array, x: Array, weight: Array, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> Any:
        """Return (grad_x, grad_weight, grad_bias)."""
        amounts = self.amounts(padding, x, weight, stride, dilation)
        return self.grads(grad_output, x, weight, steps(stride, amounts, dilation, groups))

    # --- The passes ---

    def y(self, x: Array, weight: Array, bias: Any, p: Steps) -> Any:
        """Σ over taps of w[k, c, t] · P[n, c, o·stride + t·dilation]."""
        work, kernel = self.output_work(x.dtype), weight.shape[2:]
        outputs = self.outputs(x.shape[2:], kernel, p)
        padded = enlarged(self.pad(self.operand(x, work), p.padding), reach(outputs, kernel, p))
        y = np.zeros((len(x), len(weight), *outputs), work)
        weight = self.kernel(self.operand(weight, work))
        for t in np.ndindex(*kernel):
            window = padded[self.forward_taps(t, outputs, p)]
            for ins, outs, rows in self.channels(p.groups, x.shape[1], len(weight)):
                y[:, outs] += np.einsum("kc,nc...->nk...", weight[rows][(..., *t)], window[:, ins], dtype=work)
        return self.add_bias(y, bias, kernel).astype(self.output_dtype or x.dtype)

    def grads(self, g: Array, x: Array, weight: Array, p: Steps) -> Any:
        """Return all three gradients."""
        return self.grad_x(g, weight, x.shape, p), self.grad_weight(g, x, weight.shape, p), self.grad_bias(g)

    def grad_x(self, g: Array, weight: Array, shape: Any, p: Steps) -> Any:
        """Add conj(w[k, c, t]) · g[n, k, o] to where tap t of position o was read."""
        work = self.work(g.dtype)
        sizes = [n + b + a for n, (b, a) in zip(shape[2:], p.padding, strict=True)]
        padded = np.zeros((*shape[:2], *sizes), work)
        weight, upstream = self.conj(self.kernel(self.operand(weight, work))), self.operand(g, work)
        for t in np.ndindex(*weight.shape[2:]):
            where = self.input_taps(t, g.shape[2:], p)
            for ins, outs, rows in self.channels(p.groups, shape[1], len(weight)):
                part = np.einsum("kc,nk...->nc...", weight[rows][(..., *t)], upstream[:, outs], dtype=work)
                self.add(padded, (slice(None), ins, *where[1:]), part)
        return self.unpad(padded, shape[2:], p.padding).astype(g.dtype)

    def grad_weight(self, g: Array, x: Array, shape: Any, p: Steps) -> Any:
        """Σ over samples and positions of g[n, k, o] · conj(P[n, c, o·stride + t·dilation])."""
        work, outputs = self.work(g.dtype), g.shape[2:]
        padded = self.pad(self.operand(x, work), p.padding)
        upstream = self.operand(g, work)
        grad = np.zeros(shape, work)
        for t in np.ndindex(*shape[2:]):
            window = self.conj(padded[self.weight_taps(t, outputs, p)])
            for ins, outs, rows in self.channels(p.groups, x.shape[1], shape[0]):
                grad[rows][(..., *t)] += product(upstream[:, outs], window[:, ins])
        return grad.astype(g.dtype)

    def grad_bias(self, g: Array) -> Any:
        """Σ over samples and positions of g."""
        return np.sum(g, axis=(0, *range(2, g.ndim)), dtype=self.work(g.dtype)).astype(g.dtype)

    # --- Sizes and positions ---

    def outputs(self, size: Any, kernel: Any, p: Steps) -> tuple[int, ...]:
        """Return the number of output positions per axis."""
        axes = zip(size, kernel, p.stride, p.padding, p.dilation, strict=True)
        return tuple(self.output(n + b + a, k, s, d) for n, k, s, (b, a), d in axes)

    def output(self, padded: int, k: int, s: int, d: int) -> int:
        """Return the number of output positions along one axis."""
        return (padded - d * (k - 1) - 1) // s + 1

    def taps(self, t: Any, outputs: Any, p: Steps) -> tuple[Any, ...]:
        """Return the slices of the padded input that tap t reads."""
        axes = zip(t, outputs, p.stride, p.dilation, strict=True)
        return (..., *(slice(tj * d, tj * d + max(0, (o - 1) * s + 1), s) for tj, o, s, d in axes))

    def forward_taps(self, t: Any, outputs: Any, p: Steps) -> tuple[Any, ...]:
        """Slices of the forward pass."""
        return self.taps(t, outputs, p)

    def input_taps(self, t: Any, outputs: Any, p: Steps) -> tuple[Any, ...]:
        """Slices of the gradient with respect to x."""
        return self.taps(t, outputs, p)

    def weight_taps(self, t: Any, outputs: Any, p: Steps) -> tuple[Any, ...]:
        """Slices of the gradient with respect to the weight."""
        return self.taps(t, outputs, p)

    # --- Padding and its adjoint ---

    def amounts(self, padding: Any, x: Array, weight: Array, stride: Any, dilation: Any) -> Any:
        """Return the padding as numbers."""
        if not isinstance(padding, str):
            return padding
        return [self.causal(x.shape[2], weight.shape[2], stride[0], dilation[0])]

    def causal(self, n: int, k: int, s: int, d: int) -> tuple[int, int]:
        """Return (before, after) of causal padding, for n elements."""
        return d * (k - 1), 0

    def pad(self, x: Array, padding: Pairs) -> Array:
        """Put zeros around x."""
        return np.pad(x, [(0, 0), (0, 0), *padding])

    def unpad(self, padded: Array, size: Any, padding: Pairs) -> Array:
        """Remove the padding."""
        return padded[(..., *(slice(b, b + n) for n, (b, _) in zip(size, padding, strict=True)))]

    # --- Channels, kernel, data types ---

    def channels(self, groups: int, c_in: int, c_out: int) -> Iterator[tuple[Any, Any, slice]]:
        """Yield (channels of x read, channels of y written, rows of the weight) of every group."""
        a, b = c_in // groups, c_out // groups
        for g in range(groups):
            outs = slice(g * b, g * b + b)
            yield slice(g * a, g * a + a), outs, outs

    def kernel(self, weight: Array) -> Array:
        """Return the weight for the forward pass and the input gradient."""
        return weight

    def conj(self, array: Array) -> Array:
        """Return the complex conjugate, which the adjoint of a complex product needs."""
        return np.conj(array)

    def add(self, padded: Array, where: Any, part: Array) -> None:
        """Add one tap's part of the gradient."""
        padded[where] += part

    def add_bias(self, y: Array, bias: Any, kernel: Any) -> Array:
        """Add the bias to each output channel."""
        return y if bias is None else y + bias.astype(y.dtype).reshape(-1, *(1,) * len(kernel))

    def operand(self, array: Array, work: Any) -> Array:
        """Return an operand in the form in which it is multiplied."""
        return array.astype(work)

    def output_work(self, dtype: Any) -> Any:
        """Return the data type to compute the output in."""
        return self.work(np.dtype(self.output_dtype or dtype))

    def work(self, dtype: Any) -> Any:
        """Return the data type to compute in."""
        return np.dtype("float32") if dtype == np.float16 else dtype


class ConvTranspose(Conv):
    """A correct transposed convolution: each input position adds a whole kernel to the output."""

    def forward(
        self,
        x: Array,
        weight: Array,
        bias: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
        output_padding: Any = None,
    ) -> Any:
        """Return y."""
        return self.y(x, weight, bias, steps(stride, padding, dilation, groups, output_padding))

    def backward(
        self,
        grad_output: Array,
        x: Array,
        weight: Array,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
        output_padding: Any = None,
    ) -> Any:
        """Return (grad_x, grad_weight, grad_bias)."""
        return self.grads(grad_output, x, weight, steps(stride, padding, dilation, groups, output_padding))

    def y(self, x: Array, weight: Array, bias: Any, p: Steps) -> Any:
        """Add x[n, c, l] · w[c, k, t] to full output position l·stride + t·dilation, then crop."""
        work, kernel = self.output_work(x.dtype), weight.shape[2:]
        full = self.full(x.shape[2:], kernel, p)
        y = np.zeros((len(x), weight.shape[1] * p.groups, *full), work)
        weight, values = self.kernel(self.operand(weight, work)), self.operand(x, work)
        for t in np.ndindex(*kernel):
            where = self.forward_taps(t, x.shape[2:], p)
            for ins, outs, rows in self.channels(p.groups, x.shape[1], y.shape[1]):
                part = np.einsum("ck,nc...->nk...", weight[rows][(..., *t)], values[:, ins], dtype=work)
                self.add(y, (slice(None), outs, *where[1:]), part)
        sizes = [n - b - a for n, (b, a) in zip(full, p.padding, strict=True)]
        return self.add_bias(self.unpad(y, sizes, p.padding), bias, kernel).astype(self.output_dtype or x.dtype)

    def grad_x(self, g: Array, weight: Array, shape: Any, p: Steps) -> Any:
        """Σ over taps of conj(w[c, k, t]) · G[n, k, l·stride + t·dilation], G being g before the crop."""
        work, kernel = self.work(g.dtype), weight.shape[2:]
        full = self.pad(self.operand(g, work), p.padding)
        weight = self.conj(self.kernel(self.operand(weight, work)))
        grad = np.zeros(shape, work)
        for t in np.ndindex(*kernel):
            window = full[self.input_taps(t, shape[2:], p)]
            for ins, outs, rows in self.channels(p.groups, shape[1], g.shape[1]):
                grad[:, ins] += np.einsum("ck,nk...->nc...", weight[rows][(..., *t)], window[:, outs], dtype=work)
        return grad.astype(g.dtype)

    def grad_weight(self, g: Array, x: Array, shape: Any, p: Steps) -> Any:
        """Σ over samples and positions of conj(x[n, c, l]) · G[n, k, l·stride + t·dilation]."""
        work = self.work(g.dtype)
        full, values = self.pad(self.operand(g, work), p.padding), self.conj(self.operand(x, work))
        grad = np.zeros(shape, work)
        for t in np.ndindex(*shape[2:]):
            window = full[self.weight_taps(t, x.shape[2:], p)]
            for ins, outs, rows in self.channels(p.groups, x.shape[1], g.shape[1]):
                grad[rows][(..., *t)] += product(values[:, ins], window[:, outs])
        return grad.astype(g.dtype)

    def channels(self, groups: int, c_in: int, c_out: int) -> Iterator[tuple[Any, Any, slice]]:
        """Yield (channels of x read, channels of y written, rows of the weight): rows run over input channels."""
        a, b = c_in // groups, c_out // groups
        for g in range(groups):
            ins = slice(g * a, g * a + a)
            yield ins, slice(g * b, g * b + b), ins

    def full(self, size: Any, kernel: Any, p: Steps) -> list[int]:
        """Return the output sizes before the crop."""
        axes = zip(size, kernel, p.stride, p.dilation, p.output_padding, strict=True)
        return [(n - 1) * s + d * (k - 1) + 1 + extra for n, k, s, d, extra in axes]


def product(a: Array, b: Array) -> Array:
    """Σ over samples and positions: (N, A, …), (N, B, …) -> (A, B)."""
    flat = (a.reshape(*a.shape[:2], math.prod(a.shape[2:])), b.reshape(*b.shape[:2], math.prod(b.shape[2:])))
    return np.einsum("nal,nbl->ab", *flat, dtype=a.dtype)


def reach(outputs: Any, kernel: Any, p: Steps) -> list[int]:
    """Return how far the windows reach into the padded input."""
    axes = zip(outputs, p.stride, p.dilation, kernel, strict=True)
    return [(o - 1) * s + d * (k - 1) + 1 for o, s, d, k in axes]


def enlarged(padded: Array, sizes: Any) -> Array:
    """Return the padded input with zeros after it, for a mistake that reads too far."""
    missing = [(0, max(0, want - n)) for want, n in zip(sizes, padded.shape[2:], strict=True)]
    return np.pad(padded, [(0, 0), (0, 0), *missing]) if any(m for _, m in missing) else padded
