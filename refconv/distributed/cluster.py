"""A Dask cluster for the commands: worker processes on this machine, or a scheduler that is already running."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

import refconv
from refconv.integers import as_bytes, as_int, shown
from refconv.packages import check_packages

if TYPE_CHECKING:
    from distributed import Client

SECONDS_TO_CONNECT = 10

SECONDS_TO_RESTART = 30
"""How long new processes may take to replace those that ended while the cluster started."""

SECONDS_BETWEEN_LOOKS = 0.3
"""While a result is awaited, how often the cluster is asked whether the workers are still there."""

SECONDS_UNTIL_NOTICED = 3
"""How long after a broken connection the scheduler knows that a worker ended."""

SMALLEST_LIMIT = 2**20
"""Dask reads 1 byte as all memory. No Python process fits this limit."""

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


def open_cluster(
    workers: int | None = None, scheduler: str | None = None, *, memory_limit: str | int | None = None
) -> contextlib.AbstractContextManager[Client]:
    """Open a client of a Dask cluster, and close it and everything it started at the end of the ``with`` block.

    The call itself only checks the arguments.

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

    Returns
    -------
    context manager of distributed.Client

    Raises
    ------
    ClusterError
        At the beginning of the block, if the scheduler cannot be reached, has no workers, or a worker has another
        version of refconv; or if a process ends while the cluster starts.
    ValueError, TypeError
        If an argument is wrong, or not exactly one of `workers` and `scheduler` is given.
    refconv.packages.MissingPackagesError
        If Dask is missing.
    """
    check_packages("a cluster needs", {"distributed": "distributed"}, extra="distributed")
    if memory_limit is not None and workers is None:
        raise ValueError("memory_limit needs workers: a running scheduler's workers have their own limits")
    if (workers is None) == (scheduler is None):
        raise ValueError("workers or scheduler must be given, and not both")
    if scheduler is not None:
        if not isinstance(scheduler, str) or not scheduler:
            raise ValueError(f"scheduler must be an address such as tcp://10.0.0.1:8786; got {shown(scheduler)}")
        return _connected(scheduler)
    limit = 0 if memory_limit is None else as_bytes(memory_limit, "memory_limit", SMALLEST_LIMIT)
    return _started(as_int(workers, "workers", 1), limit)


@contextlib.contextmanager
def _started(workers: int, limit: int) -> Iterator[Client]:
    import dask
    from distributed import Client, LocalCluster

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
                    preload=["refconv.distributed.local"],
                    silence_logs=logging.CRITICAL,
                )
                opened.enter_context(cluster)
            client = opened.enter_context(Client(cluster, direct_to_workers=True))
            client.wait_for_workers(workers, timeout=SECONDS_TO_RESTART)
        except (OSError, RuntimeError) as error:
            small = f": a memory limit of {limit / 2**20:,.0f} MiB may be too small" if limit else ""
            raise ClusterError(f"a worker ended while the cluster started{small}") from error
        _check_versions(client)
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
        _check_scheduler(address)
        try:
            client = Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, ImportError) as error:
            raise _unreachable(address, error) from error
        with client:
            try:
                client.wait_for_workers(1, timeout=SECONDS_TO_CONNECT)
            except TimeoutError as error:
                raise ClusterError(f"the scheduler at {address} has no workers: start dask worker {address}") from error
            _check_versions(client)
            yield client


def _check_scheduler(address: str) -> None:
    """Raise ClusterError unless a Dask scheduler answers. Dask's client would wait for any other server for ever."""
    from distributed.core import rpc
    from distributed.security import Security
    from distributed.utils import LoopRunner, sync

    async def kind() -> str:
        certificates = Security().get_connection_args("client")
        async with rpc(address, timeout=SECONDS_TO_CONNECT, connection_args=certificates) as server:
            return str((await server.identity())["type"])

    loop = LoopRunner()
    loop.start()
    try:
        found = sync(loop.loop, kind, callback_timeout=1.5 * SECONDS_TO_CONNECT)
    except TimeoutError as error:
        raise ClusterError(f"no Dask scheduler answers at {address}") from error
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise _unreachable(address, error) from error
    finally:
        loop.stop()
    if found != "Scheduler":
        raise ClusterError(f"no Dask scheduler is at {address}, but a {found.lower()}")


def _unreachable(address: str, error: BaseException | None) -> ClusterError:
    """Return the error that names the first cause that has words."""
    reason = type(error).__name__
    while error is not None:
        reason = getattr(error, "strerror", None) or str(error) or reason
        error = error.__cause__
    return ClusterError(f"no Dask scheduler can be reached at {address}: {reason.splitlines()[0]}")


def addresses(client: Client) -> list[str]:
    """Return the addresses of the workers, in a fixed order."""
    return sorted(client.scheduler_info(n_workers=-1)["workers"])


def watched(
    client: Client,
    workers: Iterable[str],
    lost: Callable[[str], Exception],
    function: Callable[..., Any],
    /,
    *arguments: Any,
    **options: Any,
) -> Any:
    """Call a method of the client; raise an error if a worker ends, for which Dask itself might wait for ever.

    Parameters
    ----------
    client : distributed.Client
    workers : iterable of str
        The addresses that must stay.
    lost : callable (str) -> Exception
        Returns the error for an address; for an empty string, that for a scheduler that does not answer.
    function : callable
        The method, called with the other arguments.

    Raises
    ------
    ClusterError
        If a connection broke although all workers are there.
    """

    async def look() -> None:
        scheduler: Any = client.scheduler
        try:
            present = await asyncio.wait_for(scheduler.ncores(), SECONDS_TO_CONNECT)
        except OSError as error:
            raise lost("") from error
        for worker in workers:
            if worker not in present:
                raise lost(worker)

    async def call() -> Any:
        called = asyncio.ensure_future(function(*arguments, asynchronous=True, **options))
        try:
            while True:
                await asyncio.wait({called}, timeout=SECONDS_BETWEEN_LOOKS)
                error = _error(called) if called.done() else None
                if called.done() and error is None:
                    return called.result()
                await look()
                if isinstance(error, OSError | asyncio.CancelledError):
                    await asyncio.sleep(SECONDS_UNTIL_NOTICED)  # a connection broke: the scheduler may not know yet
                    await look()
                    raise ClusterError(
                        f"a connection in the cluster broke: {str(error) or type(error).__name__}"
                    ) from error
                if error is not None:
                    raise error
        finally:
            called.cancel()

    return client.sync(call)


def _error(call: asyncio.Future[Any]) -> BaseException | None:
    """Return the error with which a call ended; a cancellation is an error too."""
    try:
        return call.exception()
    except asyncio.CancelledError as error:
        return error


def run_on_all(client: Client, function: Callable[[], Any]) -> dict[str, Any]:
    """Return what a function returns on each worker; raise ClusterError if a worker has just ended."""

    def lost(worker: str) -> ClusterError:
        return ClusterError(f"worker {worker} has just ended" if worker else "the scheduler does not answer")

    workers = addresses(client)
    return dict(watched(client, workers, lost, client.run, function, workers=workers))


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
