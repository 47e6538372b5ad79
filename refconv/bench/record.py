"""Records of measurements: their headers, and the separate processes that measure."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from refconv.files import replacing
from refconv.settings import engine

CLEARED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Variables removed from the workers' environment, because each can make NumPy's matrix product slower."""


class BenchError(Exception):
    """A process that measures failed; the message has the last line of its standard error, or else its exit code."""


def header(given: Namespace | None = None, packages: Sequence[str] = ("numpy",)) -> dict[str, Any]:
    """Return the header of a record: the date, the command (for a script), the machine and the versions."""
    command = {}
    if given is not None:
        command["command"] = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *options(given)])
    return {
        "date": datetime.now(UTC).date().isoformat(),
        **command,
        "machine": machine(),
        "versions": versions(packages),
    }


def options(given: Namespace) -> list[str]:
    """Return a script's options as words of a command, without those that are off and without --json.

    >>> options(Namespace(rounds=5, seconds=0.0, only=["A", "B"], fresh_memory=True, worker=None, json="file"))
    ['--rounds', '5', '--seconds', '0.0', '--only', 'A', 'B', '--fresh-memory']
    """
    words = []
    for name, value in vars(given).items():
        if name != "json" and value is not None and value is not False and value != []:
            words.append("--" + name.replace("_", "-"))
            words += [] if value is True else map(str, value) if isinstance(value, list) else [str(value)]
    return words


def write(record: dict[str, Any], path: Path | None) -> None:
    """Write a record, if there is a path for it."""
    if path is not None:
        with replacing(path) as partial:
            partial.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def run(failure: str, *arguments: str, stderr: int | None = None) -> Any:
    """Run Python in its own process, with this process's engine and without `CLEARED`; return the JSON that it prints.

    `failure` begins the message of an error.
    """
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=_environment(), stdout=subprocess.PIPE, stderr=stderr, text=True, check=False)
    if done.returncode:
        reason = ((done.stderr or "").strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BenchError(f"{failure}: {reason}")
    return json.loads(done.stdout)


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start Python in the same environment; it reads requests on standard input and answers on standard output."""
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _environment() -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name not in CLEARED}
    return environment | {"REFCONV_ENGINE": engine()}


def machine() -> dict[str, Any]:
    """Return a description of the machine."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {"processor": model, "cores": os.cpu_count(), "system": f"{platform.system()} on {platform.machine()}"}


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of Python, refconv and the installed ones of `packages`."""
    found = {"python": platform.python_version()}
    for package in ("refconv", *packages):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
