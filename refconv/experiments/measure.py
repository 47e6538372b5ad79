"""One real training step in its own process: its memory and its time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refconv.cost import model_cost
from refconv.integers import as_int
from refconv.settings import engine


class MeasureError(Exception):
    """A step cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Measured:
    """The memory and time of one training step.

    Attributes
    ----------
    batch : int
        Images in the batch.
    bytes : int
        Peak resident memory of the process, less its memory before the network was built.
    seconds : float
        Wall time of the step.
    """

    batch: int
    bytes: int
    seconds: float


def measure_step(model: str, batch: int, groups: int | str | None = None) -> Measured:
    """Run one training step (forward, loss, backward, step) in a new process, on NumPy in float32 with momentum.

    Parameters
    ----------
    model : str
        A key of :data:`refconv.cost.MODELS`.
    batch : int
        Images in the batch, at least 1. They are noise, with the image size and number of classes of the model.
    groups : int or str, optional
        See :func:`refconv.cost.parse_groups`. Default: the groups of the model's paper.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, or the groups do not fit.
    MeasureError
        If the system does not report peak memory, or the process ended early, perhaps for lack of memory.
    """
    batch, label = as_int(batch, "batch", 1), model_cost(model, groups).groups
    peak_bytes()
    command = [sys.executable, "-m", "refconv.experiments.measure", model, str(label), str(batch)]
    environment = os.environ | {"REFCONV_ENGINE": engine()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["it printed nothing; there may be too little memory"]
        raise MeasureError(f"the step of {model} with batch {batch} ended with code {done.returncode}: {said[0]}")
    return Measured(batch, **json.loads(done.stdout))


def peak_bytes() -> int:
    """Return the peak resident memory of this process.

    Raises
    ------
    MeasureError
        If the system does not report it.
    """
    try:  # Linux, whose getrusage would include the parent's memory when it started this process
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        raise MeasureError("peak memory can be measured on Linux, macOS and BSD only") from None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def _step(model: str, groups: str, batch: int) -> dict[str, float]:
    """Build the network and take the step, in this process."""
    from refconv.arrays import load_backend
    from refconv.experiments.trainable import build_model, find_model
    from refconv.nn import SGD, SoftmaxCrossEntropy

    cost, entry = model_cost(model, groups), find_model(model)
    c_in, _, side = cost.input_shape
    side, classes = entry.side or side, cost.layers[-1].output_shape[0]
    rng = np.random.default_rng(0)
    before = peak_bytes()
    network = build_model(
        model,
        groups,
        {},
        c_in=c_in,
        classes=classes,
        side=side,
        rng=rng,
        dropout_rng=rng,
        xp=load_backend("numpy"),
    )
    optimiser, loss = SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=0.0005), SoftmaxCrossEntropy()
    labels = rng.integers(0, classes, batch)
    started = time.perf_counter()
    loss.forward(network.forward(rng.standard_normal((batch, c_in, side, side), dtype="float32")), labels)
    network.backward(loss.backward())
    optimiser.step()
    seconds = time.perf_counter() - started
    return {"bytes": peak_bytes() - before, "seconds": seconds}


if __name__ == "__main__":
    json.dump(_step(sys.argv[1], sys.argv[2], int(sys.argv[3])), sys.stdout)
