"""Ctrl-C and other signals: they stop a command's work cleanly; before and after the work, Ctrl-C exits immediately."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

INTERRUPTED = 130
"""The exit code after Ctrl-C."""
_Handler = Callable[[int, Any], object]


@contextlib.contextmanager
def leaving_immediately() -> Iterator[None]:
    """Exit immediately on Ctrl-C, outside :func:`working` and :func:`stopping`.

    Raising an exception would not suffice while modules are imported, because some modules written in C swallow it.
    """
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler  # otherwise it is ignored, or a program's own
    )
    if ours:
        signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, _: object) -> NoReturn:
    os.write(2, b"refconv: interrupted\n")
    os._exit(INTERRUPTED)


@contextlib.contextmanager
def working() -> Iterator[None]:
    """End a command's work with an exception on a signal, so that unfinished files are cleaned up."""
    with _handling(_terminate, signal.default_int_handler):
        yield


def _terminate(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


@contextlib.contextmanager
def stopping() -> Iterator[list[int]]:
    """Yield a list that receives the first signal to stop; a second signal raises KeyboardInterrupt."""
    received: list[int] = []

    def note(number: int, _: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    with _handling(note, note):
        yield received


@contextlib.contextmanager
def _handling(end: _Handler, interrupt: _Handler) -> Iterator[None]:
    """Handle the signals that end a process. Ignored signals, such as a hang-up under nohup, stay ignored."""
    import numpy.random  # noqa: F401 - its compiled modules, while being imported, swallow an exception from a handler

    handlers = {signal.SIGTERM: end, signal.SIGINT: interrupt}
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = end
    handlers = {number: wanted for number, wanted in handlers.items() if signal.getsignal(number) != signal.SIG_IGN}
    previous = {number: signal.signal(number, wanted) for number, wanted in handlers.items()}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
