"""How columns lie in memory: the layouts of im2col, and which of them suits a call.

Letters: as in :mod:`refconv.passes`; T' = k2·…·kd and L' = o2·…·od leave out the first axis. In any layout columns are
operands of matrix products: of one, or of one for each tap of the first axis, which are summed.

    Taps            (N, G, C·T, L)         the textbook: an element is copied for every tap
    Rows            (N, G, T'·C, L)        each tap of the first axis is a slice of one copy (refconv.rowwise)
    ChannelsLast    (G, o1·N·L', T'·C)     the same slices, transposed: a row for each window, its channels side by side

A 1×1 kernel needs no copy for Taps. Rows copies least, and suits most. ChannelsLast copies k·C numbers in a row where
the others copy a row of outputs, and the samples of a batch are no more than more rows of one product, for which BLAS
lays out the weight once; but weights and images have to be transposed for it. It suits groups of many channels, for
sums over windows, and for sums over channels where images are small.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from refconv import padding, rowwise
from refconv.arrays import Array, DType, Namespace, elements, matmul, runs_on_cpu_threads, sum_axis
from refconv.im2col import gather_columns, gather_columns_over_batch
from refconv.padding import Run
from refconv.shapes import Convolution, Geometry

Columns = Any
"""Operands of matrix products, one for each tap of the first axis or a single one: one array of all, or a list."""


class Taps:
    """(N, G, C·T, L): im2col as the textbook has it.

    The methods, here and below, are what a pass asks of columns: arrays are those of one tile, with G equal groups.
    """

    joins_samples = False
    """Whether a product takes the columns of several samples. Its result then lies otherwise than an image."""

    by_rows = False
    """Whether the first axis is sliced, not copied."""

    def kernels(self, xp: Namespace, kernels: Array, geo: Geometry) -> tuple[list[Array], Array | None, Array]:
        """Turn kernels (G, K, C·T) or (G, K, C, k1, …, kd) into matrices (G, K, rows), one for each product.

        Returned after them are an array that is still to be filled, if there is one, and with what.
        """
        if kernels.ndim == 3:
            return [kernels], None, kernels
        copy = xp.empty(kernels.shape, dtype=kernels.dtype)  # turned round, and BLAS takes no negative strides
        return [xp.reshape(copy, (*kernels.shape[:2], elements(kernels.shape[2:])))], copy, kernels

    def pad(
        self,
        xp: Namespace,
        x: Array,
        axes: Sequence[Sequence[Run]],
        size: Sequence[int],
        dtype: DType,
        groups: int,
    ) -> Array:
        """Pad x (N, G·C, D1, …, Dd), as :func:`refconv.padding.pad` does, to what :meth:`gather` takes."""
        return padding.pad(xp, x, axes, size, dtype)

    def gather(self, xp: Namespace, padded: Array, geo: Geometry, groups: int) -> Columns:
        """Return the columns of a padded image."""
        return gather_columns(xp, padded, geo, groups)[None, ...]

    def positions(
        self, xp: Namespace, kernels: Sequence[Array], columns: Columns, shape: Sequence[int], into: Array | None = None
    ) -> Array:
        """Return Σ kernels · columns as `shape` (N, G·K, o1, …, od).

        Written to `into` (N, G, K, L), which is only for layouts that do not join samples.
        """
        return xp.reshape(rowwise.sum_of_products(xp, kernels, columns, into), shape)

    def sums(self, xp: Namespace, positions: Array, columns: Columns) -> Array:
        """Return Σ_n positions · columnsᵀ, (products, G, K, rows), of positions (N, G, K, o1, …, od)."""
        positions = xp.reshape(positions, (*positions.shape[:3], elements(positions.shape[3:])))
        return sum_axis(xp, rowwise.outer_products(xp, positions, columns), 1)

    def write(self, xp: Namespace, kernels: Array, sums: Array) -> None:
        """Write sums to kernels (G, K, C, T)."""
        kernels[...] = xp.reshape(sums[0, ...], kernels.shape)


class TapsOfBatch(Taps):
    """(G, C·T, N·L): the same of several samples, which are more columns."""

    joins_samples = True

    def gather(self, xp: Namespace, padded: Array, geo: Geometry, groups: int) -> Columns:
        """Return the columns of a padded image."""
        return gather_columns_over_batch(xp, padded, geo, groups)[None, ...]

    def positions(
        self, xp: Namespace, kernels: Sequence[Array], columns: Columns, shape: Sequence[int], into: Array | None = None
    ) -> Array:
        """Return Σ kernels · columns as `shape` (N, G·K, o1, …, od)."""
        batch, listed, *output = shape
        found = rowwise.sum_of_products(xp, kernels, columns)
        return xp.moveaxis(xp.reshape(found, (listed, batch, *output)), 1, 0)

    def sums(self, xp: Namespace, positions: Array, columns: Columns) -> Array:
        """Return Σ_n positions · columnsᵀ, (1, G, K, C·T), of positions (N, G, K, o1, …, od)."""
        positions = xp.moveaxis(positions, 0, 2)  # (G, K, N, o1, …, od)
        positions = xp.reshape(positions, (*positions.shape[:2], elements(positions.shape[2:])))
        return rowwise.outer_products(xp, positions, columns)


class Rows(Taps):
    """(N, G, T'·C, L), of which each tap of the first axis takes a slice; for NumPy alone."""

    by_rows = True

    def kernels(self, xp: Namespace, kernels: Array, geo: Geometry) -> tuple[list[Array], Array | None, Array]:
        """Turn kernels (G, K, C·T) or (G, K, C, k1, …, kd) into k1 matrices (G, K, T'·C), and what fills them."""
        kernels = _apart(xp, kernels, geo)
        # In the order of what lies close together: BLAS transposes it.
        transposed = 1 not in kernels.shape[1:3] and kernels.strides[2] > kernels.strides[1]
        return rowwise.split_kernels(xp, kernels, transposed=transposed)

    def gather(self, xp: Namespace, padded: Array, geo: Geometry, groups: int) -> Columns:
        """Return the columns of a padded image."""
        return rowwise.gather_row_columns(xp, padded, geo, groups)

    def write(self, xp: Namespace, kernels: Array, sums: Array) -> None:
        """Write sums (k1, G, K, T'·C) to kernels (G, K, C, T)."""
        rowwise.write_by_tap(xp, kernels, sums)


class ChannelsLast(Rows):
    """(G, o1·N·L', T'·C), of which each tap of the first axis takes a slice; for NumPy alone."""

    joins_samples = True

    def kernels(self, xp: Namespace, kernels: Array, geo: Geometry) -> tuple[list[Array], Array | None, Array]:
        """Turn kernels (G, K, C·T) or (G, K, C, k1, …, kd) into k1 matrices (G, K, T'·C), and what fills them."""
        return rowwise.split_kernels(xp, _apart(xp, kernels, geo), transposed=not rowwise.is_double(kernels))

    def pad(
        self, xp: Namespace, x: Array, axes: Sequence[Sequence[Run]], size: Sequence[int], dtype: DType, groups: int
    ) -> Array:
        """Pad x (N, G·C, D1, …, Dd) to (G, P1, N, P2, …, Pd, C)."""
        d, batch, channels = len(size), x.shape[0], x.shape[1] // groups
        padded = xp.zeros((groups, size[0], batch, *size[1:], channels), dtype=dtype)
        view = xp.permute_dims(padded, (2, 0, d + 2, 1, *range(3, d + 2)))  # (N, G, C, P1, …, Pd)
        padding.fill(xp, view, xp.reshape(x, (batch, groups, channels, *x.shape[2:])), axes)
        return padded

    def gather(self, xp: Namespace, padded: Array, geo: Geometry, groups: int) -> Columns:
        """Return the columns of an image (G, P1, N, P2, …, Pd, C)."""
        return rowwise.gather_windows(xp, padded, geo)

    def positions(
        self, xp: Namespace, kernels: Sequence[Array], columns: Columns, shape: Sequence[int], into: Array | None = None
    ) -> Array:
        """Return Σ kernels · columns as `shape` (N, G·K, o1, …, od)."""
        if rowwise.is_double(kernels[0]):  # BLAS is faster at this order, and in single precision at the other
            columns = [xp.matrix_transpose(column) for column in columns]
            found = xp.matrix_transpose(rowwise.sum_of_products(xp, kernels, columns))
        else:
            kernels = [xp.matrix_transpose(kernel) for kernel in kernels]
            found = rowwise.sum_of_products(xp, columns, kernels)  # (G, o1·N·L', K)
        batch, _, *output = shape
        d = len(output)
        found = xp.reshape(found, (found.shape[0], output[0], batch, *output[1:], found.shape[-1]))
        return xp.reshape(xp.permute_dims(found, (2, 0, d + 2, 1, *range(3, d + 2))), shape)

    def sums(self, xp: Namespace, positions: Array, columns: Columns) -> Array:
        """Return Σ_n positions · columns, (k1, G, K, T'·C), of positions (N, G, K, o1, …, od)."""
        positions = xp.permute_dims(positions, (1, 2, 3, 0, *range(4, positions.ndim)))  # (G, K, o1, N, o2, …, od)
        positions = xp.reshape(positions, (*positions.shape[:2], elements(positions.shape[2:])))
        if isinstance(columns, list):
            return xp.stack([matmul(xp, positions, column) for column in columns])
        return matmul(xp, positions, columns)


def _apart(xp: Namespace, kernels: Array, geo: Geometry) -> Array:
    """Turn kernels (G, K, C·T) or (G, K, C, k1, …, kd) into the latter."""
    channels = elements(kernels.shape[2:]) // elements(geo.kernel)
    return xp.reshape(kernels, (*kernels.shape[:2], channels, *geo.kernel))


# --- Which one ------------------------------------------------------------------------------------------------------


FEW, HEAVY = 400, 2**14
"""Output positions of one sample up to which, and weights of a group from which, several samples are one product: for
each product BLAS lays out the weight anew, which is felt where it is large and the columns are few."""

LONG = 64
"""Numbers that lie together in a window whose channels are last, from which such windows are copied faster."""

DEEP = 4
"""How many times more numbers a window has than there are output channels, if a result with its channels last is to be
worth transposing."""

REPAID = 1024
"""Output positions of a batch from which transposing a weight is repaid."""


def for_images(xp: Namespace, call: Convolution) -> Taps:
    """Return the layout that is the fastest for images, sums over taps and channels."""
    return _for_images(call) if runs_on_cpu_threads(xp) else Taps()


def for_kernels(xp: Namespace, call: Convolution) -> Taps:
    """Return the layout that is the fastest for kernels, sums over the batch."""
    if not runs_on_cpu_threads(xp):
        return TapsOfBatch()
    if _suits_channels_last(call):
        return ChannelsLast()
    # Sums of each sample apart are to be added up, which is felt where a sample has few columns.
    many = elements(call.geometry.output) > FEW
    return Rows() if many and rowwise.is_faster_for_kernels(call) else TapsOfBatch()


def for_both(xp: Namespace, call: Convolution) -> Taps:
    """Return the layout that is the fastest where the same columns are used for both."""
    if runs_on_cpu_threads(xp) and _suits_channels_last(call) and _is_deep(call):
        return ChannelsLast()
    return for_images(xp, call)


@functools.lru_cache(maxsize=256)
def _for_images(call: Convolution) -> Taps:
    taps = elements(call.geometry.kernel)
    weights = max((image * positions * taps for _, image, positions in call.sides), default=0)
    if call.batch > 1 and elements(call.geometry.output) <= FEW and weights >= HEAVY:
        return ChannelsLast() if _suits_channels_last(call) and _is_deep(call) else TapsOfBatch()
    return Rows() if rowwise.is_faster_for_images(call) else Taps()


@functools.lru_cache(maxsize=256)
def _suits_channels_last(call: Convolution) -> bool:
    """Tell whether windows with channels last are copied fast, and the weight is worth transposing."""
    geo = call.geometry
    if elements(geo.kernel) == 1 or 0 in geo.output:
        return False
    together = geo.kernel[-1] if len(geo.kernel) > 1 and geo.dilation[-1] == 1 else 1
    return (
        all(image * together >= LONG for _, image, _ in call.sides)
        and rowwise.rows_to_copy(geo) <= geo.kernel[0] * geo.output[0]
        and call.batch * elements(geo.output) >= REPAID
        and call.groups.parameter_count(geo.kernel, bias=False) <= rowwise.LARGEST
    )


def _is_deep(call: Convolution) -> bool:
    taps = elements(call.geometry.kernel)
    return all(image * taps >= DEEP * positions for _, image, positions in call.sides)
