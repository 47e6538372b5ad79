"""Time one peer in its own process: ``python -m refconv.bench.worker PEER WORKLOAD DTYPE PASS SECONDS`` prints JSON."""

from __future__ import annotations

import json
import statistics
import sys
import time

from refconv.bench.peers import PEERS, Call, can, threads
from refconv.bench.workloads import WORKLOADS

LEAST, MOST = 5, 2000
"""Minimum and maximum number of repetitions of a measurement."""


def median_seconds(call: Call, seconds: float) -> float:
    """Return the median time of a call, repeated for about `seconds` after a warm-up."""
    call()
    call()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < LEAST or (time.perf_counter() < until and len(times) < MOST):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measure(peer: str, workload: str, dtype: str, what: str, seconds: float) -> dict[str, dict[str, float | str]]:
    """Return the time of each layer of a workload with the peer's fastest variant, or why it cannot be timed."""
    found: dict[str, dict[str, float | str]] = {}
    for layer in WORKLOADS[workload]:
        reason = can(peer, layer, dtype, what)
        if reason is not None:
            found[layer.name] = {"reason": reason}
            continue
        with threads(peer, layer):
            variants = PEERS[peer](layer, dtype, what)
            times = {name: median_seconds(call, seconds / len(variants)) for name, call in variants.items()}
        best = min(times, key=times.__getitem__)
        found[layer.name] = {"seconds": times[best], "variant": best}
    return found


if __name__ == "__main__":
    peer, workload, dtype, what, seconds = sys.argv[1:]
    sys.stdout.write(json.dumps(measure(peer, workload, dtype, what, float(seconds))))
