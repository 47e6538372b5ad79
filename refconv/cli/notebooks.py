"""``refconv notebooks``: copy the notebooks."""

from __future__ import annotations

from pathlib import Path

import click

from refconv.cli.options import BAD_USAGE, PATH, destination, stop
from refconv.cli.signals import working


@click.command("notebooks")
@click.option("--to", required=True, type=PATH, callback=destination, metavar="DIR", help="Destination folder.")
@click.option("--solutions", is_flag=True, help="Write the notebooks with their exercises solved, without outputs.")
@click.option("--nbgrader", is_flag=True, help="Write a course folder for nbgrader, an assignment for each notebook.")
def command(to: Path, solutions: bool, nbgrader: bool) -> None:
    """Copy the notebooks that teach convolution into DIR.

    No file there is overwritten.

    \b
    refconv notebooks --to learning
    refconv notebooks --to learning --solutions
    refconv notebooks --to course --nbgrader
    """  # noqa: D301
    from refconv.notebooks import NotebookError, copy
    from refconv.notebooks.nbgrader import write

    if solutions and nbgrader:
        stop("choose one of --solutions and --nbgrader: a course for nbgrader contains the solutions", BAD_USAGE)
    try:
        with working():
            written = write(to) if nbgrader else copy(to, solved=solutions)
    except NotebookError as error:
        stop(str(error), BAD_USAGE)
    for path in written:
        click.echo(path)
