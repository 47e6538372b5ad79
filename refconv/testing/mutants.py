# mypy: disable-error-code="no-redef"
# ruff: noqa: N801  (the class of a mistake needs no name: its decorator says what is wrong)
"""A catalogue of wrong convolutions, so that a mistake can be called by its name.

`Conv` and `ConvTranspose` are small correct implementations cut into pieces. Each mistake below them replaces one
piece: its name says what is wrong, its docstring explains it in a sentence, and its hint says how to mend it. They
serve twice. :func:`refconv.testing.check_conv` must catch every one of them, which shows that its checks work; and
where it finds a function wrong, it names the mistakes that give the very same results.

Letters: N batch, C and K input and output channels of one group, t kernel tap, g upstream gradient.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
    """Return the integers in one form, from what a checked function is given."""
    pairs: Any = padding_pairs(padding, len(stride))
    return Steps(tuple(stride), pairs, tuple(dilation), groups, output_padding or (0,) * len(pairs))


class Conv:
    """A correct convolution: for each kernel tap, one strided slice of the padded input."""

    # --- What is checked ---

    def forward(self, x: Array, weight: Array, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        """Return y."""
        return self.y(x, weight, bias, steps(stride, padding, dilation, groups))

    def backward(
        self, grad_output: Array, x: Array, weight: Array, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> Any:
        """Return (grad_x, grad_weight, grad_bias)."""
        return self.grads(grad_output, x, weight, steps(stride, padding, dilation, groups))

    # --- The passes ---

    def y(self, x: Array, weight: Array, bias: Any, p: Steps) -> Any:
        """Σ over taps of w[k, c, t] · P[n, c, o·stride + t·dilation]."""
        work, kernel = self.work(x.dtype), weight.shape[2:]
        outputs = self.outputs(x.shape[2:], kernel, p)
        padded = _enlarged(self.pad(self.operand(x, work), p.padding), _reach(outputs, kernel, p))
        y = np.zeros((len(x), len(weight), *outputs), work)
        weight = self.kernel(self.operand(weight, work))
        for t in np.ndindex(*kernel):
            window = padded[self.forward_taps(t, outputs, p)]
            for ins, outs, rows in self.channels(p.groups, x.shape[1], len(weight)):
                y[:, outs] += np.einsum("kc,nc...->nk...", weight[rows][(..., *t)], window[:, ins], dtype=work)
        return self.add_bias(y, bias, kernel).astype(x.dtype)

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
                grad[rows][(..., *t)] += _product(upstream[:, outs], window[:, ins])
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

    def pad(self, x: Array, padding: Pairs) -> Array:
        """Put zeros around x."""
        return np.pad(x, [(0, 0), (0, 0), *padding])

    def unpad(self, padded: Array, size: Any, padding: Pairs) -> Array:
        """Take the padding away again."""
        return padded[(..., *(slice(b, b + n) for n, (b, _) in zip(size, padding, strict=True)))]

    # --- Channels, kernel, data types ---

    def channels(self, groups: int, c_in: int, c_out: int) -> Iterator[tuple[Any, Any, slice]]:
        """Yield (channels of x read, channels of y written, rows of the weight) of every group."""
        a, b = c_in // groups, c_out // groups
        for g in range(groups):
            outs = slice(g * b, g * b + b)
            yield slice(g * a, g * a + a), outs, outs

    def kernel(self, weight: Array) -> Array:
        """Return the weight as forward pass and input gradient use it."""
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
        """Return an operand as it is multiplied."""
        return array.astype(work)

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
        work, kernel = self.work(x.dtype), weight.shape[2:]
        full = self.full(x.shape[2:], kernel, p)
        y = np.zeros((len(x), weight.shape[1] * p.groups, *full), work)
        weight, values = self.kernel(self.operand(weight, work)), self.operand(x, work)
        for t in np.ndindex(*kernel):
            where = self.forward_taps(t, x.shape[2:], p)
            for ins, outs, rows in self.channels(p.groups, x.shape[1], y.shape[1]):
                part = np.einsum("ck,nc...->nk...", weight[rows][(..., *t)], values[:, ins], dtype=work)
                self.add(y, (slice(None), outs, *where[1:]), part)
        sizes = [n - b - a for n, (b, a) in zip(full, p.padding, strict=True)]
        return self.add_bias(self.unpad(y, sizes, p.padding), bias, kernel).astype(x.dtype)

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
                grad[rows][(..., *t)] += _product(values[:, ins], window[:, outs])
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


def _product(a: Array, b: Array) -> Array:
    """Σ over samples and positions: (N, A, …), (N, B, …) -> (A, B)."""
    flat = (a.reshape(*a.shape[:2], math.prod(a.shape[2:])), b.reshape(*b.shape[:2], math.prod(b.shape[2:])))
    return np.einsum("nal,nbl->ab", *flat, dtype=a.dtype)


def _reach(outputs: Any, kernel: Any, p: Steps) -> list[int]:
    """Return how far the windows reach into the padded input."""
    axes = zip(outputs, p.stride, p.dilation, kernel, strict=True)
    return [(o - 1) * s + d * (k - 1) + 1 for o, s, d, k in axes]


def _enlarged(padded: Array, sizes: Any) -> Array:
    """Return the padded input with zeros after it, for a mistake that reads too far."""
    missing = [(0, max(0, want - n)) for want, n in zip(sizes, padded.shape[2:], strict=True)]
    return np.pad(padded, [(0, 0), (0, 0), *missing]) if any(m for _, m in missing) else padded


# --- The catalogue ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutant:
    """A wrong implementation with a name.

    Attributes
    ----------
    name : str
        What is wrong, in a few words.
    family : str
        One of :data:`FAMILIES`.
    explanation, hint : str
        What happens, in a sentence; how to mend it.
    make : callable
        Makes the implementation: an object with ``forward`` and ``backward`` as :func:`~refconv.testing.check_conv`
        calls them.
    transposed : bool
        Whether it is a transposed convolution.
    dtype : str
        Data type in which the mistake shows.
    supports : tuple of str
        What :func:`~refconv.testing.check_conv` must be told that it supports.
    endless : bool
        Whether it does not return in some cases.
    """

    name: str
    family: str
    explanation: str
    hint: str
    make: Callable[[], Conv]
    transposed: bool = False
    dtype: str = "float32"
    supports: tuple[str, ...] = ("bias", "stride", "padding", "dilation", "groups")
    endless: bool = False

    def settings(self) -> dict[str, Any]:
        """Return the keyword arguments with which :func:`~refconv.testing.check_conv` catches it."""
        return {"transposed": self.transposed, "dtype": self.dtype, "supports": self.supports}


FAMILIES = (
    "output size", "kernel flip", "stride", "dilation", "groups", "bias", "padding", "layout", "memory", "precision",
    "interface",
)  # fmt: skip
"""Families of mistakes, the ten that everybody makes and the rest."""

_found: list[Mutant] = []


def mistake(
    family: str,
    name: str,
    hint: str,
    *,
    dtype: str = "float32",
    supports: str = "",
    endless: bool = False,
    both: bool = False,
) -> Callable[[type[Conv]], type[Conv]]:
    """Enter a class into the catalogue; its docstring explains it. `supports` is what it needs beyond the usual.

    With `both` the same mistake is entered for the transposed convolution too.
    """

    def enter(cls: type[Conv], called: str) -> None:
        assert family in FAMILIES
        assert called not in {m.name for m in _found}, called
        explanation = " ".join((cls.__doc__ or "").split())
        words = ("bias", "stride", "padding", "dilation", "groups", *([supports] if supports else []))
        transposed = issubclass(cls, ConvTranspose)
        _found.append(Mutant(called, family, explanation, hint, cls, transposed, dtype, words, endless))

    def register(cls: type[Conv]) -> type[Conv]:
        enter(cls, name)
        if both:
            enter(type("_", (cls, ConvTranspose), {"__doc__": cls.__doc__}), f"transposed: {name}")
        return cls

    return register


# --- Output size ---


@mistake("output size", "ceil for floor in the output size", "Divide with //: floor((n + pads − span) / stride) + 1.")
class _(Conv):
    """The last, incomplete step of the stride is counted as an output position."""

    def output(self, padded, k, s, d):
        return -(-(padded - d * (k - 1) - 1) // s) + 1


@mistake("output size", "+1 missing in the output size", "The window at position 0 counts too: add 1 to the quotient.")
class _(Conv):
    """The number of steps is taken for the number of positions."""

    def output(self, padded, k, s, d):
        return (padded - d * (k - 1) - 1) // s


@mistake("output size", "width computed from height", "Compute each axis' output size from its own size and kernel.")
class _(Conv):
    """One axis' output size is used for all."""

    def outputs(self, size, kernel, p):
        return (super().outputs(size, kernel, p)[0],) * len(size)


@mistake("output size", "padding counted once in the output size", "Add the padding before and the padding after.")
class _(Conv):
    """n + p stands where n + 2p belongs."""

    def outputs(self, size, kernel, p):
        return super().outputs(size, kernel, p._replace(padding=[(b, 0) for b, _ in p.padding]))


@mistake("output size", "output as large as the input", "Only 'same' padding with stride 1 keeps the size; compute it.")
class _(Conv):
    """The output is made in the input's size and the rest stays zero."""

    def y(self, x, weight, bias, p):
        y = super().y(x, weight, bias, p)
        same = np.zeros((*y.shape[:2], *x.shape[2:]), y.dtype)
        part = tuple(slice(0, min(a, b)) for a, b in zip(y.shape, same.shape, strict=True))
        same[part] = y[part]
        return same


@mistake(
    "output size", "stride ignored altogether", "Step by the stride, and divide by it in the output size.", both=True
)
class _(Conv):
    """The forward pass takes stride 1 whatever it is asked for."""

    def y(self, x, weight, bias, p):
        return super().y(x, weight, bias, p._replace(stride=(1,) * len(p.stride)))


@mistake("output size", "padding ignored altogether", "Use the padding, and count it in the output size.", both=True)
class _(Conv):
    """The forward pass takes no padding whatever it is asked for."""

    def y(self, x, weight, bias, p):
        return super().y(x, weight, bias, p._replace(padding=[(0, 0)] * len(p.padding)))


@mistake("output size", "dilation ignored altogether", "The kernel spans dilation·(k − 1) + 1 elements.", both=True)
class _(Conv):
    """The forward pass takes dilation 1 whatever it is asked for."""

    def y(self, x, weight, bias, p):
        return super().y(x, weight, bias, p._replace(dilation=(1,) * len(p.dilation)))


@mistake("output size", "k for dilation·(k−1)+1 in the output size", "Compute the size with the kernel's whole span.")
class _(Conv):
    """Taps lie dilation apart, but as many windows are taken as an undilated kernel would have."""

    def outputs(self, size, kernel, p):
        return super().outputs(size, kernel, p._replace(dilation=(1,) * len(p.dilation)))


@mistake(
    "output size",
    "transposed: n·stride in the output size",
    "The full size is (n − 1)·stride + dilation·(k − 1) + 1.",
)
class _(ConvTranspose):
    """The output ends a whole stride after the last input, also where the kernel is smaller than that."""

    def full(self, size, kernel, p):
        axes = zip(size, kernel, p.stride, p.dilation, p.output_padding, strict=True)
        return [(n - 1) * s + max(s, d * (k - 1) + 1) + extra for n, k, s, d, extra in axes]


@mistake(
    "output size",
    "transposed: output padding ignored",
    "Add output_padding to the output size, before anything is written.",
    supports="output_padding",
)
class _(ConvTranspose):
    """The output has the smallest of the sizes that a strided convolution maps to the input's."""

    def full(self, size, kernel, p):
        return super().full(size, kernel, p._replace(output_padding=(0,) * len(size)))

    def grad_x(self, g, weight, shape, p):
        return super().grad_x(g, weight, shape, p)


# --- Kernel flip ---


def flipped(weight: Array) -> Array:
    """Return the weight with every kernel axis reversed."""
    return np.flip(weight, tuple(range(2, weight.ndim)))


@mistake("kernel flip", "kernel flipped in the forward pass", "Correlate: tap t reads o·stride + t·dilation.")
class _(Conv):
    """The forward pass is a convolution in the mathematical sense; the gradients belong to a correlation."""

    def y(self, x, weight, bias, p):
        return super().y(x, flipped(weight), bias, p)


@mistake("kernel flip", "kernel flipped everywhere", "Deep-learning libraries correlate; drop the flip in every pass.")
class _(Conv):
    """A true convolution with its own right gradients: consistent, but not what frameworks compute."""

    def kernel(self, weight):
        return flipped(weight)

    def grad_weight(self, g, x, shape, p):
        return flipped(super().grad_weight(g, x, shape, p)).copy()


@mistake("kernel flip", "kernel flipped along the last axis only", "No axis of the kernel is reversed.")
class _(Conv):
    """The last kernel axis is read backwards."""

    def y(self, x, weight, bias, p):
        return super().y(x, weight[..., ::-1], bias, p)


@mistake(
    "kernel flip",
    "kernel flipped in the input gradient",
    "Scatter with tap t to o·stride + t·dilation, unflipped; "
    "only the form that correlates the padded gradient flips the kernel.",
)
class _(Conv):
    """The flip of the 'full correlation' form is missing, or done twice: g is spread with the kernel backwards."""

    def grad_x(self, g, weight, shape, p):
        return super().grad_x(g, flipped(weight), shape, p)


@mistake(
    "kernel flip", "weight gradient flipped", "The weight gradient correlates x with g; it is not flipped.", both=True
)
class _(Conv):
    """The gradient of each kernel comes out reversed."""

    def grad_weight(self, g, x, shape, p):
        return flipped(super().grad_weight(g, x, shape, p)).copy()


@mistake("kernel flip", "transposed: kernel flipped", "Position l adds tap t at l·stride + t·dilation, unflipped.")
class _(ConvTranspose):
    """The kernel is laid down backwards, as if the operation were a correlation of the inflated input."""

    def y(self, x, weight, bias, p):
        return super().y(x, flipped(weight), bias, p)


@mistake(
    "kernel flip",
    "transposed: kernel flipped in the input gradient",
    "The input gradient is a plain correlation of g with the weight.",
)
class _(ConvTranspose):
    """The input gradient correlates with the kernel reversed."""

    def grad_x(self, g, weight, shape, p):
        return super().grad_x(g, flipped(weight), shape, p)


# --- Stride ---


@mistake("stride", "stride ignored in the forward pass", "Position o starts at o·stride.")
class _(Conv):
    """Windows lie side by side: the output has the right size but reads positions 0, 1, 2 and so on."""

    def forward_taps(self, t, outputs, p):
        return self.taps(t, outputs, p._replace(stride=[1] * len(p.stride)))


@mistake("stride", "stride ignored in the input gradient", "Scatter position o to o·stride, leaving gaps between.")
class _(Conv):
    """col2im adds the windows side by side."""

    def input_taps(self, t, outputs, p):
        return self.taps(t, outputs, p._replace(stride=[1] * len(p.stride)))


@mistake(
    "stride", "stride ignored in the weight gradient", "Read x at o·stride + t·dilation in the weight gradient too."
)
class _(Conv):
    """The weight gradient correlates with the first positions instead of every stride-th."""

    def weight_taps(self, t, outputs, p):
        return self.taps(t, outputs, p._replace(stride=[1] * len(p.stride)))


@mistake(
    "stride",
    "stride and dilation exchanged in the weight gradient",
    "In the weight gradient g is the kernel: its elements are stride apart, and results dilation apart.",
)
class _(Conv):
    """Seen as a convolution, it has stride and dilation exchanged; here they are exchanged once too often."""

    def weight_taps(self, t, outputs, p):
        return self.taps(t, outputs, p._replace(stride=p.dilation, dilation=p.stride))

    def grad_weight(self, g, x, shape, p):
        q = p._replace(stride=p.dilation, dilation=p.stride)
        missing = [
            max(0, r - n - b - a)
            for r, n, (b, a) in zip(_reach(g.shape[2:], shape[2:], q), x.shape[2:], p.padding, strict=True)
        ]
        padding = [(b, a + m) for (b, a), m in zip(p.padding, missing, strict=True)]
        return super().grad_weight(g, x, shape, p._replace(padding=padding))


@mistake(
    "stride",
    "overlapping windows overwrite each other",
    "Add with += for each tap (or numpy.add.at): an element read by several windows receives all of them.",
)
class _(Conv):
    """col2im assigns, or adds through a fancy index that drops repeated positions; the last window wins."""

    def add(self, padded, where, part):
        padded[where] = part


class _WindowByWindow(Conv):
    """The input gradient in the other order: for each output position, all taps at once."""

    def grad_x(self, g: Array, weight: Array, shape: Any, p: Steps) -> Any:
        work = self.work(g.dtype)
        padded = np.zeros((*shape[:2], *(n + b + a for n, (b, a) in zip(shape[2:], p.padding, strict=True))), work)
        for o in np.ndindex(*g.shape[2:]):
            axes = zip(o, p.stride, weight.shape[2:], p.dilation, strict=True)
            window = [slice(oj * s, oj * s + d * (k - 1) + 1, d) for oj, s, k, d in axes]
            for ins, outs, rows in self.channels(p.groups, shape[1], len(weight)):
                part = self.part(self.conj(weight[rows].astype(work)), g[:, outs][(..., *o)].astype(work))
                self.add(padded, (slice(None), ins, *window), part)
        return self.unpad(padded, shape[2:], p.padding).astype(g.dtype)

    def part(self, weight: Array, g: Array) -> Array:
        """Σ over output channels: (K, C, t1 … td), (N, K) -> (N, C, t1 … td)."""
        return np.tensordot(g, weight, axes=1)


@mistake(
    "stride",
    "overlapping windows overwrite each other, window by window",
    "Add with += for each window: an element read by several windows receives all of them.",
)
class _(_WindowByWindow):
    """A loop over output positions assigns each window's gradient; the last window that reads an element wins."""

    def add(self, padded, where, part):
        padded[where] = part


@mistake(
    "stride",
    "windows and output channels overwrite each other",
    "Add with += in the innermost loop: x receives from every window and every output channel.",
)
class _(_WindowByWindow):
    """Loops over positions and output channels assign; the last window's last output channel wins."""

    def part(self, weight, g):
        return super().part(weight[-1:], g[:, -1:])

    def add(self, padded, where, part):
        padded[where] = part


@mistake("stride", "rows that the stride leaves over are dropped", "The gradient has x's shape; unread elements are 0.")
class _(Conv):
    """The gradient's size is computed back from the output's, which forgets the remainder of the division."""

    def grad_x(self, g, weight, shape, p):
        reach = _reach(g.shape[2:], weight.shape[2:], p)
        sizes = [min(n, r - b - a) for n, r, (b, a) in zip(shape[2:], reach, p.padding, strict=True)]
        whole = super().grad_x(g, weight, shape, p)
        return whole[(..., *(slice(0, max(0, n)) for n in sizes))]


@mistake("stride", "stride of the first axis used for all", "Index stride by axis.")
class _(Conv):
    """Every axis steps as the first one does."""

    def outputs(self, size, kernel, p):
        return super().outputs(size, kernel, p._replace(stride=[p.stride[0]] * len(size)))

    def taps(self, t, outputs, p):
        return super().taps(t, outputs, p._replace(stride=[p.stride[0]] * len(outputs)))


@mistake("stride", "strides of the axes exchanged", "Height comes before width in stride, as in the shape.")
class _(Conv):
    """The strides are taken in the order (width, height)."""

    def outputs(self, size, kernel, p):
        return super().outputs(size, kernel, p._replace(stride=p.stride[::-1]))

    def taps(self, t, outputs, p):
        return super().taps(t, outputs, p._replace(stride=p.stride[::-1]))


@mistake("stride", "stride starts one late", "Keep position 0: slice with [::stride], not [stride−1::stride].")
class _(Conv):
    """The dense result is thinned out beginning at its second element where there is one."""

    def y(self, x, weight, bias, p):
        dense = super().y(x, weight, bias, p._replace(stride=(1,) * len(p.stride)))
        outputs = self.outputs(x.shape[2:], weight.shape[2:], p)
        y = np.zeros((*dense.shape[:2], *outputs), dense.dtype)
        late = dense[(..., *(slice(s - 1, None, s) for s in p.stride))]
        y[tuple(slice(0, n) for n in late.shape)] = late
        return y


@mistake("stride", "transposed: stride ignored", "Input l lands at l·stride.")
class _(ConvTranspose):
    """The output has the right size, but inputs are laid down side by side."""

    def forward_taps(self, t, outputs, p):
        return self.taps(t, outputs, p._replace(stride=[1] * len(p.stride)))


@mistake("stride", "transposed: overlapping kernels overwrite each other", "Add where kernels overlap.")
class _(ConvTranspose):
    """The output is assigned, so the last kernel tap wins."""

    def add(self, padded, where, part):
        padded[where] = part


# --- Dilation ---


@mistake("dilation", "d·k for d·(k−1)+1", "The span of a dilated kernel is dilation·(k − 1) + 1.")
class _(Conv):
    """The effective kernel is taken one dilation too long, so the output comes out too small."""

    def output(self, padded, k, s, d):
        return (padded - d * k) // s + 1


@mistake("dilation", "dilation counted from zero", "Dilation 1 means neighbouring taps; some libraries count gaps.")
class _(Conv):
    """Taps lie dilation − 1 apart."""

    def taps(self, t, outputs, p):
        return super().taps(t, outputs, p._replace(dilation=[d - 1 for d in p.dilation]))


@mistake("dilation", "dilation ignored in the forward pass", "Tap t reads o·stride + t·dilation.")
class _(Conv):
    """The output has the right size, but the taps lie side by side."""

    def forward_taps(self, t, outputs, p):
        return self.taps(t, outputs, p._replace(dilation=[1] * len(p.dilation)))


@mistake("dilation", "dilation ignored in the input gradient", "Spread tap t to o·stride + t·dilation.")
class _(Conv):
    """The backward pass was written for dilation 1."""

    def input_taps(self, t, outputs, p):
        return self.taps(t, outputs, p._replace(dilation=[1] * len(p.dilation)))


@mistake(
    "dilation", "dilation ignored in the weight gradient", "Tap t of the gradient reads x at o·stride + t·dilation."
)
class _(Conv):
    """The gradient of tap t is that of the tap at distance t instead of t·dilation."""

    def weight_taps(self, t, outputs, p):
        return self.taps(t, outputs, p._replace(dilation=[1] * len(p.dilation)))


@mistake("dilation", "dilation of the first axis used for all", "Index dilation by axis.")
class _(Conv):
    """Every axis is dilated as the first one is."""

    def outputs(self, size, kernel, p):
        return super().outputs(size, kernel, p._replace(dilation=[p.dilation[0]] * len(size)))

    def taps(self, t, outputs, p):
        return super().taps(t, outputs, p._replace(dilation=[p.dilation[0]] * len(outputs)))


@mistake(
    "dilation", "dilated kernel inflated with zeros", "Skip what lies between the taps instead of multiplying by 0."
)
class _(Conv):
    """Zeros stand between the taps: on finite numbers right, but 0·∞ and 0·NaN are NaN."""

    def y(self, x, weight, bias, p):
        spans = [d * (k - 1) + 1 for d, k in zip(p.dilation, weight.shape[2:], strict=True)]
        inflated = np.zeros((*weight.shape[:2], *spans), weight.dtype)
        inflated[(..., *(slice(None, None, d) for d in p.dilation))] = weight
        return super().y(x, inflated, bias, p._replace(dilation=(1,) * len(p.dilation)))


@mistake("dilation", "transposed: dilation ignored", "Tap t lands at l·stride + t·dilation.")
class _(ConvTranspose):
    """The output has the right size, but the kernel is laid down undilated."""

    def forward_taps(self, t, outputs, p):
        return self.taps(t, outputs, p._replace(dilation=[1] * len(p.dilation)))


# --- Groups ---


@mistake("groups", "groups ignored: all read the first channels", "Group g reads input channels g·C/G … (g+1)·C/G − 1.")
class _(Conv):
    """Every group is computed from the first group's input channels."""

    def channels(self, groups, c_in, c_out):
        for _, outs, rows in super().channels(groups, c_in, c_out):
            yield slice(0, c_in // groups), outs, rows


@mistake("groups", "groups reversed", "Group g reads the g-th block of input channels and writes the g-th of outputs.")
class _(Conv):
    """The first group reads the last input channels."""

    def channels(self, groups, c_in, c_out):
        whole = list(super().channels(groups, c_in, c_out))
        for (ins, _, _), (_, outs, rows) in zip(whole[::-1], whole, strict=True):
            yield ins, outs, rows


@mistake(
    "groups",
    "input channels interleaved among groups",
    "Groups are contiguous blocks: reshape to (G, C/G), not (C/G, G).",
)
class _(Conv):
    """Group g reads channels g, g + G, g + 2G and so on."""

    def channels(self, groups, c_in, c_out):
        for g, (_, outs, rows) in enumerate(super().channels(groups, c_in, c_out)):
            yield slice(g, None, groups), outs, rows


@mistake(
    "groups", "output channels interleaved among groups", "Concatenate the groups' outputs; do not stack them last."
)
class _(Conv):
    """Group g writes channels g, g + G, g + 2G, … (a channel shuffle); K = G hides it."""

    def channels(self, groups, c_in, c_out):
        for g, (ins, _, rows) in enumerate(super().channels(groups, c_in, c_out)):
            yield ins, slice(g, None, groups), rows


@mistake("groups", "output channel k in group k mod G", "Output channel k belongs to group k // (K/G).")
class _(Conv):
    """Output channel k, with its own weights, reads the input channels of group k mod G; K = G hides it."""

    def channels(self, groups, c_in, c_out):
        for g, (ins, _, _) in enumerate(super().channels(groups, c_in, c_out)):
            yield ins, slice(g, None, groups), slice(g, None, groups)


@mistake("groups", "only the first group computed", "Loop over all groups.")
class _(Conv):
    """The other groups' outputs and gradients stay zero."""

    def channels(self, groups, c_in, c_out):
        yield next(super().channels(groups, c_in, c_out))


@mistake("groups", "first group's weights used for all", "Group g uses weight rows g·K/G … (g+1)·K/G − 1.", both=True)
class _(Conv):
    """The weight is not sliced by group in the forward pass."""

    def y(self, x, weight, bias, p):
        first = weight[: len(weight) // p.groups]
        return super().y(x, np.concatenate([first] * p.groups), bias, p)


@mistake(
    "groups",
    "groups reversed in the weight gradient",
    "Write the g-th group's gradient to its own weight rows.",
    both=True,
)
class _(Conv):
    """Each group's weight gradient lands in another group's place."""

    def grad_weight(self, g, x, shape, p):
        return np.concatenate(np.split(super().grad_weight(g, x, shape, p), p.groups)[::-1])


@mistake("groups", "weight gradient reads the first group's input", "Slice x by group in the weight gradient too.")
class _(Conv):
    """The upstream gradient is sliced by group, x is not."""

    def grad_weight(self, g, x, shape, p):
        n = x.shape[1] // p.groups
        return super().grad_weight(g, np.concatenate([x[:, :n]] * p.groups, 1), shape, p)


@mistake("groups", "groups ignored in the input gradient", "Use the g-th group's weight rows for the g-th block of x.")
class _(Conv):
    """The input gradient spreads every group with the first group's weights."""

    def grad_x(self, g, weight, shape, p):
        first = weight[: len(weight) // p.groups]
        return super().grad_x(g, np.concatenate([first] * p.groups), shape, p)


@mistake("groups", "input gradient summed into the first group", "Write each group's part to its own channels of x.")
class _(Conv):
    """All groups' gradients are added to the first block of input channels."""

    def grad_x(self, g, weight, shape, p):
        grad = super().grad_x(g, weight, shape, p)
        n = shape[1] // p.groups
        grad[:, :n] = sum(grad[:, i * n : i * n + n] for i in range(p.groups))
        grad[:, n:] = 0
        return grad


@mistake(
    "groups",
    "transposed: group slices run over output channels",
    "A transposed weight is (C, K/G, …): slice its first axis by input channels.",
)
class _(ConvTranspose):
    """The weight is cut as a convolution's, so groups get each other's kernels."""

    def y(self, x, weight, bias, p):
        c, k = weight.shape[:2]
        mixed = weight.reshape(k, c, *weight.shape[2:]).swapaxes(0, 1) if p.groups > 1 else weight
        return super().y(x, mixed, bias, p)


@mistake("groups", "transposed: only one output channel per group", "Each group writes K/G output channels.")
class _(ConvTranspose):
    """With groups, the output channels beyond the G-th stay empty (as the ONNX reference did up to release 1.23)."""

    def y(self, x, weight, bias, p):
        y = super().y(x, weight, bias, p)
        if p.groups > 1:
            y[:, p.groups :] = 0
        return y


@mistake("groups", "transposed: groups reversed", "Group g reads the g-th block of x and writes the g-th block of y.")
class _(ConvTranspose):
    """The first group writes the last output channels."""

    def channels(self, groups, c_in, c_out):
        whole = list(super().channels(groups, c_in, c_out))
        for (ins, _, rows), (_, outs, _) in zip(whole, whole[::-1], strict=True):
            yield ins, outs, rows


@mistake("groups", "transposed: weight gradient reads the first group's input", "Slice x by group here too.")
class _(ConvTranspose):
    """The upstream gradient is sliced by group, x is not."""

    def grad_weight(self, g, x, shape, p):
        n = x.shape[1] // p.groups
        return super().grad_weight(g, np.concatenate([x[:, :n]] * p.groups, 1), shape, p)


# --- Bias ---


@mistake("bias", "bias ignored", "Add bias[k] to every element of output channel k.", both=True)
class _(Conv):
    """The bias is accepted and forgotten."""

    def add_bias(self, y, bias, kernel):
        return y


@mistake("bias", "bias added once per kernel tap", "Add the bias after the sum over taps.")
class _(Conv):
    """The bias stands inside the loop."""

    def add_bias(self, y, bias, kernel):
        return y if bias is None else super().add_bias(y, bias * int(np.prod(kernel)), kernel)


@mistake("bias", "bias added once per input channel", "Add the bias after the sum over input channels.")
class _(Conv):
    """The bias stands inside the loop over input channels."""

    def y(self, x, weight, bias, p):
        return super().y(x, weight, None if bias is None else bias * np.asarray(weight.shape[1], bias.dtype), p)


@mistake("bias", "bias added in the innermost loop", "Add the bias after the sum over taps and input channels.")
class _(Conv):
    """The bias is added once for every tap of every input channel."""

    def y(self, x, weight, bias, p):
        count = np.asarray(math.prod(weight.shape[1:]), x.dtype)
        return super().y(x, weight, None if bias is None else bias * count, p)


@mistake("bias", "bias broadcast along the last axis", "Reshape the bias to (1, K, 1, …) before adding it.")
class _(Conv):
    """NumPy aligns trailing axes, so y + bias adds along the width: wrong where it fits, an error where it does not."""

    def add_bias(self, y, bias, kernel):
        return y if bias is None else y + bias


@mistake(
    "bias", "first group's bias used for all", "Slice the bias by group, or add it after joining the groups.", both=True
)
class _(Conv):
    """Each group adds the bias from its beginning."""

    def y(self, x, weight, bias, p):
        if bias is not None:
            bias = np.tile(bias[: len(bias) // p.groups], p.groups)
        return super().y(x, weight, bias, p)


@mistake("bias", "bias gradient averaged over the batch", "Sum over the batch; the loss does the averaging.", both=True)
class _(Conv):
    """A mean stands where a sum belongs."""

    def grad_bias(self, g):
        return super().grad_bias(g) / np.asarray(max(1, len(g)), g.dtype)


@mistake("bias", "bias gradient averaged over positions", "Sum over all output positions.", both=True)
class _(Conv):
    """A mean over height and width stands where a sum belongs."""

    def grad_bias(self, g):
        return super().grad_bias(g) / np.asarray(max(1, np.prod(g.shape[2:])), g.dtype)


@mistake(
    "bias", "bias gradient averaged over batch and positions", "Sum over both; the loss does the averaging.", both=True
)
class _(Conv):
    """A mean over everything but the channels stands where a sum belongs."""

    def grad_bias(self, g):
        return super().grad_bias(g) / np.asarray(max(1, g.size // g.shape[1]), g.dtype)


@mistake("bias", "bias gradient summed over the channels", "Sum over axis 0 and the positions; keep axis 1.", both=True)
class _(Conv):
    """The batch axis is kept and the channels are summed."""

    def grad_bias(self, g):
        return np.sum(g, axis=tuple(range(1, g.ndim)))


@mistake("bias", "bias gradient keeps all axes", "Drop the axes that are summed: no keepdims.", both=True)
class _(Conv):
    """The sum keeps its axes, so that the result has shape (1, K, 1, …)."""

    def grad_bias(self, g):
        return super().grad_bias(g).reshape(1, -1, *(1,) * (g.ndim - 2))


@mistake("bias", "bias gradient of the first position only", "Sum over all output positions.")
class _(Conv):
    """Only one output position is summed over the batch."""

    def grad_bias(self, g):
        return super().grad_bias(g[(..., *(slice(0, 1),) * (g.ndim - 2))])


@mistake("bias", "bias gradient of the first sample only", "Sum over the batch.", both=True)
class _(Conv):
    """The other samples are forgotten."""

    def grad_bias(self, g):
        return super().grad_bias(g[:1])


@mistake(
    "bias", "bias gradient keeps the batch axis", "Sum over the batch axis too: the result has shape (K,).", both=True
)
class _(Conv):
    """One gradient per sample is returned."""

    def grad_bias(self, g):
        return np.sum(g, axis=tuple(range(2, g.ndim)))


@mistake("bias", "transposed: bias added before the overlap is summed", "Add the bias once per output element.")
class _(ConvTranspose):
    """The bias is added with every kernel that is laid down, so overlaps get it several times and gaps never."""

    def y(self, x, weight, bias, p):
        y = super().y(x, weight, None, p)
        if bias is None:
            return y
        ones = np.ones((1, 1, *x.shape[2:]), x.dtype)
        counts = ConvTranspose.y(
            ConvTranspose(), ones, np.ones((1, 1, *weight.shape[2:]), x.dtype), None, p._replace(groups=1)
        )
        return y + counts * bias.reshape(-1, *(1,) * (x.ndim - 2))


# --- Padding ---


@mistake("padding", "[p:-p] is empty where p is 0", "Crop with [p : p + n], which also holds for p = 0.")
class _(Conv):
    """The input gradient is cropped with [p:-p], which selects nothing where an axis has no padding."""

    def unpad(self, padded, size, padding):
        return padded[(..., *(slice(b, -a) for b, a in padding))]


@mistake("padding", "padding not taken off the input gradient", "Crop the padding off before returning.")
class _(Conv):
    """The gradient of the padded input is returned, larger than x."""

    def unpad(self, padded, size, padding):
        return padded


@mistake("padding", "input gradient cropped from the start", "The padding before is taken off first: [p : p + n].")
class _(Conv):
    """The gradient has x's shape but is shifted by the padding."""

    def unpad(self, padded, size, padding):
        return padded[(..., *(slice(0, n) for n in size))]


@mistake(
    "padding",
    "input gradient cropped by what pads after",
    "Crop `before` elements at the start.",
    supports="asymmetric_padding",
)
class _(Conv):
    """The crop exchanges before and after."""

    def unpad(self, padded, size, padding):
        return super().unpad(padded, size, [(a, b) for b, a in padding])


@mistake("padding", "before and after exchanged", "Padding pairs are (before, after).", supports="asymmetric_padding")
class _(Conv):
    """Every pass pads the wrong ends."""

    def pad(self, x, padding):
        return super().pad(x, [(a, b) for b, a in padding])

    def unpad(self, padded, size, padding):
        return super().unpad(padded, size, [(a, b) for b, a in padding])


@mistake("padding", "paddings of the axes exchanged", "Height comes before width in padding, as in the shape.")
class _(Conv):
    """The paddings are taken in the order (width, height)."""

    def y(self, x, weight, bias, p):
        return super().y(x, weight, bias, p._replace(padding=p.padding[::-1]))


@mistake("padding", "padding of the first axis used for all", "Index padding by axis.")
class _(Conv):
    """Every axis is padded as the first one is."""

    def y(self, x, weight, bias, p):
        return super().y(x, weight, bias, p._replace(padding=[p.padding[0]] * len(p.padding)))


@mistake("padding", "all padding put before", "Half of the padding belongs after the input.")
class _(Conv):
    """The output has the right size, but the input is shifted to the end."""

    def pad(self, x, padding):
        return super().pad(x, [(b + a, 0) for b, a in padding])

    def unpad(self, padded, size, padding):
        return super().unpad(padded, size, [(b + a, 0) for b, a in padding])


@mistake("padding", "all padding put after", "Half of the padding belongs before the input.")
class _(Conv):
    """The output has the right size, but the input stays at the beginning."""

    def pad(self, x, padding):
        return super().pad(x, [(0, b + a) for b, a in padding])

    def unpad(self, padded, size, padding):
        return super().unpad(padded, size, [(0, b + a) for b, a in padding])


@mistake("padding", "pads with ones", "Pad with zeros.")
class _(Conv):
    """The border is filled with ones."""

    def pad(self, x, padding):
        return np.pad(x, [(0, 0), (0, 0), *padding], constant_values=1)


@mistake("padding", "pads by repeating the edge", "Pad with zeros (this is replicate mode).")
class _(Conv):
    """The border repeats the outermost elements."""

    def pad(self, x, padding):
        return np.pad(x, [(0, 0), (0, 0), *padding], mode="edge")


@mistake("padding", "padding ignored in the weight gradient", "Correlate g with the padded x.")
class _(Conv):
    """The weight gradient reads x as if position 0 of the padded input were its first element."""

    def grad_weight(self, g, x, shape, p):
        return super().grad_weight(g, x, shape, p._replace(padding=[(0, b + a) for b, a in p.padding]))


@mistake(
    "padding",
    "weight gradient pads the wrong ends",
    "Pad x with (before, after), as the forward pass does.",
    supports="asymmetric_padding",
)
class _(Conv):
    """The weight gradient exchanges the padding before and after."""

    def grad_weight(self, g, x, shape, p):
        return super().grad_weight(g, x, shape, p._replace(padding=[(a, b) for b, a in p.padding]))


@mistake("padding", "transposed: padding crops the end only", "Crop `before` at the start and `after` at the end.")
class _(ConvTranspose):
    """The output has the right size but begins with what should have been cropped."""

    def unpad(self, padded, size, padding):
        return padded[(..., *(slice(0, n) for n in size))]


@mistake("padding", "transposed: padding enlarges the output", "Padding of a transposed convolution is cropped away.")
class _(ConvTranspose):
    """Zeros are put around the output instead of cropping it."""

    def y(self, x, weight, bias, p):
        y = super().y(x, weight, None, p._replace(padding=[(0, 0)] * len(p.padding)))
        return self.add_bias(np.pad(y, [(0, 0), (0, 0), *p.padding]), bias, weight.shape[2:])


@mistake(
    "padding",
    "transposed: output padding appends zeros",
    "Enlarge the output before writing: kernels can reach into it.",
    supports="output_padding",
)
class _(ConvTranspose):
    """Zeros are appended after the crop, where values of the kernel belong."""

    def y(self, x, weight, bias, p):
        y = super().y(x, weight, None, p._replace(output_padding=(0,) * len(p.padding)))
        extended = np.pad(y, [(0, 0), (0, 0), *((0, extra) for extra in p.output_padding)])
        return self.add_bias(extended, bias, weight.shape[2:])


# --- Layout ---


@mistake("layout", "weight reshaped where it should be transposed", "Use swapaxes or .T on the (K, C) matrix.")
class _(Conv):
    """The input gradient reads the (K, C) matrix of each tap as (C, K) without moving its elements."""

    def grad_x(self, g, weight, shape, p):
        k, c = len(weight) // p.groups, weight.shape[1]
        mixed = [w.reshape(c, k, *w.shape[2:]).swapaxes(0, 1) for w in np.split(weight, p.groups)]
        return super().grad_x(g, np.concatenate(mixed), shape, p)


@mistake(
    "layout",
    "weight matrix reshaped where it should be transposed",
    "Use .T on the (K, C·T) matrix; a reshape moves nothing.",
)
class _(Conv):
    """The input gradient multiplies by the (K, C·T) matrix reshaped to (C·T, K)."""

    def grad_x(self, g, weight, shape, p):
        k, flat = len(weight) // p.groups, (-1, len(weight) // p.groups)
        mixed = [w.reshape(flat).T.reshape(k, *w.shape[1:]) for w in np.split(weight, p.groups)]
        return super().grad_x(g, np.concatenate(mixed), shape, p)


@mistake(
    "layout",
    "weight gradient reshaped where it should be transposed",
    "The product of columns and g is (C·T, K): transpose it before giving it the weight's shape.",
)
class _(Conv):
    """The (C·T, K) product is reshaped to (K, C, …) as it lies."""

    def grad_weight(self, g, x, shape, p):
        grads = np.split(super().grad_weight(g, x, shape, p), p.groups)
        return np.concatenate([grad.reshape(len(grad), -1).T.reshape(grad.shape) for grad in grads])


@mistake(
    "layout",
    "positions and channels mixed by a reshape",
    "Reshape (N·L, K) to (N, height, width, K) and then move the channels to axis 1.",
)
class _(Conv):
    """The product comes out with channels last and is reshaped to (N, K, …)."""

    def y(self, x, weight, bias, p):
        y = super().y(x, weight, bias, p)
        return np.ascontiguousarray(np.moveaxis(y, 1, -1)).reshape(y.shape)


@mistake(
    "layout",
    "batch and channels mixed by a reshape",
    "Transpose (K, N, …) to (N, K, …); a reshape moves nothing.",
    both=True,
)
class _(Conv):
    """The product comes out with channels first and is reshaped to (N, K, …)."""

    def y(self, x, weight, bias, p):
        y = super().y(x, weight, bias, p)
        return np.ascontiguousarray(y.swapaxes(0, 1)).reshape(y.shape)


@mistake("layout", "batch and channels of g mixed by a reshape", "Transpose g to (K, N, …) before making it a matrix.")
class _(Conv):
    """The weight gradient reshapes (N, K, …) to (K, N·L)."""

    def grad_weight(self, g, x, shape, p):
        mixed = np.ascontiguousarray(g).reshape(g.shape[1], g.shape[0], *g.shape[2:]).swapaxes(0, 1)
        return super().grad_weight(mixed, x, shape, p)


@mistake(
    "layout",
    "batch and channels of g mixed in the input gradient",
    "Transpose g to (K, N, …) before making it a matrix.",
)
class _(Conv):
    """The input gradient reshapes (N, K, …) to (K, N·L)."""

    def grad_x(self, g, weight, shape, p):
        mixed = np.ascontiguousarray(g).reshape(g.shape[1], g.shape[0], *g.shape[2:]).swapaxes(0, 1)
        return super().grad_x(mixed, weight, shape, p)


@mistake("layout", "kernel axes exchanged", "The weight is (K, C/G, height, width), as x is (N, C, height, width).")
class _(Conv):
    """The kernel is read as (width, height); only a square kernel lets this pass unnoticed."""

    def y(self, x, weight, bias, p):
        flat = weight.reshape(*weight.shape[:2], *weight.shape[:1:-1])
        return super().y(x, flat.transpose(0, 1, *range(weight.ndim - 1, 1, -1)), bias, p)


@mistake("layout", "output returned with channels last", "Move the channels back: y is (N, K, height, width).")
class _(Conv):
    """The output is (N, height, width, K)."""

    def y(self, x, weight, bias, p):
        return np.moveaxis(super().y(x, weight, bias, p), 1, -1)


@mistake("layout", "weight rows taken taps first", "im2col's rows run over channels first, then taps: (c, t).")
class _(Conv):
    """The weight is flattened as (C, T) but multiplied with columns whose rows are ordered (T, C)."""

    def y(self, x, weight, bias, p):
        k, c, *kernel = weight.shape
        mixed = weight.reshape(k, -1, c).swapaxes(1, 2).reshape(k, c, *kernel)
        return super().y(x, mixed, bias, p)


@mistake("layout", "weight gradient with taps first", "Reshape the product to (K, C, taps), not (K, taps, C).")
class _(Conv):
    """The weight gradient's matrix has rows ordered (T, C) and is reshaped as (C, T)."""

    def grad_weight(self, g, x, shape, p):
        grad = super().grad_weight(g, x, shape, p)
        return np.ascontiguousarray(grad.reshape(shape[0], shape[1], -1).swapaxes(1, 2)).reshape(shape)


@mistake("layout", "input and output channels of the weight exchanged", "The weight is (K, C/G, …).")
class _(Conv):
    """The first two axes of the weight are read in the wrong order; where C/G = K/G this keeps the shape."""

    def y(self, x, weight, bias, p):
        k, c = len(weight) // p.groups, weight.shape[1]
        mixed = [w.reshape(c, k, *w.shape[2:]).swapaxes(0, 1) for w in np.split(weight, p.groups)]
        return super().y(x, np.concatenate(mixed), bias, p)


@mistake("layout", "transposed: weight read as (K, C/G, …)", "A transposed weight is (C, K/G, …).")
class _(ConvTranspose):
    """The channel axes of the weight are read in a convolution's order."""

    def y(self, x, weight, bias, p):
        c, k = len(weight) // p.groups, weight.shape[1]
        mixed = [w.reshape(k, c, *w.shape[2:]).swapaxes(0, 1) for w in np.split(weight, p.groups)]
        return super().y(x, np.concatenate(mixed), bias, p)


@mistake("layout", "memory read in storage order", "Honour the strides: call numpy.ascontiguousarray first.")
class _(Conv):
    """The data pointer is used as if the array were contiguous."""

    def y(self, x, weight, bias, p):
        if not x.flags.c_contiguous and x.flags.forc:
            x = np.ravel(x, order="K").reshape(x.shape)
        elif not x.flags.c_contiguous:
            x = np.sort(x, axis=None).reshape(x.shape)  # what lies there is not x in any case
        return super().y(x, weight, bias, p)


# --- Memory ---


@mistake("memory", "writes into x", "Copy x before changing it.")
class _(Conv):
    """The input is used as scratch memory."""

    def y(self, x, weight, bias, p):
        y = super().y(x, weight, bias, p)
        if x.flags.writeable:
            x += 1
        return y


@mistake("memory", "writes into the upstream gradient", "Copy grad_output before changing it.")
class _(Conv):
    """The upstream gradient is scaled in place."""

    def grads(self, g, x, weight, p):
        grads = super().grads(g, x, weight, p)
        if g.flags.writeable:
            g *= 2
        return grads


@mistake("memory", "needs a writable x", "Do not write to the arguments, not even for a moment.")
class _(Conv):
    """x is scratch memory for a while and restored at the end, which fails on a read-only array."""

    def y(self, x, weight, bias, p):
        y, saved = super().y(x, weight, bias, p), x.copy()
        x[...] = 0
        x[...] = saved
        return y


@mistake(
    "memory", "bias gradient is a view of the upstream gradient", "Return a new array also where one term is summed."
)
class _(Conv):
    """With one sample and one position nothing is to be summed, and g itself comes back, reshaped."""

    def grad_bias(self, g):
        return g.reshape(-1) if g.size == g.shape[1] else super().grad_bias(g)


@mistake("memory", "returns the same buffer at every call", "Allocate a result for each call.")
class _(Conv):
    """A result changes when the function is called again."""

    def __init__(self):
        self.buffers = {}

    def y(self, x, weight, bias, p):
        y = super().y(x, weight, bias, p)
        buffer = self.buffers.setdefault((y.shape, y.dtype), np.empty_like(y))
        buffer[...] = y
        return buffer


@mistake("memory", "columns cached from an earlier call", "Let a cache's key include the data, or drop it.")
class _(Conv):
    """The padded input is kept for a shape and reused although x has changed."""

    def __init__(self):
        self.cache = {}

    def y(self, x, weight, bias, p):
        key = (x.shape, weight.shape, bias is None, str(p), x.dtype)
        return super().y(self.cache.setdefault(key, x.copy()), weight, bias, p)


@mistake("memory", "weight gradient accumulates over calls", "Start each call's gradient from zero.")
class _(Conv):
    """The gradient buffer is not cleared between calls of one shape."""

    def __init__(self):
        self.sums = {}

    def grad_weight(self, g, x, shape, p):
        key = (g.shape, x.shape, shape, str(p), g.dtype)
        grad = super().grad_weight(g, x, shape, p)
        self.sums[key] = self.sums.get(key, 0) + grad
        return self.sums[key].copy()


# --- Precision ---


def rounded(array: Array, bits: int) -> Array:
    """Return a float32 array rounded to the nearest numbers with so many mantissa bits."""
    if array.dtype != np.float32:
        return array
    drop = 23 - bits
    whole = np.ascontiguousarray(array).view(np.uint32).astype(np.uint64)
    even = (whole >> np.uint64(drop)) & np.uint64(1)
    whole = (whole + np.uint64(2 ** (drop - 1) - 1) + even) >> np.uint64(drop) << np.uint64(drop)
    return whole.astype(np.uint32).view(np.float32)


@mistake("precision", "operands rounded to TF32", "Ask the library for full float32 products (switch TF32 off).")
class _(Conv):
    """Operands keep 10 mantissa bits, as on tensor cores by default in some libraries."""

    def operand(self, array, work):
        return rounded(array.astype(work), 10)


@mistake("precision", "operands rounded to bfloat16", "Keep float32 operands in float32.")
class _(Conv):
    """Operands keep 7 mantissa bits."""

    def operand(self, array, work):
        return rounded(array.astype(work), 7)


@mistake("precision", "weight gradient in bfloat16", "Keep float32 operands in float32 in the backward pass too.")
class _(Conv):
    """Only the weight gradient is computed from operands with 7 mantissa bits."""

    def grad_weight(self, g, x, shape, p):
        return super().grad_weight(rounded(g, 7), rounded(x, 7), shape, p)


@mistake(
    "precision", "float16 sums kept in float16", "Sum float16 products in float32 and round once.", dtype="float16"
)
class _(Conv):
    """2048 + 1 is 2048 in float16: long sums stop growing."""

    def work(self, dtype):
        return dtype


@mistake("precision", "float32 computed in float16", "Compute in the operands' data type, or a wider one.")
class _(Conv):
    """Operands and sums have 11 bits."""

    def work(self, dtype):
        return np.dtype("float16") if dtype == np.float32 else super().work(dtype)


@mistake("precision", "float64 computed in float32", "Compute in the operands' data type.", dtype="float64")
class _(Conv):
    """Operands and sums have 24 bits."""

    def work(self, dtype):
        return np.dtype("float32") if dtype == np.float64 else super().work(dtype)


@mistake(
    "precision",
    "weight gradient by finite differences",
    "Use the formula: a difference in float32 loses half its digits.",
)
class _(Conv):
    """The gradient of a small weight is a one-sided difference with a small step."""

    def grads(self, g, x, weight, p):
        grad_x, grad_w, grad_b = super().grads(g, x, weight, p)
        if weight.size > 64:  # it would take long, and small weights show it
            return grad_x, grad_w, grad_b
        grad_w, base = np.zeros_like(weight), self.y(x, weight, None, p)
        step = np.asarray(1e-3, weight.dtype)
        for index in np.ndindex(weight.shape):
            moved = weight.copy()
            moved[index] += step
            grad_w[index] = np.sum(g * ((self.y(x, moved, None, p) - base) / step))
        return grad_x, grad_w, grad_b


# --- Interface ---


@mistake("interface", "only the first sample computed", "Loop over the batch.")
class _(Conv):
    """The outputs of the other samples hold the bias alone."""

    def y(self, x, weight, bias, p):
        first = np.zeros_like(x)
        first[:1] = x[:1]
        return super().y(first, weight, bias, p)


@mistake("interface", "weight gradient of the last sample only", "Sum over the batch with +=.", both=True)
class _(Conv):
    """Each sample's weight gradient overwrites the one before."""

    def grad_weight(self, g, x, shape, p):
        return super().grad_weight(g[-1:], x[-1:], shape, p)


@mistake(
    "interface",
    "weight gradient averaged over the batch",
    "Sum over the batch; the loss does the averaging.",
    both=True,
)
class _(Conv):
    """A mean stands where a sum belongs."""

    def grad_weight(self, g, x, shape, p):
        return super().grad_weight(g, x, shape, p) / np.asarray(max(1, len(g)), g.dtype)


@mistake("interface", "sign of the input gradient wrong", "The gradient is that of y, not of −y.", both=True)
class _(Conv):
    """The input gradient comes out negative."""

    def grad_x(self, g, weight, shape, p):
        return -super().grad_x(g, weight, shape, p)


@mistake("interface", "an empty batch returns the input's shape", "Compute the output's shape before looking at N.")
class _(Conv):
    """Nothing to do, so x is handed back."""

    def y(self, x, weight, bias, p):
        return np.zeros_like(x) if len(x) == 0 else super().y(x, weight, bias, p)


@mistake("interface", "returns float64", "Return the operands' data type.")
class _(Conv):
    """A Python float or a default allocation has widened the result."""

    def y(self, x, weight, bias, p):
        return super().y(x, weight, bias, p).astype(np.result_type(x.dtype, np.float64))


@mistake("interface", "no bias gradient returned", "Return an array for every gradient.", both=True)
class _(Conv):
    """The third gradient is None."""

    def grads(self, g, x, weight, p):
        return (*super().grads(g, x, weight, p)[:2], None)


@mistake("interface", "refuses a remainder", "A stride need not divide evenly: the remainder is never read.")
class _(Conv):
    """The function raises an error where the stride does not divide the padded size evenly."""

    def outputs(self, size, kernel, p):
        for n, k, s, (b, a), d in zip(size, kernel, p.stride, p.padding, p.dilation, strict=True):
            if (n + b + a - d * (k - 1) - 1) % s:
                raise ValueError("the stride does not divide the size evenly")
        return super().outputs(size, kernel, p)


@mistake(
    "interface",
    "never returns where the stride exceeds the kernel",
    "Check the loop's end condition.",
    endless=True,
)
class _(Conv):
    """A search for the next window never finds one."""

    def outputs(self, size, kernel, p):
        while any(s > k > 1 for s, k in zip(p.stride, kernel, strict=True)):
            time.sleep(0.01)
        return super().outputs(size, kernel, p)


@mistake("interface", "NaN taken for zero", "Let NaN through: hiding it hides the mistake that made it.")
class _(Conv):
    """Values that are not finite are replaced before they are multiplied."""

    def operand(self, array, work):
        return np.nan_to_num(array.astype(work))


@mistake("interface", "last partial tile dropped in the forward pass", "Round the number of tiles up.")
class _(Conv):
    """Output is computed in tiles of 16 columns, and what is left over beyond the last whole tile stays zero."""

    def y(self, x, weight, bias, p):
        y = super().y(x, weight, bias, p)
        if y.shape[-1] > 16:
            y[..., y.shape[-1] // 16 * 16 :] = 0
        return y


@mistake("interface", "last partial tile dropped in the backward pass", "Round the number of tiles up.")
class _(Conv):
    """The gradients are computed from tiles of 16 output columns, and what is left over is forgotten."""

    def grads(self, g, x, weight, p):
        whole = g.copy()
        if g.shape[-1] > 16:
            whole[..., g.shape[-1] // 16 * 16 :] = 0
        grad_x, grad_w, _ = super().grads(whole, x, weight, p)
        return grad_x, grad_w, self.grad_bias(g)


@mistake(
    "interface",
    "kernel conjugated",
    "Deep-learning libraries do not conjugate; scipy.signal.correlate does.",
    dtype="complex64",
)
class _(Conv):
    """A complex kernel is conjugated in the forward pass."""

    def y(self, x, weight, bias, p):
        return super().y(x, np.conj(weight), bias, p)


@mistake(
    "interface",
    "gradients not conjugated",
    "The adjoint of a complex product multiplies by the conjugate.",
    dtype="complex64",
)
class _(Conv):
    """The gradients use w and x themselves where their conjugates belong."""

    def conj(self, array):
        return array


CATALOGUE: tuple[Mutant, ...] = tuple(_found)
"""Every named mistake."""
