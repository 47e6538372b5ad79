"""Measure the gain of a second thread, and its cost compared with a second process.

A call is forward and all gradients of one layer. It is repeated in a process with one worker; in two such processes
simultaneously, which share the machine but neither interpreter nor BLAS; and in a process with two workers. Each time,
three things are measured: the time of a call, its processor time, and how often one of its threads slept to wait
(voluntary context switches).

If two processes are as fast as one, memory and caches suffice for both cores. If two workers then take more than half
of one worker's time, the difference is lost within the process: to work of a single thread, and to waits for the
interpreter's lock or for BLAS's.

    python benchmarks/threads.py [--seconds 0.5] [--rounds 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from refconv import set_workers
from refconv.bench.peers import PEERS
from refconv.bench.record import header, start, write
from refconv.bench.workloads import WORKLOADS

WORKLOAD_NAMES = ("alexnet", "resnext", "depthwise", "logarithmic")
SET_UPS = {"one worker": (1, 1), "two processes": (2, 1), "two workers": (1, 2)}
"""Number of simultaneous processes, and of workers in each."""
QUANTITIES = ("seconds", "processor_seconds", "waits")
"""The measurements of one call."""


def usage() -> tuple[float, float, int]:
    """Return the wall clock, this process's processor time, and how often its threads slept to wait."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime + used.ru_stime, used.ru_nvcsw


def serve(workers: int) -> None:
    """Read "WORKLOAD LAYER DTYPE SECONDS" from each line of standard input, and answer with the measurements."""
    for line in sys.stdin:
        workload, layer, dtype, seconds = line.split()
        call = PEERS["refconv"](WORKLOADS[workload][int(layer)], dtype, "training")["default"]
        with set_workers(workers):
            call()
            print("ready", flush=True)
            sys.stdin.readline()  # all processes of a set-up begin together
            start, calls = usage(), 0
            while time.perf_counter() - start[0] < float(seconds):
                call()
                calls += 1
            print(
                json.dumps([(after - before) / calls for before, after in zip(start, usage(), strict=True)]), flush=True
            )


def measure(processes: list[Any], task: str) -> list[list[float]]:
    """Let processes do the same task simultaneously; return seconds, processor seconds and waits per call of each."""
    for process in processes:
        print(task, file=process.stdin, flush=True)
    for process in processes:
        process.stdout.readline()
    for process in processes:
        print("go", file=process.stdin, flush=True)
    return [json.loads(process.stdout.readline()) for process in processes]


def main() -> None:
    """Measure every layer in every set-up, alternately; print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--seconds", type=float, default=0.5, help="seconds for which a call is repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return
    layers = []
    for workload in WORKLOAD_NAMES:
        for number, layer in enumerate(WORKLOADS[workload]):
            servers = {
                name: [start(__file__, "--serve", str(workers)) for _ in range(count)]
                for name, (count, workers) in SET_UPS.items()
            }
            task = f"{workload} {number} {given.dtype} {given.seconds}"
            found: dict[str, list[list[float]]] = {name: [] for name in SET_UPS}
            for _ in range(given.rounds):
                for name, processes in servers.items():
                    found[name] += measure(processes, task)
            for processes in servers.values():
                for process in processes:
                    process.stdin.close()
                    process.wait()
            medians = {
                name: {quantity: statistics.median(run[i] for run in runs) for i, quantity in enumerate(QUANTITIES)}
                for name, runs in found.items()
            }
            layers.append({"workload": workload, "layer": layer.name, **medians})
            one, processes, workers = (medians[name] for name in SET_UPS)
            print(
                f"{workload}, {layer.name}: one worker {1e3 * one['seconds']:.1f} ms; "
                f"two processes {processes['seconds'] / one['seconds']:.2f} times that; "
                f"two workers {workers['seconds'] / one['seconds']:.2f}, "
                f"processor time {workers['processor_seconds'] / one['processor_seconds']:.2f}, "
                f"{workers['waits']:.0f} waits per call",
                flush=True,
            )
    write({**header(given), "layers": layers}, given.json)


if __name__ == "__main__":
    main()
