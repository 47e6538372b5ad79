r"""Convolution, transposed convolution and their gradients: the textbook, written once for every array module.

Letters
-------
N batch · G groups · C image channels of one group · K position channels of one group · T = k1·…·kd kernel taps ·
L = o1·…·od output positions · P padded image · w[g] weight of group g as a (K, C·T) matrix.

Three passes
------------
Everything here is one trilinear form of positions y, weight w and image P, in each group g:

    F(y, w, P) = Σ_{n,k,l} Σ_{c,t}  y[n,k,l] · w[k,(c,t)] · P[n, c, l·stride + t·dilation]

Leave out one of the three and what remains is one of three passes, each a matrix product beside im2col or col2im:

    correlate   y[n] = w · im2col(P[n])             [k,ct] [ct,l] -> [k,l]
    scatter     P[n] = col2im(wᵀ · y[n])            [ct,k] [k,l]  -> [ct,l]
    outer       w    = Σ_n y[n] · im2col(P[n])ᵀ     [k,nl] [nl,ct] -> [k,ct]

A convolution is ``correlate``. Its gradient with respect to the image is ``scatter`` with conj(w), because
⟨g, w·im2col(P)⟩ = ⟨col2im(wᴴ·g), P⟩ and col2im is im2col transposed; with respect to the weight it is ``outer`` with
conj(P), because ⟨g, w·im2col(P)⟩ = Σ conj(g)·w·im2col(P) = ⟨g·im2col(P)ᴴ, w⟩. A transposed convolution is ``scatter``
itself (its x are the positions, its y the image), so its gradients are ``correlate`` with conj(w), and ``outer`` of
conj(x) and g. Groups are a batch axis of each matrix product: no pass ever mixes two groups.

Where it is faster, scatter is computed as a correlation with the kernel turned round (:mod:`refconv.adjoint`), and a
product beside im2col as one for each tap of the first axis, along which columns need no copy (:mod:`refconv.rowwise`).
With stride 1 the columns of that correlation, those of g, give both gradients: multiplied with w that of the image,
with the image that of w, turned round.

Under every padding mode P = pad(x), so the gradient with respect to x is fold of the gradient with respect to P
(:mod:`refconv.padding`). The passes below run on the slices that :mod:`refconv.tiling` cuts.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from refconv import padding as pads
from refconv import rowwise
from refconv.adjoint import Adjoint, as_correlation
from refconv.arrays import (
    DTYPES,
    Array,
    Namespace,
    add_to,
    all_finite,
    computing_dtype,
    conj,
    device,
    dtype_kind,
    dtype_name,
    elements,
    get_dtype,
    item_bytes,
    matmul,
    namespace_of,
    plain,
    runs_on_cpu_threads,
    sum_axis,
)
from refconv.groups import ChannelGroups, ChannelSide
from refconv.im2col import (
    accumulating_dtype,
    axis_runs,
    check_dtype,
    gather_columns,
    gather_columns_over_batch,
    scatter_columns,
)
from refconv.integers import as_bool, as_int, is_sequence, members, shown
from refconv.shapes import (
    Convolution,
    Geometry,
    Shape,
    as_shape,
    check_shape,
    describe,
    per_axis,
)
from refconv.tiling import TILE_BYTES, Job, Piece, Plan, cut, make_plan, row_window, run

Parts = Iterable[tuple[slice, Array]]
"""Tiles, and the listed channels that they are."""

Weight = Any
"""One array, or a sequence of arrays with one per channel group."""


class ConvGrads(NamedTuple):
    """Gradients of a convolution; None where one was not asked for."""

    x: Array | None
    weight: Weight | None
    bias: Array | None


@dataclasses.dataclass(frozen=True)
class _Work:
    """A pass that is about to be computed: its job, and how its result is had when that is done."""

    job: Job
    result: Callable[[], Any]


def _compute(xp: Namespace, *works: _Work) -> list[Any]:
    """Do passes side by side and return their results."""
    run(xp, *(work.job for work in works))
    return [work.result() for work in works]


class _Layout(NamedTuple):
    """How columns lie: by rows of taps or for all taps, each sample's apart or those of several side by side."""

    by_rows: bool
    over_batch: bool


# --- The three passes -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Passes:
    """The three passes of one checked call. Arrays are batched and channels first; kernels come block by block."""

    xp: Namespace
    call: Convolution
    dtype: str
    accumulate: str
    device: Any

    @property
    def image_side(self) -> ChannelSide:
        return self.call.groups.outputs if self.call.transposed else self.call.groups.inputs

    @property
    def position_side(self) -> ChannelSide:
        return self.call.groups.inputs if self.call.transposed else self.call.groups.outputs

    @functools.cached_property
    def _accumulate_dtype(self) -> Any:
        return get_dtype(self.xp, self.accumulate)

    def correlate(
        self,
        image: Array,
        kernels: Sequence[Array],
        bias: Array | None = None,
        adjoint: Adjoint | None = None,
        out: Array | None = None,
    ) -> _Work:
        """Image (N, C, D1, …, Dd) -> positions (N, K, o1, …, od): y[n] = w · im2col(P[n]).

        With `adjoint`, whose call this is, the result, in `out`, is what the scatter pass would return, or None if
        infinities or NaNs were met.
        """
        xp, geo = self.xp, self.call.geometry
        side, size = (adjoint.side, adjoint.size) if adjoint else (self.position_side, geo.output)
        out = self._empty(side, size) if out is None else out
        if 0 in out.shape:
            return _Work(Job((), 1), lambda: out)
        layout = self._layout_for_images()
        watch = _Watch(adjoint is not None)
        blocks, preparations = _lay_out(xp, kernels, geo, layout, watch)
        plan = make_plan(
            xp,
            self.call,
            item_bytes(self.accumulate),
            split_channels=False,
            sums_batch=False,
            over_batch=layout.over_batch,
            rowwise=layout.by_rows,
        )

        def tile(batch: slice, rows: tuple[int, int], piece: Piece, into: Array | None = None) -> Array:
            padded = self._padded(image, batch, piece.image, row_window(geo, *rows))
            watch(padded)
            columns = _columns(xp, padded, _rows(geo, *rows), piece, layout)
            return self._positions(blocks, columns, batch, rows, piece, layout, into)

        def work(task: tuple[slice, tuple[int, int], tuple[Piece, ...]]) -> None:
            if watch.found:
                return
            batch, rows, pieces = task
            parts = ((p.positions, tile(batch, rows, p)) for p in pieces)
            where, placed = adjoint.place(xp, rows, parts) if adjoint else (rows, parts)
            self._write(out, batch, where, side, placed, bias)

        def work_in_place(task: tuple[slice, tuple[int, int], tuple[Piece, ...]]) -> None:
            if watch.found:
                return
            batch, rows, (piece,) = task
            into = out[batch, piece.positions, slice(*rows), ...]
            tile(batch, rows, piece, _by_group(xp, into, piece, copy=False))
            if bias is not None:
                add_to(xp, into, xp.reshape(bias[piece.positions], (-1, *(1,) * len(geo.output))))

        in_place = (
            runs_on_cpu_threads(xp)
            and side.is_contiguous
            and self.dtype == self.accumulate
            and not layout.over_batch
            and (adjoint is None or max(adjoint.stride) == 1)
        )
        groups = _independent(plan.pieces, side)
        tasks = [
            functools.partial(work_in_place if in_place else work, (batch, rows, pieces))
            for batch in plan.batches
            for rows in plan.rows
            for pieces in groups
        ]
        job = Job(tasks, plan.tile_bytes * len(groups[0]), preparations)
        return _Work(job, lambda: None if watch.found else out)

    def scatter(self, positions: Array, kernels: Sequence[Array], bias: Array | None = None) -> _Work:
        """Positions (N, K, o1, …, od) -> image (N, C, D1, …, Dd): P[n] = col2im(wᵀ · y[n])."""
        xp = self.xp
        adjoint = as_correlation(self.call) if runs_on_cpu_threads(xp) else None
        out = self._empty(self.image_side, self.call.geometry.size)
        if adjoint is None:
            return self._scatter_columns(positions, kernels, bias, out)
        turned = dataclasses.replace(self, call=adjoint.call)
        work = turned.correlate(positions, [adjoint.kernels(xp, kernel) for kernel in kernels], bias, adjoint, out)

        def result() -> Array:
            # Where a correlation multiplies by the zeros of padding, an infinity makes NaN that col2im does not.
            if work.result() is None:
                _compute(xp, self._scatter_columns(positions, kernels, bias, out))
            return out

        return _Work(work.job, result)

    def _scatter_columns(self, positions: Array, kernels: Sequence[Array], bias: Array | None, out: Array) -> _Work:
        """Scatter as the textbook does, by col2im, to `out`."""
        xp, geo, side = self.xp, self.call.geometry, self.image_side
        if 0 in out.shape:
            return _Work(Job((), 1), lambda: out)
        plan = make_plan(
            xp, self.call, item_bytes(self.accumulate), split_channels=True, sums_batch=False, cut_rows=_cuts_rows(geo)
        )
        taps = elements(geo.kernel)

        def tile(batch: slice, rows: tuple[int, int], piece: Piece) -> Array:
            kernel = kernels[piece.block][piece.groups, :, piece.channels.start * taps : piece.channels.stop * taps]
            first, last = _windows_touching(geo, rows)
            if first == last:  # a stride larger than the kernel leaves rows that no window reads
                shape = (batch.stop - batch.start, piece.image.stop - piece.image.start, rows[1] - rows[0])
                return xp.zeros((*shape, *geo.size[1:]), dtype=self._accumulate_dtype, device=self.device)
            part = _rows(geo, first, last)
            listed = self._read(positions, self.position_side, batch, piece.positions, slice(first, last))
            listed = xp.astype(listed, self._accumulate_dtype, copy=False)
            listed = xp.reshape(listed, (listed.shape[0], *kernel.shape[:2], elements(part.output)))  # (N, G, K, L)
            columns = matmul(xp, xp.matrix_transpose(kernel), listed)  # (N, G, C·T, L)
            start, stop = row_window(geo, first, last)
            padded = scatter_columns(xp, columns, part, (stop - start, *geo.padded[1:]))  # (N, G·C, P1, …, Pd)
            return pads.fold(xp, padded, _fold_runs(geo, rows, start, stop), (rows[1] - rows[0], *geo.size[1:]))

        def work(task: tuple[slice, tuple[int, int], tuple[Piece, ...]]) -> None:
            batch, rows, pieces = task
            self._write(out, batch, rows, side, ((p.image, tile(batch, rows, p)) for p in pieces), bias)

        groups = _independent(plan.pieces, side)
        image_rows = _image_rows(geo, plan.rows)
        tasks = [
            functools.partial(work, (batch, rows, pieces))
            for batch in plan.batches
            for rows in image_rows
            for pieces in groups
        ]
        return _Work(Job(tasks, plan.tile_bytes * len(groups[0])), lambda: out)

    def outer(
        self, positions: Array, image: Array, *, conj_image: bool, kernels: Sequence[Array] | None = None
    ) -> _Work:
        """Positions and image -> `kernels` (G, K, C, T) of each block: w = Σ_n y[n] · im2col(P[n])ᵀ.

        Of complex numbers, the image is conjugated, or else the positions.
        """
        xp, geo = self.xp, self.call.geometry
        kernels = self._empty_kernels() if kernels is None else kernels
        if all(0 in kernel.shape for kernel in kernels) or self.call.batch == 0:
            return _Work(Job((), 1), lambda: kernels)
        layout = _Layout(runs_on_cpu_threads(xp) and rowwise.is_faster_for_kernels(self.call), over_batch=True)
        plan = make_plan(
            xp, self.call, item_bytes(self.accumulate), split_channels=True, sums_batch=True, rowwise=layout.by_rows
        )

        def tile(batch: slice, rows: tuple[int, int], piece: Piece) -> Array:
            padded = self._padded(image, batch, piece.image, row_window(geo, *rows))
            padded = conj(xp, padded) if conj_image else padded
            listed = self._read(positions, self.position_side, batch, piece.positions, slice(*rows))
            listed = listed if conj_image else conj(xp, listed)
            listed = xp.astype(listed, self._accumulate_dtype, copy=False)
            columns = _columns(xp, padded, _rows(geo, *rows), piece, layout)  # (G, C·T, L of all)
            return rowwise.products_by_tap(xp, columns, xp.matrix_transpose(_joined(xp, listed, piece, layout)))

        return _Work(Job(self._sum_tasks(plan, tile, kernels, layout), plan.tile_bytes), lambda: kernels)

    def channel_sums(self, grad: Array) -> _Work:
        """Σ over batch and positions: the gradient of a bias, which adds 1·bias[k] to each element of channel k."""
        xp, dtype = self.xp, get_dtype(self.xp, self.dtype)
        axes = (0, *range(2, grad.ndim))
        out = xp.empty(grad.shape[1], dtype=dtype, device=self.device)

        def work(channels: slice) -> None:
            total = xp.sum(grad[:, channels, ...], axis=axes, dtype=self._accumulate_dtype)
            out[channels] = xp.astype(total, dtype, copy=False)

        channel_bytes = max(1, elements(grad.shape) // max(1, grad.shape[1]) * item_bytes(self.dtype))
        size = max(1, SUM_BYTES // channel_bytes) if runs_on_cpu_threads(xp) else max(1, grad.shape[1])
        tasks = [functools.partial(work, channels) for channels in cut(grad.shape[1], size)]
        return _Work(Job(tasks, min(size * channel_bytes, SUM_BYTES)), lambda: out)

    def correlate_and_outer(
        self,
        image: Array,
        kernels: Sequence[Array],
        positions: Array,
        out: Array,
        weights: Sequence[Array],
    ) -> _Work:
        """Write correlate(image, kernels) to `out`, outer(conj(positions), image) from the same columns to `weights`.

        For contiguous groups, on NumPy alone. The result is False if infinities or NaNs were met.
        """
        xp, geo = self.xp, self.call.geometry
        layout, watch = self._layout_for_images(), _Watch()
        blocks, preparations = _lay_out(xp, kernels, geo, layout, watch)
        plan = make_plan(
            xp, self.call, item_bytes(self.accumulate), split_channels=False, sums_batch=True, rowwise=layout.by_rows
        )
        in_place = self.dtype == self.accumulate and not layout.over_batch

        def tile(batch: slice, rows: tuple[int, int], piece: Piece) -> Array:
            padded = self._padded(image, batch, piece.image, row_window(geo, *rows))
            listed = positions[batch, piece.positions, slice(*rows), ...]
            watch(padded)
            watch(listed)
            columns = _columns(xp, padded, _rows(geo, *rows), piece, layout)
            into = out[batch, piece.positions, slice(*rows), ...]
            if in_place:
                into = _by_group(xp, into, piece, copy=False)
                self._positions(blocks, columns, batch, rows, piece, layout, into)
            else:
                into[...] = self._positions(blocks, columns, batch, rows, piece, layout)
            listed = xp.astype(conj(xp, listed), self._accumulate_dtype, copy=False)
            if layout.over_batch:
                return rowwise.products_by_tap(xp, columns, xp.matrix_transpose(_joined(xp, listed, piece, layout)))
            products = rowwise.products_by_tap(xp, columns, xp.matrix_transpose(_by_group(xp, listed, piece)))
            return sum_axis(xp, products, 1)

        tasks = self._sum_tasks(plan, tile, weights, layout)
        return _Work(Job(tasks, plan.tile_bytes, preparations), lambda: not watch.found)

    def gradients(self, grad: Array, image: Array, kernels: Sequence[Array]) -> _Work | None:
        """Return scatter(grad, kernels) and outer(grad, conj(image)) from the same columns, those of grad.

        None if there is no such way, or it is no faster.
        """
        xp = self.xp
        is_empty = self.call.batch == 0 or 0 in self.call.geometry.size
        adjoint = as_correlation(self.call) if runs_on_cpu_threads(xp) and not is_empty else None
        if adjoint is None or max(adjoint.stride) > 1 or not _shares_columns(self.call, item_bytes(self.accumulate)):
            return None
        if min(map(min, adjoint.call.geometry.pads)) < 0:  # windows in the padding alone, which the columns leave out
            return None
        out, weights = self._empty(self.image_side, self.call.geometry.size), self._empty_kernels()
        turned_weights = []
        for weight in weights:  # the same memory, seen as the weight of the turned call
            count, K, C, taps = weight.shape
            view = adjoint.kernels(xp, xp.reshape(weight, (count, K, C * taps), copy=False))
            turned_weights.append(xp.reshape(view, (count, C, K, taps), copy=False))
        turned = dataclasses.replace(self, call=adjoint.call)
        turned_kernels = [adjoint.kernels(xp, kernel) for kernel in kernels]
        work = turned.correlate_and_outer(grad, turned_kernels, image, out, turned_weights)

        def result() -> tuple[Array, list[Array]]:
            if not work.result():
                scatter = self._scatter_columns(grad, kernels, None, out)
                _compute(xp, scatter, self.outer(grad, image, conj_image=True, kernels=weights))
            return out, weights

        return _Work(work.job, result)

    def _sum_tasks(
        self,
        plan: Plan,
        tile: Callable[[slice, tuple[int, int], Piece], Array],
        weights: Sequence[Array],
        layout: _Layout,
    ) -> list[Callable[[], None]]:
        """Return tasks that sum tiles (k1, G, C·T', K) or (1, G, C·T, K) over batch and rows to (G, K, C, T)."""
        xp = self.xp

        def write(piece: Piece, products: Array) -> None:
            kernel = weights[piece.block][piece.groups, :, piece.channels, :]  # (G, K, C, T)
            if layout.by_rows:
                rowwise.write_by_tap(xp, kernel, products)
            else:
                kernel[...] = xp.reshape(xp.matrix_transpose(products[0, ...]), kernel.shape)

        per_part = -(-len(plan.batches) // plan.parts)
        parts = [plan.batches[i : i + per_part] for i in range(0, len(plan.batches), per_part)]

        def work(piece: Piece, part: int, total: _SumInOrder) -> None:
            total.add(part, _sum(xp, (tile(batch, rows, piece) for batch in parts[part] for rows in plan.rows)))

        tasks: list[Callable[[], None]] = []
        for piece in plan.pieces:
            total = _SumInOrder(xp, len(parts), functools.partial(write, piece))
            tasks += [functools.partial(work, piece, part, total) for part in range(len(parts))]
        return tasks

    def _positions(
        self,
        blocks: Sequence[Sequence[Array]],
        columns: Array | list[Array],
        batch: slice,
        rows: tuple[int, int],
        piece: Piece,
        layout: _Layout,
        into: Array | None = None,
    ) -> Array:
        """Multiply columns with kernels that were laid out: (N, G·K, o1, …), written to `into` (N, G, K, L)."""
        xp, output = self.xp, (rows[1] - rows[0], *self.call.geometry.output[1:])
        kernel = [matrix[piece.groups, ...] for matrix in blocks[piece.block]]  # (G, K, C·T)
        listed, count = kernel[0].shape[0] * kernel[0].shape[1], batch.stop - batch.start
        found = rowwise.sum_of_products(xp, kernel, columns, into)  # (N, G, K, L); or (G, K, L of all)
        if not layout.over_batch:
            return xp.reshape(found, (count, listed, *output))
        where = 2 if layout.by_rows else 1  # of the batch among the columns
        sizes = (listed, *output[: where - 1], count, *output[where - 1 :])
        return xp.moveaxis(xp.reshape(found, sizes), where, 0)

    # --- Reading and writing slices ---

    def _empty(self, side: ChannelSide, size: Shape) -> Array:
        shape = (self.call.batch, side.channels, *size)
        return self.xp.empty(shape, dtype=get_dtype(self.xp, self.dtype), device=self.device)

    def _empty_kernels(self) -> list[Array]:
        """Return (G, K, C, T) of each block, to be filled from a batch; of zeros if it is empty."""
        make, taps = self.xp.empty if self.call.batch else self.xp.zeros, elements(self.call.geometry.kernel)
        return [
            make((count, K, rows // taps, taps), dtype=self._accumulate_dtype, device=self.device)
            for count, K, rows in _kernel_shapes(self.call)
        ]

    def _layout_for_images(self) -> _Layout:
        """Return the layout of columns that is the fastest for a sum over all taps."""
        if not runs_on_cpu_threads(self.xp):
            return _Layout(by_rows=False, over_batch=False)
        return _Layout(rowwise.is_faster_for_images(self.call), _joins_samples(self.call))

    def _read(self, array: Array, side: ChannelSide, batch: slice, listed: slice, rows: slice) -> Array:
        """Return some of a side's listed channels, and some rows: (N, listed, rows, …)."""
        if side.is_contiguous:
            return array[batch, listed, rows, ...]
        index = self.xp.asarray(side.listed[listed], dtype=self.xp.int64, device=self.device)
        return self.xp.take(array[batch, :, rows, ...], index, axis=1)

    def _padded(self, image: Array, batch: slice, listed: slice, rows: tuple[int, int]) -> Array:
        """Return some listed channels and padded rows of the image, padded, in the accumulating data type."""
        geo = self.call.geometry
        axes = axis_runs(geo)
        axes[0] = tuple(run.shift(rows[0]) for run in pads.clip(axes[0], *rows))
        first = min((run.input.start for run in axes[0]), default=0)
        last = max((run.input.stop for run in axes[0]), default=0)
        axes[0] = tuple(run.shift(0, first) for run in axes[0])
        size = (rows[1] - rows[0], *geo.padded[1:])
        part = self._read(image, self.image_side, batch, listed, slice(first, last))
        return pads.pad(self.xp, part, axes, size, self._accumulate_dtype)

    def _write(
        self,
        out: Array,
        batch: slice,
        rows: tuple[int, int],
        side: ChannelSide,
        parts: Parts,
        bias: Array | None,
    ) -> None:
        """Write parts of a side's listed channels to their channels: add the bias, sum shared ones, round once."""
        if not side.is_contiguous:
            parts = [(slice(0, side.channels), self._to_channels(side, [part for _, part in parts]))]
        for channels, part in parts:
            if bias is not None:
                shift = self.xp.astype(bias[channels], self._accumulate_dtype, copy=False)
                add_to(self.xp, part, self.xp.reshape(shift, (-1, *(1,) * (part.ndim - 2))))
            out[batch, channels, slice(*rows), ...] = self.xp.astype(part, out.dtype, copy=False)

    def _to_channels(self, side: ChannelSide, parts: list[Array]) -> Array:
        """Sum listed channels onto channels: the adjoint of reading them, by gathering, since no index repeats."""
        xp = self.xp
        batch, _, *size = parts[0].shape
        zero = xp.zeros((batch, 1, *size), dtype=parts[0].dtype, device=self.device)
        listed = xp.concat([*parts, zero], axis=1)  # (N, listed + 1, …)
        tables = [xp.asarray(table, dtype=xp.int64, device=self.device) for table in side.gather_tables()]
        total = xp.take(listed, tables[0], axis=1)
        for table in tables[1:]:
            total = total + xp.take(listed, table, axis=1)
        return total


def _sum(xp: Namespace, arrays: Iterable[Array]) -> Array:
    """Return the sum of arrays, in the first one."""
    arrays = iter(arrays)
    total = next(arrays)
    for more in arrays:
        add_to(xp, total, more)
    return total


def _matrices(xp: Namespace, kernels: Array, geo: Geometry, by_rows: bool) -> tuple[list[Array], Array | None, Array]:
    """Turn kernels (G, K, C·T) or (G, K, C, k1, …, kd) into one matrix (G, K, C·T), or one for each row of taps.

    Returned after them are an array that is still to be filled, if there is one, and with what.
    """
    count, K, *columns = kernels.shape
    if by_rows:
        C = elements(columns) // elements(geo.kernel)
        return rowwise.split_kernels(xp, xp.reshape(kernels, (count, K, C, *geo.kernel)))
    if len(columns) > 1:  # turned round, and BLAS does not take a view with negative strides
        copy = xp.empty(kernels.shape, dtype=kernels.dtype)
        return [xp.reshape(copy, (count, K, elements(columns)))], copy, kernels
    return [kernels], None, kernels


class _SumInOrder:
    """Adds arrays up in their order, whatever the order in which they come, and hands the sum of all on."""

    def __init__(self, xp: Namespace, count: int, then: Callable[[Array], None]) -> None:
        self._xp, self._count, self._then = xp, count, then
        self._lock = threading.Lock()
        self._early: dict[int, Array] = {}
        self._added = 0
        self._total: Array | None = None

    def add(self, place: int, array: Array) -> None:
        """Add what comes at this place; what came too early stays until all before it have come."""
        with self._lock:
            self._early[place] = array
            while self._added in self._early:
                array = self._early.pop(self._added)
                if self._total is None:
                    self._total = array
                else:
                    add_to(self._xp, self._total, array)
                self._added += 1
            if self._added == self._count:
                self._then(self._total)
                self._total = None


class _Watch:
    """Notes whether arrays that it is shown hold an infinity or a NaN."""

    def __init__(self, awake: bool = True) -> None:
        self.awake = awake
        self.found = False

    def __call__(self, array: Array) -> None:
        if self.awake and not all_finite(array):
            self.found = True


def _lay_out(
    xp: Namespace, kernels: Sequence[Array], geo: Geometry, layout: _Layout, watch: _Watch
) -> tuple[list[list[Array]], list[Callable[[], None]]]:
    """Return the matrices of each block of kernels, and the calls that fill them."""
    blocks: list[list[Array]] = []
    preparations: list[Callable[[], None]] = []
    for kernel in kernels:
        matrices, copy, source = _matrices(xp, kernel, geo, layout.by_rows)
        blocks.append(matrices)
        if copy is not None:
            preparations += _copy_in_parts(copy, source, watch)
    return blocks, preparations


def _columns(xp: Namespace, padded: Array, geo: Geometry, piece: Piece, layout: _Layout) -> Array | list[Array]:
    """Turn padded input (N, G·C, P1, …, Pd) into columns (N, G, C·T, L) or (G, C·T, L of all), for each row of taps."""
    groups = piece.groups.stop - piece.groups.start
    if layout.by_rows:
        return rowwise.gather_row_columns(xp, padded, geo, groups, over_batch=layout.over_batch)
    gather = gather_columns_over_batch if layout.over_batch else gather_columns
    return gather(xp, padded, geo, groups)[None, ...]


def _joined(xp: Namespace, listed: Array, piece: Piece, layout: _Layout) -> Array:
    """Turn positions (N, G·K, o1, …) into (G, K, o1·N·L') or (G, K, N·L), as columns over the batch are."""
    groups = piece.groups.stop - piece.groups.start
    order = (1, 2, 0, *range(3, listed.ndim)) if layout.by_rows else (1, 0, *range(2, listed.ndim))
    shape = (groups, listed.shape[1] // groups, listed.shape[0] * elements(listed.shape[2:]))
    return xp.reshape(xp.permute_dims(listed, order), shape)


def _by_group(xp: Namespace, listed: Array, piece: Piece, *, copy: bool | None = None) -> Array:
    """Turn positions (N, G·K, o1, …) into (N, G, K, L)."""
    groups = piece.groups.stop - piece.groups.start
    shape = (listed.shape[0], groups, listed.shape[1] // groups, elements(listed.shape[2:]))
    return xp.reshape(listed, shape, copy=copy)


def _copy_in_parts(to: Array, source: Array, watch: _Watch) -> list[Callable[[], None]]:
    """Return calls that together fill an array, so that threads can share them; each shows `watch` what it copied."""
    axis = max(range(to.ndim - 1), key=lambda axis: to.shape[axis])
    size = -(-to.shape[axis] // max(1, elements(to.shape) // COPIED_AT_ONCE))

    def copy(part: slice) -> None:
        where = (*[slice(None)] * axis, part)
        to[where] = source[where]
        watch(to[where])

    return [functools.partial(copy, part) for part in cut(to.shape[axis], size)]


def _rows(geo: Geometry, start: int, stop: int) -> Geometry:
    """Return the geometry of output rows start … stop−1 alone."""
    if (start, stop) == (0, geo.output[0]):
        return geo
    return dataclasses.replace(geo, output=(stop - start, *geo.output[1:]))


def _independent(pieces: tuple[Piece, ...], side: ChannelSide) -> list[tuple[Piece, ...]]:
    """Return the pieces that can be written apart: each alone, unless they must be summed onto shared channels."""
    return [(piece,) for piece in pieces] if side.is_contiguous else [pieces]


SUM_BYTES = 2**20
"""A thread sums channels of about this size at once."""

COPIED_AT_ONCE = 2**17
"""Elements of a weight that a thread lays out anew at once."""

NARROW, WIDE = 400, 2**13
"""Columns of one sample up to which, and weights of a group from which, a matrix product takes several samples: for
each product BLAS lays out the weight anew, which is felt where it is large and the columns are few."""


def _joins_samples(call: Convolution) -> bool:
    """Tell whether products of several samples' columns, which lie otherwise than the result, are the faster ones."""
    taps, columns = elements(call.geometry.kernel), elements(call.geometry.output)
    weights = max((block.in_size * block.out_size * taps for block in call.groups.blocks), default=0)
    return call.batch > 1 and columns <= NARROW and weights >= WIDE


def _shares_columns(call: Convolution, item_bytes: int) -> bool:
    """Tell whether both gradients from one set of columns are the faster ones: their sums must be small enough to hold.

    The weight's are products with the columns of y instead of those of x: poor ones if there are few channels of x.
    """
    geo, blocks = call.geometry, call.groups.blocks
    weights = sum(block.count * block.in_size * block.out_size for block in blocks) * elements(geo.kernel)
    return weights * item_bytes <= TILE_BYTES and all(4 * block.in_size >= block.out_size for block in blocks)


def _cuts_rows(geo: Geometry) -> bool:
    """Tell whether rows of the image can be scattered apart: other modes fold distant rows onto one another."""
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
    if rows != (0, geo.size[0]):  # zeros mode: position p shows image row p − before
        before = geo.pads[0][0]
        axes[0] = pads.clip(axes[0], rows[0] + before, rows[1] + before)
    axes[0] = tuple(run.shift(start, rows[0]) for run in pads.clip(axes[0], start, stop))
    return axes


# --- From weights to kernels and back -------------------------------------------------------------------------------


def _kernel_shapes(call: Convolution) -> list[tuple[int, int, int]]:
    """Return (G, K, C·T) of each block of equal groups; K are the channels of the positions."""
    taps = elements(call.geometry.kernel)
    shapes = []
    for block in call.groups.blocks:
        first = call.weight_shape(block)
        shapes.append((block.count, first[0], first[1] * taps))
    return shapes


def _to_kernels(p: _Passes, weight: Weight) -> list[Array]:
    """Turn the weight into one (G, K, C·T) array per block, in the accumulating data type."""
    xp, dtype = p.xp, get_dtype(p.xp, p.accumulate)
    kernels = []
    for block, shape in zip(p.call.groups.blocks, _kernel_shapes(p.call), strict=True):
        if p.call.stacked:  # all groups have one shape, so there is one block
            rows = weight
        else:
            arrays = list(weight)[block.first : block.first + block.count]
            rows = arrays[0] if len(arrays) == 1 else xp.concat(arrays, axis=0)
        kernels.append(xp.astype(xp.reshape(rows, shape), dtype, copy=False))
    return kernels


def _from_kernels(p: _Passes, kernels: list[Array]) -> Weight:
    """Turn one kernel array per block into gradients of the weight's own form."""
    xp, dtype = p.xp, get_dtype(p.xp, p.dtype)
    grads = []
    for block, kernel in zip(p.call.groups.blocks, kernels, strict=True):
        kernel = xp.astype(kernel, dtype, copy=False)
        shape = p.call.weight_shape(block)
        if p.call.stacked:
            return xp.reshape(kernel, p.call.stacked_weight_shape)
        grads += [xp.reshape(kernel[g, ...], shape) for g in range(block.count)]
    return tuple(grads)


def _conjugate_kernels(p: _Passes, weight: Weight) -> list[Array]:
    return [conj(p.xp, kernel) for kernel in _to_kernels(p, weight)]


# --- Checking and layout ---------------------------------------------------------------------------------------------


def _is_per_group(weight: Weight) -> bool:
    """Tell a sequence of arrays from one array (of which a one-dimensional one would pass for a sequence)."""
    return is_sequence(weight) and not hasattr(weight, "dtype")


def _check_arrays(**operands: Any) -> tuple[Namespace, str, Any]:
    """Check that all operands are arrays of one module, data type and device; return these three."""
    arrays: dict[str, Array] = {}
    for name, operand in operands.items():
        if name == "weight" and _is_per_group(operand):
            if not operand:
                raise ValueError("weight must have one array for each group; got an empty sequence")
            arrays |= {f"weight[{g}]": member for g, member in enumerate(operand)}
        else:
            arrays[name] = operand
    xp = namespace_of(arrays)
    dtypes = {name: check_dtype(name, array) for name, array in arrays.items()}
    devices = {name: device(array) for name, array in arrays.items()}
    first = next(iter(arrays))
    for name in arrays:
        if dtypes[name] != dtypes[first]:
            raise TypeError(
                f"all operands must share one data type, but {first} has {dtypes[first]} and {name} has {dtypes[name]}"
            )
        if devices[name] != devices[first]:
            raise ValueError(
                f"all operands must be on one device, but {first} is on {devices[first]} and {name} on {devices[name]}"
            )
    return xp, dtypes[first], devices[first]


def _accumulate_name(xp: Namespace, accumulate_dtype: Any, dtype: str) -> str:
    """Return the name of the data type to accumulate in."""
    if accumulate_dtype is None:
        return accumulating_dtype(xp, dtype)
    try:
        name = dtype_name(accumulate_dtype)
    except (TypeError, ValueError):  # no data type, or something that has no name
        name = ""
    if name not in DTYPES:
        error = ValueError if isinstance(accumulate_dtype, str) else TypeError
        raise error(
            f"accumulate_dtype must be one of {', '.join(DTYPES)}, or such a data type; got {shown(accumulate_dtype)}"
        )
    if dtype_kind(name) != dtype_kind(dtype):
        raise TypeError(
            f"accumulate_dtype must be of the operands' kind: {dtype} is {dtype_kind(dtype)}, {name} {dtype_kind(name)}"
        )
    return computing_dtype(xp, name)


def _weight_shape(weight: Weight) -> Any:
    if _is_per_group(weight):
        return [tuple(w.shape) for w in weight]
    return tuple(weight.shape)


def _to_first(p: _Passes, array: Array) -> Array:
    """View an array of the caller's layout as (N, channels, D1, …, Dd)."""
    array = plain(array)
    if not p.call.batched:
        array = array[None, ...]
    if p.call.channels_last:
        last = array.ndim - 1
        array = p.xp.permute_dims(array, (0, last, *range(1, last)))
    return array


def _from_first(p: _Passes, array: Array) -> Array:
    """Give (N, channels, D1, …, Dd) the caller's layout."""
    if p.call.channels_last:
        array = p.xp.permute_dims(array, (0, *range(2, array.ndim), 1))
    return array if p.call.batched else array[0, ...]


def _check_bias(bias: Array | None, call: Convolution) -> None:
    if bias is not None:
        check_shape("bias", tuple(bias.shape), (call.groups.c_out,), "one element per output channel")


def _check_grad(grad_output: Array, call: Convolution) -> None:
    check_shape("grad_output", tuple(grad_output.shape), call.y_shape, "the shape of the output")


def _check_needs(needs: Any) -> tuple[str, ...]:
    if not isinstance(needs, list | tuple | set | frozenset):
        raise TypeError(f'needs must be a tuple of names among "x", "weight" and "bias"; got {shown(needs)}')
    for name in needs:
        if not isinstance(name, str) or name not in ConvGrads._fields:
            raise ValueError(f'needs must hold only "x", "weight" and "bias"; got {shown(name)}')
    return tuple(needs)


def _gradients(
    p: _Passes,
    needs: Sequence[str],
    *,
    both: Callable[[], _Work | None] = lambda: None,
    **passes: Callable[[], _Work],
) -> ConvGrads:
    """Compute those gradients that are needed, side by side: that of x and the weight by `both`, if it can."""
    together = both() if {"x", "weight"} <= set(needs) else None
    works = {"both": together} if together is not None else {}
    # The weight's before that of x: its tasks are larger.
    works |= {n: passes[n]() for n in ("weight", "x", "bias") if n in needs and (n == "bias" or together is None)}
    grads: dict[str, Any] = dict(zip(works, _compute(p.xp, *works.values()), strict=True))
    if together is not None:
        grads["x"], grads["weight"] = grads.pop("both")
    if "x" in grads:
        grads["x"] = _from_first(p, grads["x"])
    if "weight" in grads:
        grads["weight"] = _from_kernels(p, grads["weight"])
    return ConvGrads(*map(grads.get, ConvGrads._fields))


# --- Public functions ------------------------------------------------------------------------------------------------


def conv(
    x: Array,
    weight: Weight,
    bias: Array | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int | ChannelGroups = 1,
    padding_mode: str = "zeros",
    channels_last: bool = False,
    accumulate_dtype: Any = None,
) -> Array:
    r"""Convolve `x` with `weight` in any number of dimensions, group by group.

    .. math:: y[n, k, o] = b[k] + \sum_{c \in \mathrm{in}(k)} \sum_t w[k, c, t]\;
              P[n,\, c,\, o \cdot \mathrm{stride} + t \cdot \mathrm{dilation}]

    where P is `x` padded and in(k) are the input channels that the group of output channel k reads. This is
    cross-correlation, as in every deep-learning library: the kernel is not flipped, nor conjugated.

    Parameters
    ----------
    x : array (N, C, D1, …, Dd) or (C, D1, …, Dd)
        Input; d = ``weight.ndim - 2`` ≥ 1. It may be read-only or have any strides.
    weight : array (K, C/G, k1, …, kd), or sequence of arrays
        With a `ChannelGroups`, one array per group, of shapes ``groups.weight_shapes(kernel_size)``; where these are
        all the same, one array that joins them along the first axis will do.
    bias : array (K,), optional
        Added to each output channel.
    stride, dilation : int or sequence of int
        Step between windows; step between the taps of one window.
    padding : int, sequence of int, sequence of (before, after), "valid", "same" or "same_lower"
        Elements added around the input; negative numbers crop it. "same" gives ceil(n / stride) outputs, an odd
        element going after ("same_lower": before) the input, also where stride > 1.
    groups : int or ChannelGroups
        G equal, contiguous blocks of channels, or any :class:`ChannelGroups`.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What the added elements show: the input is extended to infinity by the mode, and padding chooses the
        window. As in PyTorch, "reflect" needs padding < n and "circular" padding ≤ n.
    channels_last : bool
        x and y are (N, D1, …, Dd, C) and (N, o1, …, od, K); the weight keeps its layout.
    accumulate_dtype : dtype or str, optional
        Compute in this data type of the same kind, and round once at the end. By default the operands' own,
        except that float16 is computed in float32.

    Returns
    -------
    y : array (N, K, o1, …, od)
        A new array with o = floor((n + before + after − dilation·(k−1) − 1) / stride) + 1; unbatched if `x` is.
        An empty batch, or C = 0, gives the bias or zeros. Integers wrap.

    Raises
    ------
    TypeError
        If an argument has the wrong type, or the operands do not share one module and data type.
    ValueError
        If a shape or a number breaks a rule, or the request is absurdly large (more than 2^40 elements).

    References
    ----------
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS
    2012, section 3.5 (groups). K. Chellapilla et al., 2006 (im2col).

    Examples
    --------
    Two groups: output channel 0 sees only input channel 0, output channel 1 only input channel 1.

    >>> import numpy as np
    >>> from refconv import conv
    >>> x = np.array([[[1, 2, 3, 4], [10, 20, 30, 40]]])
    >>> w = np.array([[[1, -1]], [[1, 1]]])
    >>> conv(x, w, groups=2)
    array([[[-1, -1, -1],
            [30, 50, 70]]])
    """
    given = {} if bias is None else {"bias": bias}
    xp, dtype, dev = _check_arrays(x=x, weight=weight, **given)
    call = describe(
        tuple(x.shape),
        _weight_shape(weight),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        channels_last=channels_last,
    )
    _check_bias(bias, call)
    p = _Passes(xp, call, dtype, _accumulate_name(xp, accumulate_dtype, dtype), dev)
    (y,) = _compute(xp, p.correlate(_to_first(p, x), _to_kernels(p, weight), bias))
    return _from_first(p, y)


def conv_backward(
    grad_output: Array,
    x: Array,
    weight: Weight,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int | ChannelGroups = 1,
    padding_mode: str = "zeros",
    channels_last: bool = False,
    accumulate_dtype: Any = None,
    needs: Sequence[str] = ("x", "weight", "bias"),
) -> ConvGrads:
    r"""Return the gradients of :func:`conv` with respect to `x`, `weight` and bias.

    With g = `grad_output`,

    .. math::
        \bar x &= \mathrm{fold}(\bar P), \quad \bar P[n, c, p] = \sum_{k, t, o\;:\; o \cdot \mathrm{stride}
                  + t \cdot \mathrm{dilation} = p} \overline{w[k, c, t]}\; g[n, k, o] \\
        \bar w[k, c, t] &= \sum_{n, o} g[n, k, o]\;
                           \overline{P[n, c, o \cdot \mathrm{stride} + t \cdot \mathrm{dilation}]} \\
        \bar b[k] &= \sum_{n, o} g[n, k, o]

    the adjoint under ⟨a, b⟩ = Σ conj(a)·b (PyTorch's convention): ⟨g, conv(x, w)⟩ = ⟨x̄, x⟩ = ⟨w̄, w⟩.

    Parameters
    ----------
    grad_output : array
        Gradient with respect to the output, of the output's shape.
    x, weight, stride, padding, dilation, groups, padding_mode, channels_last, accumulate_dtype
        As they were given to :func:`conv`.
    needs : tuple of str
        Which gradients to compute, among "x", "weight" and "bias".

    Returns
    -------
    ConvGrads
        Named tuple ``(x, weight, bias)`` of new arrays; None where not needed. ``weight`` is a tuple where `weight`
        is a sequence.

    Raises
    ------
    ValueError, TypeError
        As :func:`conv`; and if `grad_output` does not have the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import conv_backward
    >>> x, w = np.array([[[1., 2., 3.]]]), np.array([[[1., -1.]]])
    >>> grads = conv_backward(np.ones((1, 1, 2)), x, w)
    >>> grads.x, grads.weight, grads.bias
    (array([[[ 1.,  0., -1.]]]), array([[[3., 5.]]]), array([2.]))
    """
    needs = _check_needs(needs)
    xp, dtype, dev = _check_arrays(grad_output=grad_output, x=x, weight=weight)
    call = describe(
        tuple(x.shape),
        _weight_shape(weight),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        channels_last=channels_last,
    )
    _check_grad(grad_output, call)
    p = _Passes(xp, call, dtype, _accumulate_name(xp, accumulate_dtype, dtype), dev)
    grad, image = _to_first(p, grad_output), _to_first(p, x)
    kernels = functools.cache(lambda: _conjugate_kernels(p, weight))
    return _gradients(
        p,
        needs,
        both=lambda: p.gradients(grad, image, kernels()),
        x=lambda: p.scatter(grad, kernels()),
        weight=lambda: p.outer(grad, image, conj_image=True),
        bias=lambda: p.channel_sums(grad),
    )


def conv_input_grad(
    grad_output: Array,
    weight: Weight,
    input_shape: Sequence[int],
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int | ChannelGroups = 1,
    padding_mode: str = "zeros",
    channels_last: bool = False,
    accumulate_dtype: Any = None,
) -> Array:
    """Return the gradient of :func:`conv` with respect to its input, given the input's shape.

    The formula is x̄ of :func:`conv_backward`. The shape is needed because several input sizes give the same output
    size: with k = 3 and stride 2, both 7 and 8 give 3.

    Parameters
    ----------
    grad_output : array
        Gradient with respect to the output.
    weight : array or sequence of arrays
        As for :func:`conv`.
    input_shape : sequence of int
        Shape of x in the layout that `channels_last` says, with N (unless unbatched) and C.
    stride, padding, dilation, groups, padding_mode, channels_last, accumulate_dtype
        As for :func:`conv`.

    Returns
    -------
    grad_x : array of shape `input_shape`
        A new array.

    Raises
    ------
    ValueError, TypeError
        As :func:`conv_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import conv_input_grad
    >>> conv_input_grad(np.ones((1, 1, 3)), np.ones((1, 1, 3)), (1, 1, 8), stride=2)
    array([[[1., 1., 2., 1., 2., 1., 1., 0.]]])
    """
    xp, dtype, dev = _check_arrays(grad_output=grad_output, weight=weight)
    call = describe(
        as_shape(input_shape, "input_shape"),
        _weight_shape(weight),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        channels_last=channels_last,
        x_name="input_shape",
    )
    _check_grad(grad_output, call)
    p = _Passes(xp, call, dtype, _accumulate_name(xp, accumulate_dtype, dtype), dev)
    (grad_x,) = _compute(xp, p.scatter(_to_first(p, grad_output), _conjugate_kernels(p, weight)))
    return _from_first(p, grad_x)


def conv_weight_grad(
    grad_output: Array,
    x: Array,
    kernel_size: Any,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int | ChannelGroups = 1,
    padding_mode: str = "zeros",
    channels_last: bool = False,
    accumulate_dtype: Any = None,
) -> Weight:
    """Return the gradient of :func:`conv` with respect to its weight, given the kernel's size.

    The formula is w̄ of :func:`conv_backward`.

    Parameters
    ----------
    grad_output, x : array
        Gradient with respect to the output, and the input.
    kernel_size : int or sequence of int
        Kernel size per spatial axis. An int stands for all axes of a batched `x`.
    stride, padding, dilation, groups, padding_mode, channels_last, accumulate_dtype
        As for :func:`conv`.

    Returns
    -------
    grad_weight : array (K, C/G, k1, …, kd), or tuple of arrays
        A tuple with one array per group if `groups` is a :class:`ChannelGroups`.

    Raises
    ------
    ValueError, TypeError
        As :func:`conv_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import conv_weight_grad
    >>> conv_weight_grad(np.ones((1, 1, 2)), np.array([[[1., 2., 3.]]]), 2)
    array([[[3., 5.]]])
    """
    xp, dtype, dev = _check_arrays(grad_output=grad_output, x=x)
    d = len(members(kernel_size)) if is_sequence(kernel_size) else x.ndim - 2
    if d < 1 or x.ndim not in (d + 1, d + 2) or grad_output.ndim != x.ndim:
        raise ValueError(
            f"x and grad_output must both have {max(d, 1) + 2} axes (or {max(d, 1) + 1} if unbatched) for "
            f"kernel_size={shown(kernel_size)}; got shapes {tuple(x.shape)} and {tuple(grad_output.shape)}"
        )
    kernel = per_axis(kernel_size, "kernel_size", d, 1)
    shapes: Any
    if isinstance(groups, ChannelGroups):
        shapes = list(groups.weight_shapes(kernel))
    else:
        axis = -1 if as_bool(channels_last, "channels_last") else x.ndim - d - 1
        channels = x.shape[axis]
        n = as_int(groups, "groups", 1)
        shapes = (grad_output.shape[axis], channels // n, *kernel)
    call = describe(
        tuple(x.shape),
        shapes,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        channels_last=channels_last,
    )
    _check_grad(grad_output, call)
    p = _Passes(xp, call, dtype, _accumulate_name(xp, accumulate_dtype, dtype), dev)
    (kernels,) = _compute(xp, p.outer(_to_first(p, grad_output), _to_first(p, x), conj_image=True))
    return _from_kernels(p, kernels)


def conv_transpose(
    x: Array,
    weight: Weight,
    bias: Array | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int | ChannelGroups = 1,
    channels_last: bool = False,
    accumulate_dtype: Any = None,
) -> Array:
    r"""Convolve `x` with `weight`, transposed: the adjoint map of a convolution, used in its own right.

    .. math:: y[n, k, p] = b[k] + \sum_{c, t, l\;:\; l \cdot \mathrm{stride}
              + t \cdot \mathrm{dilation} = p + \mathrm{before}} w[c, k, t]\; x[n, c, l]

    where c runs over the input channels of the groups that write output channel k. The kernel is not conjugated.

    Parameters
    ----------
    x : array (N, C, D1, …, Dd) or (C, D1, …, Dd)
        Input; d = ``weight.ndim - 2`` ≥ 1.
    weight : array (C, K/G, k1, …, kd), or sequence of arrays
        With a `ChannelGroups`, one array per group, of shapes ``groups.weight_shapes(kernel_size, transposed=True)``.
    bias : array (K,), optional
        Added to each output channel.
    stride, dilation : int or sequence of int
        Step between the places where neighbouring inputs are written; step between the kernel's taps.
    padding : int, sequence of int, or sequence of (before, after)
        Elements cropped from the output: what a convolution from y to x would pad with.
    output_padding : int or sequence of int
        Extends the output after its end, where values of the kernel can land; smaller than stride or dilation.
    groups : int or ChannelGroups
        Each group reads its ``in_channels`` of x and writes its ``out_channels`` of y.
    channels_last, accumulate_dtype
        As for :func:`conv`.

    Returns
    -------
    y : array (N, K, o1, …, od)
        A new array with o = (n−1)·stride − before − after + dilation·(k−1) + 1 + output_padding.

    Raises
    ------
    ValueError, TypeError
        As :func:`conv`.

    References
    ----------
    V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", arXiv 1603.07285, chapter 4.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import conv_transpose
    >>> conv_transpose(np.array([[[1, 2]]]), np.array([[[1, 10, 100]]]), stride=2)
    array([[[  1,  10, 102,  20, 200]]])
    """
    given = {} if bias is None else {"bias": bias}
    xp, dtype, dev = _check_arrays(x=x, weight=weight, **given)
    call = describe(
        tuple(x.shape),
        _weight_shape(weight),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        output_padding=output_padding,
        channels_last=channels_last,
        transposed=True,
    )
    _check_bias(bias, call)
    p = _Passes(xp, call, dtype, _accumulate_name(xp, accumulate_dtype, dtype), dev)
    (y,) = _compute(xp, p.scatter(_to_first(p, x), _to_kernels(p, weight), bias))
    return _from_first(p, y)


def conv_transpose_backward(
    grad_output: Array,
    x: Array,
    weight: Weight,
    *,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int | ChannelGroups = 1,
    channels_last: bool = False,
    accumulate_dtype: Any = None,
    needs: Sequence[str] = ("x", "weight", "bias"),
) -> ConvGrads:
    r"""Return the gradients of :func:`conv_transpose` with respect to `x`, `weight` and bias.

    With g = `grad_output`, padded with zeros to G,

    .. math::
        \bar x[n, c, l] &= \sum_{k, t} \overline{w[c, k, t]}\;
                           G[n, k, l \cdot \mathrm{stride} + t \cdot \mathrm{dilation}] \\
        \bar w[c, k, t] &= \sum_{n, l} \overline{x[n, c, l]}\;
                           G[n, k, l \cdot \mathrm{stride} + t \cdot \mathrm{dilation}] \\
        \bar b[k] &= \sum_{n, p} g[n, k, p]

    so x̄ is a convolution of g: the adjoint of an adjoint.

    Parameters
    ----------
    grad_output : array
        Gradient with respect to the output, of the output's shape.
    x, weight, stride, padding, output_padding, dilation, groups, channels_last, accumulate_dtype
        As they were given to :func:`conv_transpose`.
    needs : tuple of str
        Which gradients to compute, among "x", "weight" and "bias".

    Returns
    -------
    ConvGrads
        Named tuple ``(x, weight, bias)`` of new arrays; None where not needed.

    Raises
    ------
    ValueError, TypeError
        As :func:`conv_transpose`; and if `grad_output` does not have the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import conv_transpose_backward
    >>> x, w = np.array([[[1., 2.]]]), np.array([[[1., 10., 100.]]])
    >>> grads = conv_transpose_backward(np.ones((1, 1, 5)), x, w, stride=2)
    >>> grads.x, grads.weight, grads.bias
    (array([[[111., 111.]]]), array([[[3., 3., 3.]]]), array([5.]))
    """
    needs = _check_needs(needs)
    xp, dtype, dev = _check_arrays(grad_output=grad_output, x=x, weight=weight)
    call = describe(
        tuple(x.shape),
        _weight_shape(weight),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        output_padding=output_padding,
        channels_last=channels_last,
        transposed=True,
    )
    _check_grad(grad_output, call)
    p = _Passes(xp, call, dtype, _accumulate_name(xp, accumulate_dtype, dtype), dev)
    grad, positions = _to_first(p, grad_output), _to_first(p, x)
    return _gradients(
        p,
        needs,
        x=lambda: p.correlate(grad, _conjugate_kernels(p, weight)),
        weight=lambda: p.outer(positions, grad, conj_image=False),
        bias=lambda: p.channel_sums(grad),
    )


def conv_output_shape(
    input_shape: Sequence[int],
    weight_shape: Any,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int | ChannelGroups = 1,
    padding_mode: str = "zeros",
    channels_last: bool = False,
) -> tuple[int, ...]:
    """Return the shape that :func:`conv` would give, without any array.

    Parameters
    ----------
    input_shape : sequence of int
        Shape of x, with N (unless unbatched) and C.
    weight_shape : sequence of int, or sequence of such
        Shape of the weight; with a :class:`ChannelGroups`, one shape per group, or one shape where all are equal.
    stride, padding, dilation, groups, padding_mode, channels_last
        As for :func:`conv`.

    Returns
    -------
    tuple of int
        Per spatial axis floor((n + before + after − dilation·(k−1) − 1) / stride) + 1.

    Raises
    ------
    ValueError, TypeError
        As :func:`conv`.

    Examples
    --------
    AlexNet's first layer: 224 pixels do not give 55 outputs, 227 do.

    >>> from refconv import conv_output_shape
    >>> conv_output_shape((128, 3, 227, 227), (96, 3, 11, 11), stride=4)
    (128, 96, 55, 55)
    """
    shapes: Any
    if is_sequence(weight_shape) and any(map(is_sequence, members(weight_shape, 0))):
        shapes = [as_shape(shape, f"weight_shape[{g}]") for g, shape in enumerate(weight_shape)]
    else:
        shapes = as_shape(weight_shape, "weight_shape")
    call = describe(
        as_shape(input_shape, "input_shape"),
        shapes,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        channels_last=channels_last,
        x_name="input_shape",
    )
    return call.y_shape


def _of_rank(d: int, general: Callable[..., Array]) -> Callable[..., Array]:
    """Return `general` for exactly d spatial axes."""

    @functools.wraps(general)
    def fixed(x: Array, weight: Weight, bias: Array | None = None, **options: Any) -> Array:
        members = list(weight) if _is_per_group(weight) else [weight]
        for member in members:
            shape = getattr(member, "shape", None)
            if isinstance(shape, tuple) and len(shape) != d + 2:
                raise ValueError(f"weight must have {d + 2} axes for {d} spatial axes; got shape {tuple(shape)}")
        return general(x, weight, bias, **options)

    fixed.__name__ = fixed.__qualname__ = f"{general.__name__}{d}d"
    fixed.__doc__ = f"{d}-d :func:`{general.__name__}`: the same function, with the number of spatial axes checked."
    return fixed


conv1d, conv2d, conv3d = (_of_rank(d, conv) for d in (1, 2, 3))
conv_transpose1d, conv_transpose2d, conv_transpose3d = (_of_rank(d, conv_transpose) for d in (1, 2, 3))
