"""Calling someone else's function: with a time limit, and with every way it can fail turned into a value."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from refconv.testing.definition import Array


@dataclass(frozen=True)
class Outcome:
    """What a call gave: a value, or an error as one line, with where it was raised."""

    value: Any = None
    error: str | None = None
    where: str = ""
    too_long: bool = False


class Caller:
    """Calls functions one after the other in a thread of its own, each with a time limit.

    A function that does not return cannot be stopped from outside; its thread is left behind and no further call is
    made. Where threads cannot be started (in a browser), functions are called directly and only the time is
    taken.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._tasks: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self._work,), name="refconv-check", daemon=True)
        try:
            thread.start()
            self._threaded = True
        except RuntimeError:
            self._threaded = False

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._tasks.put(None)

    def __call__(self, function: Callable[..., Any], *args: Any, **options: Any) -> Outcome:
        """Call the function and return what came of it."""
        if not self._threaded:
            start = time.perf_counter()
            outcome = _attempt(lambda: function(*args, **options))
            return outcome if time.perf_counter() - start <= self.seconds else Outcome(too_long=True)
        self._tasks.put(lambda: function(*args, **options))
        try:
            return self._outcomes.get(timeout=self.seconds)
        except queue.Empty:
            return Outcome(too_long=True)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            self._outcomes.put(_attempt(task))


def _attempt(task: Callable[[], Any]) -> Outcome:
    try:
        return Outcome(task())
    except BaseException as error:  # someone else's code may raise anything, SystemExit included
        lines = str(error).split("\n")
        text = f"{type(error).__name__}: {lines[0]}".rstrip(": ") + (" …" if len(lines) > 1 else "")
        frames = traceback.extract_tb(error.__traceback__)
        where = f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if len(frames) > 1 else ""
        return Outcome(error=text, where=where)


def as_numpy(value: Any) -> Array | None:
    """Return a result as a NumPy array of numbers, or None if it is none; shares memory where that is possible."""
    if value is None:
        return None
    try:
        array = np.asarray(value)
    except Exception:  # an array on a device refuses; DLPack may still copy it
        array = None
    if array is None or array.dtype.kind not in "biufc":
        try:
            array = np.from_dlpack(value)
        except Exception:
            return None
    return array if array.dtype.kind in "biufc" else None
