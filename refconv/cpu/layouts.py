"""Memory layouts of im2col's columns.

Letters as in :mod:`refconv.textbook`; T' = k2·…·kd and L' = o2·…·od omit the first axis. In every layout the columns
are operands of one matrix product, or of one per tap of the first axis; these are summed.

    Taps            (N, G, C·T, L)         every element is copied for every tap
    TapsOfBatch     (G, C·T, N·L)          the textbook: samples are more columns
    Rows            (N, G, T'·C, L)        each tap of the first axis is a slice of one copy
    ChannelsLast    (G, o1·N·L', T'·C)     the same slices, transposed: a row for each window, its channels together

With a 1×1 kernel, Taps copies nothing. Rows copies least and suits most calls. ChannelsLast copies runs of k·C numbers
where the others copy a row of outputs, and adds the batch's samples as rows of one product, so that BLAS prepares the
weight once. In return, weights and images must be transposed. It suits groups with many channels: for sums over
windows, and for sums over channels of small images. :mod:`refconv.cpu.choices` chooses.

Rows slices because along the first axis, with stride s1 and dilation d1, columns need not be copied for each tap. Let

    R[(t', c), p, l'] = P[c, p, l'·stride + t'·dilation]

be the columns of the other axes alone. Then the columns of tap t1 are the rows o1·s1 + t1·d1 of R. With stride 1 these
are contiguous, so a matrix product reads them in place,

    y = Σ_{t1}  w[:, t1] · R[:, t1·d1 : t1·d1 + o1, :]                     [k,t'c] [t'c,l] -> [k,l]

and with a larger stride they are contiguous once R has its rows phase by phase, p = s1·m + r.

M. Cho, D. Brand, "MEC: Memory-efficient Convolution for Deep Neural Network", ICML 2017.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from refconv import padding
from refconv.arrays import Array, DType, strided, sum_axis, windows
from refconv.im2col import gather_columns
from refconv.padding import Run
from refconv.shapes import Geometry

Columns = Any
"""Operands of matrix products, one per tap of the first axis or a single one: an array of all, or a list."""

LOCKED = 500
"""NumPy keeps the interpreter's lock in a call with fewer results than this, and other threads wait: the constant in
its NPY_BEGIN_THREADS_THRESHOLDED (numpy/core/include/numpy/ndarraytypes.h)."""


class Taps:
    """(N, G, C·T, L): every element is copied for every tap.

    The methods, here and below, are the operations of a pass on columns. Arrays belong to one tile of G equal groups.
    """

    joins_samples = False
    """Whether one product takes the columns of several samples. Its result is then not laid out like positions."""

    by_rows = False
    """Whether the first axis is sliced instead of copied."""

    def kernels(self, kernels: Array, geo: Geometry) -> tuple[list[Array], Array | None, Array]:
        """Return kernels (G, K, C·T) or (G, K, C, k1, …, kd) as matrices (G, K, rows), one per product.

        If they are copied, the matrices are views of an array that is not filled yet: it comes second, and its
        contents third.
        """
        if kernels.ndim == 3:
            return [kernels], None, kernels
        copy = np.empty(kernels.shape, kernels.dtype)  # reversed kernels, and BLAS takes no negative strides
        return [copy.reshape(*kernels.shape[:2], math.prod(kernels.shape[2:]))], copy, kernels

    def pad(self, x: Array, axes: Sequence[Sequence[Run]], size: Sequence[int], dtype: DType, groups: int) -> Array:
        """Pad x (N, G·C, D1, …, Dd), as :func:`refconv.padding.pad` does, for :meth:`gather`."""
        return padding.pad(np, x, axes, size, dtype)

    def gather(self, padded: Array, geo: Geometry, groups: int) -> Columns:
        """Return the columns of a padded image."""
        view = windows(np, padded, geo.kernel, geo.stride, geo.dilation, geo.output)  # (N, G·C, k1…kd, o1…od)
        rows = padded.shape[1] // groups * math.prod(geo.kernel)
        return view.reshape(1, padded.shape[0], groups, rows, math.prod(geo.output))

    def positions(
        self, kernels: Sequence[Array], columns: Columns, shape: Sequence[int], into: Array | None = None
    ) -> Array:
        """Return Σ kernels · columns as `shape` (N, G·K, o1, …, od).

        If `into` (N, G, K, L) is given, the sum is written there; only for layouts that do not join samples.
        """
        return sum_of_products(kernels, columns, into).reshape(shape)

    def sums(self, positions: Array, columns: Columns) -> Array:
        """Return Σ_n positions · columnsᵀ, (products, G, K, rows), for positions (N, G, K, o1, …, od)."""
        positions = positions.reshape(*positions.shape[:3], math.prod(positions.shape[3:]))
        return sum_axis(np, outer_products(positions, columns), 1)

    def write(self, kernels: Array, sums: Array) -> None:
        """Write sums to kernels (G, K, C, T)."""
        kernels[...] = sums[0].reshape(kernels.shape)


class TapsOfBatch(Taps):
    """(G, C·T, N·L): the textbook's columns, in which samples are more columns."""

    joins_samples = True

    def gather(self, padded: Array, geo: Geometry, groups: int) -> Columns:
        """Return the columns of a padded image."""
        return gather_columns(np, padded, geo, groups)[None]

    def positions(
        self, kernels: Sequence[Array], columns: Columns, shape: Sequence[int], into: Array | None = None
    ) -> Array:
        """Return Σ kernels · columns as `shape` (N, G·K, o1, …, od)."""
        batch, listed, *output = shape
        return sum_of_products(kernels, columns).reshape(listed, batch, *output).swapaxes(0, 1)

    def sums(self, positions: Array, columns: Columns) -> Array:
        """Return Σ_n positions · columnsᵀ, (1, G, K, C·T), for positions (N, G, K, o1, …, od)."""
        positions = np.moveaxis(positions, 0, 2)  # (G, K, N, o1, …, od)
        return outer_products(positions.reshape(*positions.shape[:2], math.prod(positions.shape[2:])), columns)


class Rows(Taps):
    """(N, G, T'·C, L); each tap of the first axis takes a slice."""

    by_rows = True

    def kernels(self, kernels: Array, geo: Geometry) -> tuple[list[Array], Array | None, Array]:
        """Return kernels (G, K, C·T) or (G, K, C, k1, …, kd) as k1 matrices (G, K, T'·C), array and contents."""
        kernels = _with_axes(kernels, geo)
        # In the order that is close in memory: BLAS transposes it.
        transposed = 1 not in kernels.shape[1:3] and kernels.strides[2] > kernels.strides[1]
        return split_kernels(kernels, transposed=transposed)

    def gather(self, padded: Array, geo: Geometry, groups: int) -> Columns:
        """Return columns (N, G, T'·C, L) of a padded image for each tap: one array if the stride is 1, else a list."""
        batch, channels = padded.shape[0], padded.shape[1] // groups
        d, k, o = len(geo.kernel), geo.kernel[1:], geo.output[1:]
        phases = []
        for phase, rows in enumerate(_phase_rows(geo)):
            image = padded[:, :, phase :: geo.stride[0]]
            view = windows(np, image, (1, *k), (1, *geo.stride[1:]), (1, *geo.dilation[1:]), (rows, *o))
            view = view.reshape(batch, groups, channels, *k, rows, *o)  # (N, G, C, k2…kd, rows, o2…od)
            view = view.transpose(0, 1, *range(3, d + 2), 2, *range(d + 2, 2 * d + 2))
            phases.append(view.reshape(batch, groups, math.prod(k) * channels, rows * math.prod(o)))
        return _by_tap(phases, geo, math.prod(o), axis=3)

    def write(self, kernels: Array, sums: Array) -> None:
        """Write sums (k1, G, K, T'·C) to kernels (G, K, C, T)."""
        count, K, C, taps = kernels.shape
        by_tap = sums.reshape(len(sums), count, K, taps // len(sums), C).transpose(1, 2, 4, 0, 3)
        kernels.reshape(by_tap.shape)[...] = by_tap


class ChannelsLast(Rows):
    """(G, o1·N·L', T'·C); each tap of the first axis takes a slice."""

    joins_samples = True

    def kernels(self, kernels: Array, geo: Geometry) -> tuple[list[Array], Array | None, Array]:
        """Return kernels (G, K, C·T) or (G, K, C, k1, …, kd) as k1 matrices (G, K, T'·C), array and contents."""
        return split_kernels(_with_axes(kernels, geo), transposed=not is_double(kernels))

    def pad(self, x: Array, axes: Sequence[Sequence[Run]], size: Sequence[int], dtype: DType, groups: int) -> Array:
        """Pad x (N, G·C, D1, …, Dd) to (G, P1, N, P2, …, Pd, C)."""
        d, batch, channels = len(size), x.shape[0], x.shape[1] // groups
        padded = np.zeros((groups, size[0], batch, *size[1:], channels), dtype)
        view = padded.transpose(2, 0, d + 2, 1, *range(3, d + 2))  # (N, G, C, P1, …, Pd)
        padding.fill(np, view, x.reshape(batch, groups, channels, *x.shape[2:]), axes)
        return padded

    def gather(self, padded: Array, geo: Geometry, groups: int) -> Columns:
        """Return windows (G, o1·N·L', T'·C) of a padded image (G, P1, N, P2, …, Pd, C) for each tap, as in `Rows`."""
        count, _, batch, *_, channels = padded.shape
        group, row, sample, *steps, channel = padded.strides
        output, kernel = geo.output[1:], geo.kernel[1:]
        of_positions = [step * s for step, s in zip(steps, geo.stride[1:], strict=True)]
        of_taps = [step * s for step, s in zip(steps, geo.dilation[1:], strict=True)]
        strides = (group, row * geo.stride[0], sample, *of_positions, *of_taps, channel)
        length = batch * math.prod(output)
        phases = []
        for phase, rows in enumerate(_phase_rows(geo)):
            image = padded[:, phase:] if phase else padded
            view = strided(image, (count, rows, batch, *output, *kernel, channels), strides)
            phases.append(view.reshape(count, rows * length, math.prod(kernel) * channels))
        return _by_tap(phases, geo, length, axis=1)

    def positions(
        self, kernels: Sequence[Array], columns: Columns, shape: Sequence[int], into: Array | None = None
    ) -> Array:
        """Return Σ kernels · columns as `shape` (N, G·K, o1, …, od)."""
        if is_double(kernels[0]):  # BLAS is faster in this order, and in single precision in the other
            found = sum_of_products(kernels, [column.mT for column in columns]).mT
        else:
            found = sum_of_products(columns, [kernel.mT for kernel in kernels])  # (G, o1·N·L', K)
        batch, _, *output = shape
        d = len(output)
        found = found.reshape(found.shape[0], output[0], batch, *output[1:], found.shape[-1])
        return found.transpose(2, 0, d + 2, 1, *range(3, d + 2)).reshape(shape)

    def sums(self, positions: Array, columns: Columns) -> Array:
        """Return Σ_n positions · columns, (k1, G, K, T'·C), for positions (N, G, K, o1, …, od)."""
        positions = positions.transpose(1, 2, 3, 0, *range(4, positions.ndim))  # (G, K, o1, N, o2, …, od)
        positions = positions.reshape(*positions.shape[:2], math.prod(positions.shape[2:]))
        if isinstance(columns, list):
            return np.stack([positions @ column for column in columns])
        return positions @ columns


# --- Kernels by tap ---


def _with_axes(kernels: Array, geo: Geometry) -> Array:
    """Return kernels (G, K, C·T) or (G, K, C, k1, …, kd) as the latter."""
    return kernels.reshape(*kernels.shape[:2], math.prod(kernels.shape[2:]) // math.prod(geo.kernel), *geo.kernel)


def split_kernels(kernels: Array, *, transposed: bool) -> tuple[list[Array], Array, Array]:
    """Split kernels (G, K, C, k1, …, kd) into an array (G, K, T'·C) for each tap of the first axis, not filled yet.

    With `transposed` they are views of (G, T'·C, K). The array of all taps follows, and its contents: two views of one
    shape (k1, G, …).
    """
    count, K, C, k1, *k = kernels.shape
    others, rows = range(4, kernels.ndim), math.prod(k) * C
    if transposed:
        ordered = kernels.transpose(3, 0, *others, 2, 1)
        by_tap = np.empty(ordered.shape, kernels.dtype)
        return list(by_tap.reshape(k1, count, rows, K).mT), by_tap, ordered
    ordered = kernels.transpose(3, 0, 1, *others, 2)
    by_tap = np.empty(ordered.shape, kernels.dtype)
    return list(by_tap.reshape(k1, count, K, rows)), by_tap, ordered


# --- Rows of the first axis ---


def rows_to_copy(geo: Geometry) -> int:
    """Return how many rows of windows are copied for all taps of the first axis."""
    return sum(_phase_rows(geo))


def _phase_rows(geo: Geometry) -> list[int]:
    """Return how many rows of each phase of the first axis are read."""
    rows = [0] * geo.stride[0]
    for tap in range(geo.kernel[0]):
        first, phase = divmod(tap * geo.dilation[0], geo.stride[0])
        rows[phase] = max(rows[phase], first + geo.output[0])
    return rows


def _by_tap(phases: list[Array], geo: Geometry, row: int, axis: int) -> Columns:
    """Return the columns of each tap: of every phase's rows, each of length `row` along an axis, o1 rows."""
    length = geo.output[0] * row
    if len(phases) > 1:
        taps = (divmod(tap * geo.dilation[0], geo.stride[0]) for tap in range(geo.kernel[0]))
        before = (slice(None),) * axis
        return [phases[phase][(*before, slice(first * row, first * row + length))] for first, phase in taps]
    columns = phases[0]
    shape = (geo.kernel[0], *columns.shape[:axis], length, *columns.shape[axis + 1 :])
    return strided(columns, shape, (columns.strides[axis] * geo.dilation[0] * row, *columns.strides))


# --- Products ---


def is_double(array: Array) -> bool:
    """Return whether an array has double precision: BLAS is then faster in other orders than in single precision."""
    return array.dtype in (np.float64, np.complex128)


def sum_of_products(left: Array | Sequence[Array], right: Array | Sequence[Array], into: Array | None = None) -> Array:
    """Return Σ_i left[i] · right[i], in `into` if it is given."""
    pairs = zip(left, right, strict=True)
    total = np.matmul(*next(pairs), out=into)
    product: Array | None = None
    for pair in pairs:
        product = np.matmul(*pair, out=product)
        total += product
    return total


def outer_products(positions: Array, columns: Columns) -> Array:
    """Return positions (…, K, L) times the transposed columns (…, R, L) of each tap: (k1, …, K, R)."""
    if isinstance(columns, list):
        return np.stack([_outer_product(positions, column) for column in columns])
    return _outer_product(positions, columns)


def _outer_product(a: Array, b: Array) -> Array:
    """Return a·bᵀ; a small one as a sum of several products, during which NumPy lets other threads work."""
    few, length = math.prod(b.shape[:-1]) * a.shape[-2], a.shape[-1]
    parts = next((n for n in range(1, LOCKED + 1) if n * few >= LOCKED and length % n == 0), 1)
    if parts > 1:
        a, b = (np.moveaxis(x.reshape(*x.shape[:-1], parts, length // parts), -2, -3) for x in (a, b))
        return sum_axis(np, _outer(a, b), -3)
    return _outer(a, b)


def _outer(a: Array, b: Array) -> Array:
    return a @ b.mT if is_double(a) else (b @ a.mT).mT
