"""The trainings of a comparison, spread over the workers of a Dask cluster."""

from __future__ import annotations

import contextlib
import functools
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

import refconv
from refconv.distributed.cluster import SECONDS_TO_CONNECT
from refconv.experiments.tasks import CompareError, Task, train_one
from refconv.experiments.train import fingerprint
from refconv.nn import Split
from refconv.nn.data import load_dataset
from refconv.settings import engine

if TYPE_CHECKING:
    from distributed import Client

SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_WITHOUT_WORKERS = 30
"""How long a comparison waits for workers if all have ended: new processes may take their places."""


def rows_of_cluster(
    client: Client, tasks: list[Task], images: Mapping[str, str], stopping: Callable[[], bool]
) -> Generator[dict[str, Any]]:
    """Yield a line of the results for each training, in the order they end; stop early if `stopping` is true.

    If a worker ends, its training runs again on another. Every worker reads the data sets itself.

    Parameters
    ----------
    client : distributed.Client
    tasks : list
        The trainings.
    images : mapping of str to str
        The SHA-256 of each data set: see :func:`refconv.experiments.train.fingerprint`.
    stopping : callable () -> bool

    Raises
    ------
    CompareError
        If a training diverged or ended its worker four times, if a worker reads other images, or if no workers are
        left.
    """
    sweep = uuid.uuid4().hex[:8]
    waiting = {
        client.submit(
            _train, sweep, engine(), task, images[task[1].data], key=f"{sweep}-train-{number}", pure=False, retries=0
        ): task
        for number, task in enumerate(tasks)
    }
    missing_since = None
    try:
        while waiting and not stopping():
            time.sleep(SECONDS_BETWEEN_LOOKS)
            for future in [future for future in waiting if future.done()]:
                task = waiting.pop(future)
                if future.status != "finished":
                    raise _failure(task, future.exception() if future.status == "error" else None)
                row = future.result()
                assert row is not None  # it was not asked to stop
                yield row
            if _workers(client):
                missing_since = None
            elif missing_since is None:
                missing_since = time.monotonic()
            elif time.monotonic() - missing_since > SECONDS_WITHOUT_WORKERS:
                raise CompareError("the cluster has no workers left: --resume continues when it has some")
    finally:
        if waiting:
            with contextlib.suppress(OSError):  # a scheduler that is gone has nothing to stop
                client.run(_stop, sweep, on_error="ignore", callback_timeout=SECONDS_TO_CONNECT)
                client.cancel(list(waiting))


def _workers(client: Client) -> int:
    """Return how many workers there are."""
    scheduler: Any = client.scheduler
    try:
        return len(client.sync(scheduler.ncores, callback_timeout=SECONDS_TO_CONNECT))
    except OSError as error:
        raise CompareError("the scheduler does not answer any more: --resume continues with another") from error


def _failure(task: Task, error: BaseException | None) -> Exception:
    """Return the error for a training that did not end well."""
    from distributed import KilledWorker

    _, network, seed = task
    if isinstance(error, KilledWorker):
        return CompareError(
            f"{network.groups}, {network.budget:,} parameters, seed {seed} ended its worker "
            f"{error.allowed_failures + 1} times (was memory short?): --resume continues"
        )
    if isinstance(error, Exception):
        return error
    return CompareError("the scheduler ended: --resume continues with another")


_stopped: set[str] = set()
"""On a worker: the sweeps whose trainings must stop."""


def _stop(sweep: str) -> None:
    _stopped.add(sweep)


def _train(sweep: str, engine_name: str, task: Task, expected: str) -> dict[str, Any] | None:
    with refconv.set_engine(engine_name):
        return train_one(task, _data(task[1].data, expected), lambda: sweep in _stopped)


@functools.lru_cache(maxsize=4)
def _data(name: str, expected: str) -> Split:
    data = load_dataset(name)
    if fingerprint(data) != expected:
        raise CompareError(f"a worker reads other images as {name}: its files must be the same as here")
    return data
