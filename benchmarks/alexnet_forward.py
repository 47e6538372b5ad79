"""Time AlexNet's five convolution layers, forward, against PyTorch on the CPU.

Each library runs in its own process, because two thread pools in one process spoil each other's timing; the
processes alternate, so that a slow spell of the machine meets both. What counts is the ratio of medians.

    python benchmarks/alexnet_forward.py [--batch 8] [--dtype float64] [--rounds 7] [--json FILE]

PyTorch must be installed (``pip install 'refconv[torch]'``).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

# name: input channels, input size, output channels, kernel, stride, padding, groups (Krizhevsky et al. 2012)
LAYERS = {
    "conv1": (3, 227, 96, 11, 4, 0, 1),
    "conv2": (96, 27, 256, 5, 1, 2, 2),
    "conv3": (256, 13, 384, 3, 1, 1, 1),
    "conv4": (384, 13, 384, 3, 1, 1, 2),
    "conv5": (384, 13, 256, 3, 1, 1, 2),
}


def time_layers(library: str, batch: int, dtype: str, repetitions: int = 5) -> dict[str, float]:
    """Return the best seconds of each layer in this process, after one call to warm up."""
    rng = np.random.default_rng(0)
    seconds = {}
    for name, (c, size, k, kernel, stride, padding, groups) in LAYERS.items():
        x = rng.standard_normal((batch, c, size, size)).astype(dtype)
        weight = rng.standard_normal((k, c // groups, kernel, kernel)).astype(dtype)
        if library == "torch":
            import torch

            tx, tw = torch.from_numpy(x), torch.from_numpy(weight)

            def call(tx=tx, tw=tw, s=stride, p=padding, g=groups):
                with torch.inference_mode():
                    return torch.nn.functional.conv2d(tx, tw, stride=s, padding=p, groups=g)

        else:
            import refconv

            def call(x=x, weight=weight, s=stride, p=padding, g=groups):
                return refconv.conv2d(x, weight, stride=s, padding=p, groups=g)

        call()
        times = []
        for _ in range(repetitions):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        seconds[name] = min(times)
    return seconds


def measure(library: str, batch: int, dtype: str) -> dict[str, float]:
    """Time the layers in a process of their own, with the BLAS settings a user's machine has: none."""
    environment = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    command = [sys.executable, __file__, "--worker", library, "--batch", str(batch), "--dtype", dtype]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Alternate the two libraries and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the record to this file")
    parser.add_argument("--worker", choices=["refconv", "torch"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(time_layers(options.worker, options.batch, options.dtype)))
        return
    runs: dict[str, list[dict[str, float]]] = {"refconv": [], "torch": []}
    for _ in range(options.rounds):
        for library in runs:
            runs[library].append(measure(library, options.batch, options.dtype))
    median = {lib: {n: statistics.median(r[n] for r in rs) for n in LAYERS} for lib, rs in runs.items()}
    ratios = {n: median["refconv"][n] / median["torch"][n] for n in LAYERS}
    mean = statistics.geometric_mean(ratios.values())
    total = sum(median["refconv"].values()) / sum(median["torch"].values())
    print(f"AlexNet's convolutions, forward, batch {options.batch}, {options.dtype}: refconv / PyTorch")
    for n in LAYERS:
        mine, theirs = median["refconv"][n] * 1e3, median["torch"][n] * 1e3
        print(f"  {n}  {ratios[n]:5.2f}   ({mine:7.2f} ms / {theirs:7.2f} ms)")
    print(f"  geometric mean {mean:.2f}, all five together {total:.2f}")
    if options.json:
        import torch

        record = {
            "date": time.strftime("%Y-%m-%d"),
            "command": f"python benchmarks/alexnet_forward.py --batch {options.batch} --dtype {options.dtype} "
            f"--rounds {options.rounds}",
            "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
            "versions": {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__},
            "ratios": ratios,
            "geometric_mean": mean,
            "total": total,
            "median_seconds": median,
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
