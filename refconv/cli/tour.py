"""``refconv tour``: verify this machine, walk channel groups on real images, and write a report."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from refconv.cli.options import PATH, backend_option, destination, engine_option, json_option, load_backend
from refconv.cli.signals import working


@click.command("tour")
@click.option(
    "--out",
    type=PATH,
    callback=destination,
    default=Path("refconv-tour"),
    show_default=True,
    metavar="DIR",
    help="Directory for the report, index.html and results.json.",
)
@backend_option
@engine_option
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Seed for all randomness.",
)
@click.option("--quick", is_flag=True, help="Only show that everything runs: few problems, little training.")
@json_option
def command(out: Path, backend: str | None, seed: int, quick: bool, as_json: bool) -> None:
    """Verify this machine and show channel groups on real images.

    Writes a report. Takes about a minute; --quick some seconds. Needs the extra refconv[tour]. The exit code is 1, and
    no report is written, if the verification finds the convolution wrong. Progress goes to standard error.
    """
    from rich.console import Console

    from refconv.packages import MissingPackagesError
    from refconv.progress import ConsoleReporter
    from refconv.tour.report import ReportError
    from refconv.tour.run import STEPS, Settings, run_tour

    load_backend(backend)
    settings = Settings.quick(backend, seed) if quick else Settings(backend, seed)
    reporter = ConsoleReporter(Console(stderr=True), STEPS)
    try:
        with working():
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
