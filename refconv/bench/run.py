"""Time refconv against its peers, in turn and each in its own process, and report ratios of medians."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from refconv.bench.gpu import find_gpu
from refconv.bench.peers import BACKENDS, PASSES
from refconv.bench.peers import peers as peers_on
from refconv.bench.record import CLEARED, header, run
from refconv.bench.timing import wall_seconds
from refconv.bench.workloads import WORKLOADS, Layer
from refconv.integers import as_int, shown
from refconv.settings import engine

PACKAGES = ("numpy", "cupy-cuda12x", "cupy-cuda13x", "torch", "jax", "onnxruntime", "scipy")
"""Packages whose versions a record names."""

SLOWER = 1.2
"""Maximum slowdown of the machine, relative to its best, before and after a measurement."""


@dataclass(frozen=True)
class Settings:
    """Settings of a benchmark.

    Attributes
    ----------
    workloads, peers : tuple of str
        Names of :data:`refconv.bench.workloads.WORKLOADS` and of :func:`refconv.bench.peers.peers`; "refconv" is
        always timed. By default all peers of the backend.
    dtype : str
        "float32" or "float64".
    what : str
        "forward", "backward" (all gradients) or "training" (both).
    rounds : int
        Rounds, each with one process per workload and peer.
    seconds : float
        Time for which a process repeats each layer.
    patience : float
        Total seconds to wait for a busy or slow machine and to repeat slowed processes.
    backend : str
        "numpy" times the CPU; "cupy" and "torch" time the GPU, with refconv on that module's arrays.
    """

    workloads: tuple[str, ...] = ("alexnet",)
    peers: tuple[str, ...] | None = None
    dtype: str = "float32"
    what: str = "training"
    rounds: int = 5
    seconds: float = 0.5
    patience: float = 120.0
    backend: str = "numpy"

    def __post_init__(self) -> None:
        for name, values, known in (
            ("backend", (self.backend,), BACKENDS),
            ("workloads", self.workloads, WORKLOADS),
            ("peers", self.peers or (), peers_on(self.backend)),
            ("dtype", (self.dtype,), ("float32", "float64")),
            ("pass", (self.what,), PASSES),
        ):
            for value in values:
                if value not in known:
                    raise ValueError(f"{name} must be one of {', '.join(known)}; got {shown(value)}")
        if not self.workloads:
            raise ValueError("workloads must name at least one workload; got none")
        as_int(self.rounds, "rounds", 1)
        if not 0 < self.seconds < 3600:
            raise ValueError(f"seconds must be more than 0 and less than 3600; got {self.seconds}")
        if not 0 <= self.patience < 86400:
            raise ValueError(f"patience must be at least 0 and less than 86400 seconds; got {self.patience}")


def run_bench(settings: Settings, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Time every workload with every peer that can run it, and return the record.

    In each round every peer runs once, one after the other, so that a slow spell of the machine affects all peers. A
    round first measures the machine's highest rates. A virtual machine may be slow even if nothing else runs on it. So
    a copy and a matrix product are timed before and after each process, and while patience lasts, a slowed process is
    run again.

    Parameters
    ----------
    settings : Settings
        Settings of the benchmark.
    say : callable (str), optional
        Called with a line of progress before each measurement.

    Returns
    -------
    dict
        Values that `json` can write: "date", "machine", "versions", "settings", "slowed" (the number of processes
        that were slowed down but kept), "roofs" (the highest rates of all rounds, see
        :func:`refconv.bench.roofs.roofs`) and "results". "results" has an object for each layer and peer. It contains
        the ratio of refconv's median time to the peer's; the median, smallest and largest time of the rounds in
        seconds; the layer's multiply-adds; the bytes of its input, weights and output; and the peer's fastest variant
        and the times of all in the last round, or the reason why it was not timed. On a GPU there is also "gpu", its
        description.

    Raises
    ------
    BenchError
        If a peer fails.
    GpuError
        If the GPU of the backend cannot be used.
    """
    gpu = {} if settings.backend == "numpy" else {"gpu": find_gpu(settings.backend).card()}
    chosen = peers_on(settings.backend) if settings.peers is None else settings.peers
    peers = ("refconv", *(peer for peer in chosen if peer != "refconv"))
    times: dict[tuple[str, str, str], list[float]] = {}
    notes: dict[tuple[str, str, str], dict[str, Any]] = {}
    roofs: list[dict[str, float]] = []
    patience, slowed, pace = settings.patience, 0, _Pace()
    for number in range(1, settings.rounds + 1):
        say(f"round {number}/{settings.rounds}: roofs")
        roofs.append(_roofs(settings))
        for workload in settings.workloads:
            for peer in peers:
                say(f"round {number}/{settings.rounds}: {workload}, {peer}")
                while True:
                    started = time.monotonic()
                    patience = pace.wait(patience)
                    measured, at_pace = _measure(peer, workload, settings), pace.is_kept()
                    if at_pace or patience <= 0:
                        break
                    patience -= time.monotonic() - started
                slowed += not at_pace
                for layer, found in measured.items():
                    key = (workload, layer, peer)
                    if "seconds" in found:
                        times.setdefault(key, []).append(found.pop("seconds"))
                    notes[key] = found
    return {
        **header(packages=PACKAGES),
        **gpu,
        "settings": {
            "backend": settings.backend,
            "dtype": settings.dtype,
            "pass": settings.what,
            "engine": engine(),
            "rounds": settings.rounds,
            "seconds": settings.seconds,
            "patience": settings.patience,
            "cleared": [name for name in CLEARED if name in os.environ],
        },
        "slowed": slowed,
        "roofs": {name: max(found[name] for found in roofs) for name in roofs[0]},
        "results": [
            _result(workload, layer, settings.dtype, peer, times, notes)
            for workload in settings.workloads
            for layer in WORKLOADS[workload]
            for peer in peers
        ],
    }


def summary(record: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the geometric mean of each workload's ratios, by workload and peer, if every layer was timed."""
    found: dict[str, dict[str, float]] = {}
    for workload in dict.fromkeys(result["workload"] for result in record["results"]):
        for peer in dict.fromkeys(result["peer"] for result in record["results"]):
            ratios = [
                result.get("ratio")
                for result in record["results"]
                if (result["workload"], result["peer"]) == (workload, peer)
            ]
            if peer != "refconv" and None not in ratios:
                found.setdefault(workload, {})[peer] = statistics.geometric_mean(ratios)
    return found


def _result(
    workload: str,
    layer: Layer,
    dtype: str,
    peer: str,
    times: dict[tuple[str, str, str], list[float]],
    notes: dict[tuple[str, str, str], dict[str, Any]],
) -> dict[str, Any]:
    key = (workload, layer.name, peer)
    found: dict[str, Any] = {"workload": workload, "layer": layer.name, "peer": peer, "macs": layer.macs}
    found |= {"bytes": layer.elements * np.dtype(dtype).itemsize, **notes[key]}
    if key in times:
        own = statistics.median(times[workload, layer.name, "refconv"])
        median = statistics.median(times[key])
        found |= {"ratio": own / median, "median": median, "smallest": min(times[key]), "largest": max(times[key])}
    return found


def _measure(peer: str, workload: str, settings: Settings) -> dict[str, Any]:
    arguments = [peer, workload, settings.backend, settings.dtype, settings.what, str(settings.seconds)]
    return _run(f"{peer} failed on {workload}", "worker", *arguments)


def _roofs(settings: Settings) -> dict[str, float]:
    return _run("measuring roofs failed", "roofs", settings.backend, settings.dtype, str(settings.seconds))


def _run(failure: str, module: str, *arguments: str) -> dict[str, Any]:
    """Run a module of this package in its own process, and return its output."""
    found: dict[str, Any] = run(failure, "-m", f"refconv.bench.{module}", *arguments, stderr=subprocess.PIPE)
    return found


class _Pace:
    """The speed at which the machine copies and multiplies, compared with its best so far."""

    def __init__(self) -> None:
        self._source = np.ones(2**22)
        self._target = np.empty_like(self._source)
        self._matrix = np.ones((512, 512))
        self._best = [float("inf")] * 2

    def is_kept(self) -> bool:
        """Return whether both take little more than their shortest time so far."""
        times = [
            min(map(wall_seconds, [lambda: np.copyto(self._target, self._source)] * 4)),
            min(map(wall_seconds, [lambda: self._matrix @ self._matrix] * 8)),
        ]
        self._best = list(map(min, self._best, times))
        return all(now < SLOWER * best for now, best in zip(times, self._best, strict=True))

    def wait(self, patience: float) -> float:
        """Wait until the machine is at its pace again; return the remaining patience."""
        started = time.monotonic()
        while not self.is_kept() and time.monotonic() - started < patience:
            time.sleep(0.2)
        return max(0.0, patience - (time.monotonic() - started))
