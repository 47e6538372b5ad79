"""How one call is cut into tiles that fit the workspace, and how tiles are spread over threads.

Nothing here multiplies or adds. The three textbook passes of :mod:`refconv.passes` take a slice of the batch, of
the groups or channels, and of the output rows (positions along the first spatial axis); this module
chooses the slices. How a call is cut depends on its shape and the workspace, never on the number of workers, and
each tile writes its own part of the result or adds to it in a fixed order: any number of workers gives the
same bits.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, TypeVar

from refconv.arrays import Namespace, runs_on_cpu_threads
from refconv.integers import as_int
from refconv.shapes import Convolution, Geometry

Task = TypeVar("Task")

TILE_BYTES = 2**22
"""A CPU tile is not cut by rows or channels up to this size: smaller matrix products are slower, larger ones leave the
cache between being written as columns and being multiplied."""

TASK_BYTES = 2**22
"""Small samples and groups are gathered up to this size, many small groups and samples of one product up to twice this:
what amounts to no more than this is not worth a thread."""

CHANNELS = 64
"""Image channels that a gradient takes together if it can, although it could take them one by one."""

DEFAULT_WORKSPACE = 64 * 2**20
"""Scratch bytes of one call, and the aim of one tile where tiles are not spread over CPU threads."""

_workspace: ContextVar[int] = ContextVar("refconv_workspace", default=DEFAULT_WORKSPACE)
_workers: ContextVar[int | None] = ContextVar("refconv_workers", default=None)


@contextlib.contextmanager
def _setting(variable: ContextVar[Any], value: int) -> Iterator[None]:
    """Hold a value inside a ``with`` block of the current thread or asynchronous task."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def set_workers(n: int) -> contextlib.AbstractContextManager[None]:
    """Return a context manager inside which a call uses at most `n` CPU threads (default: all cores).

    The result is bit for bit the same for every `n`. Only NumPy arrays are spread over threads; other modules
    have their own means. A call small enough to be one tile runs in the calling thread.

    Parameters
    ----------
    n : int
        Threads, at least 1.

    Raises
    ------
    ValueError, TypeError
        If `n` is not a positive integer.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import conv, set_workers
    >>> with set_workers(1):
    ...     y = conv(np.ones((1, 2, 5)), np.ones((3, 2, 2)))
    """
    return _setting(_workers, as_int(n, "n", 1))


def set_workspace(bytes: int) -> contextlib.AbstractContextManager[None]:  # noqa: A002  (what the argument is)
    """Return a context manager inside which a call aims to use at most `bytes` of scratch memory (default 64 MiB).

    The budget covers what one call needs beyond its arguments and its result, over all its threads. It decides how
    many samples, groups and threads are at work at once, and never changes the result. What is summed together is
    cut by shape alone, into tiles of at most 4 MiB (8 of many small groups, or of small images; always 64 for modules
    other than NumPy, which may sum in another order as soon as there are more or fewer samples), so a smaller budget
    can be exceeded by one such tile; a tile by a single row of outputs, if the windows that it reads are large; and
    both by the input gradient of a padding mode other than zeros, which takes whole channels, or of groups that share
    input channels, which takes whole samples, and by the gradient of a weight of up to 4 MiB, of which there are
    several sums until the last one is made. Not counted is the weight, which the input gradient, and unless it is
    large the convolution, copies.

    Parameters
    ----------
    bytes : int
        Bytes, at least 1.

    Raises
    ------
    ValueError, TypeError
        If `bytes` is not a positive integer.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import conv, set_workspace
    >>> with set_workspace(2**20):
    ...     y = conv(np.ones((1, 2, 5)), np.ones((3, 2, 2)))
    """
    return _setting(_workspace, as_int(bytes, "bytes", 1))


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a block of equal groups: some of its groups whole, or some image channels of one group."""

    block: int
    groups: slice  # of the block's groups
    channels: slice  # of the image channels within each group
    image: slice  # of the listed image channels
    positions: slice  # of the listed position channels


@dataclass(frozen=True, slots=True)
class Plan:
    """The cuts of one pass: every combination of a batch slice, a row range and a piece is one tile."""

    batches: tuple[slice, ...]
    rows: tuple[tuple[int, int], ...]
    pieces: tuple[Piece, ...]
    tile_bytes: int
    parts: int  # of the batch, which are summed apart


def cut(length: int, size: int) -> tuple[slice, ...]:
    """Cut range(length) into slices of `size`.

    >>> cut(5, 2)
    (slice(0, 2, None), slice(2, 4, None), slice(4, 5, None))
    """
    return tuple(slice(start, min(start + size, length)) for start in range(0, length, size))


def make_plan(
    xp: Namespace,
    call: Convolution,
    item_bytes: int,
    *,
    split_channels: bool,
    sums_batch: bool,
    cut_rows: bool = True,
    joins_samples: bool = False,
    by_rows: bool = False,
) -> Plan:
    """Cut a pass into tiles that fit the workspace, in a way that no workspace changes the result.

    What could change the order of a sum, and so its last bit, is cut by shape alone, into tiles of at most
    TILE_BYTES: rows, image channels, and the batch where the pass sums over it (`sums_batch`) or a matrix product takes
    the columns of several samples (`joins_samples`). Otherwise samples and groups are products apart, so the workspace
    decides how many of them a tile takes.

    With `split_channels` (the gradients, where image channels are independent) a group too large for a tile is
    cut by channels; without it (the forward sum over channels) by rows. Where rows cannot be cut, tiles are larger.
    With `by_rows` columns are those of :mod:`refconv.rowwise`.
    """
    on_threads = runs_on_cpu_threads(xp)
    tile = (TILE_BYTES if cut_rows else 8 * TILE_BYTES) if on_threads else DEFAULT_WORKSPACE
    apart = on_threads and not sums_batch and not joins_samples  # others may sum one of many products otherwise
    # Threads that make many small products wait for one another's interpreter lock: larger tasks, fewer waits.
    many = all(block.count >= 16 and max(block.in_size, block.out_size) <= 16 for block in call.groups.blocks)
    large = many or (joins_samples and not sums_batch)
    budget = 2 * TASK_BYTES if large and on_threads else min(TASK_BYTES, tile) if apart else tile
    budget = min(budget, _workspace.get()) if apart else budget
    return _plan(
        call,
        item_bytes,
        split_channels,
        cut_rows,
        by_rows,
        tile,
        budget,
        TASK_BYTES if on_threads else None,
        sums_batch,
        joins_samples,
    )


@functools.lru_cache(maxsize=256)
def _plan(
    call: Convolution,
    item_bytes: int,
    split_channels: bool,
    cut_rows: bool,
    by_rows: bool,
    tile: int,
    budget: int,
    task: int | None,
    sums_batch: bool,
    joins_samples: bool,
) -> Plan:
    geo = call.geometry
    row_count, row_length = geo.output[0], _product(geo.output[1:])
    taps, padded_row = _product(geo.kernel), _product(geo.padded[1:]) * geo.stride[0]
    copies = _product(geo.kernel[1:]) * geo.stride[0] if by_rows else taps  # of an image channel, for one output row
    blocks = call.sides

    def row_bytes(image: int, positions: int) -> int:
        """Scratch bytes for one output row: its columns, its positions twice, the padded rows it newly needs."""
        columns = image * copies * row_length
        return max(1, (columns + 2 * positions * row_length + image * padded_row) * item_bytes)

    def more_bytes(image: int) -> int:
        """Scratch bytes beyond those: for the rows that the last window spans, where they are felt."""
        more = max(0, geo.spans[0] - geo.stride[0]) * _product(geo.kernel[1:]) * row_length if by_rows else 0
        between = max(0, geo.spans[0] - geo.stride[0] * (row_count + 1)) * _product(geo.padded[1:])  # taps far apart
        return image * (more + between) * item_bytes

    halo = geo.spans[0] // geo.stride[0]  # rows of the padded input that tiles of rows read twice

    def least_row_bytes(most: int) -> int:
        """Scratch bytes for one output row of the largest group, or of its share of image channels."""
        return max((row_bytes(min(image, most), positions) for _, image, positions in blocks), default=1)

    together = max((image for _, image, _ in blocks), default=1)
    if split_channels:  # few channels make poor products, and few rows are read twice: half the channels for more rows
        together = min(together, CHANNELS)
        while together > 1 and tile // least_row_bytes(together) <= min(row_count, 4 * halo):
            together //= 2
    least = least_row_bytes(together)
    rows = row_count
    if cut_rows and row_count * least + more_bytes(together) > tile:
        rows = max(1, tile // least - halo, min(halo, tile // least))
    sums = sum(count * image * taps * positions * item_bytes for count, image, positions in blocks)
    # Threads share sums over the batch: pieces of the channels where these are large, else parts of the batch.
    # In single precision products of few channels are slower, in double those of many.
    share_channels = (
        task is not None and sums_batch and split_channels and sums > (tile if item_bytes <= 4 else tile // 4)
    )
    shares = []  # of each block: how many groups at once, and how many image channels of each
    for count, image, positions in blocks:
        at_once, channels = count, image
        if split_channels and rows * row_bytes(image, positions) > tile:
            fixed = 2 * positions * row_length * item_bytes
            per_channel = max(1, (copies * row_length + padded_row) * item_bytes)
            channels = max(1, min(image, (tile // rows - fixed) // per_channel))
        if split_channels and share_channels:  # at least four pieces, if there are as many channels
            per_channel, most = max(1, taps * positions * item_bytes), min(sums, tile) // 4
            channels = max(1, min(channels, most // per_channel))
            at_once = max(1, min(count, most // max(1, image * per_channel)))
        if channels < image:
            at_once, channels = 1, _even(image, channels)
        shares.append((at_once, channels))
    sides = zip(blocks, shares, strict=True)
    whole = max(
        (n * (row_bytes(c, positions) * rows + more_bytes(c)) for (_, _, positions), (n, c) in sides), default=1
    )
    samples = max(1, min(call.batch, budget // whole))
    if task is not None and not share_channels and call.batch * whole > task:
        slices = 4 if len(blocks) == 1 else 2  # at least, for threads to share: the tasks of each block are others
        samples = min(samples, -(-call.batch // slices))
    samples = _even(call.batch, samples)
    pieces: list[Piece] = []
    image_start = positions_start = 0
    for index, ((count, image, positions), (at_once, channels)) in enumerate(zip(blocks, shares, strict=True)):
        group = row_bytes(image, positions) * rows + more_bytes(image)
        at_once = _even(count, max(1, min(at_once, budget // (group * samples))))
        for groups in cut(count, at_once):
            for part in cut(image, max(1, channels)) or (slice(0, 0),):
                split = part != slice(0, image)
                first = image_start + groups.start * image
                pieces.append(
                    Piece(
                        block=index,
                        groups=groups,
                        channels=part,
                        image=slice(first + part.start, first + part.stop)
                        if split
                        else slice(first, image_start + groups.stop * image),
                        positions=slice(
                            positions_start + groups.start * positions,
                            positions_start + groups.stop * positions,
                        ),
                    )
                )
        image_start += count * image
        positions_start += count * positions

    def tile_bytes(piece: Piece) -> int:
        image = piece.image.stop - piece.image.start
        positions = piece.positions.stop - piece.positions.start
        sums = 1 if joins_samples else samples  # of a weight gradient, to be added to others
        partial = (sums + 1) * image * taps * blocks[piece.block][2] if sums_batch else 0
        return samples * (rows * row_bytes(image, positions) + more_bytes(image)) + partial * item_bytes

    return Plan(
        batches=cut(call.batch, samples),
        rows=tuple((part.start, part.stop) for part in cut(row_count, rows)),
        pieces=tuple(pieces),
        tile_bytes=max(map(tile_bytes, pieces), default=1),
        parts=4 if task is not None and sums_batch and not share_channels and len(pieces) < 4 else 1,
    )


def _even(length: int, most: int) -> int:
    """Return the size of slices of about one size, of which there are as few as slices of size `most`.

    >>> cut(8, _even(8, 6))
    (slice(0, 4, None), slice(4, 8, None))
    """
    return max(1, -(-length // max(1, -(-length // most))))


def _product(numbers: Sequence[int]) -> int:
    return functools.reduce(lambda a, b: a * b, numbers, 1)


def row_window(geo: Geometry, start: int, stop: int) -> tuple[int, int]:
    """Return the padded rows that output rows start … stop−1 read, as (first, end)."""
    return start * geo.stride[0], (stop - 1) * geo.stride[0] + geo.spans[0]


@dataclass(frozen=True, slots=True)
class Job:
    """What threads share of one computation: tasks in any order, each begun when all preparations are done."""

    tasks: Sequence[Callable[[], object]]
    tile_bytes: int  # of scratch memory that one task takes, or of memory that it goes through if it takes next to none
    preparations: Sequence[Callable[[], object]] = ()


def run(xp: Namespace, *jobs: Job) -> None:
    """Do jobs side by side, by as many threads as workers and workspace allow.

    The calling thread is one of them; the others work in copies of its context, so that ``numpy.errstate`` and the
    settings here reach them.
    """
    tasks = sum(len(job.tasks) for job in jobs)
    workers = 1
    if tasks > 1 and runs_on_cpu_threads(xp):
        most = max(job.tile_bytes for job in jobs if job.tasks)
        # What amounts to one tile, cut only because its groups differ, is done before a thread would have started.
        if sum(len(job.tasks) * job.tile_bytes for job in jobs) > TASK_BYTES:
            workers = min(tasks, max(1, _workspace.get() // max(1, most)), _workers.get() or cores())
    # Also for one thread: a BLAS with another number of threads may sum in another order.
    with _blas_limit if runs_on_cpu_threads(xp) else contextlib.nullcontext():
        if workers > 1:
            _in_threads(jobs, workers)
            return
        for job in jobs:
            for work in (*job.preparations, *job.tasks):
                work()


def spread(xp: Namespace, work: Callable[[Task], object], tasks: Sequence[Task], tile_bytes: int) -> None:
    """Call work(task) for every task, by as many threads as workers and workspace allow."""
    run(xp, Job([functools.partial(work, task) for task in tasks], tile_bytes))


class _Gate:
    """Opens when so many preparations are done.

    A bare lock, because nothing else opens in one step that an interrupt cannot divide.
    """

    def __init__(self, preparations: int) -> None:
        self._left = [True, *[False] * (preparations - 1)]  # the last one taken tells that it is the last
        self._closed = threading.Lock()
        self._closed.acquire()
        self.is_open = False

    def one_is_done(self) -> None:
        if self._left.pop():
            self.is_open = True
            self._closed.release()

    def wait(self, failures: Sequence[BaseException]) -> None:
        """Wait until it is open, or something failed that it would wait for."""
        while not self.is_open and not failures:
            if self._closed.acquire(timeout=0.02):
                self._closed.release()


@dataclass(frozen=True, slots=True)
class _Step:
    """A preparation, which opens a gate with others, or a task, which may wait for one."""

    work: Callable[[], object]
    waits_for: _Gate | None = None
    opens: _Gate | None = None


def _steps(jobs: Sequence[Job]) -> Iterator[_Step]:
    """Yield preparations, tasks that wait for none, and the other tasks."""
    prepared = [(job, _Gate(len(job.preparations))) for job in jobs if job.preparations]
    for job, gate in prepared:
        yield from (_Step(work, opens=gate) for work in job.preparations)
    for job in jobs:
        if not job.preparations:
            yield from map(_Step, job.tasks)
    for job, gate in prepared:
        yield from (_Step(work, waits_for=gate) for work in job.tasks)


def _in_threads(jobs: Sequence[Job], workers: int) -> None:
    """Do all jobs; each thread takes the next step when it is done with its last."""
    steps = list(_steps(jobs))
    todo = deque(steps)
    failures: list[BaseException] = []
    finished: list[int] = []

    def work(number: int = 0) -> None:
        try:
            while todo and not failures:
                try:
                    step = todo.popleft()
                except IndexError:  # another thread took the last one
                    return
                if step.waits_for is not None:  # for others that are at work on it: they all come before
                    step.waits_for.wait(failures)
                    if failures:
                        return
                step.work()
                if step.opens is not None:
                    step.opens.one_is_done()
        except BaseException as error:  # raised by the calling thread, when all have stopped
            failures.append(error)
        finally:
            finished.append(number)

    others: list[threading.Thread] = []
    interrupted = False
    try:
        for number in range(1, workers):
            context = copy_context()
            others.append(threading.Thread(target=context.run, args=(work, number), name=f"refconv-{number}"))
            try:
                others[-1].start()
            except RuntimeError:  # no more threads here, as in a browser: those that there are do the work
                others.pop()
                break
        work()
    except BaseException as error:  # this thread was interrupted between two steps
        failures.append(error)
    while True:  # however often it is interrupted now: no step may outlive the call
        try:
            for number, thread in enumerate(others, start=1):
                while interrupted and thread.ident is not None and number not in finished:
                    time.sleep(0.001)  # a join that was interrupted may take the thread for one that has ended
                if thread.ident is not None:
                    thread.join()
            break
        except KeyboardInterrupt as error:
            failures.append(error)
            interrupted = True
    if failures:
        try:
            raise next((error for error in failures if not isinstance(error, Exception)), failures[0])
        finally:
            failures.clear()  # the error holds this frame, and would be held by it


def spread_rows(xp: Namespace, work: Callable[[slice], None], count: int, row_bytes: int) -> None:
    """Call work(rows) for slices of range(count) that are apart: on NumPy tiles spread over threads, else all at once.

    `row_bytes` counts all that the work on one row touches.
    """
    size = max(1, TASK_BYTES // max(1, row_bytes)) if runs_on_cpu_threads(xp) else max(1, count)
    tasks = cut(count, size)
    if len(tasks) == 1:  # no threads, and no BLAS to hold
        work(tasks[0])
        return
    spread(xp, work, tasks, size * row_bytes)


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _BlasLimit:
    """Holds BLAS to one thread while any call is under way; restores it after the last one.

    The limit belongs to the whole process, so calls from several threads share it and count themselves.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._users = 0
        self._before: list[int] = []

    def __enter__(self) -> None:
        with self.lock:
            if self._users == 0:
                self._before = [library.num_threads for library in _blas_libraries()]
                for library in _blas_libraries():
                    _set_blas_threads(library, 1)
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self._users -= 1
            if self._users == 0:
                self._restore()

    def after_in_child(self) -> None:
        """Forget calls that were under way: their threads do not exist in a forked child."""
        if self._users:
            self._restore()
            self._users = 0
        self.lock.release()

    def _restore(self) -> None:
        for library, threads in zip(_blas_libraries(), self._before, strict=True):
            _set_blas_threads(library, threads)


def _set_blas_threads(library: Any, threads: int) -> None:
    """Set the limit from whichever thread: threadpoolctl 3.7 and newer heeds only the one that asked first."""
    release = getattr(library, "clear_controlling_thread", lambda force: None)
    release(force=True)
    library.set_num_threads(threads)
    release(force=True)


_blas_limit = _BlasLimit()

if hasattr(os, "register_at_fork"):
    # A fork waits while BLAS is being found or its limit changed, which takes no longer than that: a child
    # forked in between would inherit locks (of BLAS, of the import system) that no thread of its own holds.
    os.register_at_fork(
        before=_blas_limit.lock.acquire,
        after_in_parent=_blas_limit.lock.release,
        after_in_child=_blas_limit.after_in_child,
    )


@functools.cache
def _blas_libraries() -> list[Any]:
    from threadpoolctl import ThreadpoolController  # importing the package need not

    return list(ThreadpoolController().select(user_api="blas").lib_controllers)
