"""Measure where the time of a workload goes, such as AlexNet's five layers: matrix products, copies, sums and the rest.

Each pass runs on one thread under Python's profiler, which counts the time of each function.

    python benchmarks/where_time_goes.py [--workload alexnet] [--dtype float32] [--repeat 10] [--json FILE]
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
from pathlib import Path
from typing import Any

import numpy as np

import refconv
from refconv.bench.peers import operands
from refconv.bench.record import header, options, run, write
from refconv.bench.workloads import WORKLOADS
from refconv.cpu import layouts

KINDS = {
    "matmul": "matrix products",
    "_outer": "matrix products",
    "sums": "matrix products",  # of a layout: the product is an operator in it
    "sum_of_products": "sums",  # its products are the function matmul
    "reduce": "sums",
    "reshape": "copies",
    "pad": "copies",
    "fill": "copies",
    "copy": "copies",
    "write": "copies",
    "add": "sums",
}
"""Parts of function names, and the kind of work on which these functions spend their own time."""

PASSES = ("forward", "input gradient", "weight gradient")


class _Numpy:
    """NumPy with matmul as a Python function, so that the profiler sees it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def matmul(*operands: Any, **options: Any) -> Any:
        return np.matmul(*operands, **options)


def measure(workload: str, dtype: str, repeat: int) -> dict[str, Any]:
    """Return the milliseconds of each pass, all layers together, and the share of each kind of work."""
    layouts.np = _Numpy()  # type: ignore[attr-defined]
    found: dict[str, Any] = {}
    for what in PASSES:
        profile, count = cProfile.Profile(), 0
        for layer in WORKLOADS[workload]:
            x, weights, _, _ = operands(layer, dtype)
            groups: Any = layer.groups
            w: Any = weights
            if groups.is_uniform:
                w, groups = np.concatenate(weights), groups.n
            call: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "groups": groups}
            with refconv.set_workers(1):
                y = refconv.conv(x, w, **call)
                needs = {"input gradient": ("x",), "weight gradient": ("weight",)}.get(what)
                for run in range(repeat + 1):
                    if run:  # the first one warms up
                        profile.enable()
                    if needs is None:
                        refconv.conv(x, w, **call)
                    else:
                        refconv.conv_backward(y, x, w, needs=needs, **call)
                    profile.disable()
            count += layer.macs
        own: dict[str, float] = {}
        stats: Any = pstats.Stats(profile)
        for (_, _, name), (_, _, seconds, _, _) in stats.stats.items():
            kind = next((kind for word, kind in KINDS.items() if word in name.split()[-1] or word in name), "the rest")
            own[kind] = own.get(kind, 0.0) + seconds / repeat
        total = sum(own.values())
        found[what] = {
            "milliseconds": 1e3 * total,
            "share": {kind: seconds / total for kind, seconds in sorted(own.items(), key=lambda item: -item[1])},
            "gflops_of_matrix_products": 2e-9 * count / own.get("matrix products", float("inf")),
        }
    return found


def main() -> None:
    """Measure in a process whose BLAS is at its best, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workload", choices=tuple(WORKLOADS), default="alexnet")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(measure(given.workload, given.dtype, given.repeat)))
        return
    record = {**header(given), "passes": run("measuring failed", __file__, "--worker", *options(given))}
    print("| pass | ms on one core | matrix products | copies | sums | the rest | GFLOP/s of the products |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for what, of in record["passes"].items():
        shares = [f"{of['share'].get(kind, 0):.0%}" for kind in ("matrix products", "copies", "sums", "the rest")]
        print(f"| {what} | {of['milliseconds']:.0f} | {' | '.join(shares)} | {of['gflops_of_matrix_products']:.0f} |")
    write(record, given.json)


if __name__ == "__main__":
    main()
