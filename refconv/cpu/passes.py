"""The three passes of :mod:`refconv.textbook`, tile by tile: correlate, scatter, outer; and both gradients together.

Letters and formulas as in the textbook. A pass computes nothing itself: it returns :class:`Work`, its tasks and a
function for the result, so that the gradients of one call share their threads.

Scatter runs as a correlation with the reversed kernel where that is faster (:mod:`refconv.cpu.adjoint`). With stride 1
that correlation makes columns of the output gradient, and these give both gradients: their product with the kernels is
the gradient of the image, their product with the image is the reversed gradient of the kernels. A correlation also
multiplies by the zeros of the padding, and 0·∞ is NaN. So both methods stop at the first infinity or NaN, and the pass
is computed again by col2im.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refconv import padding as pads
from refconv.arrays import Array, DType, all_finite, conj, native_dtype
from refconv.cpu import choices
from refconv.cpu.adjoint import Adjoint, as_correlation
from refconv.cpu.layouts import Columns, Taps
from refconv.cpu.plan import Cuts, Piece, Plan, Tile, make_plan, row_window
from refconv.cpu.threads import Job, run
from refconv.groups import ChannelSide
from refconv.im2col import axis_runs, scatter_columns
from refconv.integers import cut
from refconv.shapes import Convolution, Geometry, Shape
from refconv.textbook import read, write

COPIED_AT_ONCE = 2**17
"""Elements of a weight that one task copies: a share of the work that is still much longer than starting it."""

TRANSPOSED_AT_ONCE = 32
"""Columns that are copied together from a matrix in the other order: few enough that neighbouring elements, read with
them, stay cached (benchmarks/thresholds.py)."""


@dataclasses.dataclass(frozen=True)
class Work:
    """A pass to be run: its tasks, and a function that returns the result."""

    job: Job
    result: Callable[[], Any]


def compute(*works: Work) -> list[Any]:
    """Run passes together and return their results.

    NumPy's warning of invalid values is silenced: vectorised products also raise it where the result is right, and
    other array modules never do. A result that is NaN is still NaN.
    """
    with np.errstate(invalid="ignore"):
        run(*(work.job for work in works))
        return [work.result() for work in works]


# --- The door: the textbook's functions ---


def correlate(call: Convolution, x: Array, w: Sequence[Array], bias: Array | None = None) -> Array:
    """Return y = w · im2col(pad(x)) + bias, as :func:`refconv.textbook.correlate`."""
    return compute(_correlate(call, x, w, bias))[0]


def scatter(call: Convolution, y: Array, w: Sequence[Array], bias: Array | None = None) -> Array:
    """Return x = unpad(col2im(wᵀ · y)) + bias, as :func:`refconv.textbook.scatter`."""
    return compute(_scatter(call, y, w, bias))[0]


def outer(call: Convolution, y: Array, x: Array, dtype: DType) -> list[Array]:
    """Return w = y · conj(im2col(pad(x)))ᵀ, as :func:`refconv.textbook.outer`."""
    kernels: list[Array] = compute(_outer(call, y, x, dtype))[0]
    return kernels


def gradients(call: Convolution, y: Array, w: Sequence[Array], x: Array) -> tuple[Array, list[Array]]:
    """Return scatter(y, w) and outer(y, x): from the same columns where that is faster, otherwise side by side."""
    shared = _shared(call, y, w, x)
    if shared is not None:
        ((image, kernels),) = compute(shared)
    else:
        kernels, image = compute(_outer(call, y, x, w[0].dtype), _scatter(call, y, w, None))  # larger tasks first
    return image, kernels


# --- Tiles ---


class Watch:
    """Records whether any array it receives contains an infinity or a NaN."""

    def __init__(self, awake: bool = True) -> None:
        self.awake = awake
        self.found = False

    def __call__(self, array: Array) -> None:
        """Look at an array."""
        if self.awake and not all_finite(array):
            self.found = True


@dataclasses.dataclass(frozen=True)
class _Tiles:
    """What the tiles of a pass share: the call, the data type of sums, and how columns are laid out."""

    call: Convolution
    dtype: DType
    layout: Taps
    watch: Watch

    def plan(self, *, split_channels: bool, sums_batch: bool) -> Plan:
        cuts = Cuts(split_channels, sums_batch, joins_samples=self.layout.joins_samples, by_rows=self.layout.by_rows)
        return make_plan(self.call, self.dtype.itemsize, cuts)

    def columns(self, image: Array, tile: Tile, *, conjugate: bool = False) -> Columns:
        """Return the columns of a tile, padded rows first, or their conjugate."""
        geo, count = self.call.geometry, tile.piece.count
        window = row_window(geo, *tile.rows)
        needed, axes = _padding_of(geo, *window)
        part = read(np, image[tile.batch, :, needed], self.call.image_side, tile.piece.image)
        part = conj(np, part) if conjugate else part
        size = (window[1] - window[0], *geo.padded[1:])
        padded = self.layout.pad(part, axes, size, self.dtype, count)
        self.watch(padded)
        return self.layout.gather(padded, _with_rows(geo, *tile.rows), count)

    def listed(self, positions: Array, tile: Tile) -> Array:
        """Return the positions of a tile: (N, G, K, o1, …, od)."""
        part = read(np, positions[tile.batch, :, slice(*tile.rows)], self.call.position_side, tile.piece.positions)
        part = part.astype(self.dtype, copy=False)
        self.watch(part)
        return part.reshape(part.shape[0], tile.piece.count, part.shape[1] // tile.piece.count, *part.shape[2:])

    def products(
        self, blocks: Sequence[Sequence[Array]], columns: Columns, tile: Tile, into: Array | None = None
    ) -> Array:
        """Multiply columns with prepared kernels: (N, G·K, o1, …, od), written to `into` of that shape if given."""
        kernels = [matrix[tile.piece.groups] for matrix in blocks[tile.piece.block]]  # (G, K, rows of columns)
        G, K, _ = kernels[0].shape
        shape = (tile.samples, G * K, tile.rows[1] - tile.rows[0], *self.call.geometry.output[1:])
        if into is not None:
            into = into.reshape(tile.samples, G, K, math.prod(shape[2:]))
        return self.layout.positions(kernels, columns, shape, into)


# --- Correlate ---


def _correlate(
    call: Convolution,
    image: Array,
    kernels: Sequence[Array],
    bias: Array | None,
    adjoint: Adjoint | None = None,
    out: Array | None = None,
) -> Work:
    """Image -> positions: y = w · im2col(P).

    With `adjoint`, which has this call, the result in `out` is that of the scatter pass, or None if an infinity or NaN
    was found.
    """
    side, size = (adjoint.side, adjoint.size) if adjoint else (call.position_side, call.geometry.output)
    out = _empty(call, side, size, image) if out is None else out
    if 0 in out.shape:
        return Work(Job((), 1), lambda: out)
    tiles = _Tiles(call, kernels[0].dtype, choices.for_images(call), Watch(adjoint is not None))
    blocks, preparations = _prepare(tiles, kernels)
    plan = tiles.plan(split_channels=False, sums_batch=False)
    in_place = (
        side.is_contiguous
        and out.dtype == tiles.dtype
        and not tiles.layout.joins_samples
        and (adjoint is None or max(adjoint.stride) == 1)
    )

    def work(batch: slice, rows: tuple[int, int], pieces: Sequence[Piece]) -> None:
        if tiles.watch.found:
            return
        parts = []
        for piece in pieces:
            tile = Tile(batch, rows, piece)
            into = out[batch, piece.positions, slice(*rows)] if in_place else None
            part = tiles.products(blocks, tiles.columns(image, tile), tile, into)
            parts.append((piece.positions, part if into is None else into))
        if not in_place:
            where, placed = adjoint.place(rows, parts) if adjoint else (rows, parts)
            write(np, out[:, :, slice(*where)], batch, side, list(placed), bias)
        elif bias is not None:
            for channels, part in parts:
                part += bias[channels].astype(part.dtype, copy=False).reshape(-1, *(1,) * len(size))

    together = _written_together(plan.pieces, side)
    tasks = [
        functools.partial(work, batch, rows, pieces)
        for batch in plan.batches
        for rows in plan.rows
        for pieces in together
    ]
    job = Job(tasks, plan.tile_bytes * len(together[0]), preparations)
    return Work(job, lambda: None if tiles.watch.found else out)


# --- Scatter ---


def _scatter(call: Convolution, positions: Array, kernels: Sequence[Array], bias: Array | None) -> Work:
    """Positions -> image, P = col2im(wᵀ · y): as a correlation where that is faster."""
    adjoint, out = as_correlation(call), _empty(call, call.image_side, call.geometry.size, positions)
    if adjoint is None:
        return _scatter_columns(call, positions, kernels, bias, out)
    work = _correlate(adjoint.call, positions, [adjoint.kernels(kernel) for kernel in kernels], bias, adjoint, out)

    def result() -> Array:
        if work.result() is None:
            compute(_scatter_columns(call, positions, kernels, bias, out))
        return out

    return Work(work.job, result)


def _scatter_columns(
    call: Convolution, positions: Array, kernels: Sequence[Array], bias: Array | None, out: Array
) -> Work:
    """Scatter to `out` as the textbook does, by col2im."""
    geo, side, dtype = call.geometry, call.image_side, kernels[0].dtype
    if 0 in out.shape:
        return Work(Job((), 1), lambda: out)
    tiles = _Tiles(call, dtype, Taps(), Watch(False))
    plan = make_plan(call, dtype.itemsize, Cuts(split_channels=True, sums_batch=False, cut_rows=_cuts_rows(geo)))
    taps = math.prod(geo.kernel)

    def image_rows(batch: slice, rows: tuple[int, int], piece: Piece) -> Array:
        first, last = _windows_touching(geo, rows)
        channels = piece.image.stop - piece.image.start
        if first == last:  # a stride larger than the kernel leaves rows that no window reads
            return np.zeros((batch.stop - batch.start, channels, rows[1] - rows[0], *geo.size[1:]), dtype)
        listed = tiles.listed(positions, Tile(batch, (first, last), piece))
        listed = listed.reshape(*listed.shape[:3], math.prod(listed.shape[3:]))  # (N, G, K, L)
        of_taps = slice(piece.channels.start * taps, piece.channels.stop * taps)
        columns = kernels[piece.block][piece.groups, :, of_taps].mT @ listed  # (N, G, C·T, L)
        start, stop = row_window(geo, first, last)
        part = dataclasses.replace(
            _with_rows(geo, first, last), size=(stop - start, *geo.size[1:]), pads=((0, 0), *geo.pads[1:])
        )
        columns = columns.reshape(columns.shape[0] * columns.shape[1], *columns.shape[2:])  # each sample as more groups
        padded = scatter_columns(np, columns, part, 1).reshape(len(listed), channels, *part.padded)
        return pads.fold(np, padded, _fold_runs(geo, rows, start, stop), (rows[1] - rows[0], *geo.size[1:]))

    def work(batch: slice, rows: tuple[int, int], pieces: Sequence[Piece]) -> None:
        parts = [(piece.image, image_rows(batch, rows, piece)) for piece in pieces]
        write(np, out[:, :, slice(*rows)], batch, side, parts, bias)

    together = _written_together(plan.pieces, side)
    tasks = [
        functools.partial(work, batch, rows, pieces)
        for batch in plan.batches
        for rows in _image_rows(geo, plan.rows)
        for pieces in together
    ]
    return Work(Job(tasks, plan.tile_bytes * len(together[0])), lambda: out)


# --- Outer ---


def _outer(
    call: Convolution, positions: Array, image: Array, dtype: DType, kernels: Sequence[Array] | None = None
) -> Work:
    """Positions and image -> `kernels` (G, K, C·T) of each block: w = Σ_n y[n] · conj(im2col(P[n]))ᵀ."""
    kernels = _empty_kernels(call, dtype) if kernels is None else kernels
    if all(0 in kernel.shape for kernel in kernels) or call.batch == 0:
        return Work(Job((), 1), lambda: kernels)
    tiles = _Tiles(call, np.dtype(dtype), choices.for_kernels(call), Watch(False))
    plan = tiles.plan(split_channels=True, sums_batch=True)

    def sums(tile: Tile) -> Array:
        columns = tiles.columns(image, tile, conjugate=True)
        return tiles.layout.sums(tiles.listed(positions, tile), columns)

    taps = math.prod(call.geometry.kernel)
    by_tap = [kernel.reshape(*kernel.shape[:2], kernel.shape[2] // taps, taps) for kernel in kernels]
    return Work(Job(_sum_tasks(plan, sums, by_tap, tiles.layout), plan.tile_bytes), lambda: kernels)


def _sum_tasks(
    plan: Plan, sums: Callable[[Tile], Array], kernels: Sequence[Array], layout: Taps
) -> list[Callable[[], None]]:
    """Return tasks that add up the sums of tiles, over batch and rows, and write them to kernels (G, K, C, T)."""

    def write_piece(piece: Piece, total: Array) -> None:
        layout.write(kernels[piece.block][piece.groups, :, piece.channels], total)

    per_part = -(-len(plan.batches) // plan.parts)
    parts = [plan.batches[i : i + per_part] for i in range(0, len(plan.batches), per_part)]

    def work(piece: Piece, part: int, total: SumInOrder) -> None:
        tiles = (Tile(batch, rows, piece) for batch in parts[part] for rows in plan.rows)
        total.add(part, functools.reduce(np.ndarray.__iadd__, map(sums, tiles)))

    tasks: list[Callable[[], None]] = []
    for piece in plan.pieces:
        total = SumInOrder(len(parts), functools.partial(write_piece, piece))
        tasks += [functools.partial(work, piece, part, total) for part in range(len(parts))]
    return tasks


class SumInOrder:
    """Adds arrays in the order of their places, not of their arrival, and passes the sum on."""

    def __init__(self, count: int, then: Callable[[Array], None]) -> None:
        self._count, self._then = count, then
        self._lock = threading.Lock()
        self._early: dict[int, Array] = {}
        self._added = 0
        self._total: Array | None = None

    def add(self, place: int, array: Array) -> None:
        """Add the array of a place; one that arrives early waits for all places before it."""
        with self._lock:
            self._early[place] = array
            while self._added in self._early:
                array = self._early.pop(self._added)
                if self._total is None:
                    self._total = array
                else:
                    self._total += array
                self._added += 1
            if self._added == self._count:
                self._then(self._total)
                self._total = None


# --- Both gradients from the same columns ---


def _shared(call: Convolution, grad: Array, kernels: Sequence[Array], image: Array) -> Work | None:
    """Return scatter(grad, kernels) and outer(grad, image) from the columns of grad; None if that is not faster."""
    adjoint = None if call.batch == 0 or 0 in call.geometry.size else as_correlation(call)
    if adjoint is None or max(adjoint.stride) > 1 or not choices.shares_columns(call, kernels[0].dtype.itemsize):
        return None
    if min(map(min, adjoint.call.geometry.pads)) < 0:  # windows in the padding alone, which the columns leave out
        return None
    dtype = kernels[0].dtype
    out, weights = _empty(call, call.image_side, call.geometry.size, grad), _empty_kernels(call, dtype)
    reversed_weights = []
    for weight in weights:  # the same memory, as the weight of the reversed call
        view = adjoint.kernels(weight)  # (G, C, K, k1, …, kd)
        reversed_weights.append(view.reshape(*view.shape[:3], math.prod(view.shape[3:])))
    tiles = _Tiles(adjoint.call, dtype, choices.for_both(adjoint.call), Watch())
    blocks, preparations = _prepare(tiles, [adjoint.kernels(kernel) for kernel in kernels])
    plan = tiles.plan(split_channels=False, sums_batch=True)
    in_place = out.dtype == dtype and not tiles.layout.joins_samples

    def both(tile: Tile) -> Array:
        listed, columns = conj(np, tiles.listed(image, tile)), tiles.columns(grad, tile)
        into = out[tile.batch, tile.piece.positions, slice(*tile.rows)]
        found = tiles.products(blocks, columns, tile, into if in_place else None)
        if not in_place:
            into[...] = found
        return tiles.layout.sums(listed, columns)

    def result() -> tuple[Array, list[Array]]:
        if tiles.watch.found:
            work = _scatter_columns(call, grad, kernels, None, out)
            compute(work, _outer(call, grad, image, dtype, weights))
        return out, weights

    tasks = _sum_tasks(plan, both, reversed_weights, tiles.layout)
    return Work(Job(tasks, plan.tile_bytes, preparations), result)


# --- Arrays of results, and kernels in the order of a layout ---


def _empty(call: Convolution, side: ChannelSide, size: Shape, like: Array) -> Array:
    return np.empty((call.batch, side.channels, *size), native_dtype(np, like))


def _empty_kernels(call: Convolution, dtype: DType) -> list[Array]:
    """Return kernels (G, K, C·T) of each block to be filled; of zeros if the batch is empty."""
    make = np.empty if call.batch else np.zeros
    return [make(shape, dtype) for shape in call.kernel_shapes]


def _prepare(tiles: _Tiles, kernels: Sequence[Array]) -> tuple[list[list[Array]], list[Callable[[], None]]]:
    """Return the matrices of each block of kernels in the layout's order, and the tasks that fill them."""
    blocks: list[list[Array]] = []
    preparations: list[Callable[[], None]] = []
    for kernel in kernels:
        matrices, copy, contents = tiles.layout.kernels(kernel, tiles.call.geometry)
        blocks.append(matrices)
        if copy is not None:
            preparations += _copy_in_parts(copy, contents, tiles.watch)
    return blocks, preparations


def _copy_in_parts(to: Array, source: Array, watch: Watch) -> list[Callable[[], None]]:
    """Return tasks that together copy an array; each shows `watch` its part."""
    axis = max(range(to.ndim - 1), key=lambda axis: to.shape[axis])
    size = -(-to.shape[axis] // max(1, math.prod(to.shape) // COPIED_AT_ONCE))
    transposed = abs(source.strides[-1]) > abs(source.strides[-2])
    columns = cut(to.shape[-1], TRANSPOSED_AT_ONCE if transposed else max(1, to.shape[-1]))

    def copy(part: slice) -> None:
        for some in columns:
            where = (*[slice(None)] * axis, part, ..., some)
            to[where] = source[where]
        watch(to[(*[slice(None)] * axis, part)])

    return [functools.partial(copy, part) for part in cut(to.shape[axis], size)]


def _written_together(pieces: tuple[Piece, ...], side: ChannelSide) -> list[tuple[Piece, ...]]:
    """Return the pieces whose results are written together: each alone, or all if channels are shared or reordered."""
    return [(piece,) for piece in pieces] if side.is_contiguous else [pieces]


# --- Rows of the output and of the image ---


def _with_rows(geo: Geometry, start: int, stop: int) -> Geometry:
    """Return the geometry of output rows start … stop−1 alone."""
    if (start, stop) == (0, geo.output[0]):
        return geo
    return dataclasses.replace(geo, output=(stop - start, *geo.output[1:]))


@functools.lru_cache(maxsize=1024)
def _padding_of(geo: Geometry, start: int, stop: int) -> tuple[slice, tuple[tuple[pads.Run, ...], ...]]:
    """Return the image rows that padded rows start … stop−1 show, and the runs that pad these rows."""
    first_axis, *others = axis_runs(geo)
    runs = pads.clip(first_axis, start, stop)
    first = min((run.input.start for run in runs), default=0)
    last = max((run.input.stop for run in runs), default=0)
    return slice(first, last), (tuple(run.shift(start, first) for run in runs), *others)


def _cuts_rows(geo: Geometry) -> bool:
    """Return whether rows of the image are independent: other modes fold distant rows onto one another."""
    return geo.padding_mode == "zeros"


def _image_rows(geo: Geometry, output_rows: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Cut the rows of the image (not padded) where the output rows were cut."""
    n = geo.size[0]
    if not _cuts_rows(geo) or len(output_rows) == 1:
        return [(0, n)]
    inner = [start * geo.stride[0] - geo.pads[0][0] for start, _ in output_rows[1:]]
    edges = sorted({0, *(min(max(edge, 0), n) for edge in inner), n})
    return list(itertools.pairwise(edges)) or [(0, n)]


def _windows_touching(geo: Geometry, rows: tuple[int, int]) -> tuple[int, int]:
    """Return the output rows (first, end) whose windows read any of these image rows."""
    if rows == (0, geo.size[0]):
        return 0, geo.output[0]
    before = geo.pads[0][0]
    first = -(-(rows[0] + before - geo.spans[0] + 1) // geo.stride[0])
    last = (rows[1] - 1 + before) // geo.stride[0] + 1
    first = min(max(first, 0), geo.output[0])
    return first, max(first, min(last, geo.output[0]))


def _fold_runs(geo: Geometry, rows: tuple[int, int], start: int, stop: int) -> list[tuple[pads.Run, ...]]:
    """Return the runs that fold padded rows start … stop−1 onto image rows rows[0] … rows[1]−1."""
    axes = axis_runs(geo)
    if rows != (0, geo.size[0]):  # zeros mode: padded position p shows image row p − before
        before = geo.pads[0][0]
        axes[0] = pads.clip(axes[0], rows[0] + before, rows[1] + before)
    axes[0] = tuple(run.shift(start, rows[0]) for run in pads.clip(axes[0], start, stop))
    return axes
