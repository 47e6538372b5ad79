"""Train LeNet-5 on the digits with several seeds and one split, as `refconv train lenet5` does, and report the mean.

    python benchmarks/lenet5_digits.py [--seeds 10] [--json FILE]

Needs refconv[train]. Takes about 12 seconds per seed on one core.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import refconv
from refconv.bench.record import header, write
from refconv.experiments.train import TrainSettings, run_training
from refconv.experiments.trainable import find_model


def main() -> None:
    """Train, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="also write the record to this file")
    given = parser.parse_args()
    accuracies, seconds = [], []
    for seed in range(given.seeds):
        settings = TrainSettings(model="lenet5", seed=seed, recipe=find_model("lenet5").recipe)
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder, refconv.set_workers(1):
            result = run_training(settings, folder)
        seconds.append(time.perf_counter() - started)
        accuracies.append(result.test_accuracy)
        print(f"seed {seed}: {100 * accuracies[-1]:.2f} % in {seconds[-1]:.1f} s", flush=True)
    mean, spread = statistics.fmean(accuracies), statistics.stdev(accuracies)
    print(f"LeNet-5 on the digits: {100 * mean:.2f} ± {100 * spread:.2f} %, {len(accuracies)} seeds")
    record = {
        **header(given),
        "settings": result.settings | {"seed": "0 …"},
        "accuracies": accuracies,
        "mean": mean,
        "standard_deviation": spread,
        "median_seconds": statistics.median(seconds),
    }
    write(record, given.json)


if __name__ == "__main__":
    main()
