# mypy: disable-error-code="no-redef"
# ruff: noqa: N801
"""Mistakes in channels: groups, the bias, and axes or memory in another order."""

from __future__ import annotations

import math

import numpy as np

from refconv.testing.mutants.correct import Conv, ConvTranspose
from refconv.testing.mutants.registry import mistake

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


@mistake(
    "groups",
    "depthwise multiplier reading channel k mod C",
    "With multiplier m, output channel k reads input channel k // m.",
)
class _(Conv):
    """Where a group has one input channel, output channel k reads input channel k mod C; multiplier 1 hides it."""

    def channels(self, groups, c_in, c_out):
        for g, (ins, outs, rows) in enumerate(super().channels(groups, c_in, c_out)):
            every = slice(g, None, groups)
            yield (ins, every, every) if c_in == groups else (ins, outs, rows)


@mistake(
    "groups",
    "grouped weight tiled over all channels",
    "A group meets only its own channels: split x by group, do not repeat the weight.",
    both=True,
)
class _(Conv):
    """The weight's second axis is repeated G times, so that every channel of x meets every channel of y."""

    def y(self, x, weight, bias, p):
        return super().y(x, np.concatenate([weight] * p.groups, 1), bias, p._replace(groups=1))

    def grad_x(self, g, weight, shape, p):
        return super().grad_x(g, np.concatenate([weight] * p.groups, 1), shape, p._replace(groups=1))

    def grad_weight(self, g, x, shape, p):
        whole = (shape[0], shape[1] * p.groups, *shape[2:])
        return sum(np.split(super().grad_weight(g, x, whole, p._replace(groups=1)), p.groups, 1))


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
    """The bias is added inside the loop over taps."""

    def add_bias(self, y, bias, kernel):
        return y if bias is None else super().add_bias(y, bias * int(np.prod(kernel)), kernel)


@mistake("bias", "bias added once per input channel", "Add the bias after the sum over input channels.")
class _(Conv):
    """The bias is added inside the loop over input channels."""

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
    """A mean over the samples is taken instead of a sum."""

    def grad_bias(self, g):
        return super().grad_bias(g) / np.asarray(max(1, len(g)), g.dtype)


@mistake("bias", "bias gradient averaged over positions", "Sum over all output positions.", both=True)
class _(Conv):
    """A mean over height and width is taken instead of a sum."""

    def grad_bias(self, g):
        return super().grad_bias(g) / np.asarray(max(1, np.prod(g.shape[2:])), g.dtype)


@mistake(
    "bias", "bias gradient averaged over batch and positions", "Sum over both; the loss does the averaging.", both=True
)
class _(Conv):
    """A mean over samples and positions is taken instead of a sum."""

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


@mistake("bias", "bias gradient of shape (K, 1)", "The bias gradient has the bias's shape, (K,).", both=True)
class _(Conv):
    """The sum comes back as a column."""

    def grad_bias(self, g):
        return super().grad_bias(g).reshape(-1, 1)


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


@mistake("bias", "bias gradient of the last sample only", "Sum over the batch with +=.", both=True)
class _(Conv):
    """Each sample's bias gradient overwrites the previous sample's."""

    def grad_bias(self, g):
        return super().grad_bias(g[-1:])


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
    """The (C·T, K) product is reshaped to (K, C, …) without moving its elements."""

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


@mistake("layout", "height and width of the output exchanged", "y is (N, K, height, width).", both=True)
class _(Conv):
    """The output's spatial axes come in reverse order."""

    def y(self, x, weight, bias, p):
        y = super().y(x, weight, bias, p)
        return y.transpose(0, 1, *range(y.ndim - 1, 1, -1))


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


@mistake(
    "layout",
    "transposed: weight gradient laid out as (K, C/G, …)",
    "The gradient of a transposed weight is (C, K/G, …), as the weight.",
)
class _(ConvTranspose):
    """The weight gradient is that of a convolution, with its channel axes exchanged."""

    def grad_weight(self, g, x, shape, p):
        grads = np.split(super().grad_weight(g, x, shape, p), p.groups)
        return np.concatenate([grad.swapaxes(0, 1) for grad in grads])


@mistake("layout", "memory read in storage order", "Honour the strides: call numpy.ascontiguousarray first.")
class _(Conv):
    """The data pointer is used as if the array were contiguous."""

    def y(self, x, weight, bias, p):
        if not x.flags.c_contiguous and x.flags.forc:
            x = np.ravel(x, order="K").reshape(x.shape)
        elif not x.flags.c_contiguous:
            x = np.sort(x, axis=None).reshape(x.shape)  # the memory does not contain x in order
        return super().y(x, weight, bias, p)
