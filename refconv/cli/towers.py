"""``refconv towers``: AlexNet's towers side by side, each in a process of its own."""

from __future__ import annotations

import json
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
    load_backend,
    stop,
)
from refconv.cli.signals import working

if TYPE_CHECKING:
    from refconv.distributed.report import TowersResult

UNEQUAL = 1
"""The exit code if towers and one process have different losses on whole numbers."""


@click.command("towers")
@click.option(
    "--groups",
    "towers",
    default="2",
    show_default=True,
    metavar="SPEC",
    help="N or uniform:N (N equal towers), or log:N (N unequal towers).",
)
@cluster_options
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, metavar="N", help="Images per step.")
@click.option("--steps", type=click.IntRange(1), default=4, show_default=True, metavar="N", help="Training steps.")
@click.option("--side", type=click.IntRange(1), default=224, show_default=True, metavar="N", help="Images of N×N.")
@click.option(
    "--width", type=float, default=1.0, show_default=True, metavar="X", help="Factor of all channels and features."
)
@click.option(
    "--whole-numbers",
    is_flag=True,
    help="Train on whole numbers in float64, where the losses of towers and of one process must be the same bits.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, metavar="N", help="Seed.")
@click.option(
    "--figure",
    type=PATH,
    callback=destination,
    metavar="FILE",
    help="Draw the last step's timeline into a PNG file. Needs Matplotlib.",
)
@backend_option
@engine_option
@json_option
def command(
    towers: str,
    workers: int | None,
    scheduler: str | None,
    memory_limit: str | None,
    batch: int,
    steps: int,
    side: int,
    width: float,
    whole_numbers: bool,
    seed: int,
    figure: Path | None,
    backend: str | None,
    as_json: bool,
) -> None:
    """Run AlexNet's towers, each in a process of its own.

    In 2012 each of two GPUs held one tower. Here a tower's layers stay in one process of a Dask cluster, by default one
    process per tower on this machine. For each tower, the tables show parameters, activations, predicted and measured
    peak memory, received bytes, and the time for computing and waiting; then what crosses between the towers. The same
    steps run in one process afterwards, with as many threads as there are workers. Images are noise.

    \b
    refconv towers
    refconv towers --groups log:3 --figure timeline.png
    refconv towers --whole-numbers --width 0.25 --side 127
    refconv towers --memory-limit 1.5GiB --batch 128                two processes
    refconv towers --memory-limit 1.5GiB --batch 128 --workers 1    both towers in one
    """  # noqa: D301
    from refconv.packages import check_packages

    load_backend(backend)
    try:
        check_packages("refconv towers needs", {"distributed": "distributed"}, extra="distributed")
        if figure is not None:
            check_packages("--figure needs", {"matplotlib": "Matplotlib"})
    except ImportError as error:
        raise click.UsageError(str(error)) from error
    from refconv.distributed import ClusterError, TowerLostError
    from refconv.distributed.report import TowersSettings, predicted_bytes, run_single, run_towers

    settings = TowersSettings(
        towers=towers,
        batch=batch,
        steps=steps,
        side=side,
        width=width,
        seed=seed,
        whole=whole_numbers,
        backend=backend_name(backend),
    )
    try:
        cluster = cluster_of(workers, scheduler, memory_limit, default=len(predicted_bytes(settings)))
        assert cluster is not None
        with working():
            with cluster as client:
                result = run_towers(client, settings)
            single = run_single(settings, len(set(result.workers)))
    except TowerLostError as error:
        stop(str(error), BAD_USAGE)
    except (ClusterError, ImportError, ValueError, TypeError, ArithmeticError) as error:
        raise click.UsageError(str(error)) from error
    if figure is not None:
        _draw(result, figure)
    if as_json:
        click.echo(json.dumps(result.to_dict(single), indent=2))
    else:
        _print(result, single)
    if whole_numbers and result.losses != single["losses"]:
        stop("the towers and one process have different losses", UNEQUAL)


def _draw(result: TowersResult, figure: Path) -> None:
    from refconv.distributed.timeline import timeline
    from refconv.files import replacing

    settings = result.settings
    title = f"AlexNet, groups={settings.towers}, batch {settings.batch}: one step of its towers"
    with replacing(figure) as partial:
        partial.write_bytes(timeline(result, title))


def _print(result: TowersResult, single: dict[str, Any]) -> None:
    from refconv.tables import Column, print_table, print_text

    settings, report = result.settings, result.to_dict(single)
    towers, seconds = report["towers"], result.seconds_per_step
    columns = [
        Column("tower", "all", words=True),
        Column("worker", words=True),
        Column("parameters", f"{sum(t['parameters'] for t in towers):,}"),
        Column("activations"),
        Column("predicted peak, MiB"),
        Column("measured, MiB"),
        Column("received, MiB"),
        Column("computing, s"),
        *(Column(f"waiting for {t}, s") for t in range(len(towers))),
        Column("messages, s"),
    ]
    rows = [
        (
            str(t),
            row["worker"],
            f"{row['parameters']:,}",
            f"{row['activations']:,}",
            _mib(row["predicted_bytes"]),
            _mib(row["peak_bytes"]),
            f"{row['received_bytes'] / 2**20:,.2f}",
            f"{row['computing']:.3f}",
            *("" if u == t else f"{wait:.3f}" for u, wait in enumerate(row["waiting_for"])),
            f"{row['messages']:.3f}",
        )
        for t, row in enumerate(towers)
    ]
    print_table(f"AlexNet's towers, groups={settings.towers}, batch {settings.batch}; bytes and seconds per step",
                columns, rows)  # fmt: skip
    columns = [Column("crossing", words=True), Column("outputs"), Column("gradients"), Column("measured, both")]
    crossings = [
        (f"{c['after']} → {c['before']}", *(f"{c[name]:,}" for name in ("bytes", "gradient_bytes", "received_bytes")))
        for c in report["crossings"]
    ]
    print_table("Bytes that all workers receive in a step", columns, crossings)
    busiest, total = max(_by_worker(result).values()), sum(row["computing"] for row in towers)
    workers = len(set(result.workers))
    later = single["seconds"][min(1, len(single["seconds"]) - 1) :]
    alone = sum(later) / len(later)
    print_text(
        f"A step takes {seconds:.3f} s; in one process with {single['threads']} threads {alone:.3f} s "
        f"(ratio {seconds / alone:.2f}). All towers compute {total:.3f} s, evenly divided {total / workers:.3f} s per "
        f"worker; the busiest worker computes {busiest:.3f} s."
    )
    print_text(f"Losses: {', '.join(f'{loss:.6g}' for loss in result.losses)}; {_difference(result, single)}.")
    if len(set(result.workers)) < len(towers):
        print_text("Towers that share a worker share its measured peak and received bytes.", style="dim")


def _by_worker(result: TowersResult) -> dict[str, float]:
    found = dict.fromkeys(result.workers, 0.0)
    for worker, shares in zip(result.workers, result.shares(), strict=True):
        found[worker] += shares["computing"]
    return found


def _difference(result: TowersResult, single: dict[str, Any]) -> str:
    if result.losses == single["losses"]:
        return "the same bits in one process"
    most = max(abs(a / b - 1) for a, b in zip(result.losses, single["losses"], strict=True))
    return f"in one process they differ by at most {most:.1e}, relatively"


def _mib(number: int | None) -> str:
    return "" if number is None else f"{number / 2**20:,.1f}"
