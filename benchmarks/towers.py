"""AlexNet's towers in processes of their own, and a sweep of trainings on one and two workers.

Each network takes some training steps on a Dask cluster on this machine, one process per tower, then in one process
with as many threads, then in one process with one thread; this is repeated, and the fastest round of each counts. For
each tower, the record has counted and measured bytes, and how it spent a step. "amdahl" compares the measured speed-up
over one thread with 1 / (s + (1 − s) / N), where N is the number of towers and s = m / (m + c): m is the towers' mean
time for messages and c their summed computing, per step.

The sweep is a comparison of 12 trainings, on clusters of one and of two workers. Starting a cluster is not counted.

    python benchmarks/towers.py [--groups 2 log:3] [--width 1] [--batch 16] [--steps 4] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from refconv.bench.record import header, write
from refconv.distributed import open_cluster
from refconv.distributed.report import TowersSettings, run_single, run_towers, tower_costs
from refconv.experiments.compare import run_comparison
from refconv.experiments.tasks import CompareSettings
from refconv.nn import Recipe

SWEEP = CompareSettings(["digits"], ["dense", "log:3"], [24_000], 6, 2, recipe=Recipe(epochs=2))


def later(seconds: list[float]) -> float:
    """Return the mean of all steps but the first."""
    return fmean(seconds[min(1, len(seconds) - 1) :])


def measure(settings: TowersSettings, rounds: int) -> dict[str, Any]:
    """Run towers and one process in turns, and keep the fastest round of each: other work only adds time."""
    count = len(tower_costs(settings))
    results, singles, one_threads = [], [], []
    with open_cluster(count) as client:
        for _ in range(rounds):
            results.append(run_towers(client, settings))
            singles.append(run_single(settings, count))
            one_threads.append(run_single(settings, 1))
    result = min(results, key=lambda result: result.seconds_per_step)
    single, one_thread = (min(runs, key=lambda run: later(run["seconds"])) for runs in (singles, one_threads))
    alone, step, shares = later(one_thread["seconds"]), result.seconds_per_step, result.shares()
    messages, computing = fmean(share["messages"] for share in shares), sum(share["computing"] for share in shares)
    serial = messages / (messages + computing)
    amdahl = {"serial": serial, "bound": 1 / (serial + (1 - serial) / count), "speed_up": alone / step}
    memory = results[0]  # later rounds find memory that earlier ones left
    return {
        **result.to_dict(single),
        "peak_bytes": memory.peak,
        "one_thread": one_thread,
        "seconds_per_step": step,
        "rounds": [found.seconds_per_step for found in results],
        "single_rounds": [later(found["seconds"]) for found in singles],
        "amdahl": amdahl,
    }


def sweep(workers: int) -> dict[str, float]:
    """Return the seconds of the comparison, and of starting its cluster."""
    started = time.perf_counter()
    with open_cluster(workers) as client, tempfile.TemporaryDirectory() as folder:
        opened = time.perf_counter()
        run_comparison(SWEEP, folder, cluster=contextlib.nullcontext(client))
        return {"workers": workers, "start": opened - started, "seconds": time.perf_counter() - opened}


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", nargs="+", default=["2", "log:3"], metavar="SPEC")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the record to this file")
    given = parser.parse_args()
    before = os.getloadavg()[0]
    networks = [
        measure(TowersSettings(groups, given.batch, given.steps, width=given.width), given.rounds)
        for groups in given.groups
    ]
    for found in networks:
        alone = later(found["single"]["seconds"])
        print(
            f"groups={found['groups']}: {found['seconds_per_step']:.2f} s a step; one process with as many threads "
            f"{alone:.2f} s, ratio {found['seconds_per_step'] / alone:.2f}; speed-up over one thread "
            f"{found['amdahl']['speed_up']:.2f} (by Amdahl's law {found['amdahl']['bound']:.2f})"
        )
        for t, tower in enumerate(found["towers"]):
            waits = ", ".join(
                f"{seconds:.2f} s for tower {u}" for u, seconds in enumerate(tower["waiting_for"]) if u != t
            )
            print(
                f"  tower {t}: computes {tower['computing']:.2f} s, waits {waits}; messages {tower['messages']:.2f} s"
            )
    sweeps = [sweep(workers) for workers in (1, 2)]
    print(f"12 trainings: {sweeps[0]['seconds']:.1f} s on one worker, {sweeps[1]['seconds']:.1f} s on two, ", end="")
    print(f"ratio {sweeps[1]['seconds'] / sweeps[0]['seconds']:.2f}")
    packages = ("numpy", "dask", "distributed")
    load = {"before": before, "after": os.getloadavg()[0]}
    write({**header(given, packages), "load": load, "networks": networks, "sweeps": sweeps}, given.json)


if __name__ == "__main__":
    main()
