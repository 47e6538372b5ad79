"""``refconv check``: check a convolution, or a folder of convolutions."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from refconv.cli.options import (
    PATH,
    backend_name,
    backend_option,
    destination,
    engine_option,
    json_option,
    load_backend,
    words,
)
from refconv.cli.signals import working

if TYPE_CHECKING:
    from refconv.testing.grader.folder import Row


def _bytes(context: click.Context, _: click.Parameter, text: str | None) -> int | None:
    """Return the bytes of a size such as 1.5GiB."""
    from refconv.integers import as_bytes

    try:
        return None if text is None else as_bytes(text, "memory_limit")
    except ValueError as error:
        raise click.UsageError(str(error), context) from error


@click.command("check")
@click.argument("target", metavar="MODULE:FUNCTION|DIR")
@click.option(
    "--backward",
    metavar="MODULE:FUNCTION",
    help="The backward pass; without it only forward is checked. With DIR: the function's name, which every submission "
    "must define. Default with DIR: backward, where it is defined.",
)
@click.option("--forward", metavar="NAME", help="With DIR: name of the forward function. Default: forward.")
@click.option(
    "--spatial-dims",
    type=click.IntRange(1, 6),
    default=2,
    show_default=True,
    metavar="D",
    help="Number of spatial axes.",
)
@click.option(
    "--supports",
    default="bias,stride,padding,dilation,groups",
    show_default=True,
    metavar="A,B,…",
    help="Supported arguments; also asymmetric_padding, output_padding with --transposed, causal with "
    "--spatial-dims 1, and words that narrow these.",
)
@click.option(
    "--backward-needs",
    multiple=True,
    metavar="A,B,…",
    help="Also ask the backward pass for these gradients only, by needs=: some of x, weight, bias. May be repeated.",
)
@click.option("--dtype", default="float32", show_default=True, metavar="NAME", help="Data type of all arrays.")
@click.option("--output-dtype", metavar="NAME", help="Data type of the output, if wider: int32 for int8 operands.")
@click.option("--transposed", is_flag=True, help="The functions are a transposed convolution.")
@click.option(
    "--cases",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    metavar="N",
    help="Random problems, in addition to those for layers and sizes.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed for all randomness.")
@click.option(
    "--time-limit",
    type=float,
    default=10.0,
    show_default=True,
    metavar="S",
    help="Seconds after which a call counts as hanging.",
)
@click.option(
    "--total-time-limit",
    type=float,
    metavar="S",
    help="Seconds for one whole check. Default: 600 with DIR, otherwise none.",
)
@click.option(
    "--memory-limit",
    callback=_bytes,
    metavar="SIZE",
    help="Memory of the checked code, such as 500MiB, beyond that of Python and NumPy; on Linux only. Default there: "
    "4GiB.",
)
@click.option(
    "--jobs", type=click.IntRange(1), metavar="N", help="With DIR: submissions at a time. Default: one per core."
)
@click.option(
    "--csv",
    "csv_file",
    type=PATH,
    callback=destination,
    metavar="FILE",
    help="With DIR: also write the table to a CSV file.",
)
@backend_option
@engine_option
@json_option
def command(
    target: str,
    backward: str | None,
    forward: str | None,
    spatial_dims: int,
    supports: str,
    backward_needs: tuple[str, ...],
    dtype: str,
    output_dtype: str | None,
    transposed: bool,
    cases: int,
    seed: int,
    time_limit: float,
    total_time_limit: float | None,
    memory_limit: int | None,
    jobs: int | None,
    csv_file: Path | None,
    backend: str | None,
    as_json: bool,
) -> None:
    """Check a convolution, or a folder of them, and name the mistake.

    MODULE:FUNCTION (or FILE.py:FUNCTION) is called as forward(x, weight, bias, stride, padding, dilation, groups), the
    backward pass as backward(grad_output, x, weight, stride, padding, dilation, groups); with --backend they are given
    arrays of that module. Each check runs in a separate process. The exit code is 1 if a check failed.

    Every Python file of DIR is a submission, and so is every sub-folder with one that defines the function.

    \b
    refconv check mine.py:forward --backward mine.py:backward
    refconv check submissions --csv marks.csv
    """  # noqa: D301
    from rich.console import Console

    from refconv.progress import counting
    from refconv.settings import engine
    from refconv.testing.checker.targets import TargetError
    from refconv.testing.grader.parent import GraderError, Limits, can_limit_memory, grade

    load_backend(backend)
    if not target:
        raise click.UsageError("MODULE:FUNCTION|DIR must not be empty")
    folder = Path(target) if Path(target).is_dir() else None
    if folder is None:
        if ":" not in target:
            raise click.UsageError(f"{target!r} must be MODULE:FUNCTION, FILE.py:FUNCTION or a folder that exists")
        if backward_needs and backward is None:
            raise click.UsageError("--backward-needs also needs --backward")
        for option, value in (("--forward", forward), ("--jobs", jobs), ("--csv", csv_file)):
            if value is not None:
                raise click.UsageError(f"{option} is only for a folder, and {target} is not one")
    elif total_time_limit is None:
        total_time_limit = 600.0
    if memory_limit is None:
        memory_limit = 4 * 2**30 if can_limit_memory() else None
    elif not can_limit_memory():
        raise click.UsageError("--memory-limit works on Linux only")
    settings: dict[str, Any] = {
        "spatial_dims": spatial_dims, "supports": words(supports), "dtype": dtype, "transposed": transposed,
        "cases": cases, "seed": seed,
    }  # fmt: skip
    if output_dtype is not None:
        settings["output_dtype"] = output_dtype
    if backward_needs:
        settings["backward_needs"] = tuple(tuple(words(some)) for some in backward_needs)
    options: dict[str, Any] = {
        "settings": settings,
        "limits": Limits(time_limit, total_time_limit, memory_limit),
        "backend": backend_name(backend),
        "environment": {"REFCONV_ENGINE": engine()},
    }
    try:
        with working():
            if folder is not None:
                _check_folder(folder, forward or "forward", backward, jobs, csv_file, as_json, options)
            with counting(Console(stderr=True), "cases") as count:
                graded = grade(target, backward, progress=count, **options)
    except (GraderError, TargetError, TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    click.echo(graded.output, err=True, nl=False)
    click.echo(json.dumps(graded.report, indent=2) if as_json else graded.text)
    if not graded.passed:
        sys.exit(1)


def _check_folder(
    folder: Path,
    forward: str,
    backward: str | None,
    jobs: int | None,
    csv_file: Path | None,
    as_json: bool,
    options: dict[str, Any],
) -> NoReturn:
    """Grade a folder, print the table or the reports, and exit."""
    from rich.console import Console

    from refconv.files import replacing
    from refconv.progress import counting
    from refconv.settings import cores
    from refconv.testing.grader.folder import grade_folder, submissions, write_csv

    found = submissions(folder, forward)
    if not found:
        raise click.UsageError(f"there is no submission in {folder}: no Python file, and none in a sub-folder")
    jobs = min(jobs or cores(), len(found))
    threads = str(max(1, cores() // jobs))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        options["environment"].setdefault(name, os.environ.get(name, threads))
    rows = []
    with (
        counting(Console(stderr=True), "submissions") as count,
        contextlib.closing(grade_folder(found, forward=forward, backward=backward, jobs=jobs, **options)) as grading,
    ):
        count(0, len(found))
        for row in grading:
            rows.append(row)
            count(len(rows), len(found))
    rows.sort(key=lambda row: row.submission.name)
    passed = all(row.graded.passed for row in rows)
    if as_json:
        click.echo(json.dumps({"passed": passed, "submissions": [row.as_dict() for row in rows]}, indent=2))
    else:
        _print_rows(rows)
    if csv_file is not None:
        with replacing(csv_file) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            write_csv(rows, file)
    sys.exit(not passed)


def _print_rows(rows: Sequence[Row]) -> None:
    from refconv.tables import Column, print_table
    from refconv.testing.grader.folder import COLUMNS

    count = sum(row.graded.passed for row in rows)
    print_table(
        f"{count} of {len(rows)} submissions passed",
        [Column(title, words=title != "seconds") for title in COLUMNS],
        [row.cells() for row in rows],
    )
