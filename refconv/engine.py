"""The one place that chooses the engine: the textbook, or on NumPy the faster CPU engine.

Both have the same functions: ``correlate``, ``scatter``, ``outer`` and ``gradients``. Without ``refconv/cpu/``
everything still works, more slowly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from refconv import settings, textbook
from refconv.arrays import Namespace, is_numpy

try:
    import refconv.cpu as cpu
except ModuleNotFoundError as error:
    if error.name != "refconv.cpu":
        raise
    cpu = None  # type: ignore[assignment]
else:
    if cpu.__file__ is None:  # an empty folder that was left behind
        cpu = None

Task = TypeVar("Task")


def is_fast(xp: Namespace) -> bool:
    """Return whether the CPU engine computes arrays of this module."""
    return cpu is not None and is_numpy(xp) and settings.engine() == "fast"


def passes(xp: Namespace) -> Any:
    """Return the module whose ``correlate``, ``scatter``, ``outer`` and ``gradients`` compute a call."""
    return cpu if is_fast(xp) else textbook


def spread(xp: Namespace, work: Callable[[Task], object], tasks: Sequence[Task], task_bytes: int) -> None:
    """Call work(task) for every task, on several threads with the CPU engine; each task uses `task_bytes`."""
    if is_fast(xp):
        cpu.run(cpu.Job([functools.partial(work, task) for task in tasks], task_bytes))
        return
    for task in tasks:
        work(task)


def spread_rows(xp: Namespace, work: Callable[[slice], object], count: int, row_bytes: int) -> None:
    """Call work(rows) for slices that make up range(count): on threads with the CPU engine, else in a single call.

    `row_bytes` counts all memory that the work on one row reads and writes.
    """
    if is_fast(xp):
        cpu.spread_rows(work, count, row_bytes)
    else:
        work(slice(0, count))
