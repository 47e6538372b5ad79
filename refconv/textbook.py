r"""Convolution, transposed convolution and their gradients: the whole idea on one page, for every array module.

The *image* is padded and read through windows; the *positions* have one element per window. A convolution computes
positions y from an image x. A transposed convolution computes an image y from positions x.

    N  samples of the batch            T = k1·…·kd  taps of the kernel
    G  groups                          L = o1·…·od  positions of the window
    C  image channels of one group     P  padded image (N, G·C, P1, …, Pd)
    K  position channels of one group  w  kernels (G, K, C·T)

Everything is one sum, linear in each of its three factors y, w and P. In each group,

    F(y, w, P) = Σ_{n,k,l} Σ_{c,t}  y[n,k,l] · w[k,(c,t)] · P[n, c, l·stride + t·dilation]

(With the output's gradient as y, F is the loss of notebook 3.) Let X = im2col(P), a matrix (C·T, N·L) with a column for
each window. Leave out one of y, w and P, and one of three passes remains; in the brackets, g numbers the groups:

    correlate   y = w · X               [g,k,ct] [g,ct,nl] -> [g,k,nl]
    scatter     P = col2im(wᵀ · y)      [g,ct,k] [g,k,nl]  -> [g,ct,nl]
    outer       w = y · Xᵀ              [g,k,nl] [g,nl,ct] -> [g,k,ct]

Of complex numbers, outer takes the conjugate of X, which gradients need. With `grad`, the gradient of the output, and
without the arguments `call`, `bias` and `dtype`, the passes compute

                              output            gradient of x             gradient of w
    convolution               correlate(x, w)   scatter(grad, conj(w))    outer(grad, x)
    transposed convolution    scatter(x, w)     correlate(grad, conj(w))  conj(outer(x, grad))

The gradient of the bias is the sum of `grad` over all axes but the channels (`_bias_grad` in conv.py).

Groups are a batch axis of every product, so no pass mixes two of them. A *block* is a run of groups of equal size:
equal groups are one block, and for unequal groups every pass loops over blocks. `w` is a list with one array of kernels
per block, in the data type of the sums (by default float32 for float16 operands). A *side* is the channels of the image
or of the positions. Its *listed* channels are the channel lists of all groups, one after another.

conv.py checks the arguments, converts arrays to (N, channels, …), describes shapes and groups in `call`, and calls the
passes. engine.py chooses between this file and, on NumPy, refconv/cpu/, which computes the same sums faster.
docs/gradients.md derives the three passes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from refconv.arrays import (
    Array,
    DType,
    Namespace,
    add_to,
    array_namespace,
    conj,
    device,
    dtype_of,
    elements,
    index_dtype,
    item_bytes,
    matmul,
    native_dtype,
    on_gpu,
)
from refconv.groups import ChannelSide
from refconv.im2col import axis_runs, gather_columns, scatter_columns
from refconv.integers import cut, even
from refconv.padding import fold, pad
from refconv.settings import GPU_WORKSPACE, workspace
from refconv.shapes import Convolution, ListedBlock, Shape, refuse_absurd

# --- The three passes ---


def correlate(call: Convolution, x: Array, w: Sequence[Array], bias: Array | None = None) -> Array:
    """Return y = w · im2col(pad(x)) + bias: image (N, channels, D1, …, Dd) -> positions (N, channels, o1, …, od)."""
    xp, side = array_namespace(x), call.position_side
    y = _empty(xp, call, side, call.geometry.output, x)
    for n in _slices(call, w[0]):
        parts = []
        for block, kernels in zip(call.blocks, w, strict=True):
            Y = matmul(xp, kernels, _columns(xp, call, x[n, ...], block, kernels.dtype))  # (G, K, N·L)
            Y = xp.reshape(Y, (Y.shape[0] * Y.shape[1], n.stop - n.start, *call.geometry.output))  # (G·K, N, o1, …, od)
            parts.append((block.positions, xp.moveaxis(Y, 0, 1)))
        write(xp, y, n, side, parts, bias)
    return y


def scatter(call: Convolution, y: Array, w: Sequence[Array], bias: Array | None = None) -> Array:
    """Return x = fold(col2im(wᵀ · y)) + bias: positions (N, channels, o1, …, od) -> image (N, channels, D1, …, Dd)."""
    xp, side, geo = array_namespace(y), call.image_side, call.geometry
    x = _empty(xp, call, side, geo.size, y)
    for n in _slices(call, w[0]):
        parts = []
        for block, kernels in zip(call.blocks, w, strict=True):
            Y = _positions(xp, call, y[n, ...], block, kernels.dtype)  # (G, K, N·L)
            P = scatter_columns(xp, matmul(xp, xp.matrix_transpose(kernels), Y), geo, n.stop - n.start)
            # P is (N, G·C, P1, …, Pd); fold, the adjoint of pad, removes the padding.
            parts.append((block.image, fold(xp, P, axis_runs(geo), geo.size)))
        write(xp, x, n, side, parts, bias)
    return x


def outer(call: Convolution, y: Array, x: Array, dtype: DType) -> list[Array]:
    """Return w = y · conj(im2col(pad(x)))ᵀ in `dtype`: positions and image -> kernels (G, K, C·T) of each block."""
    xp = array_namespace(x)
    w = [xp.zeros(shape, dtype=dtype, device=device(x)) for shape in call.kernel_shapes]
    for n in _slices(call, w[0]):
        image = conj(xp, x[n, ...])
        for block, kernels in zip(call.blocks, w, strict=True):
            Y = _positions(xp, call, y[n, ...], block, dtype)  # (G, K, N·L)
            # As (X · Yᵀ)ᵀ, since some modules copy what they transpose: Y is smaller than X.
            XY = matmul(xp, _columns(xp, call, image, block, dtype), xp.matrix_transpose(Y))  # (G, C·T, K)
            add_to(xp, kernels, xp.matrix_transpose(XY))
    return w


def gradients(call: Convolution, y: Array, w: Sequence[Array], x: Array) -> tuple[Array, list[Array]]:
    """Return scatter(y, w) and outer(y, x): the gradients of a convolution, with y the gradient of its output."""
    return scatter(call, y, w), outer(call, y, x, w[0].dtype)


# --- Operands of the matrix products: groups are their batch axis ---


def _columns(xp: Namespace, call: Convolution, x: Array, block: ListedBlock, dtype: DType) -> Array:
    """Return X = im2col(pad(x)) of a block: image (N, channels, D1, …, Dd) -> (G, C·T, N·L)."""
    x = read(xp, x, call.image_side, block.image)
    P = pad(xp, x, axis_runs(call.geometry), call.geometry.padded, dtype)  # (N, G·C, P1, …, Pd)
    return gather_columns(xp, P, call.geometry, block.count)


def _positions(xp: Namespace, call: Convolution, y: Array, block: ListedBlock, dtype: DType) -> Array:
    """Return the positions of a block as matrices: (N, channels, o1, …, od) -> (G, K, N·L)."""
    y = xp.astype(read(xp, y, call.position_side, block.positions), dtype, copy=False)
    shape = (block.count, y.shape[1] // block.count, y.shape[0] * elements(call.geometry.output))
    return xp.reshape(xp.moveaxis(y, 0, 1), shape)


# --- From channels to groups and back ---


def read(xp: Namespace, array: Array, side: ChannelSide, listed: slice) -> Array:
    """Return some listed channels of (N, channels, …): a slice, or a copy if groups share, skip or reorder channels."""
    if side.is_contiguous:
        return array[:, listed, ...]
    return xp.take(array, xp.asarray(side.listed[listed], dtype=index_dtype(xp), device=device(array)), axis=1)


def write(xp: Namespace, out: Array, n: slice, side: ChannelSide, parts: Sequence[Any], bias: Array | None) -> None:
    """Write parts, pairs (listed channels, array), to samples n of `out`: sum shared channels, add bias, round once."""
    if not side.is_contiguous:
        parts = [(slice(0, side.channels), _onto_channels(xp, side, [part for _, part in parts]))]
    for channels, part in parts:
        if bias is not None:
            shift = xp.astype(bias[channels], part.dtype, copy=False)
            add_to(xp, part, xp.reshape(shift, (-1, *(1,) * (part.ndim - 2))))
        out[n, channels, ...] = xp.astype(part, out.dtype, copy=False)


def _onto_channels(xp: Namespace, side: ChannelSide, parts: Sequence[Array]) -> Array:
    """Add the listed channels of all blocks to the channels that they name: the adjoint of `read`, done by `take`."""
    batch, _, *size = parts[0].shape
    zero = xp.zeros((batch, 1, *size), dtype=parts[0].dtype, device=device(parts[0]))
    listed = xp.concat([*parts, zero], axis=1)  # (N, listed channels and a zero one, …)
    # Table i has the place in `listed` where each channel occurs for the i-th time, or else that of the zero channel.
    tables = [xp.asarray(table, dtype=index_dtype(xp), device=device(zero)) for table in side.gather_tables()]
    total = xp.take(listed, tables[0], axis=1)
    for table in tables[1:]:
        add_to(xp, total, xp.take(listed, table, axis=1))
    return total


def _empty(xp: Namespace, call: Convolution, side: ChannelSide, size: Shape, like: Array) -> Array:
    """Return an array (N, channels, *size) for the result, with the data type and device of `like`."""
    return xp.empty((call.batch, side.channels, *size), dtype=native_dtype(xp, like), device=device(like))


# --- Memory ---


def _slices(call: Convolution, like: Array) -> tuple[slice, ...]:
    """Cut the batch into slices whose scratch arrays, of the data type of `like`, fit the workspace if possible.

    A slice has at least one sample.
    """
    budget = workspace.get(GPU_WORKSPACE) if on_gpu(like) else workspace.get()  # with what to return if none is set
    return _cut_batch(call, item_bytes(dtype_of(like)), budget)


@functools.lru_cache(maxsize=256)
def _cut_batch(call: Convolution, number_bytes: int, budget: int) -> tuple[slice, ...]:
    geo = call.geometry
    # Numbers per sample and channel.
    L, columns, padded = elements(geo.output), elements(geo.kernel) * elements(geo.output), elements(geo.padded)
    for count, C, _ in call.sides:
        refuse_absurd("the columns of one sample", (count * C, *geo.kernel, *geo.output))
    # Per sample and block: columns, image and padded image; positions twice, in the array and in the product.
    each = [count * (C * (columns + 2 * padded) + 2 * K * L) for count, C, K in call.sides]
    # Unless the groups are consecutive runs of channels, `write` needs the results of all blocks together.
    kept = 0 if call.groups.is_contiguous else sum(count * (2 * C * padded + 2 * K * L) for count, C, K in call.sides)
    return cut(call.batch, even(call.batch, budget // max(1, (max(each, default=0) + kept) * number_bytes)))
