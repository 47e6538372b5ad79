"""``refconv compare``: channel groups at equal numbers of parameters, seed by seed."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import click

from refconv.cli.cluster import cluster_of, cluster_options
from refconv.cli.options import (
    PATH,
    backend_name,
    backend_option,
    destination,
    engine_option,
    json_option,
    load_backend,
    stop,
    words,
)
from refconv.cli.signals import stopping
from refconv.cli.training import no_warnings


@click.command("compare")
@click.option(
    "--data",
    default="digits,textures",
    show_default=True,
    metavar="A,B,…",
    help="Data sets: digits, textures, photographs, cifar10:FOLDER (binary version) or folder:FOLDER.",
)
@click.option(
    "--groups",
    default="dense,uniform:2,uniform:4,log:3",
    show_default=True,
    metavar="A,B,…",
    help="dense, uniform:N or log:N; the others are compared with the first.",
)
@click.option(
    "--budgets",
    default="3600,7000,14000,24000",
    show_default=True,
    metavar="A,B,…",
    help="Numbers of parameters, which every grouping meets by its number of channels.",
)
@click.option(
    "--seeds", type=click.IntRange(2), default=10, show_default=True, metavar="N", help="Number of seeds, from 0."
)
@click.option(
    "--blocks",
    type=click.IntRange(1, 26),
    default=2,
    show_default=True,
    metavar="N",
    help="Residual modules per stage.",
)
@click.option("--epochs", type=click.IntRange(1), metavar="N", help="Passes through all images.")
@click.option("--batch-size", type=click.IntRange(1), metavar="N", help="Images per step.")
@click.option("--lr", type=float, metavar="X", help="Initial learning rate.")
@click.option(
    "--schedule",
    metavar="SPEC",
    help="How the rate falls: constant, cosine, or steps:A,B,… (divided by 10 after these parts of the training).",
)
@click.option(
    "--out",
    type=PATH,
    callback=destination,
    default=Path("refconv-compare"),
    show_default=True,
    metavar="DIR",
    help="Folder for results.jsonl, comparison.json, comparison.md and comparison.png.",
)
@click.option("--resume", is_flag=True, help="Resume from the results in --out; the other options must be the same.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 61),
    metavar="N",
    help="Trainings at a time; results do not depend on it. Default: one per core, or one if not on NumPy.",
)
@cluster_options
@backend_option
@engine_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    data: str,
    groups: str,
    budgets: str,
    seeds: int,
    blocks: int,
    out: Path,
    resume: bool,
    jobs: int | None,
    workers: int | None,
    scheduler: str | None,
    memory_limit: str | None,
    backend: str | None,
    as_json: bool,
    **recipe: Any,
) -> None:
    """Compare channel groups at equal numbers of parameters.

    A small residual network is trained with every grouping, budget and seed. The tables give mean and standard
    deviation over the seeds, and the mean difference from the first grouping with its 95 % interval: if it
    contains 0, there is no clear difference. Takes about ten minutes on two cores; an interruption costs only the
    trainings in progress.
    With --workers or --scheduler, a Dask cluster trains; a worker that ends costs only its training, which runs again.
    Needs the extra refconv[train]. Progress goes to standard error.

    \b
    refconv compare
    refconv compare --data digits --groups dense,log:4 --budgets 7000 --seeds 20 --out log4
    refconv compare --data digits --groups dense,log:4 --budgets 7000 --seeds 20 --out log4 --resume
    """  # noqa: D301
    from rich.console import Console

    from refconv.distributed import ClusterError
    from refconv.experiments.compare import InterruptedComparisonError, run_comparison
    from refconv.experiments.tasks import CompareError, CompareSettings
    from refconv.nn import Recipe
    from refconv.progress import ConsoleCompareObserver
    from refconv.settings import cores

    cluster = cluster_of(workers, scheduler, memory_limit)
    if cluster is not None and jobs is not None:
        raise click.UsageError("--jobs must not be given with --workers or --scheduler")
    load_backend(backend)
    module = backend_name(backend)
    try:
        settings = CompareSettings(
            data=words(data),
            groups=words(groups),
            budgets=[_number(word, "--budgets") for word in words(budgets)],
            seeds=seeds,
            blocks=blocks,
            backend=module,
            recipe=dataclasses.replace(Recipe(), **{n: v for n, v in recipe.items() if v is not None}),
        )
        with (
            stopping() as received,
            no_warnings(),
            ConsoleCompareObserver(Console(stderr=True)) as observer,
        ):
            result = run_comparison(
                settings,
                out,
                resume=resume,
                jobs=jobs or (min(cores(), 61) if module == "numpy" else 1),
                observer=observer,
                stopping=lambda: bool(received),
                cluster=cluster,
            )
    except InterruptedComparisonError as interruption:
        arguments = [a for a in context.obj if a != "--resume"]
        stop(f"{interruption}; to resume: {shlex.join(['refconv', *arguments, '--resume'])}", 128 + received[0])
    except (CompareError, ClusterError, ImportError, ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        _print_comparison(result)
        click.echo(out)


def _number(word: str, option: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) < 19):
        raise click.UsageError(f"{option} must be whole numbers, separated by commas; got {word!r}")
    return int(word)


def _print_comparison(result: dict[str, Any]) -> None:
    from refconv.experiments.tables import COLUMNS, caption, short_name, table_rows
    from refconv.tables import Column, print_table, print_text

    for name in result["data"]:
        columns = [Column(title, words=title in ("groups", "verdict")) for title in COLUMNS]
        title = f"{short_name(name)}: {caption(result)}"
        print_table(title, columns, table_rows(result, name), identifying=2, in_sections=True)
    for sentence in result["conclusion"]:
        print_text(sentence)
