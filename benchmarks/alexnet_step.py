"""Train full-size AlexNet for some steps on 224×224 crops: peak memory, time of each phase, and that the loss falls.

Batches are the paper's augmented crops of the bundled photographs, labelled 0 … 6 of 1000 classes. One process takes
steps with batch 128. Another takes ten steps on a single batch of 16, whose loss must fall. If PyTorch is installed, a
third process runs the same network there, alternating with the first, so that a slow spell of the machine affects both.

    python benchmarks/alexnet_step.py [--batch 128] [--steps 3] [--rounds 3] [--fresh-memory] [--json FILE]

Every process keeps freed memory for its next step, as `refconv train` does, except with --fresh-memory.

Needs the extra refconv[train]. Exits with 1 if the peak reaches 4 GiB or the loss does not fall.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import refconv
from refconv.bench.record import header, options, run, write
from refconv.cost import alexnet as alexnet_cost
from refconv.experiments.measure import peak_bytes
from refconv.nn import keep_memory

LIMIT = 4 * 2**30


def crops(batch: int, seed: int = 0) -> Any:
    """Return a function that makes the next batch of augmented crops."""
    from refconv.nn.data import PhotographCrops

    source = PhotographCrops(seed)
    return lambda: source.batch(batch)


def refconv_steps(batch: int, steps: int) -> dict[str, Any]:
    """Take steps on new batches; return the seconds of each phase, the peak, and the cost of fresh memory per step."""
    from refconv.nn import SGD, SoftmaxCrossEntropy, alexnet

    next_batch = crops(batch)
    rng = np.random.default_rng(0)
    before = peak_bytes()
    model = alexnet(rng=rng, dropout_rng=rng)
    optimiser, loss = SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.0005), SoftmaxCrossEntropy()
    seconds: dict[str, list[float]] = {"batch": [], "forward": [], "backward": [], "step": []}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    for step in range(steps):
        if step == min(1, steps - 1):  # the first one warms up
            usage = resource.getrusage(resource.RUSAGE_SELF)
        clock = [time.perf_counter()]
        images, labels = next_batch()
        clock.append(time.perf_counter())
        loss.forward(model.forward(images), labels)
        del images  # as in a training, which passes the batch on
        clock.append(time.perf_counter())
        model.backward(loss.backward())
        clock.append(time.perf_counter())
        optimiser.step()
        clock.append(time.perf_counter())
        for name, start, stop in zip(seconds, clock, clock[1:], strict=False):
            seconds[name].append(stop - start)
    after, counted = resource.getrusage(resource.RUSAGE_SELF), max(1, steps - 1)
    return {
        "seconds": seconds,
        "peak": peak_bytes(),
        "peak_of_step": peak_bytes() - before,
        "page_faults": (after.ru_minflt - usage.ru_minflt) / counted,
        "system_seconds": (after.ru_stime - usage.ru_stime) / counted,
    }


def falling_loss(batch: int, steps: int) -> dict[str, Any]:
    """Take steps on one batch, with a rate that needs no warm-up; return the loss before each step."""
    from refconv.nn import SGD, SoftmaxCrossEntropy, alexnet

    rng = np.random.default_rng(0)
    images, labels = crops(batch)()
    model = alexnet(rng=rng, dropout_rng=rng)
    optimiser, loss = SGD(model.parameters(), lr=0.002, momentum=0.9, weight_decay=0.0005), SoftmaxCrossEntropy()
    losses = []
    for _ in range(steps):
        losses.append(loss.forward(model.forward(images), labels))
        model.backward(loss.backward())
        optimiser.step()
    return {"losses": losses}


def torch_steps(batch: int, steps: int) -> dict[str, Any]:
    """Take the same steps in PyTorch, with its own layers of the same shapes."""
    import torch
    from torch import nn

    class GroupedNorm(nn.Module):
        """The paper's normalisation, on the halves of the channels; PyTorch divides alpha by 5."""

        def forward(self, x: Any) -> Any:
            norm = nn.functional.local_response_norm
            return torch.cat([norm(half, 5, alpha=5e-4, beta=0.75, k=2.0) for half in x.chunk(2, dim=1)], dim=1)

    def conv(c_in: int, c_out: int, kernel: int, **options: int) -> list[Any]:
        return [nn.Conv2d(c_in, c_out, kernel, **options), nn.ReLU()]

    pool = [nn.MaxPool2d(3, 2)]
    model = nn.Sequential(
        *conv(3, 96, 11, stride=4, padding=2), GroupedNorm(), *pool,
        *conv(96, 256, 5, padding=2, groups=2), GroupedNorm(), *pool,
        *conv(256, 384, 3, padding=1), *conv(384, 384, 3, padding=1, groups=2),
        *conv(384, 256, 3, padding=1, groups=2), *pool, nn.Flatten(),
        nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(),
        nn.Linear(4096, 1000),
    )  # fmt: skip
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.0005)
    next_batch = crops(batch)
    seconds = []
    for _ in range(steps):
        images, labels = map(torch.from_numpy, next_batch())
        start = time.perf_counter()
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "peak": peak_bytes()}


WORKERS = {"refconv": refconv_steps, "loss": falling_loss, "torch": torch_steps}


def main() -> None:
    """Run the workers, and print and write their results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=3, help="steps per process; the first one warms up")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each library, which alternate")
    parser.add_argument("--fresh-memory", action="store_true", help="do not keep freed memory for the next step")
    parser.add_argument("--json", type=Path, help="also write the record to this file")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        if not given.fresh_memory:
            keep_memory()  # it serves PyTorch as well
        print(json.dumps(WORKERS[given.worker](given.batch, given.steps)))
        return
    try:
        import torch  # noqa: F401

        peer = ["torch"]
    except ImportError:
        peer = []
    runs: dict[str, list[dict[str, Any]]] = {"refconv": [], **{name: [] for name in peer}}
    for _ in range(given.rounds):
        for library, found in runs.items():
            found.append(run(f"the steps of {library} failed", __file__, "--worker", library, *options(given)))
    phases = {
        name: statistics.median(s for one in runs["refconv"] for s in one["seconds"][name][1:])
        for name in runs["refconv"][0]["seconds"]
    }
    step = sum(seconds for name, seconds in phases.items() if name != "batch")
    peak = max(one["peak"] for one in runs["refconv"])
    measured = max(one["peak_of_step"] for one in runs["refconv"])
    predicted = alexnet_cost().memory(given.batch).predicted
    losses = run("the steps failed", __file__, "--worker", "loss", "--batch", "16", "--steps", "10")["losses"]
    print(f"AlexNet, groups=2, float32, batch {given.batch}, {os.cpu_count()} cores, refconv {refconv.__version__}")
    print("  median seconds: " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in phases.items()))
    print(f"  a step without making its batch: {step:.2f} s")
    fresh = {
        name: statistics.median(one[name] for one in runs["refconv"]) for name in ("page_faults", "system_seconds")
    }
    print(
        f"  processor time in the system, for fresh memory and waits: {fresh['system_seconds']:.3f} s per step, "
        f"{fresh['page_faults']:,.0f} page faults"
    )
    print(
        f"  peak resident memory of the process: {peak / 2**30:.2f} GiB, {measured / 2**30:.2f} GiB of it for the step"
    )
    print(f"  predicted for the step: {predicted / 2**30:.2f} GiB, {predicted / measured - 1:+.1%}")
    print(f"  loss over ten steps of batch 16: {', '.join(f'{loss:.2f}' for loss in losses)}")
    record: dict[str, Any] = {
        **header(given, ("numpy", *peer)),
        "median_seconds": {**phases, "step_in_all": step},
        "seconds": [one["seconds"] for one in runs["refconv"]],
        "fresh_memory": fresh,
        "peak_bytes": {"process": peak, "step": measured, "predicted": predicted},
        "losses_at_batch_16": losses,
    }
    if peer:
        theirs = statistics.median(s for one in runs["torch"] for s in one["seconds"][1:])
        torch_peak = max(one["peak"] for one in runs["torch"])
        print(f"  PyTorch: {theirs:.2f} s per step, ratio {step / theirs:.2f}; its peak {torch_peak / 2**30:.2f} GiB")
        record["torch"] = {
            "median_seconds": theirs,
            "seconds": [one["seconds"] for one in runs["torch"]],
            "peak_bytes": torch_peak,
        }
        record["ratio"] = step / theirs
    write(record, given.json)
    if peak >= LIMIT:
        sys.exit(f"the peak of {peak:,} bytes is not under 4 GiB")
    if not statistics.mean(losses[-3:]) < losses[0] - 1:
        sys.exit("the loss did not fall")


if __name__ == "__main__":
    main()
