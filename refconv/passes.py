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

Where it is faster, scatter is computed as a correlation with the kernel turned round (:mod:`refconv.adjoint`), and
columns lie otherwise than in the textbook (:mod:`refconv.layouts`). With stride 1 the columns of that correlation,
those of g, give both gradients: multiplied with w that of the image, with the image that of w, turned round.

Under every padding mode P = pad(x), so the gradient with respect to x is fold of the gradient with respect to P
(:mod:`refconv.padding`). The passes below run on the slices that :mod:`refconv.tiling` cuts.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from refconv import layouts
from refconv import padding as pads
from refconv.adjoint import Adjoint, as_correlation
from refconv.arrays import (
    Array,
    Namespace,
    add_to,
    all_finite,
    conj,
    elements,
    get_dtype,
    item_bytes,
    matmul,
    runs_on_cpu_threads,
    sum_axis,
)
from refconv.groups import ChannelSide
from refconv.im2col import axis_runs, scatter_columns
from refconv.layouts import Taps
from refconv.shapes import Convolution, Geometry, Shape
from refconv.tiling import Job, Piece, Plan, cut, make_plan, row_window, run

Parts = Iterable[tuple[slice, Array]]
"""Tiles, and the listed channels that they are."""


@dataclasses.dataclass(frozen=True)
class Work:
    """A pass that is about to be computed: its job, and how its result is had when that is done."""

    job: Job
    result: Callable[[], Any]


def compute(xp: Namespace, *works: Work) -> list[Any]:
    """Do passes side by side and return their results."""
    run(xp, *(work.job for work in works))
    return [work.result() for work in works]


@dataclasses.dataclass(frozen=True)
class Passes:
    """The three passes of one checked call. Arrays are batched and channels first; kernels come block by block."""

    xp: Namespace
    call: Convolution
    dtype: str
    accumulate: str
    device: Any

    @property
    def image_side(self) -> ChannelSide:
        """Who of the call's channels are the image's: the inputs, or those of the output if it is transposed."""
        return self.call.groups.outputs if self.call.transposed else self.call.groups.inputs

    @property
    def position_side(self) -> ChannelSide:
        """Who of the call's channels are the positions'."""
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
    ) -> Work:
        """Image (N, C, D1, …, Dd) -> positions (N, K, o1, …, od): y[n] = w · im2col(P[n]).

        With `adjoint`, whose call this is, the result, in `out`, is what the scatter pass would return, or None if
        infinities or NaNs were met.
        """
        xp, geo = self.xp, self.call.geometry
        side, size = (adjoint.side, adjoint.size) if adjoint else (self.position_side, geo.output)
        out = self._empty(side, size) if out is None else out
        if 0 in out.shape:
            return Work(Job((), 1), lambda: out)
        layout = layouts.for_images(xp, self.call)
        watch = _Watch(adjoint is not None)
        blocks, preparations = _lay_out(xp, kernels, geo, layout, watch)
        plan = self._plan(layout, split_channels=False, sums_batch=False)

        def tile(batch: slice, rows: tuple[int, int], piece: Piece, into: Array | None = None) -> Array:
            columns = self._columns(layout, image, batch, rows, piece, watch)
            return self._positions(layout, blocks, columns, batch, rows, piece, into)

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
            tile(batch, rows, piece, _matrices(xp, into, piece))
            if bias is not None:
                add_to(xp, into, xp.reshape(bias[piece.positions], (-1, *(1,) * len(geo.output))))

        in_place = (
            runs_on_cpu_threads(xp)
            and side.is_contiguous
            and self.dtype == self.accumulate
            and not layout.joins_samples
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
        return Work(job, lambda: None if watch.found else out)

    def scatter(self, positions: Array, kernels: Sequence[Array], bias: Array | None = None) -> Work:
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
                compute(xp, self._scatter_columns(positions, kernels, bias, out))
            return out

        return Work(work.job, result)

    def _scatter_columns(self, positions: Array, kernels: Sequence[Array], bias: Array | None, out: Array) -> Work:
        """Scatter as the textbook does, by col2im, to `out`."""
        xp, geo, side = self.xp, self.call.geometry, self.image_side
        if 0 in out.shape:
            return Work(Job((), 1), lambda: out)
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
        return Work(Job(tasks, plan.tile_bytes * len(groups[0])), lambda: out)

    def outer(
        self, positions: Array, image: Array, *, conj_image: bool, kernels: Sequence[Array] | None = None
    ) -> Work:
        """Positions and image -> `kernels` (G, K, C, T) of each block: w = Σ_n y[n] · im2col(P[n])ᵀ.

        Of complex numbers, the image is conjugated, or else the positions.
        """
        xp = self.xp
        kernels = self._empty_kernels() if kernels is None else kernels
        if all(0 in kernel.shape for kernel in kernels) or self.call.batch == 0:
            return Work(Job((), 1), lambda: kernels)
        layout = layouts.for_kernels(xp, self.call)
        plan = self._plan(layout, split_channels=True, sums_batch=True)

        def tile(batch: slice, rows: tuple[int, int], piece: Piece) -> Array:
            columns = self._columns(layout, image, batch, rows, piece)
            listed = self._read(positions, self.position_side, batch, piece.positions, slice(*rows))
            listed = xp.astype(listed, self._accumulate_dtype, copy=False)
            sums = layout.sums(xp, _by_group(xp, conj(xp, listed), piece), columns)
            return conj(xp, sums) if conj_image else sums  # Σ y·conj(P) = conj(Σ conj(y)·P)

        return Work(Job(self._sum_tasks(plan, tile, kernels, layout), plan.tile_bytes), lambda: kernels)

    def channel_sums(self, grad: Array) -> Work:
        """Σ over batch and positions: the gradient of a bias, which adds 1·bias[k] to each element of channel k."""
        xp, dtype = self.xp, get_dtype(self.xp, self.dtype)
        axes = (0, *range(2, grad.ndim))
        out = xp.empty(grad.shape[1], dtype=dtype, device=self.device)

        def work(channels: slice) -> None:
            total = sum_axis(xp, grad[:, channels, ...], axes, dtype=self._accumulate_dtype)
            out[channels] = xp.astype(total, dtype, copy=False)

        channel_bytes = max(1, elements(grad.shape) // max(1, grad.shape[1]) * item_bytes(self.dtype))
        size = max(1, SUM_BYTES // channel_bytes) if runs_on_cpu_threads(xp) else max(1, grad.shape[1])
        tasks = [functools.partial(work, channels) for channels in cut(grad.shape[1], size)]
        return Work(Job(tasks, min(size * channel_bytes, SUM_BYTES)), lambda: out)

    def correlate_and_outer(
        self,
        image: Array,
        kernels: Sequence[Array],
        positions: Array,
        out: Array,
        weights: Sequence[Array],
    ) -> Work:
        """Write correlate(image, kernels) to `out`, outer(conj(positions), image) from the same columns to `weights`.

        For contiguous groups, on NumPy alone. The result is False if infinities or NaNs were met.
        """
        xp, geo = self.xp, self.call.geometry
        layout, watch = layouts.for_both(xp, self.call), _Watch()
        blocks, preparations = _lay_out(xp, kernels, geo, layout, watch)
        plan = self._plan(layout, split_channels=False, sums_batch=True)
        in_place = self.dtype == self.accumulate and not layout.joins_samples

        def tile(batch: slice, rows: tuple[int, int], piece: Piece) -> Array:
            listed = positions[batch, piece.positions, slice(*rows), ...]
            watch(listed)
            columns = self._columns(layout, image, batch, rows, piece, watch)
            into = out[batch, piece.positions, slice(*rows), ...]
            if in_place:
                into = _matrices(xp, into, piece)
                self._positions(layout, blocks, columns, batch, rows, piece, into)
            else:
                into[...] = self._positions(layout, blocks, columns, batch, rows, piece)
            listed = xp.astype(conj(xp, listed), self._accumulate_dtype, copy=False)
            return layout.sums(xp, _by_group(xp, listed, piece), columns)

        tasks = self._sum_tasks(plan, tile, weights, layout)
        return Work(Job(tasks, plan.tile_bytes, preparations), lambda: not watch.found)

    def gradients(self, grad: Array, image: Array, kernels: Sequence[Array]) -> Work | None:
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
                compute(xp, scatter, self.outer(grad, image, conj_image=True, kernels=weights))
            return out, weights

        return Work(work.job, result)

    def _sum_tasks(
        self,
        plan: Plan,
        tile: Callable[[slice, tuple[int, int], Piece], Array],
        weights: Sequence[Array],
        layout: Taps,
    ) -> list[Callable[[], None]]:
        """Return tasks that add up the sums of tiles, over batch and rows, and write them to weights (G, K, C, T)."""
        xp = self.xp

        def write(piece: Piece, sums: Array) -> None:
            layout.write(xp, weights[piece.block][piece.groups, :, piece.channels, :], sums)

        per_part = -(-len(plan.batches) // plan.parts)
        parts = [plan.batches[i : i + per_part] for i in range(0, len(plan.batches), per_part)]

        def work(piece: Piece, part: int, total: _SumInOrder) -> None:
            total.add(part, _sum(xp, (tile(batch, rows, piece) for batch in parts[part] for rows in plan.rows)))

        tasks: list[Callable[[], None]] = []
        for piece in plan.pieces:
            total = _SumInOrder(xp, len(parts), functools.partial(write, piece))
            tasks += [functools.partial(work, piece, part, total) for part in range(len(parts))]
        return tasks

    def _plan(self, layout: Taps, *, split_channels: bool, sums_batch: bool) -> Plan:
        return make_plan(
            self.xp,
            self.call,
            item_bytes(self.accumulate),
            split_channels=split_channels,
            sums_batch=sums_batch,
            joins_samples=layout.joins_samples,
            by_rows=layout.by_rows,
        )

    def _columns(
        self,
        layout: Taps,
        image: Array,
        batch: slice,
        rows: tuple[int, int],
        piece: Piece,
        watch: Callable[[Array], None] = lambda padded: None,
    ) -> Any:
        """Return the columns of a tile; `watch` is shown the padded image."""
        groups = piece.groups.stop - piece.groups.start
        padded = self._padded(layout, image, batch, piece.image, row_window(self.call.geometry, *rows), groups)
        watch(padded)
        return layout.gather(self.xp, padded, _rows(self.call.geometry, *rows), groups)

    def _positions(
        self,
        layout: Taps,
        blocks: Sequence[Sequence[Array]],
        columns: Any,
        batch: slice,
        rows: tuple[int, int],
        piece: Piece,
        into: Array | None = None,
    ) -> Array:
        """Multiply columns with kernels that were laid out: (N, G·K, o1, …), written to `into` (N, G, K, L)."""
        kernels = [matrix[piece.groups, ...] for matrix in blocks[piece.block]]  # (G, K, rows of columns)
        listed = kernels[0].shape[0] * kernels[0].shape[1]
        shape = (batch.stop - batch.start, listed, rows[1] - rows[0], *self.call.geometry.output[1:])
        return layout.positions(self.xp, kernels, columns, shape, into)

    # --- Reading and writing slices ---

    def _empty(self, side: ChannelSide, size: Shape) -> Array:
        shape = (self.call.batch, side.channels, *size)
        return self.xp.empty(shape, dtype=get_dtype(self.xp, self.dtype), device=self.device)

    def _empty_kernels(self) -> list[Array]:
        """Return (G, K, C, T) of each block, to be filled from a batch; of zeros if it is empty."""
        make, taps = self.xp.empty if self.call.batch else self.xp.zeros, elements(self.call.geometry.kernel)
        return [
            make((count, K, rows // taps, taps), dtype=self._accumulate_dtype, device=self.device)
            for count, K, rows in kernel_shapes(self.call)
        ]

    def _read(self, array: Array, side: ChannelSide, batch: slice, listed: slice, rows: slice) -> Array:
        """Return some of a side's listed channels, and some rows: (N, listed, rows, …)."""
        if side.is_contiguous:
            return array[batch, listed, rows, ...]
        index = self.xp.asarray(side.listed[listed], dtype=self.xp.int64, device=self.device)
        return self.xp.take(array[batch, :, rows, ...], index, axis=1)

    def _padded(
        self, layout: Taps, image: Array, batch: slice, listed: slice, rows: tuple[int, int], groups: int
    ) -> Array:
        """Return some listed channels and padded rows of the image, padded, in the accumulating data type."""
        needed, axes = _padding_of(self.call.geometry, *rows)
        size = (rows[1] - rows[0], *self.call.geometry.padded[1:])
        part = self._read(image, self.image_side, batch, listed, needed)
        return layout.pad(self.xp, part, axes, size, self._accumulate_dtype, groups)

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


@functools.lru_cache(maxsize=1024)
def _padding_of(geo: Geometry, start: int, stop: int) -> tuple[slice, tuple[tuple[pads.Run, ...], ...]]:
    """Return the image rows that padded rows start … stop−1 show, and the runs that pad these rows."""
    first_axis, *others = axis_runs(geo)
    runs = pads.clip(first_axis, start, stop)
    first = min((run.input.start for run in runs), default=0)
    last = max((run.input.stop for run in runs), default=0)
    return slice(first, last), (tuple(run.shift(start, first) for run in runs), *others)


def _sum(xp: Namespace, arrays: Iterable[Array]) -> Array:
    """Return the sum of arrays, in the first one."""
    arrays = iter(arrays)
    total = next(arrays)
    for more in arrays:
        add_to(xp, total, more)
    return total


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
    xp: Namespace, kernels: Sequence[Array], geo: Geometry, layout: Taps, watch: _Watch
) -> tuple[list[list[Array]], list[Callable[[], None]]]:
    """Return the matrices of each block of kernels, and the calls that fill them."""
    blocks: list[list[Array]] = []
    preparations: list[Callable[[], None]] = []
    for kernel in kernels:
        matrices, copy, source = layout.kernels(xp, kernel, geo)
        blocks.append(matrices)
        if copy is not None:
            preparations += _copy_in_parts(copy, source, watch)
    return blocks, preparations


def _by_group(xp: Namespace, listed: Array, piece: Piece) -> Array:
    """Turn positions (N, G·K, o1, …) into (N, G, K, o1, …)."""
    groups = piece.groups.stop - piece.groups.start
    return xp.reshape(listed, (listed.shape[0], groups, listed.shape[1] // groups, *listed.shape[2:]))


def _matrices(xp: Namespace, listed: Array, piece: Piece) -> Array:
    """View positions (N, G·K, o1, …) as (N, G, K, L), to write to."""
    groups = piece.groups.stop - piece.groups.start
    shape = (listed.shape[0], groups, listed.shape[1] // groups, elements(listed.shape[2:]))
    return xp.reshape(listed, shape, copy=False)


def _copy_in_parts(to: Array, source: Array, watch: _Watch) -> list[Callable[[], None]]:
    """Return calls that together fill an array, so that threads can share them; each shows `watch` what it copied."""
    axis = max(range(to.ndim - 1), key=lambda axis: to.shape[axis])
    size = -(-to.shape[axis] // max(1, elements(to.shape) // COPIED_AT_ONCE))
    transposed = abs(source.strides[-1]) > abs(source.strides[-2])
    columns = cut(to.shape[-1], TRANSPOSED_AT_ONCE if transposed else max(1, to.shape[-1]))

    def copy(part: slice) -> None:
        for some in columns:
            where = (*[slice(None)] * axis, part, ..., some)
            to[where] = source[where]
        watch(to[(*[slice(None)] * axis, part)])

    return [functools.partial(copy, part) for part in cut(to.shape[axis], size)]


def _rows(geo: Geometry, start: int, stop: int) -> Geometry:
    """Return the geometry of output rows start … stop−1 alone."""
    if (start, stop) == (0, geo.output[0]):
        return geo
    return dataclasses.replace(geo, output=(stop - start, *geo.output[1:]))


def _independent(pieces: tuple[Piece, ...], side: ChannelSide) -> list[tuple[Piece, ...]]:
    """Return the pieces that can be written apart: each alone, unless they must be summed onto shared channels."""
    return [(piece,) for piece in pieces] if side.is_contiguous else [pieces]


SHARED_BYTES = 2**22
"""Weights up to which both gradients come from the same columns."""

SUM_BYTES = 2**20
"""A thread sums channels of about this size at once."""

COPIED_AT_ONCE = 2**17
"""Elements of a weight that a thread lays out anew at once."""

TRANSPOSED_AT_ONCE = 32
"""Columns of a matrix that is read along its other axis: of so many the cache keeps what was read beside them."""


def _shares_columns(call: Convolution, item_bytes: int) -> bool:
    """Tell whether both gradients from one set of columns are the faster ones: their sums must be small enough to hold.

    The weight's are products with the columns of y instead of those of x: poor ones if there are few channels of x.
    """
    weights = call.groups.parameter_count(call.geometry.kernel, bias=False)
    return weights * item_bytes <= SHARED_BYTES and all(
        4 * block.in_size >= block.out_size for block in call.groups.blocks
    )


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


def kernel_shapes(call: Convolution) -> list[tuple[int, int, int]]:
    """Return (G, K, C·T) of each block of equal groups; K are the channels of the positions."""
    taps = elements(call.geometry.kernel)
    shapes = []
    for block in call.groups.blocks:
        first = call.weight_shape(block)
        shapes.append((block.count, first[0], first[1] * taps))
    return shapes
