"""The process of one submission: it imports the submission, runs `check_conv` and reports to its parent.

The parent reads lines from the process's standard output. Before anything of the submission runs, that stream moves to
another file descriptor and standard output becomes standard error, so that prints cannot mix with the report. Each line
begins with a random token that the submission does not know.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from json import dumps, loads
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from refconv.arrays import load_backend
from refconv.testing.checker.calls import one_line
from refconv.testing.checker.check import check_conv
from refconv.testing.checker.targets import (
    ImportFailedError,
    TargetError,
    folder_of,
    hidden_by_installed,
    load,
    split,
    with_arrays_of,
)

LOST = 74
"""The exit code when the submission has closed the file descriptor that leads to the parent."""

Function = Callable[..., Any]
Send = Callable[..., None]


def main() -> NoReturn:
    """Read a job from standard input, do it, and end the process without running more of the submission's code."""
    channel = _Channel()
    faulthandler.enable()  # a crash prints the line of Python that led to it
    sys.dont_write_bytecode = True  # leave the submission's folder unchanged
    try:
        _run(channel.job, channel.send)
    except BaseException as error:  # the submission may have broken anything that the checker uses
        channel.send("broken", one_line(error))
    os._exit(0)


class _Channel:
    """The connection to the parent: `job` is its request, and `send` answers it."""

    def __init__(self) -> None:
        self._read, self._write = os.dup(0), os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        os.close(nothing)
        text = b""
        while not text.endswith(b"\n"):
            text += os.read(self._read, 2**16) or b"\n"
        self.job: dict[str, Any] = loads(text)
        self._token, self._process, self._lock = self.job.pop("token"), os.getpid(), threading.Lock()
        for work in (self._end_with_parent, self._beat):
            threading.Thread(target=work, daemon=True).start()

    def send(self, kind: str, value: Any = None) -> None:
        """Send one message. A process forked by the submission sends nothing, and ends here."""
        if os.getpid() != self._process:
            os._exit(1)
        data = f"{self._token}{dumps([kind, value])}\n".encode()
        with self._lock:
            try:
                while data:
                    data = data[os.write(self._write, data) :]
            except OSError:
                os._exit(LOST)

    def _beat(self) -> None:
        """Show the parent regularly that the interpreter is not blocked."""
        while True:
            time.sleep(0.5)
            self.send("alive")

    def _end_with_parent(self) -> None:
        """Wait until the parent closes its end or dies, then end the whole process group."""
        with contextlib.suppress(OSError):
            while os.read(self._read, 1):
                pass
            if hasattr(os, "killpg") and os.getpgrp() == self._process:
                os.killpg(0, signal.SIGKILL)
            os._exit(1)


def _run(job: dict[str, Any], send: Send) -> None:
    limits = _limit_memory(job["memory"])
    send("ready")
    try:
        functions = [_watched(function, name, send, limits) for name, function in _load(job).items()]
    except TargetError as error:
        send("import" if isinstance(error, ImportFailedError) else "usage", str(error))
        return
    send("loaded", len(functions) == 2)
    begun, settings = False, job["settings"]
    if "backward_needs" in settings:  # JSON has no tuples
        settings["backward_needs"] = tuple(map(tuple, settings["backward_needs"]))

    def progress(index: int, total: int, _: object) -> None:
        nonlocal begun
        begun = True
        send("case", [index, total])

    try:
        report = check_conv(*functions, **settings, time_limit=job["time_limit"], progress=progress)
    except (TypeError, ValueError) as error:
        if begun:
            raise
        send("usage", str(error))  # a signature without the arguments, for example
        return
    report = dataclasses.replace(report, notes=(*report.notes, *_hidden(job["forward"])))
    send("report", {"report": loads(report.to_json()), "text": str(report)})


def _load(job: dict[str, Any]) -> dict[str, Function]:
    """Return the functions to check, by name: "forward" and, if there is one, "backward"."""
    xp = load_backend(job["backend"])
    functions = {"forward": load(job["forward"])}
    if job["backward"] is not None:
        try:
            functions["backward"] = load(job["backward"])
        except TargetError:
            if not job["backward_optional"]:
                raise
    return {name: with_arrays_of(xp, function) for name, function in functions.items()}


def _watched(function: Function, name: str, send: Send, limit: str | None) -> Function:
    """Return a function that tells the parent when it is called and when it returns."""

    @functools.wraps(function)  # keeps the signature, which is checked
    def called(*arguments: Any, **options: Any) -> Any:
        send("call", name)
        try:
            return function(*arguments, **options)
        except MemoryError as error:
            if limit is None:
                raise
            raise MemoryError(f"needed more than {limit}").with_traceback(error.__traceback__) from None
        except KeyboardInterrupt as error:  # not from a keyboard: the process has no terminal
            raise RuntimeError("KeyboardInterrupt").with_traceback(error.__traceback__) from None
        finally:
            send("returned")

    return called


def _hidden(target: str) -> list[str]:
    file, _ = split(target)
    names = hidden_by_installed(folder_of(target), Path(file).resolve() if file.endswith(".py") else None)
    return [f"{name} of the submission's folder is not imported: an installed module has its name" for name in names]


def _limit_memory(memory: dict[str, Any] | None) -> str | None:
    """Limit the memory that the process may take beyond its present size; return the limit as text."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no file
    if memory is None or sys.platform != "linux":
        return None
    np.ones((64, 64)) @ np.ones((64, 64))  # so that BLAS allocates its buffers first
    lines = Path("/proc/self/status").read_text().splitlines()
    used = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
    wanted, (_, most) = used + memory["bytes"], resource.getrlimit(resource.RLIMIT_DATA)
    limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    return str(memory["text"])
