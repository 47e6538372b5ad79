"""One tower on a worker: functions that run there as Dask tasks.

A tower's layers, and the memory of its optimiser, stay on the worker from one task to the next. What a task returns is
what other towers need. Everything that travels is a NumPy array.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

import refconv
from refconv.arrays import Array, moved, to_numpy
from refconv.distributed.whole import no_normalisation, sparse_whole
from refconv.nn import SGD, Sequential
from refconv.nn.dropout import DropoutShare
from refconv.nn.models.alexnet import alexnet_tower

_Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TowerOptions:
    """What a worker needs to know to build any tower of a network.

    Attributes
    ----------
    towers : int or str
        See :func:`refconv.nn.models.alexnet.tower_sizes`.
    options : dict
        `c_in`, `classes`, `side`, `width` and `dtype` of :func:`refconv.nn.alexnet`.
    backend, engine : str
        Array module and engine that compute.
    whole : bool
        Whether to keep all weights whole numbers: see :mod:`refconv.distributed.whole`.
    """

    towers: int | str
    options: dict[str, Any]
    backend: str = "numpy"
    engine: str = "fast"
    whole: bool = False


class Worked(NamedTuple):
    """A time during which a tower computed."""

    what: str
    """forward, backward or step."""
    segment: int
    start: float
    """Seconds since the epoch, as the worker's clock shows them."""
    stop: float


@dataclass
class _Tower:
    options: TowerOptions
    segments: list[Sequential]
    optimiser: SGD
    own_gradient: Array = None
    log: deque[Worked] = field(default_factory=lambda: deque(maxlen=1000))

    @property
    def like(self) -> Array:
        return self.optimiser.parameters[0].value

    def shares(self) -> Iterator[DropoutShare]:
        for segment in self.segments:
            yield from (layer for layer in segment.children().values() if isinstance(layer, DropoutShare))


_towers: dict[tuple[str, int], _Tower] = {}
"""The towers on this worker, by network and number."""


class TowerMissingError(Exception):
    """The worker has no such tower: it is a new process with the address of one that ended."""

    def __init__(self, tower: int) -> None:
        super().__init__(tower)
        self.tower = tower


def _tower(key: tuple[str, int]) -> _Tower:
    if key not in _towers:
        raise TowerMissingError(key[1])
    return _towers[key]


@contextlib.contextmanager
def _working(key: tuple[str, int], what: str = "", segment: int = 0) -> Iterator[_Tower]:
    """Compute with a tower, in as many threads as the worker gives to a task, and note the time."""
    tower, start = _tower(key), time.time()
    with refconv.set_engine(tower.options.engine), refconv.set_workers(1):
        yield tower
    if what:
        tower.log.append(Worked(what, segment, start, time.time()))


def build(key: tuple[str, int], options: TowerOptions, state: Mapping[str, _Array]) -> int:
    """Build a tower with these weights, and return its number of parameters."""
    xp = refconv.load_backend(options.backend)
    segments = alexnet_tower(options.towers, key[1], rng=np.random.default_rng(0), xp=xp, **options.options)
    if options.whole:
        for segment in segments:
            no_normalisation(segment)
    parameters = [parameter for segment in segments for parameter in segment.parameters()]
    _towers[key] = _Tower(options, segments, SGD(parameters, lr=1.0))
    load(key, state)
    return sum(parameter.value.size for parameter in parameters)


def load(key: tuple[str, int], state: Mapping[str, _Array]) -> None:
    """Replace the weights by these, by segment and path: "0.conv1.weight"."""
    for s, segment in enumerate(_tower(key).segments):
        prefix = f"{s}."
        segment.load_state({path.removeprefix(prefix): a for path, a in state.items() if path.startswith(prefix)})


def weights(key: tuple[str, int], _: Any) -> dict[str, _Array]:
    """Return the weights, by segment and path."""
    return {
        f"{s}.{path}": to_numpy(array)
        for s, segment in enumerate(_tower(key).segments)
        for path, array in segment.state().items()
    }


def load_velocities(key: tuple[str, int], state: Mapping[str, _Array]) -> None:
    """Replace the optimiser's velocities by these, by segment and path."""
    tower = _tower(key)
    tower.optimiser.load_state({f"velocity.{i}": state[path] for i, path in enumerate(_paths(tower))})


def velocities(key: tuple[str, int], _: Any) -> dict[str, _Array]:
    """Return the optimiser's velocities, by segment and path."""
    tower = _tower(key)
    return dict(zip(_paths(tower), map(to_numpy, tower.optimiser.velocities), strict=True))


def _paths(tower: _Tower) -> list[str]:
    return [f"{s}.{path}" for s, segment in enumerate(tower.segments) for path, _ in segment.named_parameters()]


def forward(
    key: tuple[str, int], s: int, pieces: Sequence[_Array], training: bool, keys: Sequence[int], _: Any
) -> _Array:
    """Return the tower's outputs of segment s from the outputs of all towers of the segment before.

    `keys` are the keys of the dropout layers; the last argument is a task that must end before.
    """
    with _working(key, "forward", s) as tower:
        if s == 0:
            for segment in tower.segments:
                segment.train() if training else segment.eval()
            for share, number in zip(tower.shares(), keys, strict=training):
                share.key = number
        x = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)
        return to_numpy(tower.segments[s].forward(moved(x, tower.like)))


def backward(key: tuple[str, int], s: int, parts: Sequence[Any], sizes: Sequence[int]) -> Any:
    """Return what each other tower needs of the gradient of the outputs of segment s − 1.

    `parts` are the gradients of this tower's outputs of segment s from every tower, in order; or, of the last segment,
    from the loss. The tower's own never left it: its part is the result of its previous task, which must have ended.
    `sizes` are the channels of each tower before segment s; empty for the image, whose gradient is not needed. With one
    other tower, its array is returned, otherwise a list of arrays.
    """
    with _working(key, "backward", s) as tower:
        own, total = tower.own_gradient, None
        for t, part in enumerate(parts):
            grad = moved(part, tower.like) if own is None or t != key[1] else own
            total = grad if total is None else total + grad
        own = tower.own_gradient = None
        grad = tower.segments[s].backward(total)
        handed, stop = [], 0
        for t, size in enumerate(sizes):
            share, stop = grad[:, stop : stop + size, ...], stop + size
            if t == key[1]:
                tower.own_gradient = share
            else:
                handed.append(np.ascontiguousarray(to_numpy(share)))
        return handed[0] if len(handed) == 1 else handed


def step(key: tuple[str, int], lr: float, momentum: float, weight_decay: float, _: Any) -> None:
    """Take the optimiser's step."""
    with _working(key, "step") as tower:
        optimiser = tower.optimiser
        optimiser.lr, optimiser.momentum, optimiser.weight_decay = lr, momentum, weight_decay
        optimiser.step()
        if tower.options.whole:
            sparse_whole(optimiser.parameters)


def change_lr(key: tuple[str, int], old: float, new: float, _: Any) -> None:
    """Scale the velocities to another learning rate."""
    with _working(key) as tower:
        tower.optimiser.lr = old
        tower.optimiser.change_lr(new)


def forget(key: tuple[str, int], _: Any) -> None:
    """Discard what the layers kept for a backward pass."""
    for segment in _tower(key).segments:
        segment.forget()


def drop(network: str) -> None:
    """Remove the towers of a network from this worker."""
    for key in [key for key in _towers if key[0] == network]:
        del _towers[key]


def take_log(network: str) -> dict[int, list[Worked]]:
    """Return when the towers on this worker computed since the last call, by tower."""
    found = {}
    for (name, t), tower in _towers.items():
        if name == network:
            found[t] = list(tower.log)
            tower.log.clear()
    return found
