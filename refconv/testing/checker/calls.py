"""Calls of someone else's function, with a time limit; every kind of failure becomes a value."""

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

from refconv.testing.oracles.definition import Array

LONGEST = 500
"""Maximum number of characters quoted from someone else's message."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a call: a value, or an error as one line with its place."""

    value: Any = None
    error: str | None = None
    where: str = ""
    too_long: bool = False
    unsupported: bool = False  # it raised NotImplementedError
    interrupt: KeyboardInterrupt | None = None  # the user wants to stop: no fault of the function


class Caller:
    """Calls functions one after the other in a separate thread, each with a time limit.

    A function that does not return cannot be stopped from outside; its thread is abandoned and no further call is
    made. Where threads cannot be started, as in a browser, functions are called directly, and their time is compared
    with the limit afterwards.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = min(seconds, threading.TIMEOUT_MAX / 2)
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
        """Call the function and return the outcome; a KeyboardInterrupt is raised again."""
        start = time.perf_counter()
        if self._threaded:
            self._tasks.put(lambda: function(*args, **options))
            try:
                outcome = self._outcomes.get(timeout=self.seconds)
            except queue.Empty:
                return Outcome(too_long=True)
        else:
            outcome = _attempt(lambda: function(*args, **options))
        if outcome.interrupt is not None:
            raise outcome.interrupt
        return outcome if self._threaded or time.perf_counter() - start <= self.seconds else Outcome(too_long=True)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            self._outcomes.put(_attempt(task))


def _attempt(task: Callable[[], Any]) -> Outcome:
    try:
        return Outcome(task())
    except KeyboardInterrupt as error:
        return Outcome(interrupt=error)
    except BaseException as error:  # someone else's code may raise anything, SystemExit included
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
        where = f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
        return Outcome(error=one_line(error), where=where, unsupported=isinstance(error, NotImplementedError))


def one_line(error: BaseException) -> str:
    """Return an exception's type and the first line of its message."""
    try:
        first, _, more = str(error).partition("\n")
    except Exception:  # its __str__ is someone else's code too
        first, more = "", ""
    cut = len(first) > LONGEST or bool(more)
    return f"{type(error).__name__}: {first[:LONGEST]}".rstrip(": ") + " …" * cut


def with_array(function: Callable[..., Any]) -> Callable[..., tuple[Any, Array | str]]:
    """Return a function that also applies :func:`converted` to the result, within the call, and returns both."""

    def called(*args: Any, **options: Any) -> tuple[Any, Array | str]:
        value = function(*args, **options)
        return value, converted(value)

    return called


def with_arrays(function: Callable[..., Any]) -> Callable[..., tuple[Any, list[Array | str]]]:
    """Return a function that also applies :func:`converted` to three results, within the call, and returns both."""

    def called(*args: Any, **options: Any) -> tuple[Any, list[Array | str]]:
        values = function(*args, **options)
        three = isinstance(values, tuple | list) and len(values) == 3
        return values, list(map(converted, values)) if three else []

    return called


def converted(value: Any) -> Array | str:
    """Return a result as a NumPy array of numbers, sharing memory where possible, or a description if it is not one."""
    what = type(value).__name__
    if value is None:
        return what
    array = None
    try:
        array = np.asarray(value)
        if array.dtype.kind in "biufc":
            return array
    except Exception as error:  # an array on a device refuses; DLPack may still copy it
        if not isinstance(value, list | tuple):
            what = f"{what} ({one_line(error)})"
    try:
        array = np.from_dlpack(value)
    except Exception:
        return what if array is None else f"{what} of data type {array.dtype}"
    return array if array.dtype.kind in "biufc" else f"{what} of data type {array.dtype}"


def as_numpy(value: Any) -> Array | None:
    """Return a result as a NumPy array of numbers, sharing memory where possible, or None if it is not one."""
    array = converted(value)
    return None if isinstance(array, str) else array
