"""A few training steps of AlexNet's towers on a cluster, measured, and the same steps in one process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import refconv
from refconv.cost import FLOAT, Cost, Layer, Walk, parse_groups
from refconv.distributed.cluster import run_on_all
from refconv.distributed.tower import Worked
from refconv.distributed.towers import RemoteSGD, RemoteTowers, Transfer
from refconv.distributed.whole import begin_whole, check_exact, sparse_whole, watched, whole_gradient
from refconv.experiments.measure import MeasureError, peak_bytes
from refconv.integers import as_int
from refconv.nn import SGD, Sequential, SoftmaxCrossEntropy, alexnet
from refconv.nn import Layer as Network
from refconv.nn.models.alexnet import SMALLEST, tower_outputs
from refconv.nn.optim import Optimiser
from refconv.settings import DEFAULT_WORKSPACE
from refconv.shapes import refuse_absurd

if TYPE_CHECKING:
    from distributed import Client

SEGMENTS = ("conv1 … pool2", "conv3 … pool5", "fc6", "fc7", "fc8")
"""The parts of a tower between crossings."""


@dataclass(frozen=True)
class TowersSettings:
    """Settings of a measurement.

    Attributes
    ----------
    towers : int or str
        The groups, one tower per group: N, "uniform:N" or "log:N".
    batch, steps : int
        Images per step, which are noise, and number of steps.
    side, width, classes, c_in
        As for :func:`refconv.nn.alexnet`.
    seed : int
        Draws weights, images, labels and dropped elements.
    whole : bool
        Whether to train on whole numbers, in float64: see :mod:`refconv.distributed.whole`.
    backend : str
        Array module.
    """

    towers: int | str = 2
    batch: int = 16
    steps: int = 4
    side: int = 224
    width: float = 1.0
    classes: int = 1000
    c_in: int = 3
    seed: int = 0
    whole: bool = False
    backend: str = "numpy"

    @property
    def dtype(self) -> str:
        """Data type of all arrays."""
        return "float64" if self.whole else "float32"

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of the network."""
        return {"c_in": self.c_in, "classes": self.classes, "side": self.side, "width": self.width, "dtype": self.dtype}

    def generators(self) -> list[np.random.Generator]:
        """Return new generators of the weights, the dropped elements, and the data."""
        return np.random.default_rng(self.seed).spawn(3)

    @property
    def images(self) -> tuple[int, int, int, int]:
        """Shape of the images of a step."""
        return self.batch, self.c_in, self.side, self.side

    def batches(self) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Draw the images and labels of each step."""
        data = self.generators()[2]
        for _ in range(self.steps):
            if self.whole:
                images = data.integers(-1, 2, self.images).astype(self.dtype)
            else:
                images = data.standard_normal(self.images, dtype="float32")
            yield images, data.integers(0, self.classes, self.batch)


class Crossing(NamedTuple):
    """A boundary between segments, where outputs go to the other towers, and gradients come back."""

    after: str
    before: str
    outputs: int
    """Predicted bytes of outputs that all workers receive in a step."""
    gradients: int
    """Predicted bytes of gradients."""
    received: int
    """Measured bytes of both, on average over the steps."""


@dataclass(frozen=True)
class TowersResult:
    """What :func:`run_towers` measured.

    Attributes
    ----------
    settings : TowersSettings
    workers : tuple of str
        The address of each tower's worker.
    costs : list of Cost
        The counted layers of each tower.
    predicted, peak, received : list of int
        Bytes of each tower: its predicted peak; the measured growth of its worker, which may have other towers too
        (None if the system does not report it); and what its worker received per step.
    crossings : list of Crossing
    losses, seconds : list of float
        Of each step.
    worked : list of list of list of Worked
        For each step and tower, when the tower computed.
    transfers : list of dict of str to list of Transfer
        For each step, what each worker received.
    """

    settings: TowersSettings
    workers: tuple[str, ...]
    costs: list[Cost]
    predicted: list[int]
    peak: list[int | None]
    received: list[int]
    crossings: list[Crossing]
    losses: list[float]
    seconds: list[float]
    worked: list[list[list[Worked]]]
    transfers: list[dict[str, list[Transfer]]]

    @property
    def measured_steps(self) -> range:
        """The steps whose times count: all but the first, which also connects workers and allocates memory."""
        return range(min(1, len(self.seconds) - 1), len(self.seconds))

    @property
    def seconds_per_step(self) -> float:
        """Mean time of the steps that count."""
        return sum(self.seconds[i] for i in self.measured_steps) / len(self.measured_steps)

    def shares(self) -> list[dict[str, Any]]:
        """Return how each tower spent a step, on average, in seconds.

        "computing" is measured on its worker. "waiting_for" has the time, for each tower, in which that tower's outputs
        or gradients were still being computed. The rest, "messages", passed with sending and receiving, with Dask's
        scheduling, and with the loss in this process.
        """
        found = []
        for t in range(len(self.workers)):
            waits = [0.0] * len(self.workers)
            computing = 0.0
            for i in self.measured_steps:
                computing += sum(work.stop - work.start for work in self.worked[i][t])
                for u, seconds in _waits(self.worked[i], t):
                    waits[u] += seconds
            count = len(self.measured_steps)
            waits, computing = [seconds / count for seconds in waits], computing / count
            rest = max(self.seconds_per_step - computing - sum(waits), 0.0)
            found.append({"computing": computing, "waiting_for": waits, "messages": rest})
        return found

    def to_dict(self, single: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return all figures as one object that `json.dumps` can write."""
        return {
            "groups": self.settings.towers,
            "batch": self.settings.batch,
            "whole_numbers": self.settings.whole,
            "towers": [
                {
                    "parameters": cost.parameters,
                    "activations": cost.activations,
                    "predicted_bytes": self.predicted[t],
                    "peak_bytes": self.peak[t],
                    "received_bytes": self.received[t],
                    "worker": self.workers[t],
                    **shares,
                }
                for t, (cost, shares) in enumerate(zip(self.costs, self.shares(), strict=True))
            ],
            "crossings": [
                {
                    "after": crossing.after,
                    "before": crossing.before,
                    "bytes": crossing.outputs,
                    "gradient_bytes": crossing.gradients,
                    "received_bytes": crossing.received,
                }
                for crossing in self.crossings
            ],
            "losses": self.losses,
            "seconds": self.seconds,
            "single": single,
        }


# --- Counting -------------------------------------------------------------------------------------------------------


def tower_costs(settings: TowersSettings) -> list[Cost]:
    """Return the layers of each tower, as :mod:`refconv.cost` counts them."""
    batch, side = as_int(settings.batch, "batch", 1), as_int(settings.side, "side", SMALLEST)
    as_int(settings.steps, "steps", 1)
    refuse_absurd(f"batch={batch}, side={side}: the array of a step's images", settings.images)
    sizes = tower_outputs(settings.towers, settings.classes, settings.width)
    whole = {layer: sum(shares) for layer, shares in sizes.items()}
    return [
        _tower_cost(
            {layer: shares[t] for layer, shares in sizes.items()}, whole, (settings.c_in, settings.side, settings.side)
        )
        for t in range(len(sizes["conv1"]))
    ]


def _tower_cost(own: dict[str, int], whole: dict[str, int], image: tuple[int, ...]) -> Cost:
    """Return one tower's layers: each segment reads all channels, and computes the tower's own."""
    dense = parse_groups(1)
    layers: list[Layer] = []

    def segment(input_shape: tuple[int, ...]) -> Walk:
        return Walk("alexnet tower", dense, input_shape)

    first = segment(image)
    first.conv("conv1", own["conv1"], 11, stride=4, padding=2)
    for number in (1, 2):
        if number == 2:
            first.conv("conv2", own["conv2"], 5, padding=2)
        first.activate("relu")
        first.normalise(f"norm{number}")
        first.window(f"pool{number}", 3, stride=2)
    second = segment((whole["conv2"], *first.shape[1:]))
    for name in ("conv3", "conv4", "conv5"):
        second.conv(name, own[name], 3, padding=1)
        second.activate("relu")
    second.window("pool5", 3, stride=2)
    layers = [*first.layers, *second.layers]
    inputs = whole["conv5"] * math.prod(second.shape[1:])
    for name in ("fc6", "fc7", "fc8"):
        part = segment((inputs,))
        part.linear(name, own[name])
        if name != "fc8":
            part.activate("relu")
            part.activate("dropout")
        layers += part.layers
        inputs = whole[name]
    return Cost("alexnet tower", 1, image, tuple(layers))


def predicted_bytes(settings: TowersSettings, costs: Sequence[Cost] | None = None) -> list[int]:
    """Return the bytes that each tower is predicted to need, beyond its process before it was built.

    It is the prediction of :class:`refconv.cost.Memory` for the tower's layers. In float64 every number takes twice the
    bytes.
    """
    found = [cost.memory(settings.batch).predicted for cost in costs or tower_costs(settings)]
    return [2 * n - DEFAULT_WORKSPACE if settings.whole else n for n in found]


def count_crossings(settings: TowersSettings, costs: Sequence[Cost], workers: Sequence[str]) -> list[Crossing]:
    """Return what crosses between workers in a step: each output once to every other worker, gradients one by one."""
    size = 2 * FLOAT if settings.whole else FLOAT
    crossings = []
    for after, before in (("pool2", "conv3"), ("pool5", "fc6"), ("fc6", "fc7"), ("fc7", "fc8")):
        own = [
            settings.batch * size * next(layer.activations for layer in cost.layers if layer.name == after)
            for cost in costs
        ]
        pairs = [(t, u) for t in range(len(own)) for u in range(len(own)) if workers[t] != workers[u]]
        outputs = sum(own[t] for t, worker in {(t, workers[u]) for t, u in pairs})
        crossings.append(Crossing(after, before, outputs, sum(own[u] for _, u in pairs), 0))
    return crossings


def received_bytes(settings: TowersSettings, costs: Sequence[Cost], workers: Sequence[str]) -> dict[str, int]:
    """Return the bytes that each worker is predicted to receive from other workers in a step."""
    found = {}
    for worker in dict.fromkeys(workers):
        mine = [t for t, address in enumerate(workers) if address == worker]
        others = [t for t, address in enumerate(workers) if address != worker]
        size = 2 * FLOAT if settings.whole else FLOAT
        crossing = [
            sum(layer.activations for layer in cost.layers if layer.name in ("pool2", "pool5", "fc6", "fc7"))
            for cost in costs
        ]
        outputs, gradients = sum(crossing[t] for t in others), len(others) * sum(crossing[t] for t in mine)
        found[worker] = settings.batch * size * (outputs + gradients)
    return found


# --- Running --------------------------------------------------------------------------------------------------------


def run_towers(
    client: Client, settings: TowersSettings, *, after_step: Callable[[int], object] = lambda number: None
) -> TowersResult:
    """Train towers on a cluster for some steps, and measure them.

    Parameters
    ----------
    client : distributed.Client
        See :func:`refconv.distributed.open_cluster`.
    settings : TowersSettings
    after_step : callable (int) -> object, optional
        Called with the number of steps done.

    Raises
    ------
    refconv.distributed.TowerLostError
        If a worker ended, perhaps because it exceeded its memory limit.
    ValueError, TypeError
        If a setting is wrong.
    """
    costs = tower_costs(settings)
    predicted = predicted_bytes(settings, costs)
    before = run_on_all(client, _peak)
    rng, dropout, _ = settings.generators()
    worked, transfers = [], []
    with RemoteTowers(
        client,
        settings.towers,
        **settings.options,
        rng=rng,
        dropout_rng=dropout,
        backend=settings.backend,
        whole=settings.whole,
        predicted=predicted,
    ) as towers:
        optimiser = RemoteSGD(towers, **_rates(settings))

        def done(number: int) -> None:
            worked.append(towers.worked())
            transfers.append(towers.received())
            after_step(number)

        losses, seconds = _steps(towers, optimiser, settings, towers.wait, done)
        workers, peak = towers.workers, towers.run(_peak)
    arrived = [transfer for step in transfers for log in step.values() for transfer in log]
    crossings = [
        crossing._replace(received=sum(t.bytes for t in arrived if t.after == s) // settings.steps)
        for s, crossing in enumerate(count_crossings(settings, costs, workers))
    ]
    return TowersResult(
        settings=settings,
        workers=workers,
        costs=costs,
        predicted=predicted,
        peak=[_growth(before.get(worker), peak[worker]) for worker in workers],
        received=[sum(t.bytes for step in transfers for t in step[w]) // settings.steps for w in workers],
        crossings=crossings,
        losses=losses,
        seconds=seconds,
        worked=worked,
        transfers=transfers,
    )


def run_single(settings: TowersSettings, threads: int) -> dict[str, Any]:
    """Take the same steps in this process, and return their "losses", "seconds" and number of "threads".

    Raises
    ------
    ArithmeticError
        On whole numbers, if a sum may not be exact.
    """
    from threadpoolctl import threadpool_limits

    rng, dropout, _ = settings.generators()
    xp = refconv.load_backend(settings.backend)
    model = alexnet(settings.towers, **settings.options, rng=rng, dropout_rng=dropout, xp=xp)
    if settings.whole:
        begin_whole(model)
        model = Sequential(**watched(model.children()))
    optimiser = SGD(model.parameters(), **_rates(settings))
    with refconv.set_workers(threads), threadpool_limits(threads):
        losses, seconds = _steps(model, optimiser, settings, lambda: None, lambda number: None)
    if settings.whole:
        check_exact(model, settings.dtype)
    return {"losses": losses, "seconds": seconds, "threads": threads}


def _rates(settings: TowersSettings) -> dict[str, float]:
    return {"lr": 1.0, "momentum": 0.5} if settings.whole else {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.0005}


def _steps(
    model: Network,
    optimiser: Optimiser,
    settings: TowersSettings,
    wait: Callable[[], object],
    done: Callable[[int], object],
) -> tuple[list[float], list[float]]:
    """Take steps; return the loss before each, and its seconds."""
    loss, losses, seconds = SoftmaxCrossEntropy(), [], []
    for number, (images, labels) in enumerate(settings.batches(), 1):
        started = time.perf_counter()
        losses.append(loss.forward(model(images), labels))
        grad = loss.backward()
        model.backward(whole_gradient(grad) if settings.whole else grad)
        optimiser.step()
        if settings.whole and isinstance(optimiser, SGD):
            sparse_whole(model.parameters())
        wait()
        seconds.append(time.perf_counter() - started)
        done(number)
    return losses, seconds


def _peak() -> int | None:
    try:
        return peak_bytes()
    except MeasureError:
        return None


def _growth(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


def _waits(worked: Sequence[Sequence[Worked]], t: int) -> Iterator[tuple[int, float]]:
    """Yield the towers that tower t waited for in a step, and for how long each."""
    for before, after in pairwise(worked[t]):
        source = after.segment - 1 if after.what == "forward" else after.segment + 1
        for u, others in enumerate(worked):
            last = [w.stop for w in others if (w.what, w.segment) == (after.what, source) and after.what != "step"]
            if u != t and last and last[0] > before.stop:
                # Of several late towers, each is charged for the time after the one that was ready before it.
                earlier = [
                    w.stop
                    for v, more in enumerate(worked)
                    if v != t
                    for w in more
                    if (w.what, w.segment) == (after.what, source) and w.stop < last[0]
                ]
                yield u, min(last[0], after.start) - max([before.stop, *earlier])
