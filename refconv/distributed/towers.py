"""AlexNet's towers on the workers of a Dask cluster, as one layer and one optimiser for the training process."""

from __future__ import annotations

import contextlib
import functools
import operator
import uuid
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from refconv.arrays import Array, load_backend
from refconv.distributed import tower as remote
from refconv.distributed.cluster import SECONDS_TO_CONNECT, ClusterError, addresses, watched
from refconv.distributed.tower import TowerOptions, Worked
from refconv.distributed.whole import begin_whole
from refconv.integers import as_float
from refconv.nn.base import Layer, Parameter, adopted, check_batched, checked_state
from refconv.nn.dropout import draw_key
from refconv.nn.models.alexnet import alexnet, joined_state, tower_sizes, tower_state
from refconv.nn.optim import SGD, Optimiser
from refconv.settings import engine

if TYPE_CHECKING:
    from distributed import Client, Future

_CROSSING = ("conv2", "conv5", "fc6", "fc7", "fc8")
"""The last layer with weights of each segment, whose outputs cross."""


class TowerLostError(Exception):
    """A worker ended, and with it the towers on it; or the scheduler does not answer.

    Attributes
    ----------
    towers : tuple of int
        The towers that were lost.
    worker : str
        Address of their worker; empty if the scheduler does not answer.
    """

    def __init__(self, towers: Sequence[int], worker: str, reason: str = "") -> None:
        names = f"tower {towers[0]}" if len(towers) == 1 else f"towers {', '.join(map(str, towers))}"
        ended = f"the worker of {names}, {worker}, ended{reason}"
        super().__init__(ended if worker else f"the Dask scheduler of {names} does not answer")
        self.towers, self.worker = tuple(towers), worker


class Transfer(NamedTuple):
    """An array that a worker received."""

    what: str
    """outputs or gradient."""
    after: int
    """The segment whose outputs, or whose outputs' gradient, the array contains."""
    bytes: int
    start: float
    """Seconds since the epoch, as the worker's clock shows them."""
    stop: float
    key: str


class RemoteTowers(Layer):
    """AlexNet on a Dask cluster: each tower's layers stay on one worker, and activations move between the workers.

    It computes the same as ``alexnet(towers)`` in one process: bit for bit on whole numbers, otherwise to rounding. Its
    state and the state of its optimiser have the same paths, so checkpoints fit both. The values of its parameters here
    are placeholders with the right shapes and data types; `state` fetches the numbers.

    This process sends images and the gradient of the logits, and receives logits. Outputs and their gradients go from
    worker to worker.

    Parameters
    ----------
    client : distributed.Client
        See :func:`refconv.distributed.open_cluster`.
    towers : int or str
        The groups, one tower per group: N, "uniform:N" or "log:N". If there are fewer workers than towers, each
        tower goes to the worker with the least work, the largest tower first.
    dropout_rng, rng
        As for :func:`refconv.nn.alexnet`, which draws the same weights and drops the same elements.
    backend : str
        Array module of the workers.
    whole : bool
        Whether to keep all weights whole numbers: see :mod:`refconv.distributed.whole`.
    predicted : sequence of int, optional
        Bytes that each tower is predicted to need, for the error when a worker exceeds its limit.
    **options
        `c_in`, `classes`, `side`, `width` and `dtype` of :func:`refconv.nn.alexnet`.

    Attributes
    ----------
    workers : tuple of str
        The address of each tower's worker.
    parameter_counts : tuple of int
        The number of parameters of each tower.

    Raises
    ------
    TowerLostError
        By every method, if a worker ended.
    ClusterError
        If the cluster has no workers.
    """

    def __init__(
        self,
        client: Client,
        towers: int | str = 2,
        *,
        dropout_rng: np.random.Generator,
        rng: np.random.Generator,
        backend: str = "numpy",
        whole: bool = False,
        predicted: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        xp = load_backend("numpy")  # REFCONV_BACKEND is for the workers
        model = alexnet(towers, xp=xp, dropout_rng=dropout_rng, rng=rng, **options)
        if whole:
            begin_whole(model)
        state = model.state()
        self._client, self._towers, self._rng = client, towers, dropout_rng
        self._parameters = [
            Parameter(path, np.broadcast_to(p.value.dtype.type(0), p.value.shape))
            for path, p in model.named_parameters()
        ]
        self._sizes = [tower_sizes(towers, state[f"{layer}.bias"].shape[0]) for layer in _CROSSING]
        self.count, self._network, self._number = len(self._sizes[0]), uuid.uuid4().hex[:8], count()
        if not (workers := addresses(client)):
            raise ClusterError("the cluster has no workers")
        self.workers = placed(self._sizes[0], workers)
        self._watched = functools.partial(watched, client, dict.fromkeys(self.workers), self._lost)
        self._limits = _limits(client)
        self._predicted = predicted
        self._after: list[Any] = [None] * self.count
        self._sent: list[Any] = []
        self._seen: set[str] = set()
        del model
        given = TowerOptions(towers, options, backend, engine(), whole)
        self.parameter_counts = tuple(self._get(self._load(remote.build, state, given)))

    # --- A layer --------------------------------------------------------------------------------------------------

    def parameters(self) -> list[Parameter]:
        """Return placeholders of the parameters, with the paths of the network in one process."""
        return self._parameters

    def forward(self, x: Array) -> Array:
        """Return the logits (N, classes) of images (N, c_in, side, side)."""
        x = np.ascontiguousarray(adopted(self, x))
        check_batched(self, x, 4)
        keys = [draw_key(self._rng) for _ in ("drop6", "drop7")] if self.training else []
        images = {worker: self._send(x, worker) for worker in dict.fromkeys(self.workers)}
        pieces: list[Any] = []
        for s in range(len(self._sizes)):
            pieces = [
                self._task(
                    remote.forward, t, s, pieces or [images[worker]], self.training, keys, None if s else after, at=s
                )
                for t, (worker, after) in enumerate(zip(self.workers, self._after, strict=True))
            ]
        logits = np.concatenate(self._get(pieces), axis=1)
        return self._keep(logits)

    def backward(self, grad_output: Array) -> None:
        """Begin the backward pass on the workers. The gradient of the images is computed there and not sent."""
        self._recall(grad_output)
        ends = np.cumsum(self._sizes[-1])[:-1]
        parts = [
            [self._send(np.ascontiguousarray(part), worker)]
            for part, worker in zip(np.split(grad_output, ends, axis=1), self.workers, strict=True)
        ]
        self._sent = [part for (part,) in parts]
        for s in reversed(range(len(self._sizes))):
            sizes = self._sizes[s - 1] if s else ()
            done = [self._task(remote.backward, t, s, parts[t], sizes, at=s) for t in range(self.count)]
            self._after = done
            if s:
                parts = [[self._handed(done[u], u, t, s) for u in range(self.count)] for t in range(self.count)]

    def _handed(self, done: Future[Any], sender: int, receiver: int, s: int) -> Future[Any]:
        """Return what tower `sender` hands to tower `receiver` of its result; its own part stays there."""
        if sender == receiver or self.count == 2:
            return done
        index = receiver - (receiver > sender)
        return self._submit(operator.getitem, done, index, worker=self.workers[sender], name=f"part-{s}")

    def forget(self) -> None:
        """Let the workers discard what their layers kept, if no :meth:`backward` will follow."""
        self._saved = None
        self._chain(remote.forget)

    def state(self) -> dict[str, Array]:
        """Return every array that training changes, fetched from the workers, by its path in one process."""
        return self._fetch(remote.weights)

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Replace every array of :meth:`state`, on the workers."""
        self._replace(remote.load, checked_state("model", self._placeholders(), state))

    # --- The optimiser's side -------------------------------------------------------------------------------------

    def step(self, lr: float, momentum: float, weight_decay: float) -> None:
        """Begin the optimiser's step on the workers."""
        self._chain(remote.step, lr, momentum, weight_decay)

    def change_lr(self, old: float, new: float) -> None:
        """Let the workers scale their velocities to another learning rate."""
        self._chain(remote.change_lr, old, new)

    def velocities(self) -> dict[str, Array]:
        """Return the velocity of each parameter, fetched from the workers, by the parameter's path."""
        return self._fetch(remote.velocities)

    def load_velocities(self, state: Mapping[str, Array]) -> None:
        """Replace the velocity of each parameter, on the workers."""
        self._replace(remote.load_velocities, checked_state("optimiser", self._placeholders(), state))

    # --- What happened on the workers -----------------------------------------------------------------------------

    def wait(self) -> None:
        """Wait until the workers have done everything."""
        self._get([done for done in self._after if done is not None])

    def worked(self) -> list[list[Worked]]:
        """Return when each tower computed, since the last call; at most the latest 1,000 times."""
        self.wait()
        found: dict[int, list[Worked]] = {}
        for towers in self.run(remote.take_log, self._network).values():
            found |= towers
        for t, worker in enumerate(self.workers):
            if t not in found:
                raise self._lost(worker)
        return [found[t] for t in range(self.count)]

    def received(self) -> dict[str, list[Transfer]]:
        """Return the arrays that each worker received from other workers since the last call, by Dask's own log."""
        logs = self.run(_transfers, self._network)
        new = {
            worker: [transfer for transfer in logs[worker] if transfer.key not in self._seen]
            for worker in dict.fromkeys(self.workers)
        }
        self._seen = {transfer.key for log in logs.values() for transfer in log}
        return new

    def run(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Call a function on the towers' workers, immediately; return its result on each worker."""
        workers = list(dict.fromkeys(self.workers))
        found: dict[str, Any] = self._watched(self._client.run, function, *arguments, workers=workers)
        return found

    def close(self) -> None:
        """Remove the towers from the workers."""
        self._after, self._sent = [None] * self.count, []
        with contextlib.suppress(Exception):  # a worker that is gone has nothing to remove
            self._client.run(remote.drop, self._network, on_error="ignore", callback_timeout=SECONDS_TO_CONNECT)

    def __enter__(self) -> RemoteTowers:
        """Return the towers; the block's end removes them from the workers."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- Tasks ----------------------------------------------------------------------------------------------------

    def _submit(self, function: Callable[..., Any], *arguments: Any, worker: str, name: str) -> Future[Any]:
        return self._client.submit(
            function,
            *arguments,
            key=f"{self._network}-{name}-{next(self._number)}",
            workers=[worker],
            allow_other_workers=False,
            pure=False,
            retries=0,
        )

    def _task(self, function: Callable[..., Any], t: int, *arguments: Any, at: int | str = "all") -> Future[Any]:
        name = f"{function.__name__}-{at}"
        return self._submit(function, (self._network, t), *arguments, worker=self.workers[t], name=name)

    def _send(self, value: Any, worker: str) -> Future[Any]:
        futures: list[Future[Any]] = self._watched(self._client.scatter, [value], workers=[worker], hash=False)
        return futures[0]

    def _chain(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Begin a task of each tower after its latest one."""
        self._after = [self._task(function, t, *arguments, after) for t, after in enumerate(self._after)]
        self._sent = []

    def _split(self, state: Mapping[str, Array]) -> list[dict[str, Array]]:
        """Return the state of each tower, by segment and path, from the state of the network in one process."""
        found: list[dict[str, Array]] = [{} for _ in range(self.count)]
        for path, array in tower_state(state, self._towers).items():
            s, t, rest = path.split(".", 2)
            found[int(t)][f"{s}.{rest}"] = array
        return found

    def _load(self, function: Callable[..., Any], state: Mapping[str, Array], *arguments: Any) -> list[Future[Any]]:
        parts = [self._send(own, worker) for own, worker in zip(self._split(state), self.workers, strict=True)]
        return [self._task(function, t, *arguments, part) for t, part in enumerate(parts)]

    def _replace(self, function: Callable[..., Any], state: Mapping[str, Array]) -> None:
        self.wait()
        self._get(self._load(function, state))

    def _fetch(self, function: Callable[..., Any]) -> dict[str, Array]:
        fetched = self._get([self._task(function, t, after) for t, after in enumerate(self._after)])
        split = {}
        for t, own in enumerate(fetched):
            for path, array in own.items():
                s, _, rest = path.partition(".")
                split[f"{s}.{t}.{rest}"] = array
        joined = joined_state(split, self._towers)
        return {parameter.name: joined[parameter.name] for parameter in self._parameters}

    def _placeholders(self) -> dict[str, Array]:
        return {parameter.name: parameter.value for parameter in self._parameters}

    def _get(self, futures: Sequence[Future[Any]]) -> list[Any]:
        """Return results."""
        try:
            return list(self._watched(self._client.gather, list(futures)))
        except remote.TowerMissingError as error:
            raise self._lost(self.workers[error.tower]) from error

    def _lost(self, worker: str) -> TowerLostError:
        """Return the error for a worker that is gone; for an empty address, that for the scheduler."""
        if not worker:
            return TowerLostError(range(self.count), "")
        lost = [t for t, address in enumerate(self.workers) if address == worker]
        return TowerLostError(lost, worker, self._reason(lost, self._limits.get(worker, 0)))

    def _reason(self, towers: Sequence[int], limit: int) -> str:
        if not limit:
            return ""
        gib = f"{limit / 2**30:.2f} GiB"
        if self._predicted is None:
            return f"; its memory limit is {gib}"
        needed = sum(self._predicted[t] for t in towers)
        return f"; its memory limit is {gib}, and {needed / 2**30:.2f} GiB are predicted for its towers"


class RemoteSGD(Optimiser):
    """The optimiser of :class:`RemoteTowers`: :class:`refconv.nn.SGD` on each worker.

    Parameters
    ----------
    towers : RemoteTowers
        The network.
    lr, momentum, weight_decay
        As for :class:`refconv.nn.SGD`.
    """

    _memory: ClassVar[dict[str, str]] = {}

    def __init__(self, towers: RemoteTowers, lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(towers.parameters(), lr)
        self.towers = towers
        self.momentum = as_float(momentum, "momentum", 0, 1)
        self.weight_decay = as_float(weight_decay, "weight_decay", 0)

    def change_lr(self, lr: float) -> None:
        """Change the learning rate, and let the workers scale the velocities."""
        old = self.lr
        super().change_lr(lr)
        if self.lr != old:
            self.towers.change_lr(old, self.lr)

    def step(self) -> None:
        """Begin the step on the workers."""
        self.towers.step(self.lr, self.momentum, self.weight_decay)

    def state(self) -> dict[str, Array]:
        """Return the velocities, fetched from the workers, by their names in one process: ``"velocity.0"``."""
        found = self.towers.velocities()
        return {f"velocity.{i}": found[parameter.name] for i, parameter in enumerate(self.parameters)}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Replace the velocities, on the workers."""
        placeholders = {f"velocity.{i}": parameter.value for i, parameter in enumerate(self.parameters)}
        checked = checked_state("optimiser", placeholders, state)
        self.towers.load_velocities(
            {parameter.name: checked[f"velocity.{i}"] for i, parameter in enumerate(self.parameters)}
        )

    _rule = SGD._rule  # the workers apply it


def placed(sizes: Sequence[int], workers: Sequence[str]) -> tuple[str, ...]:
    """Return a worker for each tower: the largest tower first, each on the worker with the least so far.

    Examples
    --------
    >>> from refconv.distributed.towers import placed
    >>> placed([128, 64, 64], ["a", "b"]), placed([64, 64, 64, 64], ["a", "b"])
    (('a', 'b', 'b'), ('a', 'b', 'a', 'b'))
    """
    load, found = dict.fromkeys(workers, 0), {}
    for t in sorted(range(len(sizes)), key=lambda t: -sizes[t]):
        found[t] = min(load, key=load.__getitem__)
        load[found[t]] += sizes[t]
    return tuple(found[t] for t in range(len(sizes)))


def _limits(client: Client) -> dict[str, int]:
    """Return the memory limit of each worker; 0 for none."""
    info = client.scheduler_info(n_workers=-1)["workers"]
    return {address: int(worker.get("memory_limit") or 0) for address, worker in info.items()}


def _transfers(network: str, dask_worker: Any) -> list[Transfer]:
    """Return what this worker received for a network: Dask fills in `dask_worker`."""
    found = []
    for transfer in dask_worker.transfer_incoming_log:
        for key, size in transfer["keys"].items():
            words = str(key).split("-")
            if words[0] == network and words[1] in _PASSES:
                segment = int(words[2]) - (words[1] != "forward")
                found.append(
                    Transfer(_PASSES[words[1]], segment, size, transfer["start"], transfer["stop"], "-".join(words))
                )
    return found


_PASSES = {"forward": "outputs", "backward": "gradient", "part": "gradient"}
