# mypy: disable-error-code="no-redef"
# ruff: noqa: N801
"""Mistakes of a whole call: memory, precision, and the interface."""

from __future__ import annotations

import math
import time

import numpy as np

from refconv.testing.mutants.correct import Conv
from refconv.testing.mutants.registry import mistake
from refconv.testing.oracles.definition import Array

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
    """The upstream gradient is changed in place."""

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
    """With one sample and one position there is nothing to sum, and g itself comes back, reshaped."""

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


@mistake("memory", "result cached by shape", "Let a cache's key include the data, or drop it.")
class _(Conv):
    """The results of the first call with a shape are returned for other data of this shape too."""

    def __init__(self):
        self.cache = {}

    def y(self, x, weight, bias, p):
        y = super().y(x, weight, bias, p)
        return self.cache.setdefault((x.shape, weight.shape, bias is None, str(p), x.dtype), y).copy()

    def grads(self, g, x, weight, p):
        grads = super().grads(g, x, weight, p)
        cached = self.cache.setdefault((g.shape, x.shape, weight.shape, str(p), g.dtype), grads)
        return tuple(grad.copy() for grad in cached)


@mistake("memory", "backward uses the x of the last forward call", "Use the x that backward is given.")
class _(Conv):
    """The backward pass takes x from the last forward pass, which may have been called with other data since."""

    def __init__(self):
        self.x = None

    def y(self, x, weight, bias, p):
        self.x = x.copy()
        return super().y(x, weight, bias, p)

    def grads(self, g, x, weight, p):
        return super().grads(g, x if self.x is None or self.x.shape != x.shape else self.x, weight, p)


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


@mistake(
    "memory",
    "random results",
    "Remove the race between threads, the memory that is read before it is written, or the dropout.",
)
class _(Conv):
    """The same call gives other results each time: all but the first call lose a quarter of y at random."""

    def __init__(self):
        self.rng, self.calls = np.random.default_rng(0), set()

    def y(self, x, weight, bias, p):
        y, call = super().y(x, weight, bias, p), (x.shape, weight.shape, bias is None, str(p), x.dtype)
        if call in self.calls:
            y[self.rng.random(y.shape) < 0.25] = 0
        self.calls.add(call)
        return y


# --- Precision ---


def rounded(array: Array, bits: int) -> Array:
    """Return a float32 array rounded to the nearest numbers with the given number of mantissa bits."""
    if array.dtype != np.float32:
        return array
    drop = 23 - bits
    whole = np.ascontiguousarray(array).view(np.uint32).astype(np.uint64)
    even = (whole >> np.uint64(drop)) & np.uint64(1)
    whole = (whole + np.uint64(2 ** (drop - 1) - 1) + even) >> np.uint64(drop) << np.uint64(drop)
    return whole.astype(np.uint32).view(np.float32)


@mistake("precision", "operands rounded to TF32", "Ask the library for full float32 products (switch TF32 off).")
class _(Conv):
    """Operands keep 10 mantissa bits, as on tensor cores by default in some libraries, or as float16 numbers do."""

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
    """Operands and sums, or sums alone, have 11 bits."""

    def work(self, dtype):
        return np.dtype("float16") if dtype == np.float32 else super().work(dtype)


@mistake("precision", "integers summed in floating point", "Sum integers as integers, which wrap.", dtype="int32")
class _(Conv):
    """Beyond 2^24, float32 does not have every whole number."""

    def work(self, dtype):
        return np.dtype("float32") if dtype == np.int32 else super().work(dtype)


@mistake("precision", "float64 computed in float32", "Compute in the operands' data type.", dtype="float64")
class _(Conv):
    """Operands and sums have 24 bits."""

    def work(self, dtype):
        return np.dtype("float32") if dtype == np.float64 else super().work(dtype)


@mistake(
    "interface",
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


def _last_channels(array: Array, groups: int) -> Array:
    """Return an array with zeros in all but the last channel of each group."""
    last = np.zeros_like(array)
    n = array.shape[1] // groups
    last[:, n - 1 :: n] = array[:, n - 1 :: n]
    return last


def _last_position(g: Array) -> Array:
    """Return the upstream gradient with zeros at all but the last output position."""
    last = np.zeros_like(g)
    end = (..., *(-1,) * (g.ndim - 2))
    last[end] = g[end]
    return last


@mistake("interface", "only the first sample computed", "Loop over the batch.")
class _(Conv):
    """The outputs of the other samples contain only the bias."""

    def y(self, x, weight, bias, p):
        first = np.zeros_like(x)
        first[:1] = x[:1]
        return super().y(first, weight, bias, p)


@mistake("interface", "input channels overwrite each other", "Sum over the input channels with +=.", both=True)
class _(Conv):
    """Each input channel's part is assigned; the last channel of each group wins."""

    def y(self, x, weight, bias, p):
        return super().y(_last_channels(x, p.groups), weight, bias, p)


@mistake(
    "interface",
    "output channels overwrite each other in the input gradient",
    "Sum over the output channels with +=: each of them reads the whole group.",
    both=True,
)
class _(Conv):
    """Each output channel's part is assigned; the last channel of each group wins."""

    def grad_x(self, g, weight, shape, p):
        return super().grad_x(_last_channels(g, p.groups), weight, shape, p)


@mistake("interface", "kernel taps overwrite each other", "Sum over the taps with +=.")
class _(Conv):
    """Each tap's part is assigned; the last tap wins."""

    def y(self, x, weight, bias, p):
        last = np.zeros_like(weight)
        last[(..., *(-1,) * len(p.stride))] = weight[(..., *(-1,) * len(p.stride))]
        return super().y(x, last, bias, p)


@mistake("interface", "weight gradient of the last position only", "Sum over the output positions with +=.")
class _(Conv):
    """Each position's weight gradient overwrites the previous position's."""

    def grad_weight(self, g, x, shape, p):
        return super().grad_weight(_last_position(g), x, shape, p)


@mistake("interface", "weight gradient of the last sample and position only", "Sum over batch and positions with +=.")
class _(Conv):
    """In a loop over samples and positions the weight gradient is assigned."""

    def grad_weight(self, g, x, shape, p):
        return super().grad_weight(_last_position(g[-1:]), x[-1:], shape, p)


@mistake("interface", "weight gradient of the last sample only", "Sum over the batch with +=.", both=True)
class _(Conv):
    """Each sample's weight gradient overwrites the previous sample's."""

    def grad_weight(self, g, x, shape, p):
        return super().grad_weight(g[-1:], x[-1:], shape, p)


@mistake(
    "interface",
    "weight gradient averaged over the batch",
    "Sum over the batch; the loss does the averaging.",
    both=True,
)
class _(Conv):
    """A mean over the samples is taken instead of a sum."""

    def grad_weight(self, g, x, shape, p):
        return super().grad_weight(g, x, shape, p) / np.asarray(max(1, len(g)), g.dtype)


@mistake("interface", "weight gradient averaged over positions", "Sum over all output positions.", both=True)
class _(Conv):
    """A mean over height and width is taken instead of a sum."""

    def grad_weight(self, g, x, shape, p):
        return super().grad_weight(g, x, shape, p) / np.asarray(max(1, math.prod(g.shape[2:])), g.dtype)


@mistake(
    "interface",
    "weight gradient averaged over batch and positions",
    "Sum over both; the loss does the averaging.",
    both=True,
)
class _(Conv):
    """A mean over samples and positions is taken instead of a sum."""

    def grad_weight(self, g, x, shape, p):
        return super().grad_weight(g, x, shape, p) / np.asarray(max(1, g.size // g.shape[1]), g.dtype)


@mistake(
    "interface", "input gradient divided by the batch size", "Leave the division to the loss: g contains it.", both=True
)
class _(Conv):
    """The mean over the batch, which is part of the loss, is taken a second time."""

    def grad_x(self, g, weight, shape, p):
        return super().grad_x(g, weight, shape, p) / np.asarray(max(1, len(g)), g.dtype)


@mistake("interface", "sign of the input gradient wrong", "The gradient is that of y, not of −y.", both=True)
class _(Conv):
    """The input gradient comes out negative."""

    def grad_x(self, g, weight, shape, p):
        return -super().grad_x(g, weight, shape, p)


@mistake("interface", "an empty batch returns the input's shape", "Compute the output's shape before looking at N.")
class _(Conv):
    """There is nothing to compute, so x is returned."""

    def y(self, x, weight, bias, p):
        return np.zeros_like(x) if len(x) == 0 else super().y(x, weight, bias, p)


@mistake(
    "interface",
    "wide output summed in the operands' type",
    "Convert the operands to the output's data type before they are multiplied.",
    dtype="int8",
    output_dtype="int32",
    both=True,
)
class _(Conv):
    """Products and sums of int8 numbers wrap around in int8, and are converted to int32 too late."""

    def output_work(self, dtype):
        return self.work(dtype)


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


def _returned_as(order: tuple[int, int, int]) -> type[Conv]:
    """Return a class that returns its gradients in another order."""

    class Reordered(Conv):
        """Each gradient is right, but the caller takes it for another one."""

        def grads(self, g, x, weight, p):
            grads = super().grads(g, x, weight, p)
            return tuple(grads[i] for i in order)

    return Reordered


for _order in ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
    _names = ", ".join(("grad_x", "grad_weight", "grad_bias")[i] for i in _order)
    mistake("interface", f"gradients returned as ({_names})", "Return (grad_x, grad_weight, grad_bias).", both=True)(
        _returned_as(_order)
    )


@mistake(
    "interface",
    "(x, weight, grad_output) taken for (grad_output, x, weight)",
    "backward is called with the upstream gradient first; name the arguments in this order.",
)
class _(Conv):
    """The backward pass names its arguments in another order, so each is taken for another one."""

    def grads(self, g, x, weight, p):
        return super().grads(weight, g, x, p)


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
    """Output is computed in tiles of 16 columns, and columns after the last whole tile stay zero."""

    def y(self, x, weight, bias, p):
        y = super().y(x, weight, bias, p)
        if y.shape[-1] > 16:
            y[..., y.shape[-1] // 16 * 16 :] = 0
        return y


@mistake("interface", "last partial tile dropped in the backward pass", "Round the number of tiles up.")
class _(Conv):
    """The gradients are computed from tiles of 16 output columns, without the columns after the last whole tile."""

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
    """The gradients use w and x themselves instead of their conjugates."""

    def conj(self, array):
        return array
