"""Measure each of the four steps from the textbook to the CPU engine: times of one layer before and after a step.

A set-up is one way to compute, in a separate process. For each layer all set-ups run in turn, so that a slow spell of
the machine affects all of them; the result is the median over rounds. The first step is measured on one thread, the
others on all.

    textbook, one thread     refconv/textbook.py, with BLAS limited to one thread
    slices, one thread       step 1: the same columns, tile by tile
    textbook                 refconv/textbook.py, with as many threads as BLAS uses
    slices                   step 2: tiles spread over threads, with BLAS limited to one thread in each
    correlation              step 3: scatter as a correlation, and both gradients from the same columns
    layouts                  step 4: the best layout of columns for the layer; this is the engine

    python benchmarks/engine_steps.py [--seconds 0.15] [--rounds 5] [--json FILE]

The roofs are the highest rates of NumPy's own product of two 2048×2048 matrices, on one thread and on all.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from threadpoolctl import threadpool_limits

from refconv import set_workers
from refconv.bench.peers import PASSES, PEERS
from refconv.bench.record import header, run, start, write
from refconv.bench.roofs import roofs
from refconv.bench.timing import median_seconds
from refconv.bench.workloads import WORKLOADS
from refconv.cpu.layouts import TapsOfBatch
from refconv.nn import keep_memory

WORKLOAD_NAMES = ("alexnet", "resnext", "depthwise", "logarithmic")

Switches = list[contextlib.AbstractContextManager[Any]]


def no_layouts() -> Switches:
    """Return the patches that switch step 4 off: every pass uses the textbook's columns."""
    names = ("for_images", "for_kernels", "for_both")
    return [mock.patch(f"refconv.cpu.choices.{name}", return_value=TapsOfBatch()) for name in names]


def no_correlation() -> Switches:
    """Return the patches that switch step 3 off: scatter always runs col2im, and no gradients share columns."""
    return [mock.patch("refconv.cpu.passes.as_correlation", return_value=None)]


def one_thread() -> Switches:
    """Return the patches that switch step 2 off."""
    return [set_workers(1), threadpool_limits(1, user_api="blas")]


SET_UPS: dict[str, Callable[[], Switches]] = {
    "textbook, one thread": one_thread,
    "slices, one thread": lambda: [*no_layouts(), *no_correlation(), *one_thread()],
    "textbook": list,
    "slices": lambda: [*no_layouts(), *no_correlation()],
    "correlation": no_layouts,
    "layouts": list,
}
"""The steps that every set-up switches off."""

STEPS = (
    ("textbook, one thread", "slices, one thread"),
    ("textbook", "slices"),
    ("slices", "correlation"),
    ("correlation", "layouts"),
)
"""The set-ups before and after each step."""


def serve(set_up: str) -> None:
    """Read "WORKLOAD LAYER DTYPE SECONDS" from standard input, line by line; print the time of a call of each pass.

    Freed memory is kept; otherwise a set-up with small arrays would pay for the pages of its results in each call.
    """
    keep_memory()
    peer = "textbook" if set_up.startswith("textbook") else "refconv"
    with contextlib.ExitStack() as stack:
        for switch in SET_UPS[set_up]():
            stack.enter_context(switch)
        for line in sys.stdin:
            workload, layer, dtype, seconds = line.split()
            found = {}
            for what in PASSES:
                call = PEERS[peer](WORKLOADS[workload][int(layer)], dtype, what)["default"]
                found[what] = median_seconds(call, float(seconds))
            print(json.dumps(found), flush=True)


def roof(threads: str, dtype: str, seconds: float) -> float:
    """Return NumPy's highest rate in a separate process, in GFLOP/s, on "one thread" or on "all threads"."""
    options = ["--roof", threads, "--dtype", dtype, "--seconds", str(seconds)]
    return float(run("measuring the roof failed", __file__, *options))


def ask(server: Any, task: str) -> dict[str, float]:
    """Send a task to a serving process and return its answer."""
    print(task, file=server.stdin, flush=True)
    answer = server.stdout.readline()
    if not answer:
        sys.exit(f"a process ended while it measured {task}")
    found: dict[str, float] = json.loads(answer)
    return found


def measure(dtype: str, rounds: int, seconds: float) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Return the median times of every layer in every set-up, and the roofs."""
    servers = {set_up: start(__file__, "--serve", set_up) for set_up in SET_UPS}
    rates: dict[str, list[float]] = {"one thread": [], "all threads": []}
    layers = []
    for workload in WORKLOAD_NAMES:
        for threads, found in rates.items():
            found.append(roof(threads, dtype, seconds))
        for number, layer in enumerate(WORKLOADS[workload]):
            times: dict[str, list[dict[str, float]]] = {set_up: [] for set_up in SET_UPS}
            for _ in range(rounds):
                for set_up, server in servers.items():
                    times[set_up].append(ask(server, f"{workload} {number} {dtype} {seconds}"))
            medians = {
                set_up: {what: statistics.median(run[what] for run in runs) for what in PASSES}
                for set_up, runs in times.items()
            }
            layers.append({"workload": workload, "layer": layer.name, "macs": layer.macs, "seconds": medians})
            ratios = [medians[after]["training"] / medians[before]["training"] for before, after in STEPS]
            print(
                f"{workload}, {layer.name}: {1e3 * medians['layouts']['training']:.1f} ms; after / before each step: "
                + ", ".join(f"{ratio:.2f}" for ratio in ratios),
                flush=True,
            )
    for server in servers.values():
        server.stdin.close()
        server.wait()
    return layers, {threads: max(found) for threads, found in rates.items()}


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument(
        "--seconds", type=float, default=0.15, help="seconds for which each pass is repeated in a round"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", choices=tuple(SET_UPS), help=argparse.SUPPRESS)
    parser.add_argument("--roof", choices=("one thread", "all threads"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return
    if given.roof:
        with threadpool_limits(1, user_api="blas") if given.roof == "one thread" else contextlib.nullcontext():
            print(roofs(given.dtype, given.seconds, copied=2**20)["gflops"])
        return
    layers, rates = measure(given.dtype, given.rounds, given.seconds)
    record = {
        **header(given),
        "gflops": rates,
        "steps": STEPS,
        "layers": layers,
    }
    print(", ".join(f"NumPy's product on {threads}: {rate:.0f} GFLOP/s" for threads, rate in rates.items()))
    write(record, given.json)


if __name__ == "__main__":
    main()
