"""Measure the memory of a call beyond its arguments and its result: forward, input gradient and weight gradient.

The input is (32, 64, 112, 112) float32, the weight 64 kernels of 3×3, padding 1. Each pass runs in a separate process.
"allocated" is the peak that `tracemalloc` reports. "resident" is the increase of the process's peak resident memory
during its first call, including the memory of BLAS and the threads. Both exclude the result. The textbook's im2col of
the whole batch would need one column per output position.

    python benchmarks/memory.py [--json FILE]

Exits with 1 if a pass takes more than 64 MB.
"""

from __future__ import annotations

import argparse
import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

import refconv
from refconv.bench.record import header, run, write
from refconv.experiments.measure import peak_bytes

INPUT, WEIGHT = (32, 64, 112, 112), (64, 64, 3, 3)
COLUMNS = 32 * 576 * 112 * 112 * 4
"""Bytes of the columns of the whole batch."""

LIMIT = 64 * 10**6
PASSES = ("forward", "input gradient", "weight gradient")


def extra_bytes(what: str) -> dict[str, int]:
    """Call one pass in this process, twice; return its memory beyond arguments and result."""
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape, dtype=np.float32) for shape in (INPUT, WEIGHT))
    grad = rng.standard_normal(INPUT, dtype=np.float32)  # the output is as large as the input

    def call() -> Any:
        if what == "forward":
            return refconv.conv(x, weight, padding=1)
        if what == "input gradient":
            return refconv.conv_input_grad(grad, weight, x.shape, padding=1)
        return refconv.conv_weight_grad(grad, x, weight.shape[2:], padding=1)

    before = peak_bytes()
    result = call()
    resident = peak_bytes() - before - result.nbytes
    del result
    tracemalloc.start()
    result = call()
    return {"allocated": tracemalloc.get_traced_memory()[1] - result.nbytes, "resident": resident}


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the record to this file")
    parser.add_argument("--worker", choices=PASSES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(extra_bytes(given.worker)))
        return
    extra = {what: run(f"measuring the {what} failed", __file__, "--worker", what) for what in PASSES}
    print(f"{'MB beyond arguments and result':<32}{'allocated':>10}{'resident':>10}{'columns / resident':>20}")
    for what, found in extra.items():
        allocated, resident = found["allocated"], found["resident"]
        print(f"{what:<32}{allocated / 1e6:>10.1f}{resident / 1e6:>10.1f}{COLUMNS / resident:>20.0f}")
    print(f"{'columns of the whole batch':<32}{COLUMNS / 1e6:>10.1f}")
    record = {
        **header(given),
        "input_shape": INPUT,
        "weight_shape": WEIGHT,
        "columns_bytes": COLUMNS,
        "limit_bytes": LIMIT,
        "extra_bytes": extra,
    }
    write(record, given.json)
    most = max(max(found.values()) for found in extra.values())
    if most > LIMIT:
        sys.exit(f"{most:,} bytes are more than {LIMIT:,}")


if __name__ == "__main__":
    main()
