"""Threads: every task is done once, failures and interrupts leave nothing behind, and BLAS uses one thread."""

import functools
import gc
import signal
import threading
import time
import weakref

import numpy as np
import pytest

import refconv
from refconv import set_workers, set_workspace
from refconv.cpu import threads
from refconv.cpu.threads import Job, run
from tests.cpu_helpers import blas_threads, fast_engine, wait_until  # noqa: F401


@pytest.fixture(autouse=True)
def tiny_tasks(monkeypatch):
    """Start threads even for the smallest tasks."""
    monkeypatch.setattr(threads, "TASK_BYTES", 1)


def spread(work, tasks, task_bytes=8):
    run(Job([functools.partial(work, task) for task in tasks], task_bytes))


@pytest.mark.parametrize(
    ("tasks", "task_bytes", "workers", "workspace", "expected"),
    [
        (6, 100, 3, 10**6, 3),
        (6, 100, 1, 10**6, 1),
        (1, 10**6, 3, 10**9, 1),  # one task
        (6, 100, 3, 299, 2),  # room for two tasks
        (6, 100, 3, 199, 1),  # room for one
        (6, 100, 3, 1, 1),
        (6, 11, 3, 22, 2),
        (2, 5, 3, 10**6, 1),  # together no more than TASK_BYTES
        (2, 6, 3, 10**6, 2),
    ],
)
def test_as_many_threads_as_tasks_workers_and_workspace_allow(
    monkeypatch, tasks, task_bytes, workers, workspace, expected
):
    monkeypatch.setattr(threads, "TASK_BYTES", 10)
    seen, done = set(), []

    def work(task):
        seen.add(threading.current_thread().name)
        wait_until(lambda: len(seen) >= expected)  # or an early thread would take another's task
        done.append(task)

    with set_workers(workers), set_workspace(workspace):
        spread(work, range(tasks), task_bytes)
    assert sorted(done) == list(range(tasks))
    assert len(seen) == expected
    assert threading.main_thread().name in seen
    assert all(name.startswith("refconv") for name in seen - {threading.main_thread().name})


@pytest.mark.parametrize(
    ("count", "row_bytes", "expected"),
    [
        (7, 4, [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 7)]),
        (2, 5, [slice(0, 2)]),
        (2, 11, [slice(0, 1), slice(1, 2)]),
        (0, 5, [slice(0, 0)]),
        (3, 0, [slice(0, 3)]),
    ],
)
def test_rows_are_spread_in_slices_of_a_task(monkeypatch, count, row_bytes, expected):
    monkeypatch.setattr(threads, "TASK_BYTES", 10)
    found = []
    with set_workers(3):
        threads.spread_rows(found.append, count, row_bytes)
    assert sorted(found, key=lambda rows: rows.start) == expected


def test_threads_stop_at_the_first_failure():
    begun = []

    def work(task):
        begun.append(task)
        if threading.current_thread() is not threading.main_thread():
            raise KeyError(task)
        wait_until(lambda: threading.active_count() == before)
        return task

    before = threading.active_count()
    with set_workers(2), pytest.raises(KeyError):
        spread(work, range(1000))
    assert len(begun) < 10
    assert threading.active_count() == before


def test_the_interrupted_thread_waits_for_the_others():
    before = threading.active_count()

    def work(task):
        if threading.current_thread() is threading.main_thread():
            wait_until(lambda: threading.active_count() > before)
            raise KeyboardInterrupt
        time.sleep(0.02)

    with set_workers(3), pytest.raises(KeyboardInterrupt):
        spread(work, range(1000))
    assert threading.active_count() == before


def test_an_interrupt_while_waiting_does_not_leave_threads_behind(monkeypatch):
    before, real, interrupted = threading.active_count(), threading.Thread.join, []

    def join(self, *args):
        if len(interrupted) < 3:
            interrupted.append(self)
            raise KeyboardInterrupt
        real(self, *args)

    monkeypatch.setattr(threading.Thread, "join", join)
    with set_workers(2), pytest.raises(KeyboardInterrupt):
        spread(lambda task: time.sleep(0.02), range(5))
    assert len(interrupted) == 3
    assert threading.active_count() == before


def test_a_step_that_runs_when_its_join_is_interrupted_is_waited_for():
    """After an interrupted join, Python reports that a running thread has ended."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("this system has no interval timers")
    log, before = [], threading.active_count()

    def work(task):
        if threading.current_thread() is threading.main_thread():
            wait_until(lambda: log)
        else:
            log.append("begun")
            time.sleep(0.3)
            log.append("done")

    def interrupt(*_):
        raise KeyboardInterrupt

    handler = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.02)
        with set_workers(2), pytest.raises(KeyboardInterrupt):
            spread(work, range(2))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert log == ["begun", "done"]
    wait_until(lambda: threading.active_count() == before)
    assert threading.active_count() == before


def test_a_gate_that_a_waiter_left_closed_lets_others_through():
    """The gate is closed as after an interrupt between acquiring and releasing its lock."""
    gate = threads._Gate(1)
    gate.one_is_done()
    gate._closed.acquire()
    gate.wait([])
    shut = threads._Gate(1)
    shut.wait([MemoryError()])  # after a failure, no thread waits


def test_an_interrupt_is_raised_instead_of_an_earlier_failure():
    begun, failed = threading.Event(), threading.Event()

    def work(task):
        if threading.current_thread() is threading.main_thread():
            begun.set()
            failed.wait(5)
            time.sleep(0.01)
            raise KeyboardInterrupt
        begun.wait(5)
        failed.set()
        raise MemoryError

    with set_workers(2), pytest.raises(KeyboardInterrupt):
        spread(work, range(9))


def test_a_failure_that_was_caught_keeps_no_arrays():
    class Scratch:
        pass

    def call():
        scratch = Scratch()
        kept.append(weakref.ref(scratch))

        def work(task):
            raise MemoryError(scratch)

        with set_workers(2):
            spread(work, range(9))

    kept = []
    gc.disable()
    try:
        with pytest.raises(MemoryError) as caught:
            call()
        del caught
        assert kept[0]() is None
    finally:
        gc.enable()


def test_blas_is_limited_to_one_thread_in_calls_from_any_thread():
    """threadpoolctl obeys only the first thread that sets a limit, unless that is undone."""
    before, x, weight = blas_threads(), np.ones((2, 8, 20, 20), "f4"), np.ones((8, 8, 3, 3), "f4")
    refconv.conv(x, weight)  # first from the main thread
    inside = []

    def call():
        with threads._blas_limit:
            inside.append(blas_threads())

    for _ in range(2):
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        call()
    assert inside == [[1] * len(before)] * 4
    assert blas_threads() == before


def test_where_no_thread_can_start_the_caller_does_all_the_work(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = []
    with set_workers(3):
        spread(done.append, range(9))
    assert done == list(range(9))


def jobs_of(log, *counts, pause=0.0):
    """Return jobs with these counts of preparations and tasks, which log themselves when they are done."""

    def step(job, kind, number):
        time.sleep(pause)
        log.append((job, kind, number))

    return [
        Job(
            [functools.partial(step, job, "task", n) for n in range(tasks)],
            8,
            [functools.partial(step, job, "preparation", n) for n in range(preparations)],
        )
        for job, (preparations, tasks) in enumerate(counts)
    ]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("counts", [[(0, 3)], [(3, 4)], [(0, 2), (4, 3), (1, 1)], [(7, 2), (2, 7)], [(0, 0), (2, 2)]])
def test_every_step_of_every_job_once_and_preparations_before_their_tasks(workers, counts):
    for _ in range(20):
        log = []
        with set_workers(workers):
            run(*jobs_of(log, *counts, pause=0.0002))
        assert sorted(log) == sorted(
            (job, kind, n)
            for job, numbers in enumerate(counts)
            for kind, count in zip(("preparation", "task"), numbers, strict=True)
            for n in range(count)
        )
        for job in range(len(counts)):
            kinds = [kind for number, kind, _ in log if number == job]
            assert kinds == sorted(kinds)


def test_a_task_waits_only_for_preparations_of_its_own_job():
    free, log = threading.Event(), []

    def prepare():
        assert free.wait(5)  # until the other job's task is done
        time.sleep(0.05)
        log.append("prepared")

    dependent = Job([lambda: log.append("dependent")] * 3, 8, [prepare])
    other = Job([lambda: (log.append("other"), free.set())], 8)
    with set_workers(3):
        run(dependent, other)
    assert log == ["other", "prepared", *["dependent"] * 3]


@pytest.mark.parametrize("failure", [ArithmeticError, KeyboardInterrupt])
@pytest.mark.parametrize("by_main", [True, False])
def test_no_thread_waits_for_a_preparation_that_failed(failure, by_main):
    begun, log, before = threading.Barrier(2, timeout=5), [], threading.active_count()

    def prepare():
        begun.wait()
        if (threading.current_thread() is threading.main_thread()) is by_main:
            time.sleep(0.05)  # by now the other thread waits
            raise failure

    with set_workers(2), pytest.raises(failure):
        run(Job([lambda: log.append("task")] * 2, 8, [prepare] * 2))
    assert not log
    assert threading.active_count() == before


def test_blas_is_limited_by_the_first_call_and_restored_by_the_last(monkeypatch):
    class Library:
        num_threads = 5

        def set_num_threads(self, number):
            calls.append(number)

    def free():  # an RLock appears taken only to another thread
        found = []
        thread = threading.Thread(target=lambda: found.append(limit.lock.acquire(blocking=False)))
        thread.start()
        thread.join()
        return found[0]

    calls = []
    monkeypatch.setattr(threads, "_blas_libraries", lambda: [Library()])
    limited, restored = 1, 5
    limit = threads._BlasLimit()
    for times in (1, 2):
        with limit:
            with limit, limit:
                pass
            assert calls == [limited, restored] * (times - 1) + [limited]
        assert calls == [limited, restored] * times
    calls.clear()
    limit.lock.acquire()  # as before a fork, while two calls run
    limit.__enter__()
    limit.__enter__()
    limit.after_in_child()
    assert calls == [limited, restored]
    assert free()
    limit = threads._BlasLimit()
    limit.lock.acquire()
    limit.after_in_child()
    assert free()
    assert calls == [limited, restored]
    limit = threads._BlasLimit()
    limit.lock.acquire()
    limit.__enter__()
    limit.after_in_child()
    calls.clear()
    with limit:
        assert calls == [limited]
    assert calls == [limited, restored]
