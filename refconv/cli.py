"""The commands: they parse, call the library and print.

Exit codes: 0 good, 1 a check failed, 2 bad usage (also: a backend or package that is missing), 130 interrupted.
Known errors are one line on standard error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import refconv
from refconv.settings import ENGINES, engine

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from refconv.arrays import Namespace
    from refconv.cost import Cost
    from refconv.testing.grader.folder import Row

BAD_USAGE, INTERRUPTED = 2, 130


def _stop(message: str, code: int) -> NoReturn:
    click.echo(f"refconv: {message}", err=True)
    sys.exit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(refconv.__version__, prog_name="refconv")
def cli() -> None:
    """Run and check grouped convolution: to read, run and trust."""


_backend_option = click.option(
    "--backend",
    metavar="NAME",
    help="Array module: numpy, cupy, torch or array_api_strict. Default: $REFCONV_BACKEND, else numpy.",
)


def _use_engine(context: click.Context, option: click.Parameter, name: str | None) -> None:
    """Compute with the engine called `name` until the command ends."""
    context.with_resource(refconv.set_engine(name))
    try:
        engine()
    except ValueError as error:  # REFCONV_ENGINE has another name
        raise click.UsageError(str(error)) from error


_engine_option = click.option(
    "--engine",
    type=click.Choice(ENGINES),
    callback=_use_engine,
    expose_value=False,
    help="What computes NumPy arrays: textbook (refconv/textbook.py) or fast. Default: $REFCONV_ENGINE, else fast.",
)
_json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object on standard output, and nothing else there.",
)


def _load_backend(name: str | None) -> Namespace:
    try:
        return refconv.load_backend(name)
    except (ValueError, refconv.BackendError) as error:
        raise click.UsageError(str(error).replace("name=", "--backend ", 1)) from error


@cli.command()
@click.argument("model")
@click.option(
    "--groups",
    metavar="SPEC",
    help="N or uniform:N (N equal groups), dense, log:N (N logarithmic groups), or table (LeNet-5's connections). "
    "Default: as in the model's paper.",
)
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(1),
    multiple=True,
    default=(128,),
    show_default=True,
    metavar="N",
    help="Images per batch, for the memory of training; may be repeated.",
)
@click.option(
    "--measure", is_flag=True, help="Also run one training step of each batch, on NumPy, and measure its peak and time."
)
@_backend_option
@_engine_option
@_json_option
def cost(
    model: str, groups: str | None, batches: tuple[int, ...], measure: bool, backend: str | None, as_json: bool
) -> None:
    """Count the parameters, multiply-adds (MACs), activations and memory of MODEL, layer by layer.

    MODEL is alexnet, lenet5 or residual. Counting needs no arrays: --backend is only checked.

    \b
    refconv cost alexnet               the two groups of the paper
    refconv cost alexnet --groups 1    the same network without groups
    refconv cost alexnet --groups log:3 --json
    refconv cost alexnet --batch 32 --batch 128 --measure
    """  # noqa: D301
    from refconv.cost import model_cost
    from refconv.experiments.measure import MeasureError, measure_step

    _load_backend(backend)
    try:
        counted = model_cost(model, groups)
        report = counted.to_dict(batches)
        if measure:
            report["measured"] = [dataclasses.asdict(measure_step(model, batch, groups)) for batch in batches]
    except (ValueError, TypeError, MeasureError) as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        _print_cost(counted)
        _print_memory(report)


def _print_cost(counted: Cost) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{counted.model}, groups={counted.groups}, input {_shape(counted.input_shape)}",
        title_justify="left",
        box=box.SIMPLE,
        show_footer=True,
        pad_edge=False,
    )
    table.add_column("layer", "all")
    table.add_column("output", "", justify="right")
    table.add_column("parameters", f"{counted.parameters:,}", justify="right", no_wrap=True)
    table.add_column("MACs", f"{counted.macs:,}", justify="right", no_wrap=True)
    table.add_column("activations", f"{counted.activations:,}", justify="right", no_wrap=True)
    for layer in counted.layers:
        counts = (layer.parameters, layer.macs, layer.activations)
        table.add_row(layer.name, _shape(layer.output_shape), *(f"{count:,}" for count in counts))
    _print_table(table, Console(highlight=False))


def _print_table(table: Table, console: Console) -> None:
    """Print a complete table: a narrow terminal wraps its lines, but no column is dropped."""
    needed = console.measure(table, options=console.options.update(width=500)).maximum
    console.width = max(console.width, needed)
    console.print(table)


def _print_memory(report: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title="Memory of a training step in float32 with momentum, MiB",
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
    )
    table.add_column("batch")
    for row in report["memory"]:
        split = "" if row["towers"] == 1 else f"\neach of {row['towers']} towers"
        table.add_column(f"{row['batch']:,}{split}", justify="right")
    rows = {
        "parameters": "parameters",
        "gradients": "gradients",
        "momentum": "momentum",
        "activations kept": "activations",
        "workspace, at most": "workspace",
        "predicted peak": "predicted",
        "textbook's count": "textbook",
    }
    for label, key in rows.items():
        table.add_row(label, *(f"{row[key] / 2**20:,.1f}" for row in report["memory"]))
    if measured := {step["batch"]: step for step in report.get("measured", [])}:
        whole = [measured[row["batch"]] if row["towers"] == 1 else None for row in report["memory"]]
        table.add_row("measured peak", *("" if step is None else f"{step['bytes'] / 2**20:,.1f}" for step in whole))
        table.add_row("measured seconds", *("" if step is None else f"{step['seconds']:.2f}" for step in whole))
    _print_table(table, Console(highlight=False))
    Console(highlight=False).print(
        "All activations include the input. Predicted: the peak memory of a step of refconv.nn; the parts above do "
        "not all exist at the same time. Textbook: 12 bytes per parameter and 8 per activation and image, without "
        "workspace." + (" Measured: the increase over a step, in a separate process." if measured else ""),
        style="dim",
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _bytes(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """Return the bytes of a size such as 1.5GiB."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([KMGT])iB", text)
    if match is None or not float(match[1]):
        raise click.BadParameter(f"{text!r} is not a size such as 500MiB or 1.5GiB")
    return int(float(match[1]) * 2 ** (10 * " KMGT".index(match[2])))


@cli.command()
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
    help="Random problems, beside those for layers and sizes.",
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
    "--jobs", type=click.IntRange(1), metavar="N", help="With DIR: submissions at a time. Default: one a core."
)
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With DIR: also write the table to a CSV file.",
)
@_backend_option
@_engine_option
@_json_option
def check(
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
    """Check someone's convolution, or a folder of them, and name the mistake if one is wrong.

    MODULE:FUNCTION (or FILE.py:FUNCTION) is called as forward(x, weight, bias, stride, padding, dilation, groups), the
    backward pass as backward(grad_output, x, weight, stride, padding, dilation, groups); with --backend they are given
    arrays of that module. Each check runs in a process of its own. The exit code is 1 if a check failed.

    Every Python file of DIR is a submission, and so is every sub-folder with one that defines the function.

    \b
    refconv check mine.py:forward --backward mine.py:backward
    refconv check submissions --csv marks.csv
    """  # noqa: D301
    from rich.console import Console

    from refconv.progress import counting
    from refconv.testing.checker.targets import TargetError
    from refconv.testing.grader.parent import GraderError, Limits, can_limit_memory, grade

    _load_backend(backend)
    folder = Path(target) if Path(target).is_dir() else None
    if folder is None:
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
        "spatial_dims": spatial_dims, "supports": _words(supports), "dtype": dtype, "transposed": transposed,
        "cases": cases, "seed": seed,
    }  # fmt: skip
    if output_dtype is not None:
        settings["output_dtype"] = output_dtype
    if backward_needs:
        settings["backward_needs"] = tuple(tuple(_words(words)) for words in backward_needs)
    options: dict[str, Any] = {
        "settings": settings,
        "limits": Limits(time_limit, total_time_limit, memory_limit),
        "backend": backend or os.environ.get("REFCONV_BACKEND") or "numpy",
        "environment": {"REFCONV_ENGINE": engine()},
    }
    try:
        with _handling(_terminate):
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
    if csv_file is not None:
        with replacing(csv_file) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            write_csv(rows, file)
    passed = all(row.graded.passed for row in rows)
    if as_json:
        click.echo(json.dumps({"passed": passed, "submissions": [row.as_dict() for row in rows]}, indent=2))
    else:
        _print_rows(rows)
    sys.exit(not passed)


def _print_rows(rows: Sequence[Row]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from refconv.testing.grader.folder import COLUMNS

    count = sum(row.graded.passed for row in rows)
    table = Table(
        title=f"{count} of {len(rows)} submissions passed", title_justify="left", box=box.SIMPLE, pad_edge=False
    )
    for column in COLUMNS:
        width = 60 if column == "reason" else None
        table.add_column(column, justify="right" if column == "seconds" else "left", max_width=width)
    for row in rows:
        table.add_row(*map(Text, row.cells()))
    _print_table(table, Console(highlight=False))


@cli.command()
@click.argument("model")
@click.option(
    "--data",
    default="digits",
    show_default=True,
    metavar="DATA",
    help="digits, textures, photographs, cifar10:FOLDER (binary version) or folder:FOLDER (one subfolder a class).",
)
@click.option(
    "--groups", metavar="SPEC", help="dense, uniform:N, log:N, or table (LeNet-5's). Default: the model's own groups."
)
@click.option("--channels", type=click.IntRange(1), metavar="N", help="Channels of each layer (residual). [32]")
@click.option(
    "--blocks", type=click.IntRange(0, 10_000), metavar="N", help="Residual modules per stage (residual). [2]"
)
@click.option("--width", type=float, metavar="X", help="Factor of all channels and features (alexnet). [1]")
@click.option(
    "--side", type=click.IntRange(1), metavar="N", help="Resize images to N×N. Default: the size of the model's input."
)
@click.option("--epochs", type=click.IntRange(0), metavar="N", help="Passes through all images.")
@click.option("--batch-size", type=click.IntRange(1), metavar="N", help="Images per step.")
@click.option("--lr", type=float, metavar="X", help="Initial learning rate.")
@click.option(
    "--schedule",
    metavar="SPEC",
    help="How the rate falls: constant, cosine, or steps:A,B,… (divided by 10 after these parts of the training).",
)
@click.option("--shift", type=click.IntRange(0), metavar="N", help="Move training images by up to N pixels at random.")
@click.option("--momentum", type=float, metavar="X")
@click.option("--weight-decay", type=float, metavar="X")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of everything random.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("refconv-train"),
    show_default=True,
    metavar="DIR",
    help="Folder for checkpoint.safetensors, metrics.jsonl and curves.png.",
)
@click.option("--resume", is_flag=True, help="Resume from the checkpoint in --out; the other options must be the same.")
@click.option("--checkpoint-every", type=click.IntRange(1), metavar="N", help="Save every N steps, not only epochs.")
@_backend_option
@_engine_option
@_json_option
@click.pass_context
def train(
    context: click.Context,
    /,
    model: str,
    data: str,
    groups: str | None,
    side: int | None,
    seed: int,
    out: Path,
    resume: bool,
    checkpoint_every: int | None,
    backend: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Train MODEL (residual, lenet5 or alexnet) on DATA, with checkpoints to resume from.

    An interruption, even kill -9 or a power failure, costs at most the steps after the last checkpoint, and the resumed
    training ends with the same bits as one that was never stopped. Ctrl-C saves first. Needs the extra refconv[train].
    Progress goes to standard error. Options not given are the model's usual ones.

    \b
    refconv train residual --groups log:3
    refconv train lenet5 --epochs 20 --out lenet
    refconv train lenet5 --epochs 20 --out lenet --resume
    """  # noqa: D301
    from rich.console import Console

    from refconv.experiments.train import InterruptedTrainingError, TrainError, TrainSettings, run_training
    from refconv.experiments.trainable import find_model
    from refconv.nn import keep_memory
    from refconv.progress import ConsoleObserver

    _load_backend(backend)
    keep_memory()
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        recipe = find_model(model).recipe
        settings = TrainSettings(
            model=model,
            data=data,
            groups=groups,
            options={name: value for name, value in chosen.items() if not hasattr(recipe, name)},
            side=side,
            backend=backend or os.environ.get("REFCONV_BACKEND") or "numpy",
            seed=seed,
            recipe=dataclasses.replace(recipe, **{n: v for n, v in chosen.items() if hasattr(recipe, n)}),
        )
        with _stopping() as stopping, _no_warnings(), ConsoleObserver(Console(stderr=True)) as observer:
            result = run_training(
                settings,
                out,
                resume=resume,
                checkpoint_every=checkpoint_every,
                observer=observer,
                stopping=lambda: bool(stopping),
            )
    except InterruptedTrainingError as stop:
        arguments = [a for a in context.obj if a != "--resume"]
        _stop(f"{stop}; to resume: {shlex.join(['refconv', *arguments, '--resume'])}", 128 + stopping[0])
    except (TrainError, ImportError, ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        reason = f"{error.filename or out}: {error.strerror}" if error.strerror else str(error)
        _stop(f"cannot write {reason}; what was saved before stays", BAD_USAGE)
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=2))
    else:
        reached = "not trained" if result.test_accuracy is None else f"test accuracy {100 * result.test_accuracy:.2f} %"
        click.echo(f"{model}: {result.parameters:,} parameters, {reached}\n{out}")


@cli.command()
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
    type=click.Path(path_type=Path, file_okay=False),
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
@_backend_option
@_engine_option
@_json_option
@click.pass_context
def compare(
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
    backend: str | None,
    as_json: bool,
    **recipe: Any,
) -> None:
    """Compare dense, uniform and logarithmic groups at equal numbers of parameters, seed by seed.

    A small residual network is trained with every grouping, budget and seed. The tables give mean and standard
    deviation over the seeds, and the mean difference from the first grouping with its 95 % interval: if it
    contains 0, there is no clear difference. Takes about ten minutes on two cores; an interruption costs only the
    trainings in progress.
    Needs the extra refconv[train]. Progress goes to standard error.

    \b
    refconv compare
    refconv compare --data digits --groups dense,log:4 --budgets 7000 --seeds 20 --out log4
    refconv compare --data digits --groups dense,log:4 --budgets 7000 --seeds 20 --out log4 --resume
    """  # noqa: D301
    from rich.console import Console

    from refconv.experiments.compare import InterruptedComparisonError, run_comparison
    from refconv.experiments.tasks import CompareError, CompareSettings
    from refconv.nn import Recipe
    from refconv.progress import ConsoleCompareObserver
    from refconv.settings import cores

    _load_backend(backend)
    module = backend or os.environ.get("REFCONV_BACKEND") or "numpy"
    try:
        settings = CompareSettings(
            data=_words(data),
            groups=_words(groups),
            budgets=[_number(word, "--budgets") for word in _words(budgets)],
            seeds=seeds,
            blocks=blocks,
            backend=module,
            recipe=dataclasses.replace(Recipe(), **{n: v for n, v in recipe.items() if v is not None}),
        )
        with _stopping() as stopping, _no_warnings(), ConsoleCompareObserver(Console(stderr=True)) as observer:
            result = run_comparison(
                settings,
                out,
                resume=resume,
                jobs=jobs or (min(cores(), 61) if module == "numpy" else 1),
                observer=observer,
                stopping=lambda: bool(stopping),
            )
    except InterruptedComparisonError as stop:
        arguments = [a for a in context.obj if a != "--resume"]
        _stop(f"{stop}; to resume: {shlex.join(['refconv', *arguments, '--resume'])}", 128 + stopping[0])
    except (CompareError, ImportError, ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        _print_comparison(result)
        click.echo(out)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _number(word: str, option: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) < 19):
        raise click.UsageError(f"{option} must be whole numbers, separated by commas; got {word!r}")
    return int(word)


def _print_comparison(result: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from refconv.experiments.tables import COLUMNS, caption, short_name, table_rows

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    for name in result["data"]:
        table = Table(
            title=f"{short_name(name)}: {caption(result)}", title_justify="left", box=box.SIMPLE, pad_edge=False
        )
        for column in COLUMNS:
            words = column in ("groups", "verdict")
            table.add_column(column, justify="left" if words else "right")
        rows = table_rows(result, name)
        for row, following in zip(rows, [*rows[1:], None], strict=True):
            table.add_row(*row, end_section=following is not None and following[0] != row[0])
        _print_table(table, Console(highlight=False))
    for sentence in result["conclusion"]:
        console.print(sentence, markup=False)


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Be silent on overflow in a training that diverges, which ends with a message of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


@contextlib.contextmanager
def _stopping() -> Iterator[list[int]]:
    """Yield a list that receives the first signal to stop; a second signal raises KeyboardInterrupt."""
    received: list[int] = []

    def note(number: int, _: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    with _handling(note, signal.SIGINT):
        yield received


@contextlib.contextmanager
def _handling(handler: Callable[[int, Any], object], *more: int) -> Iterator[None]:
    """Handle the signals that end a process, and more. A hang-up that is ignored, as under nohup, stays ignored."""
    import numpy.random  # noqa: F401 - its compiled modules, while being imported, swallow an exception from a handler

    numbers = [signal.SIGTERM, *more]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    previous = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, before in zip(numbers, previous, strict=True):
            signal.signal(number, before)


@cli.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("refconv-tour"),
    show_default=True,
    metavar="DIR",
    help="Directory for the report, index.html and results.json.",
)
@_backend_option
@_engine_option
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Seed for all randomness.",
)
@click.option("--quick", is_flag=True, help="Only show that everything runs: few problems, little training.")
@_json_option
def tour(out: Path, backend: str | None, seed: int, quick: bool, as_json: bool) -> None:
    """Verify this machine, walk channel groups on real images, and write a report.

    Takes about a minute; --quick some seconds. Needs the extra refconv[tour]. The exit code is 1, and no report is
    written, if the verification finds the convolution wrong. Progress goes to standard error.
    """
    from rich.console import Console

    from refconv.progress import ConsoleReporter
    from refconv.tour.report import ReportError
    from refconv.tour.run import STEPS, MissingPackagesError, Settings, run_tour

    _load_backend(backend)
    settings = Settings.quick(backend, seed) if quick else Settings(backend, seed)
    reporter = ConsoleReporter(Console(stderr=True), STEPS)
    try:
        with _handling(_terminate):
            result = run_tour(out, settings, reporter)
    except (MissingPackagesError, ReportError) as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        report = None if result.page is None else str(result.page)
        click.echo(json.dumps(result.results | {"report": report}, indent=2))
    if not result.passed:
        for failure in result.failures[:3]:
            click.echo(f"FAILED {failure}", err=True)
        more = len(result.failures) - 3
        click.echo(
            f"refconv: {len(result.failures)} random problems failed{f' ({more} not shown)' if more > 0 else ''}; "
            "this installation is wrong, and no report was written",
            err=True,
        )
        sys.exit(1)
    assert result.page is not None
    click.echo(f"\nReport: {result.page}\nOpen it in a browser: {result.page.as_uri()}", err=as_json)


@cli.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="Directory for manifest.json and the arrays. It is replaced if it contains only earlier vectors.",
)
@_backend_option
@_engine_option
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of the numbers.")
@_json_option
def vectors(out: Path, backend: str | None, seed: int, as_json: bool) -> None:
    """Write language-neutral test vectors: problems with their right answers, as .npy and safetensors files.

    Takes about 15 seconds, because each problem is tried on the catalogued mistakes. Needs the extra
    refconv[vectors]. docs/test-vectors.md specifies the format. NumPy computes everything: --backend is only checked.
    """
    from refconv.testing.vectors import VectorsError, contents, write_vectors

    _load_backend(backend)
    try:
        with _handling(_terminate):
            written = contents(write_vectors(out, seed=seed))
    except VectorsError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps(written, indent=2))
    else:
        click.echo(
            f"{written['problems']} problems ({written['exact']} exact, {written['bounded']} bounded), which catch "
            f"{written['mistakes_caught']} catalogued mistakes: {written['files']:,} files, "
            f"{written['bytes'] / 1e6:.1f} MB\n{written['manifest']}"
        )


@cli.command()
@click.argument("workloads", nargs=-1, metavar="[WORKLOAD]…")
@click.option("--peers", metavar="A,B,…", help="Peers to time. Default: textbook and every installed peer.")
@click.option("--dtype", default="float32", show_default=True, metavar="NAME", help="float32 or float64.")
@click.option(
    "--pass",
    "what",
    default="training",
    show_default=True,
    metavar="NAME",
    help="forward, or training: forward and all gradients.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    metavar="N",
    help="Rounds, each with one process per workload and peer.",
)
@click.option(
    "--seconds", type=float, default=0.5, show_default=True, metavar="S", help="Seconds per layer in each process."
)
@click.option(
    "--patience",
    type=float,
    default=120.0,
    show_default=True,
    metavar="S",
    help="Total seconds to wait for a busy or slow machine and to repeat slowed runs.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Also write the record.")
@_backend_option
@_engine_option
@_json_option
def bench(
    workloads: tuple[str, ...],
    peers: str | None,
    dtype: str,
    what: str,
    rounds: int,
    seconds: float,
    patience: float,
    out: Path | None,
    backend: str | None,
    as_json: bool,
) -> None:
    """Time refconv against the peers that are installed; each runs in its own process, in turn.

    WORKLOAD is one of alexnet (the default), alexnet-dense, resnext, depthwise, logarithmic, pointwise, small, batch,
    channels, groups, kernel and threads. Below 1, refconv is faster. Only --backend numpy can be
    timed.
    """
    from refconv.bench.peers import PEERS
    from refconv.bench.record import BenchError, write
    from refconv.bench.run import Settings, run_bench

    _load_backend(backend)
    if (backend or os.environ.get("REFCONV_BACKEND") or "numpy") != "numpy":
        raise click.UsageError("--backend must be numpy: the peers run on the CPU")
    chosen = tuple(PEERS) if peers is None else tuple(word.strip() for word in peers.split(",") if word.strip())
    try:
        settings = Settings(workloads or ("alexnet",), chosen, dtype, what, rounds, seconds, patience)
        record = run_bench(settings, lambda line: click.echo(line, err=True))
    except (ValueError, TypeError, BenchError) as error:
        raise click.UsageError(str(error)) from error
    write(record, out)
    if as_json:
        click.echo(json.dumps(record, indent=2))
    else:
        _print_bench(record)


def _print_bench(record: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from refconv.bench.run import summary

    console, means = Console(highlight=False), summary(record)
    for workload in dict.fromkeys(result["workload"] for result in record["results"]):
        results = [result for result in record["results"] if result["workload"] == workload]
        peers = [peer for peer in dict.fromkeys(r["peer"] for r in results) if peer != "refconv"]
        timed = [peer for peer in peers if any("ratio" in r for r in results if r["peer"] == peer)]
        settings = record["settings"]
        title = f"{workload}, {settings['dtype']}, {settings['pass']}: time of refconv / time of the peer"
        table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
        table.add_column("layer")
        table.add_column("refconv, ms", justify="right")
        for peer in timed:
            table.add_column(peer, justify="right")
        layers = dict.fromkeys(result["layer"] for result in results)
        untimed: list[str] = []
        for layer in layers:
            of = {result["peer"]: result for result in results if result["layer"] == layer}
            if "median" not in of["refconv"]:
                untimed.append(layer)
                continue
            ratios = (f"{of[peer]['ratio']:.2f}" if "ratio" in of[peer] else "" for peer in timed)
            table.add_row(layer, f"{1e3 * of['refconv']['median']:.2f}", *ratios)
        if len(layers) > 1 and workload in means:
            mean = (f"{means[workload][peer]:.2f}" if peer in means[workload] else "" for peer in timed)
            table.add_row("geometric mean", "", *mean)
        console.print(table)
        if untimed:
            reason = next(result["reason"] for result in results if result["layer"] == untimed[0])
            console.print(f"{', '.join(untimed)}: not timed, {reason}", style="dim")
        for peer in (peer for peer in peers if peer not in timed):
            reason = next(result["reason"] for result in results if result["peer"] == peer)
            console.print(f"{peer}: not timed, {reason}", style="dim")


@cli.command()
@click.option(
    "--to", required=True, type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Destination folder."
)
@click.option("--solutions", is_flag=True, help="Write the notebooks with their exercises solved, without outputs.")
@click.option("--nbgrader", is_flag=True, help="Write a course folder for nbgrader, an assignment for each notebook.")
def notebooks(to: Path, solutions: bool, nbgrader: bool) -> None:
    """Copy the notebooks that teach convolution and channel groups into DIR. No file there is overwritten.

    \b
    refconv notebooks --to learning
    refconv notebooks --to learning --solutions
    refconv notebooks --to course --nbgrader
    """  # noqa: D301
    from refconv.notebooks import NotebookError, copy
    from refconv.notebooks.nbgrader import write

    if solutions and nbgrader:
        _stop("choose one of --solutions and --nbgrader: a course for nbgrader contains the solutions", BAD_USAGE)
    try:
        for path in write(to) if nbgrader else copy(to, solved=solutions):
            click.echo(path)
    except NotebookError as error:
        _stop(str(error), BAD_USAGE)


def _terminate(number: int, _: object) -> NoReturn:
    """Exit with an exception, so that unfinished work is cleaned up."""
    sys.exit(128 + number)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line, by default this process's, and exit with its code: the console command ``refconv``."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character shows ? instead of failing
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        cli.main(given, prog_name="refconv", standalone_mode=False, obj=given)
    except click.exceptions.NoArgsIsHelpError:
        _stop("a command is missing; refconv --help lists them", BAD_USAGE)
    except click.ClickException as error:
        _stop(" ".join(error.format_message().split()), BAD_USAGE)
    except click.Abort:
        _stop("interrupted", INTERRUPTED)
    except MemoryError as error:
        _stop(" ".join(f"too little memory: {error}".split()).rstrip(":"), BAD_USAGE)
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        sys.stdout = None  # its buffer cannot be written either
        where = "" if error.filename is None else f"{error.filename}: "
        _stop(f"cannot write the output: {where}{error.strerror or error}", BAD_USAGE)
    sys.exit(0)


if __name__ == "__main__":
    main()
