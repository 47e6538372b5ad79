"""Train one small residual network with different channel groups on real digits, and compare.

The network is :func:`refconv.nn.residual_network`, trained by a :class:`refconv.nn.Recipe`; only the groups of its
residual blocks differ. The time for training is fixed, but array modules differ in speed. So a measurement determines
the numbers of epochs and seeds, which the result reports.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

import refconv
from refconv.arrays import Namespace, elements
from refconv.cost import GroupSpec, parse_groups
from refconv.nn import Recipe, Split, accuracy, load_digits_split, residual_network
from refconv.nn.training import to_model
from refconv.progress import Advance

CHANNELS = 32

# Equal n would compare unequal numbers of weights: three logarithmic groups keep 37.5 % of them, which is between two
# uniform groups (50 %) and four (25 %).
GROUPINGS = {
    "dense": parse_groups("dense"),
    "uniform, n=2": parse_groups("uniform:2"),
    "logarithmic, n=3": parse_groups("log:3"),
    "uniform, n=4": parse_groups("uniform:4"),
}


@dataclass(frozen=True)
class NetworkResult:
    """The results of one grouping with every seed."""

    name: str
    parameters: int
    accuracies: tuple[float, ...]
    """Fractions of the test digits classified correctly, one per seed."""
    seconds: float
    """Median time of one training."""

    @property
    def mean(self) -> float:
        """Mean accuracy over the seeds."""
        return statistics.fmean(self.accuracies)

    @property
    def spread(self) -> float:
        """Sample standard deviation of the accuracy over the seeds."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0


@dataclass(frozen=True)
class DigitsResult:
    """The comparison of all groupings, under the same seeds."""

    networks: tuple[NetworkResult, ...]
    seeds: tuple[int, ...]
    epochs: int
    train_images: int
    test_images: int
    budget_reached: bool
    """Whether the time limit, not the plan, ended the training."""

    @property
    def largest_difference(self) -> float:
        """Best mean accuracy less the worst."""
        means = [network.mean for network in self.networks]
        return max(means) - min(means)

    @property
    def largest_spread(self) -> float:
        """Largest standard deviation over the seeds of one grouping."""
        return max(network.spread for network in self.networks)

    @property
    def sampling_error(self) -> float:
        """Standard error of one accuracy from the finite number of test images: √(p(1 − p)/n)."""
        p = statistics.fmean(network.mean for network in self.networks)
        return float((p * (1 - p) / self.test_images) ** 0.5)

    @property
    def is_null(self) -> bool:
        """Whether the means differ by no more than the seeds of one grouping, or than the test set can resolve."""
        return self.largest_difference <= max(self.largest_spread, 2**0.5 * self.sampling_error)

    def conclusion(self) -> str:
        """Return the result of the comparison in words."""
        difference, spread = 100 * self.largest_difference, 100 * self.largest_spread
        seeds = f"{len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''}"
        numbers = (
            f"the means differ by at most {difference:.1f} points, the seeds of one network by up to {spread:.1f} "
            f"(standard deviation), and {self.test_images} test digits alone leave {100 * self.sampling_error:.1f} "
            "(standard error)"
        )
        if self.is_null:
            return f"No clear difference: with {seeds}, {numbers}."
        best = max(self.networks, key=lambda network: network.mean)
        worst = min(self.networks, key=lambda network: network.mean)
        return (
            f"A difference beyond the spread between {best.name} (best) and {worst.name} (worst): with {seeds}, "
            f"{numbers}. That is one task, one split and {self.epochs} epoch{'s' if self.epochs > 1 else ''} of "
            "training: no ranking of groupings follows."
        )


@dataclass(frozen=True)
class Plan:
    """The amount of training: at most `seeds` seeds and `epochs` epochs on `images` digits, in about `seconds` s."""

    seeds: int = 5
    epochs: int = 6
    seconds: float = 40.0
    images: int | None = None
    """None means all digits."""


def run_digits(
    xp: Namespace, *, seed: int = 0, plan: Plan | None = None, advance: Advance | None = None
) -> DigitsResult:
    """Train every grouping with several seeds.

    Parameters
    ----------
    xp : module
        The array module.
    seed : int
        The first seed; the others follow it.
    plan : Plan, optional
        The amount of training. At least one epoch and two seeds (or all, if fewer are planned) are run, however long
        they take.
    advance : Advance, optional
        Called for each training.
    """
    plan = Plan() if plan is None else plan
    planned = _part(load_digits_split(), plan.images)
    # Layers this small take less time to compute than to distribute to threads.
    with refconv.set_workers(1):
        epochs, data = _affordable(xp, planned, plan)
        accuracies: dict[str, list[float]] = {name: [] for name in GROUPINGS}
        seconds: dict[str, list[float]] = {name: [] for name in GROUPINGS}
        parameters = {}
        started, budget_reached = time.perf_counter(), False
        for count in range(plan.seeds):
            elapsed = time.perf_counter() - started
            if count >= 2 and elapsed * (count + 1) / count > plan.seconds:
                budget_reached = True
                break
            for name, groups in GROUPINGS.items():
                trained = _train(xp, groups, data, epochs, seed + count)
                parameters[name] = trained.parameters
                accuracies[name].append(trained.test_accuracy)
                seconds[name].append(trained.seconds)
                if advance is not None:
                    advance(1, f"seed {seed + count}, {name}")
    networks = tuple(
        NetworkResult(name, parameters[name], tuple(accuracies[name]), statistics.median(seconds[name]))
        for name in accuracies
    )
    return DigitsResult(
        networks=networks,
        seeds=tuple(range(seed, seed + len(networks[0].accuracies))),
        epochs=epochs,
        train_images=len(data.train_labels),
        test_images=len(data.test_labels),
        budget_reached=budget_reached or epochs < plan.epochs or data is not planned,
    )


class _Trained(NamedTuple):
    parameters: int
    test_accuracy: float
    seconds: float


def _train(xp: Namespace, groups: GroupSpec, data: Split, epochs: int, seed: int) -> _Trained:
    """Train and test one network; `seconds` is the time of the training without the test."""
    rng = np.random.default_rng(seed)
    model = residual_network(groups.build, channels=CHANNELS, rng=rng, xp=xp)
    parameters = sum(elements(parameter.value.shape) for parameter in model.parameters())
    trainer = Recipe(epochs=epochs).trainer(model, data.train_images, data.train_labels, rng=rng)
    started = time.perf_counter()
    for _ in trainer:
        pass
    seconds = time.perf_counter() - started
    return _Trained(parameters, accuracy(model, *to_model(model, data.test_images, data.test_labels)), seconds)


def _affordable(xp: Namespace, data: Split, plan: Plan) -> tuple[int, Split]:
    """Return the number of epochs that leaves time for three seeds of every grouping, and the digits to train on.

    If the time is too short even for one epoch of two seeds, digits are left out. A short training of every grouping
    measures the speed.
    """

    def train(part: Split) -> float:
        return sum(_train(xp, groups, part, 1, 0).seconds for groups in GROUPINGS.values())

    train(_part(data, 32))  # the first step of each network includes initialisation
    measured = 128
    seconds_per_image = train(_part(data, measured)) / measured
    images = len(data.train_labels)
    epochs = int(plan.seconds / (min(3, plan.seeds) * images * seconds_per_image))
    if epochs >= 1:
        return min(epochs, plan.epochs), data
    affordable = int(plan.seconds / (min(2, plan.seeds) * seconds_per_image))
    return 1, _part(data, min(images, max(256, affordable)))


def _part(data: Split, images: int | None) -> Split:
    return data._replace(train_images=data.train_images[:images], train_labels=data.train_labels[:images])
