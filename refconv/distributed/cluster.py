"""A Dask cluster for the commands: worker processes on this machine, or a scheduler that is already running."""

from __future__ import annotations

import contextlib
import logging
import signal
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

import refconv
from refconv.integers import as_int
from refconv.nn.malloc import keep_memory
from refconv.packages import check_packages

if TYPE_CHECKING:
    from distributed import Client

PACKAGES = {"distributed": "distributed"}
"""The packages of the extra."""

SECONDS_TO_CONNECT = 10

_SETTINGS = {
    "distributed.worker.memory.target": False,  # a tower's arrays must stay in memory
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,  # a paused worker would only make the other towers wait
    "distributed.worker.memory.terminate": 1.0,
    "distributed.worker.profile.enabled": False,
    "distributed.comm.compression": None,
    "distributed.deploy.lost-worker-timeout": "1 day",  # else a process that restarts slowly is given up after 15 s
}


class ClusterError(Exception):
    """A cluster cannot be used; the message says why."""


@contextlib.contextmanager
def open_cluster(
    workers: int | None = None, scheduler: str | None = None, *, memory_limit: str | int | None = None
) -> Iterator[Client]:
    """Open a client of a Dask cluster, and close it and everything it started at the end of the block.

    Parameters
    ----------
    workers : int, optional
        Start this number of processes on this machine, which listen on 127.0.0.1 only. Each has one thread.
    scheduler : str, optional
        Instead, connect to this address, such as ``tcp://10.0.0.1:8786``. Dask's own configuration chooses certificates
        for ``tls://``. The workers need this version of refconv.
    memory_limit : str or int, optional
        Bytes, or a string such as "1.5GiB": a process that grows beyond it is ended. It needs `workers`, since the
        workers of a running scheduler have their own limits.

    Yields
    ------
    distributed.Client

    Raises
    ------
    ClusterError
        If the scheduler cannot be reached, has no workers, or a worker has another version of refconv.
    ValueError, TypeError
        If an argument is wrong, or not exactly one of `workers` and `scheduler` is given.
    refconv.packages.MissingPackagesError
        If Dask is missing.
    """
    check_packages("a cluster needs", PACKAGES)
    if (workers is None) == (scheduler is None):
        raise ValueError("workers or scheduler must be given, and not both")
    if scheduler is not None and memory_limit is not None:
        raise ValueError("memory_limit needs workers: a running scheduler's workers have their own limits")
    opening = _connected(scheduler) if scheduler is not None else _started(as_int(workers, "workers", 1), memory_limit)
    with opening as client:
        _check_versions(client)
        yield client


@contextlib.contextmanager
def _started(workers: int, memory_limit: str | int | None) -> Iterator[Client]:
    import dask
    from distributed import Client, LocalCluster

    limit = 0 if memory_limit is None else parse_bytes(memory_limit)
    with dask.config.set(_SETTINGS), _quiet(), contextlib.ExitStack() as opened:
        try:
            with _shielded():
                cluster = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",  # without one, its HTTP server would listen on every interface
                    scheduler_kwargs={"dashboard": False},
                    memory_limit=limit,
                    silence_logs=logging.CRITICAL,
                )
                opened.enter_context(cluster)
            client = opened.enter_context(Client(cluster, direct_to_workers=True))
            client.register_plugin(_own_process())
        except (OSError, RuntimeError) as error:
            small = f": a memory limit of {memory_limit} may be too small" if limit else ""
            raise ClusterError(f"a worker ended while the cluster started{small}") from error
        yield client


@contextlib.contextmanager
def _shielded() -> Iterator[None]:
    """Let Ctrl-C wait until the block's end. Threads and processes that it starts never receive Ctrl-C."""
    if not hasattr(signal, "pthread_sigmask"):  # not on Windows
        yield
        return
    resource_tracker.ensure_running()  # started later, in one of Dask's threads, it would undo the mask there
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Client]:
    from distributed import Client

    with _quiet():
        try:
            client = Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, ValueError, TypeError, ImportError) as error:
            reason = (str(error.__cause__ or "") or str(error) or type(error).__name__).splitlines()[0]
            raise ClusterError(f"no Dask scheduler can be reached at {address}: {reason}") from error
        with client:
            try:
                client.wait_for_workers(1, timeout=SECONDS_TO_CONNECT)
            except TimeoutError as error:
                raise ClusterError(f"the scheduler at {address} has no workers: start dask worker {address}") from error
            yield client


def parse_bytes(text: str | int) -> int:
    """Return a number of bytes from a word such as "1.5GiB".

    Raises
    ------
    ValueError
        If the word is not a positive number with an optional unit.

    Examples
    --------
    >>> from refconv.distributed.cluster import parse_bytes
    >>> parse_bytes("1.5GiB")
    1610612736
    """
    from dask.utils import parse_bytes as parse

    try:
        found = int(parse(text))
    except (ValueError, AttributeError) as error:
        raise ValueError(f"memory_limit must be a number of bytes such as 1.5GiB; got {text!r}") from error
    if found < 1:
        raise ValueError(f"memory_limit must be at least 1 byte; got {text!r}")
    return found


def addresses(client: Client) -> list[str]:
    """Return the addresses of the workers, in a fixed order."""
    return sorted(client.scheduler_info(n_workers=-1)["workers"])


def run_on_all(client: Client, function: Callable[[], Any]) -> dict[str, Any]:
    """Return what a function returns on each worker; raise ClusterError if a worker has just ended."""
    try:
        return dict(client.run(function))
    except OSError as error:
        raise ClusterError("a worker has just ended") from error


def _check_versions(client: Client) -> None:
    try:
        versions = run_on_all(client, _version)
    except (ImportError, AttributeError) as error:
        raise ClusterError(f"refconv is missing on a worker, or is an older version there: {error}") from error
    for address, version in versions.items():
        if version != refconv.__version__:
            raise ClusterError(f"worker {address} has refconv {version}; this process has {refconv.__version__}")


def _version() -> str:
    return refconv.__version__


def _own_process() -> Any:
    """Return a plugin for workers that this process started.

    They ignore Ctrl-C on the terminal, which this process receives too, and ends them. They keep the memory of freed
    arrays for the next step.
    """
    from distributed import WorkerPlugin

    class OwnProcess(WorkerPlugin):
        def setup(self, worker: Any) -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            warnings.simplefilter("ignore", RuntimeWarning)  # overflow in a training that diverges, which is an error
            keep_memory()

    return OwnProcess()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's log off the terminal: an error of ours reports lost workers and memory."""
    loggers = [logging.getLogger(name) for name in ("distributed", "asyncio", "tornado")]
    logging.getLogger("asyncio").addFilter(_is_worth_showing)  # stays: Python logs unread errors when it exits
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _is_worth_showing(record: logging.LogRecord) -> bool:
    """Return false for the error that ends Dask's own waiting for a result when a client closes."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ != "AllExit"
