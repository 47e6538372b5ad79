"""Options of the commands that can use a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

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


def check_cluster(workers: int | None, scheduler: str | None, memory_limit: str | None) -> bool:
    """Return whether a cluster is wanted; refuse options that do not go together."""
    if workers is not None and scheduler is not None:
        raise click.UsageError("--workers and --scheduler must not both be given")
    if memory_limit is not None and workers is None:
        raise click.UsageError("--memory-limit needs --workers: a running scheduler's workers have their own limits")
    return workers is not None or scheduler is not None
