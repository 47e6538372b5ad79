"""The machine's highest rates: ``python -m refconv.bench.roofs DTYPE SECONDS`` prints JSON."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from refconv.bench.peers import Call
from refconv.settings import cores

LEAST = 3
"""Minimum number of repetitions of a measurement."""


def roofs(dtype: str, seconds: float, side: int = 2048, copied: int = 2**28) -> dict[str, float]:
    """Return the highest rates of arithmetic and memory transfer that NumPy reaches here.

    Parameters
    ----------
    dtype : str
        "float32" or "float64".
    seconds : float
        Time for which each measurement is repeated; the fastest repetition counts.
    side : int
        Side of the square matrices that are multiplied, with BLAS's default number of threads.
    copied : int
        Total number of bytes copied, with one thread per core; more than fit in the caches.

    Returns
    -------
    dict
        "gflops": 10⁹ additions and multiplications per second; "gigabytes_per_second": 10⁹ bytes per second, where each
        copied byte counts twice, once read and once written.
    """
    a, b = np.random.default_rng(0).standard_normal((2, side, side)).astype(dtype)
    product = np.empty_like(a)
    multiplied = _least_seconds(lambda: np.matmul(a, b, out=product), seconds)
    source = np.ones(copied // a.itemsize, dtype)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(target, cores()), np.array_split(source, cores()), strict=True))
    with ThreadPoolExecutor(len(parts)) as pool:
        moved = _least_seconds(lambda: list(pool.map(lambda part: np.copyto(*part), parts)), seconds)
    return {"gflops": 2e-9 * side**3 / multiplied, "gigabytes_per_second": 2e-9 * source.nbytes / moved}


def _least_seconds(call: Call, seconds: float) -> float:
    """Return the shortest time of a call, repeated for about `seconds` after a warm-up."""
    call()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < LEAST or time.perf_counter() < until:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(roofs(sys.argv[1], float(sys.argv[2]))))
