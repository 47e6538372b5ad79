"""Grade one submission: start its process, watch it, and end it with all processes that it started.

Before each call, the process reports the case and the function on a separate stream. If it dies or hangs, the report is
made here, about that case. Messages are JSON; nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from refconv.testing.checker.cases import Case
from refconv.testing.checker.check import check_conv
from refconv.testing.checker.examine import BACKWARD
from refconv.testing.checker.plan import SUPPORTS
from refconv.testing.checker.report import CheckReport, Failure
from refconv.testing.checker.targets import TargetError, folder_of, split
from refconv.testing.grader.child import LOST

START_SECONDS, IMPORT_SECONDS, CHECKER_SECONDS = 120.0, 60.0, 300.0
"""Limits for starting Python, for importing a submission, and for the checker's own work between two calls."""

GRACE_SECONDS = 2.0
"""Seconds beyond the limit of a call for which the process may be silent. It reports a hanging call before then."""

OUTPUT_BYTES = 2**15
"""Bytes of a submission's output that are kept from its beginning, and as many from its end."""

LONGEST_LINE = 2**26
"""Maximum bytes of a message from a submission's process."""

BOOT = """
import importlib.util, json, sys
own, (folder, path) = sys.path[:], json.loads(sys.argv.pop())
import site
site.main()
sys.path[:] = own + [entry for entry in path if entry not in own]
spec = importlib.util.spec_from_file_location("refconv", folder + "/__init__.py", submodule_search_locations=[folder])
sys.modules["refconv"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["refconv"])
from refconv.testing.grader.child import main
main()
"""
"""Ignores the environment's paths: the standard library comes first, then this process's import path."""


class GraderError(Exception):
    """No submission can be graded here; the message says why, on one line."""


@dataclass(frozen=True)
class Limits:
    """Time and memory of one submission.

    Attributes
    ----------
    call : float
        Seconds of one call.
    total : float or None
        Seconds from the import to the report.
    memory : int or None
        Bytes beyond those that Python, NumPy and the checker take. Only Linux can limit them.
    """

    call: float = 10.0
    total: float | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Graded:
    """The outcome of one submission.

    Attributes
    ----------
    report : dict
        The report as `CheckReport.to_json` writes it.
    text : str
        The report as text.
    output : str
        Output that the submission printed; if it is long, its beginning and end.
    seconds : float
        Duration of the check.
    """

    report: dict[str, Any]
    text: str
    output: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return bool(self.report["passed"])


def grade(
    forward: str,
    backward: str | None = None,
    *,
    settings: Mapping[str, Any],
    limits: Limits = Limits(),
    backend: str = "numpy",
    environment: Mapping[str, str] | None = None,
    backward_optional: bool = False,
    progress: Callable[[int, int], object] | None = None,
    stop: threading.Event | None = None,
) -> Graded:
    """Check one submission in a separate process.

    Parameters
    ----------
    forward, backward : str
        ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION``.
    settings : mapping
        Arguments of :func:`check_conv`: spatial_dims, supports, dtype, output_dtype, transposed, cases and seed.
    limits : Limits
        Time and memory.
    backend : str
        Name of the module whose arrays are given to the functions.
    environment : mapping, optional
        Environment variables to add for the process.
    backward_optional : bool
        Whether to check the forward pass alone if there is no backward function.
    progress : callable, optional
        Called as ``progress(index, total)`` before each case.
    stop : threading.Event, optional
        Another thread may set it to end the check.

    Raises
    ------
    TypeError, ValueError
        If a setting is wrong.
    TargetError
        If there is no such function, or it does not take the arguments.
    GraderError
        If no process can be started.
    InterruptedError
        If `stop` was set.
    """
    started = time.perf_counter()
    if limits.total is not None and not limits.total > 0:
        raise ValueError(f"total_time_limit must be a positive number of seconds; got {limits.total}")
    case_at(0, settings, limits.call)
    job = {
        "forward": forward,
        "backward": backward,
        "backward_optional": backward_optional,
        "backend": backend,
        "settings": dict(settings),
        "time_limit": limits.call,
        "memory": None if limits.memory is None else {"bytes": limits.memory, "text": size(limits.memory)},
    }
    watch = _Watch(limits, backward is not None and not backward_optional)
    with _Process(job, folder_of(forward), environment or {}) as process:
        while watch.answer is None and watch.seconds_left() > 0:
            message = process.receive(min(0.1, watch.seconds_left()))
            if stop is not None and stop.is_set():
                raise InterruptedError("stopped")
            if message is not None:
                watch.note(*message)
                if progress is not None and message[0] == "case":
                    progress(*message[1])
            elif process.has_ended():
                break
    kind, value = watch.answer or ("", None)
    if kind == "usage":
        raise TargetError(value)
    if watch.phase == "start":
        raise GraderError(": ".join(["cannot start a Python process", *process.output().splitlines()[-1:]]))
    if kind == "report" and value is not None:
        report, text = value["report"], value["text"]
    else:
        check, words = watch.complaint(split(forward)[0], process.how_it_ended())
        made = failed_report(settings, limits.call, watch.backward, check, words, watch.index, watch.function)
        report, text = json.loads(made.to_json()), str(made)
    return Graded(report, text, process.output(), time.perf_counter() - started)


def failed_report(
    settings: Mapping[str, Any],
    time_limit: float,
    backward: bool,
    check: str,
    message: str,
    index: int | None = None,
    function: str = "forward",
) -> CheckReport:
    """Return the report of a check that could not be finished, about the case in which it stopped.

    Without `index` no case was run, and the report shows the first case.
    """
    case = case_at(index or 0, settings, time_limit)
    part = "y" if function == "forward" else "grad_x"
    shown = {
        "spatial_dims": settings["spatial_dims"],
        "supports": [word for word in SUPPORTS if word in settings["supports"]],
        "dtype": np.dtype(settings["dtype"]).name, "transposed": settings["transposed"],
        "cases": settings["cases"], "seed": settings["seed"], "backward": backward,
    }  # fmt: skip
    if settings.get("output_dtype"):
        shown["output_dtype"] = np.dtype(settings["output_dtype"]).name
    if settings.get("backward_needs"):
        names = tuple(name.removeprefix("grad_") for name in BACKWARD)
        shown["backward_needs"] = [[name for name in names if name in subset] for subset in settings["backward_needs"]]
    return CheckReport(
        passed=False,
        cases_run=0 if index is None else index + 1,
        failures=(Failure(check, case, message, part=part),),
        checks={check: 1},
        settings=shown,
    )


class _Found(Exception):  # noqa: N818 - not an error
    """The requested case has been reached."""


def case_at(index: int, settings: Mapping[str, Any], time_limit: float = 10.0) -> Case:
    """Return the case of a check with that index, without running any submission; raise if a setting is wrong."""
    reached: list[Case] = []

    def progress(number: int, _: int, case: Case) -> None:
        reached[:] = [case]
        if number == index:
            raise _Found

    def not_computed(*_: Any, **__: Any) -> Any:
        raise ArithmeticError

    with contextlib.suppress(_Found):
        check_conv(not_computed, not_computed, **settings, time_limit=time_limit, progress=progress)
    return reached[0]


def can_limit_memory() -> bool:
    """Return whether `Limits.memory` has an effect on this system."""
    return sys.platform == "linux"


def size(count: int) -> str:
    """Return a number of bytes in the largest unit that leaves at least 1.

    Examples
    --------
    >>> size(3 * 2**29)
    '1.5 GiB'
    """
    unit, power = next((unit, power) for unit, power in _UNITS if count >= power or power == 1)
    return f"{count / power:.4g} {unit}"


_UNITS = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("bytes", 1))


class _Watch:
    """The state of the process according to its messages, and its deadlines."""

    def __init__(self, limits: Limits, backward: bool) -> None:
        self.limits, self.backward = limits, backward
        self.phase, self.function = "start", "forward"
        self.index: int | None = None
        self.answer: tuple[str, Any] | None = None
        self._since = self._heard = time.monotonic()
        self._until = float("inf")

    def note(self, kind: str, value: Any) -> None:
        """Update the state from one message."""
        self._heard = time.monotonic()
        if kind == "ready":
            self._enter("import")
            self._until = self._heard + (self.limits.total or float("inf"))
        elif kind == "loaded":
            self._enter("check")
            self.backward = value
        elif kind == "case":
            self.index, _ = value
        elif kind == "call":
            self._enter("call")
            self.function = value
        elif kind == "returned":
            self._enter("check")
        elif kind != "alive":
            self.answer = kind, value

    def _enter(self, phase: str) -> None:
        self.phase, self._since = phase, self._heard

    def seconds_left(self) -> float:
        """Return for how long the process may continue without another message."""
        call = self.limits.call
        ends = {
            "start": self._since + START_SECONDS,
            "import": self._since + max(IMPORT_SECONDS, call),
            "check": self._since + CHECKER_SECONDS,
            # Silence means that the interpreter is blocked. Otherwise the process itself stops the call and reports.
            "call": min(self._heard + call + GRACE_SECONDS, self._since + call + CHECKER_SECONDS),
        }
        return max(0.0, min(ends[self.phase], self._until) - time.monotonic())

    def complaint(self, module: str, ended: str | None) -> tuple[str, str]:
        """Return the name of the failed check, and the reason."""
        after = f"after {self.function} returned, the submission" if self.index is not None else "the submission"
        who = {"import": f"importing {module}", "call": self.function}.get(self.phase, after)
        kind, value = self.answer or ("", "")
        memory = "" if self.limits.memory is None else f" (memory is limited to {size(self.limits.memory)})"
        if kind == "import":
            return "call", value + memory * ("MemoryError" in value)
        if kind == "broken":
            what = f"too little memory is left for the checker{memory}" if "MemoryError" in value else value
            return "call", f"the check cannot be finished after {self.function} has run: {what}"
        if ended is not None:
            return "call", f"{who} {ended}" + memory * ended.endswith(("SIGABRT", "SIGKILL"))
        if time.monotonic() >= self._until:
            return "time", f"the whole check took longer than {self.limits.total:g} s, and {who} was stopped"
        if self.phase == "call":
            return "time", f"{self.function} did not return in time; no further case was run"
        return "time", f"{who} took longer than {max(IMPORT_SECONDS, self.limits.call):g} s"


class _Process:
    """A submission's process: use it as a context manager, which ends the process and its descendants."""

    def __init__(self, job: Mapping[str, Any], folder: Path, environment: Mapping[str, str]) -> None:
        self._token = secrets.token_hex(16)
        self._messages: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._head, self._tail, self._printed = b"", b"", 0
        self._killed = False
        self._readers: list[threading.Thread] = []
        # Its own folder, and the current one, are searched last; the child adds them.
        path = [str(Path(entry).resolve()) for entry in sys.path if entry]
        path = [entry for entry in path if entry not in (str(folder), str(Path.cwd()))]
        package = str(Path(__file__).resolve().parents[2])
        self._popen = subprocess.Popen(
            [sys.executable, "-I", "-S", "-u", "-c", BOOT, json.dumps([package, path])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C reaches the parent only, and one signal ends the whole group
        )
        try:
            self._readers = [
                threading.Thread(target=read, args=(pipe,), daemon=True)
                for read, pipe in ((self._read_messages, self._popen.stdout), (self._read_output, self._popen.stderr))
            ]
            for reader in self._readers:
                reader.start()
            assert self._popen.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._popen.stdin.write(json.dumps({**job, "token": self._token}).encode() + b"\n")
                self._popen.stdin.flush()
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def receive(self, seconds: float) -> tuple[str, Any] | None:
        """Return the next message, or None if none arrives in time."""
        try:
            return self._messages.get(timeout=max(seconds, 0.001))
        except queue.Empty:
            return None

    def has_ended(self) -> bool:
        """Return whether the process has ended by itself and no message is left."""
        if self._popen.poll() is None:
            return False
        self._end()
        return self._messages.empty()

    def how_it_ended(self) -> str | None:
        """Return how the process ended itself, or None if it was ended from here."""
        code = self._popen.returncode
        if self._killed:
            return None
        if code == LOST:
            return "closed the connection to the checker"
        if code >= 0:
            return f"ended the process with exit code {code}"
        known = {number.value: number.name for number in signal.Signals}
        return f"ended the process with signal {known.get(-code, -code)}"

    def output(self) -> str:
        """Return the output of the process, or its beginning and end if it is long."""
        hidden = self._printed - len(self._head) - len(self._tail)
        cut = f"\n… {hidden:,} bytes are not shown …\n".encode() if hidden else b""
        return (self._head + cut + self._tail).decode(errors="replace")

    def _end(self) -> None:
        """End the process and its group; may be called again."""
        self._killed = self._killed or self._popen.poll() is None
        self._popen.kill()
        if hasattr(os, "killpg"):
            with contextlib.suppress(OSError):  # all have ended
                os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        if self._popen.stdin is not None:
            with contextlib.suppress(OSError):
                self._popen.stdin.close()
        for reader in self._readers:
            reader.join(1.0)  # a process that left the group may still have the pipe open

    def _read_messages(self, pipe: IO[bytes]) -> None:
        token = self._token.encode()
        with pipe:
            while line := pipe.readline(LONGEST_LINE):
                _, found, text = line.partition(token)
                if found and text.endswith(b"\n"):
                    with contextlib.suppress(ValueError):
                        kind, value = json.loads(text)
                        self._messages.put((kind, value))

    def _read_output(self, pipe: IO[bytes]) -> None:
        with pipe:
            while chunk := os.read(pipe.fileno(), 2**16):
                room = OUTPUT_BYTES - len(self._head)
                self._head += chunk[:room]
                self._tail = (self._tail + chunk[room:])[-OUTPUT_BYTES:]
                self._printed += len(chunk)
