"""Time a peer in its own process: ``python -m refconv.bench.worker PEER WORKLOAD BACKEND DTYPE PASS SECONDS``.

Prints JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from refconv.bench.peers import can, clock, peers, threads
from refconv.bench.timing import median_seconds
from refconv.bench.workloads import WORKLOADS


def measure(peer: str, workload: str, backend: str, dtype: str, what: str, seconds: float) -> dict[str, dict[str, Any]]:
    """Return the median time of each layer with the peer's fastest variant and with each, or why it cannot be timed."""
    found: dict[str, dict[str, Any]] = {}
    for layer in WORKLOADS[workload]:
        reason = can(peer, layer, dtype, what, backend)
        if reason is not None:
            found[layer.name] = {"reason": reason}
            continue
        timed = clock(peer, backend)
        with threads(peer, layer):
            variants = peers(backend)[peer](layer, dtype, what)
            times = {name: median_seconds(call, seconds / len(variants), timed) for name, call in variants.items()}
        best = min(times, key=times.__getitem__)
        found[layer.name] = {"seconds": times[best], "variant": best, "variants": times}
    return found


if __name__ == "__main__":
    peer, workload, backend, dtype, what, seconds = sys.argv[1:]
    sys.stdout.write(json.dumps(measure(peer, workload, backend, dtype, what, float(seconds))))
