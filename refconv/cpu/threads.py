"""Spread tasks over threads, and limit BLAS to one thread meanwhile.

Nothing here multiplies or adds. Which thread does a task never matters: each task writes its own part of the result, or
adds to it in a fixed order, so that any number of workers gives the same bits.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

from refconv import settings
from refconv.integers import cut

TASK_BYTES = 2**22
"""Work on less memory than this runs in the calling thread: starting others takes longer (benchmarks/thresholds.py)."""


@dataclass(frozen=True, slots=True)
class Job:
    """One computation that threads share: tasks in any order, each started when all preparations are done."""

    tasks: Sequence[Callable[[], object]]
    tile_bytes: int  # scratch memory of one task, or the memory that it reads and writes if it needs no scratch
    preparations: Sequence[Callable[[], object]] = ()


def run(*jobs: Job) -> None:
    """Do jobs together, on as many threads as workers and workspace allow.

    The calling thread is one of them; the others work in copies of its context, so that ``numpy.errstate`` and
    refconv's settings reach them.
    """
    tasks = sum(len(job.tasks) for job in jobs)
    workers = 1
    # Work on less than TASK_BYTES is done before another thread would have started.
    if tasks > 1 and sum(len(job.tasks) * job.tile_bytes for job in jobs) > TASK_BYTES:
        most = max(job.tile_bytes for job in jobs if job.tasks)
        workers = min(tasks, max(1, settings.workspace.get() // max(1, most)), settings.workers())
    with _blas_limit:  # also for one thread: BLAS with another number of threads may sum in another order
        if workers > 1:
            _in_threads(jobs, workers)
            return
        for job in jobs:
            for work in (*job.preparations, *job.tasks):
                work()


def spread_rows(work: Callable[[slice], object], count: int, row_bytes: int) -> None:
    """Call work(rows) for slices that make up range(count), on threads if there are several.

    `row_bytes` counts all memory that the work on one row reads and writes.
    """
    size = max(1, TASK_BYTES // max(1, row_bytes))
    if count <= size:  # no threads, and no BLAS to limit
        work(slice(0, count))
        return
    run(Job([functools.partial(work, rows) for rows in cut(count, size)], size * row_bytes))


# --- Threads ---


class _Gate:
    """Opens after a given number of preparations.

    It is a bare lock, because only a lock opens in a single step, which an interrupt cannot divide.
    """

    def __init__(self, preparations: int) -> None:
        self._left = [True, *[False] * (preparations - 1)]  # the last entry says that it is the last
        self._closed = threading.Lock()
        self._closed.acquire()
        self.is_open = False

    def one_is_done(self) -> None:
        if self._left.pop():
            self.is_open = True
            self._closed.release()

    def wait(self, failures: Sequence[BaseException]) -> None:
        """Wait until the gate opens, or until a failure means that it may never open."""
        while not self.is_open and not failures:
            if self._closed.acquire(timeout=0.02):
                self._closed.release()


@dataclass(frozen=True, slots=True)
class _Step:
    """A preparation, which helps to open a gate, or a task, which may wait for one."""

    work: Callable[[], object]
    waits_for: _Gate | None = None
    opens: _Gate | None = None


def _steps(jobs: Sequence[Job]) -> Iterator[_Step]:
    """Yield preparations, then tasks that wait for none, then the other tasks."""
    prepared = [(job, _Gate(len(job.preparations))) for job in jobs if job.preparations]
    for job, gate in prepared:
        yield from (_Step(work, opens=gate) for work in job.preparations)
    for job in jobs:
        if not job.preparations:
            yield from map(_Step, job.tasks)
    for job, gate in prepared:
        yield from (_Step(work, waits_for=gate) for work in job.tasks)


def _in_threads(jobs: Sequence[Job], workers: int) -> None:
    """Do all jobs; each thread takes the next step when it has finished its previous one."""
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
                if step.waits_for is not None:  # another thread is still preparing: all preparations come first
                    step.waits_for.wait(failures)
                    if failures:
                        return
                step.work()
                if step.opens is not None:
                    step.opens.one_is_done()
        except BaseException as error:  # raised by the calling thread when all have stopped
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
            except RuntimeError:  # no more threads are allowed, as in a browser: the others do the work
                others.pop()
                break
        work()
    except BaseException as error:  # this thread was interrupted between two steps
        failures.append(error)
    while True:  # however often this thread is interrupted now: no step may outlive the call
        try:
            for number, thread in enumerate(others, start=1):
                while interrupted and thread.ident is not None and number not in finished:
                    time.sleep(0.001)  # an interrupted join may report that a running thread has ended
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
            failures.clear()  # the error refers to this frame, and this list to the error


# --- BLAS ---


class _BlasLimit:
    """Limits BLAS to one thread while any call runs, and restores its threads after the last call.

    The limit belongs to the whole process, so calls from several threads share it and are counted.
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
        """Forget the calls that were running: their threads do not exist in a forked child."""
        if self._users:
            self._restore()
            self._users = 0
        self.lock.release()

    def _restore(self) -> None:
        for library, threads in zip(_blas_libraries(), self._before, strict=True):
            _set_blas_threads(library, threads)


def _set_blas_threads(library: Any, threads: int) -> None:
    """Set the limit from any thread: threadpoolctl 3.7 and newer obeys only the thread that set it first."""
    release = getattr(library, "clear_controlling_thread", lambda force: None)
    release(force=True)
    library.set_num_threads(threads)
    release(force=True)


_blas_limit = _BlasLimit()

if hasattr(os, "register_at_fork"):
    # A fork waits while BLAS is being searched for or its limit changed: a child forked meanwhile would inherit locks
    # (of BLAS, of the import system) that none of its threads could release.
    os.register_at_fork(
        before=_blas_limit.lock.acquire,
        after_in_parent=_blas_limit.lock.release,
        after_in_child=_blas_limit.after_in_child,
    )


@functools.cache
def _blas_libraries() -> list[Any]:
    from threadpoolctl import ThreadpoolController  # importing refconv does not need it

    return list(ThreadpoolController().select(user_api="blas").lib_controllers)
