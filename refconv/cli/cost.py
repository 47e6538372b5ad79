"""``refconv cost``: parameters, multiply-adds, activations and memory, layer by layer."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import click

from refconv.cli.options import backend_option, engine_option, json_option, list_models, load_backend, model_argument
from refconv.cli.signals import working

if TYPE_CHECKING:
    from refconv.cost import Cost


@click.command("cost")
@model_argument
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
@backend_option
@engine_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    model: str | None,
    groups: str | None,
    batches: tuple[int, ...],
    measure: bool,
    backend: str | None,
    as_json: bool,
) -> None:
    """Count what each layer of MODEL costs.

    The table has parameters, multiply-adds (MACs) and activations; below it is the memory of a training step. MODEL is
    alexnet, lenet5 or residual; refconv cost alone lists them. Counting needs no arrays: --backend is only checked.

    \b
    refconv cost alexnet               the two groups of the paper
    refconv cost alexnet --groups 1    the same network without groups
    refconv cost alexnet --groups log:3 --json
    refconv cost alexnet --batch 32 --batch 128 --measure
    """  # noqa: D301
    if model is None:
        list_models(context, as_json)
        return
    from refconv.cost import model_cost
    from refconv.experiments.measure import MeasureError, measure_step

    load_backend(backend)
    try:
        counted = model_cost(model, groups)
        report = counted.to_dict(batches)
        if measure:
            with working():
                report["measured"] = [dataclasses.asdict(measure_step(model, batch, groups)) for batch in batches]
    except (ValueError, TypeError, MeasureError) as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        _print_cost(counted)
        _print_memory(report)


def _print_cost(counted: Cost) -> None:
    from refconv.tables import Column, print_table, print_text, shape_text

    columns = [
        Column("layer", "all", words=True),
        Column("output"),
        Column("parameters", f"{counted.parameters:,}"),
        Column("MACs", f"{counted.macs:,}"),
        Column("activations", f"{counted.activations:,}"),
    ]
    rows = [
        (
            layer.name,
            shape_text(layer.output_shape),
            *(f"{count:,}" for count in (layer.parameters, layer.macs, layer.activations)),
        )
        for layer in counted.layers
    ]
    print_table(f"{counted.model}, groups={counted.groups}, input {shape_text(counted.input_shape)}", columns, rows)
    if counted.note:
        print_text(f"{counted.note}\n")


def _print_memory(report: dict[str, Any]) -> None:
    from refconv.tables import Column, print_table, print_text

    columns = [Column("batch", words=True)]
    for row in report["memory"]:
        split = "" if row["towers"] == 1 else f"\neach of {row['towers']} towers"
        columns.append(Column(f"{row['batch']:,}{split}"))
    rows = [
        (label, *(f"{row[key] / 2**20:,.1f}" for row in report["memory"]))
        for label, key in {
            "parameters": "parameters",
            "gradients": "gradients",
            "momentum": "momentum",
            "activations kept": "activations",
            "workspace, at most": "workspace",
            "predicted peak": "predicted",
            "textbook's count": "textbook",
        }.items()
    ]
    if measured := {step["batch"]: step for step in report.get("measured", [])}:
        whole = [measured[row["batch"]] if row["towers"] == 1 else None for row in report["memory"]]
        rows += [
            ("measured peak", *("" if step is None else f"{step['bytes'] / 2**20:,.1f}" for step in whole)),
            ("measured seconds", *("" if step is None else f"{step['seconds']:.2f}" for step in whole)),
        ]
    print_table("Memory of a training step in float32 with momentum, MiB", columns, rows)
    print_text(
        "All activations include the input. Predicted: the peak memory of a step of refconv.nn; the parts above do "
        "not all exist at the same time. Textbook: 12 bytes per parameter and 8 per activation and image, without "
        "workspace." + (" Measured: the increase over a step, in a separate process." if measured else ""),
        style="dim",
    )
