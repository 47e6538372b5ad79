"""Options of the commands that can use a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click

from refconv.packages import MissingPackagesError

if TYPE_CHECKING:
    from distributed import Client

_WORKERS = click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Start N processes of one thread each on this machine, which listen on 127.0.0.1 only. Needs the extra "
    "refconv[distributed].",
)
_SCHEDULER = click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Use the workers of a running Dask scheduler instead, such as tcp://10.0.0.1:8786.",
)
_MEMORY_LIMIT = click.option(
    "--memory-limit", metavar="SIZE", help="End a process of --workers that needs more memory, such as 1.5GiB."
)


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --workers, --scheduler and --memory-limit to a command."""
    return _WORKERS(_SCHEDULER(_MEMORY_LIMIT(command)))


def cluster_of(
    workers: int | None, scheduler: str | None, memory_limit: str | None, default: int | None = None
) -> AbstractContextManager[Client] | None:
    """Return what opens the cluster of these options, by default one of `default` workers; None without a cluster.

    Wrong options and a missing Dask are refused here, before any work.
    """
    from refconv.distributed import open_cluster

    if workers is not None and scheduler is not None:
        raise click.UsageError("--workers and --scheduler must not both be given")
    needing = "--workers" if workers is not None else "--scheduler" if scheduler is not None else "--towers"
    if workers is None and scheduler is None:
        workers = default
    if (workers, scheduler, memory_limit) == (None, None, None):
        return None
    try:
        return open_cluster(workers, scheduler, memory_limit=memory_limit)
    except MissingPackagesError as error:
        raise click.UsageError(str(error).replace("a cluster", needing, 1)) from error
    except ValueError as error:
        raise click.UsageError(str(error)) from error
