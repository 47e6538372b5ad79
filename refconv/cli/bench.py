"""``refconv bench``: time against the peers that are installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


@click.command("bench")
@click.argument("workloads", nargs=-1, metavar="[WORKLOAD]…")
@click.option("--peers", metavar="A,B,…", help="Peers to time. Default: every installed peer.")
@click.option("--dtype", default="float32", show_default=True, metavar="NAME", help="float32 or float64.")
@click.option(
    "--pass",
    "what",
    default="training",
    show_default=True,
    metavar="NAME",
    help="forward, backward (all gradients) or training (both).",
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
@click.option("--out", type=PATH, callback=destination, metavar="FILE", help="Also write the record.")
@backend_option
@engine_option
@json_option
def command(
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
    """Time refconv against the peers that are installed.

    Each runs in its own process, in turn.

    WORKLOAD is one of alexnet (the default), alexnet-dense, alexnet-128 (a batch of 128 images), resnext, depthwise,
    logarithmic, pointwise, small, batch, channels, groups, kernel and threads. Below 1, refconv is faster.

    With --backend cupy or torch, refconv computes on that module's arrays on the GPU, with workspaces of 64 MiB and
    1 GiB, and the peers are PyTorch's cuDNN without TF32 (cudnn) and with it (cudnn-tf32). Times there are between two
    events of the device.
    """
    from refconv.bench.gpu import GpuError
    from refconv.bench.record import BenchError, write
    from refconv.bench.run import Settings, run_bench

    load_backend(backend)
    name, chosen = backend_name(backend), None if peers is None else tuple(words(peers))
    try:
        settings = Settings(workloads or ("alexnet",), chosen, dtype, what, rounds, seconds, patience, name)
        with working():
            record = run_bench(settings, lambda line: click.echo(line, err=True))
    except (ValueError, TypeError, BenchError, GpuError) as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps(record, indent=2))
    else:
        _print_bench(record)
    write(record, out)


def _print_bench(record: dict[str, Any]) -> None:
    from refconv.bench.run import summary
    from refconv.tables import Column, print_table, print_text

    means = summary(record)
    for workload in dict.fromkeys(result["workload"] for result in record["results"]):
        results = [result for result in record["results"] if result["workload"] == workload]
        peers = [peer for peer in dict.fromkeys(r["peer"] for r in results) if peer != "refconv"]
        timed = [peer for peer in peers if any("ratio" in r for r in results if r["peer"] == peer)]
        settings = record["settings"]
        on = "" if settings["backend"] == "numpy" else f" on {record['gpu']['name']} ({settings['backend']})"
        title = f"{workload}{on}, {settings['dtype']}, {settings['pass']}: time of refconv / time of the peer"
        rows: list[tuple[str, ...]] = []
        layers = dict.fromkeys(result["layer"] for result in results)
        untimed: list[str] = []
        for layer in layers:
            of = {result["peer"]: result for result in results if result["layer"] == layer}
            if "median" not in of["refconv"]:
                untimed.append(layer)
                continue
            ratios = (f"{of[peer]['ratio']:.2f}" if "ratio" in of[peer] else "" for peer in timed)
            rows.append((layer, f"{1e3 * of['refconv']['median']:.2f}", *ratios))
        if len(layers) > 1 and workload in means:
            mean = (f"{means[workload][peer]:.2f}" if peer in means[workload] else "" for peer in timed)
            rows.append(("geometric mean", "", *mean))
        print_table(title, [Column("layer", words=True), Column("refconv, ms"), *map(Column, timed)], rows)
        if untimed:
            reason = next(result["reason"] for result in results if result["layer"] == untimed[0])
            print_text(f"{', '.join(untimed)}: not timed, {reason}", "dim")
        for peer in (peer for peer in peers if peer not in timed):
            reason = next(result["reason"] for result in results if result["peer"] == peer)
            print_text(f"{peer}: not timed, {reason}", "dim")
