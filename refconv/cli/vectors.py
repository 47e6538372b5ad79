"""``refconv vectors``: language-neutral test vectors."""

from __future__ import annotations

import json
from pathlib import Path

import click

from refconv.cli.options import PATH, backend_option, destination, engine_option, json_option, load_backend
from refconv.cli.signals import working


@click.command("vectors")
@click.option(
    "--out",
    type=PATH,
    callback=destination,
    required=True,
    metavar="DIR",
    help="Directory for manifest.json and the arrays. It is replaced if it contains only earlier vectors.",
)
@backend_option
@engine_option
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of the numbers.")
@json_option
def command(out: Path, backend: str | None, seed: int, as_json: bool) -> None:
    """Write test vectors for convolutions in any language.

    They are problems with their right answers, as .npy and safetensors files. Takes about 15 seconds, because each
    problem is tried on the catalogued mistakes. Needs the extra refconv[vectors]. docs/test-vectors.md specifies the
    format. NumPy computes everything: --backend is only checked.
    """
    from refconv.testing.vectors import VectorsError, contents, write_vectors

    load_backend(backend)
    try:
        with working():
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
