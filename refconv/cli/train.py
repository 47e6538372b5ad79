"""``refconv train``: train a small grouped network, with checkpoints."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refconv.cli.cluster import cluster_of, cluster_options
from refconv.cli.options import (
    BAD_USAGE,
    PATH,
    backend_name,
    backend_option,
    destination,
    engine_option,
    json_option,
    list_models,
    load_backend,
    model_argument,
    stop,
)
from refconv.cli.signals import stopping
from refconv.cli.training import no_warnings, print_confusion

if TYPE_CHECKING:
    from distributed import Client

    from refconv.experiments.train import TrainResult, TrainSettings


@click.command("train")
@model_argument
@click.option(
    "--data",
    metavar="DATA",
    help="digits, textures, photographs, cifar10:FOLDER (binary version) or folder:FOLDER (one subfolder per class). "
    "[digits]",
)
@click.option(
    "--groups", metavar="SPEC", help="dense, uniform:N, log:N, or table (LeNet-5's). Default: the model's own groups."
)
@click.option(
    "--towers",
    metavar="SPEC",
    help="Train AlexNet's towers, one per group, on the processes of --workers (by default one per tower) or "
    "--scheduler: N, uniform:N or log:N, the same as --groups.",
)
@cluster_options
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
@click.option("--momentum", type=float, metavar="X", help="Fraction of a step that the next one repeats.")
@click.option("--weight-decay", type=float, metavar="X", help="Factor of the weights in their gradient.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), metavar="N", help="Seed for all randomness. [0]")
@click.option(
    "--out",
    type=PATH,
    callback=destination,
    default=Path("refconv-train"),
    show_default=True,
    metavar="DIR",
    help="Folder for checkpoint.safetensors, metrics.jsonl and curves.png.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Resume from the checkpoint in --out, with its MODEL and options. Of these, only --epochs may grow, and --lr "
    "may change for the steps to come.",
)
@click.option(
    "--checkpoint-every", type=click.IntRange(1), metavar="N", help="Save every N steps, not only after each epoch."
)
@backend_option
@engine_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    model: str | None,
    out: Path,
    resume: bool,
    checkpoint_every: int | None,
    towers: str | None,
    workers: int | None,
    scheduler: str | None,
    memory_limit: str | None,
    backend: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Train MODEL on DATA, with checkpoints to resume from.

    MODEL is residual, lenet5 or alexnet; refconv train alone lists them.

    An interruption, even kill -9 or a power failure, costs at most the steps after the last checkpoint, and the resumed
    training ends with the same bits as one that was never stopped. Ctrl-C saves first. Needs the extra refconv[train].
    Progress goes to standard error. Options not given are the model's usual ones, or the checkpoint's. refconv predict
    then classifies images.

    \b
    refconv train residual --groups log:3
    refconv train lenet5 --epochs 20 --out lenet
    refconv train --resume --out lenet
    refconv train --resume --out lenet --epochs 30    ten epochs more
    refconv train alexnet --towers 2 --width 0.25 --side 63    two processes
    """  # noqa: D301
    if model is None and not resume:
        list_models(context, as_json)
        return
    from rich.console import Console

    from refconv.distributed import ClusterError, TowerLostError
    from refconv.experiments.train import (
        CHECKPOINT,
        DivergedError,
        InterruptedTrainingError,
        TrainError,
        TrainSettings,
        run_training,
        saved_settings,
    )
    from refconv.experiments.trainable import find_model
    from refconv.nn import keep_memory
    from refconv.progress import ConsoleObserver

    keep_memory()
    try:
        start = saved_settings(out) if resume else TrainSettings(model=str(model), recipe=find_model(str(model)).recipe)
        if resume and model not in (None, start.model):
            raise TrainError(f"{out} contains a training of {start.model}, not of {model}; choose another --out")
        if not resume or backend or os.environ.get("REFCONV_BACKEND"):
            start = dataclasses.replace(start, backend=backend_name(backend))
        load_backend(start.backend)
        settings = _changed(start, {name: value for name, value in given.items() if value is not None})
        settings, cluster = _placed(settings, towers, workers, scheduler, memory_limit)
        with (
            stopping() as received,
            no_warnings(),
            ConsoleObserver(Console(stderr=True)) as observer,
        ):
            result = run_training(
                settings,
                out,
                resume=resume,
                checkpoint_every=checkpoint_every,
                observer=observer,
                stopping=lambda: bool(received),
                cluster=cluster,
            )
    except TowerLostError as error:
        saved = f"to resume from the last checkpoint: {_resuming(context.obj)}"
        stop(f"{error}; {saved if (out / CHECKPOINT).exists() else 'start again, for nothing is saved'}", BAD_USAGE)
    except InterruptedTrainingError as interruption:
        stop(f"{interruption}; to resume: {_resuming(context.obj)}", 128 + received[0])
    except DivergedError as error:
        again = _resuming(context.obj, lr=f"{settings.recipe.lr / 10:g}")
        stop(
            f"{error}; to resume from step {error.saved} with a smaller learning rate: {again}; if that diverges too, "
            "start again with another --out",
            BAD_USAGE,
        )
    except (TrainError, ClusterError, ImportError, ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        reason = f"{error.filename or out}: {error.strerror}" if error.strerror else str(error)
        stop(f"cannot write {reason}; earlier files stay", BAD_USAGE)
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=2))
    else:
        _print_result(result)
        click.echo(out)


def _placed(
    settings: TrainSettings, towers: str | None, workers: int | None, scheduler: str | None, memory_limit: str | None
) -> tuple[TrainSettings, AbstractContextManager[Client] | None]:
    """Return the settings with the groups of the towers, and what opens the cluster for them."""
    from refconv.cost import parse_groups

    if towers is None:
        if cluster_of(workers, scheduler, memory_limit) is not None:
            raise click.UsageError("--workers and --scheduler need --towers")
        return settings, None
    if settings.model != "alexnet":
        raise click.UsageError(f"--towers needs the model alexnet; got {settings.model}")
    spec = parse_groups(towers, "towers")
    groups = str(spec.label) if settings.groups is None else settings.groups
    if parse_groups(groups) != spec:
        raise click.UsageError(f"--towers {towers} must be the same as the groups, {groups}: one tower per group")
    return dataclasses.replace(settings, groups=groups), cluster_of(workers, scheduler, memory_limit, spec.n)


def _changed(settings: TrainSettings, given: dict[str, Any]) -> TrainSettings:
    """Return settings, changed by the options that are given."""
    own = {name: given[name] for name in given if hasattr(settings, name)}
    recipe = {name: given[name] for name in given if hasattr(settings.recipe, name)}
    options = {name: given[name] for name in given if name not in own | recipe}
    return dataclasses.replace(
        settings,
        **own,
        recipe=dataclasses.replace(settings.recipe, **recipe),
        options=settings.options | options,
    )


def _resuming(arguments: Sequence[str], lr: str | None = None) -> str:
    """Return the command line that resumes a training, with another learning rate if it is given."""
    kept: list[str] = []
    for word in arguments:
        if lr is not None and kept and kept[-1] == "--lr":
            kept.pop()
        elif word != "--resume" and not (lr is not None and word.startswith("--lr=")):
            kept.append(word)
    return shlex.join(["refconv", *kept, *(["--lr", lr] if lr is not None else []), "--resume"])


def _print_result(result: TrainResult) -> None:
    from refconv.tables import print_text

    reached = "not trained" if result.test_accuracy is None else f"test accuracy {100 * result.test_accuracy:.2f} %"
    model, groups = result.settings["model"], result.settings["groups"]
    click.echo(f"{model}: {result.parameters:,} parameters, {reached}")
    if difference := unlike_cost(model, groups, result.parameters):
        print_text(difference)
    if result.confusion is not None:
        print_confusion(result.classes, result.confusion)


def unlike_cost(model: str, groups: str, parameters: int) -> str:
    """Return why ``refconv cost`` counts other parameters; nothing if it counts the same, or refuses the groups."""
    from refconv.cost import model_cost
    from refconv.tables import shape_text

    try:
        cost = model_cost(model, groups)
    except ValueError:  # the groups need more channels than the default
        return ""
    if cost.parameters == parameters:
        return ""
    return (
        f"(refconv cost {model} --groups {groups} counts {cost.parameters:,}, for the default size, images of "
        f"{shape_text(cost.input_shape)} and {cost.layers[-1].output_shape[0]:,} classes."
        f"{' ' + cost.note if cost.note else ''})"
    )
