"""The machine's highest rates: ``python -m refconv.bench.roofs BACKEND DTYPE SECONDS`` prints JSON."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from refconv.bench.gpu import Gpu, find_gpu
from refconv.bench.timing import repeated
from refconv.settings import cores


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
    multiplied = min(repeated(lambda: np.matmul(a, b, out=product), seconds))
    source = np.ones(copied // a.itemsize, dtype)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(target, cores()), np.array_split(source, cores()), strict=True))
    with ThreadPoolExecutor(len(parts)) as pool:
        moved = min(repeated(lambda: list(pool.map(lambda part: np.copyto(*part), parts)), seconds))
    return {"gflops": 2e-9 * side**3 / multiplied, "gigabytes_per_second": 2e-9 * source.nbytes / moved}


def gpu_roofs(gpu: Gpu, dtype: str, seconds: float, side: int = 8192, copied: int = 2**30) -> dict[str, float]:
    """Return the same rates of a GPU, reached by its array module's own product and copy; see :func:`roofs`."""
    matrix = gpu.asarray(np.random.default_rng(0).random((side, side)).astype(dtype))
    source = gpu.asarray(np.ones(copied // np.dtype(dtype).itemsize, dtype))
    multiplied = min(repeated(lambda: gpu.xp.matmul(matrix, matrix), seconds, gpu.seconds))
    moved = min(repeated(lambda: gpu.xp.asarray(source, copy=True), seconds, gpu.seconds))
    return {"gflops": 2e-9 * side**3 / multiplied, "gigabytes_per_second": 2e-9 * copied / moved}


if __name__ == "__main__":
    backend, dtype, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    found = roofs(dtype, seconds) if backend == "numpy" else gpu_roofs(find_gpu(backend), dtype, seconds)
    sys.stdout.write(json.dumps(found))
