"""Shared parts of the commands: options, the check of a destination, and the end with a message."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from refconv.files import check_destination

if TYPE_CHECKING:
    from refconv.arrays import Namespace

BAD_USAGE = 2
"""The exit code after a wrong command line, a missing package or a failed write."""


def stop(message: str, code: int) -> NoReturn:
    """Print a line on standard error, and exit."""
    click.echo(f"refconv: {message}", err=True)
    sys.exit(code)


def destination(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Refuse, before any work, a path where an option's file or folder cannot be written; it is the option's callback.

    The option's metavar is FILE or DIR. Missing folders will be made for a folder, not for a file.
    """
    if path is None:
        return None
    kind = {"FILE": "file", "DIR": "folder"}[str(option.metavar)]
    try:
        check_destination(path, folder=kind == "folder")
    except OSError as error:
        raise click.BadParameter(f"must be a {kind} that can be written; got {path}: {error.strerror}") from error
    return path


class _Path(click.Path):
    """A path that is not empty; pathlib would take an empty one for the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        if value == "":
            self.fail("must not be empty", param, context)
        return super().convert(value, param, context)


PATH = _Path(path_type=Path, readable=False)
"""The type of every option and argument that is a path."""


backend_option = click.option(
    "--backend",
    metavar="NAME",
    help="Array module: numpy, cupy, torch or array_api_strict. Default: $REFCONV_BACKEND, else numpy.",
)


def load_backend(name: str | None) -> Namespace:
    """Return the array module that ``--backend`` names."""
    from refconv.arrays import BackendError
    from refconv.arrays import load_backend as load

    try:
        return load(name)
    except (ValueError, BackendError) as error:
        raise click.UsageError(str(error).replace("name=", "--backend ", 1)) from error


def backend_name(name: str | None) -> str:
    """Return the name of the array module that ``--backend`` names or implies."""
    return name or os.environ.get("REFCONV_BACKEND") or "numpy"


def _use_engine(context: click.Context, option: click.Parameter, name: str | None) -> None:
    """Compute with the engine called `name` until the command ends."""
    if name is None and not os.environ.get("REFCONV_ENGINE"):
        return
    from refconv.settings import engine, set_engine

    try:
        context.with_resource(set_engine(name))
        engine()
    except ValueError as error:
        raise click.UsageError(str(error).replace("name", "--engine", 1)) from error


engine_option = click.option(
    "--engine",
    metavar="[textbook|fast]",
    callback=_use_engine,
    expose_value=False,
    help="What computes NumPy arrays: textbook (refconv/textbook.py) or fast. Default: $REFCONV_ENGINE, else fast.",
)
json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object on standard output, and nothing else there.",
)


def words(text: str) -> list[str]:
    """Return the words of a list with commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


MODELS = {
    "alexnet": "AlexNet (2012), with two groups: see --groups for others",
    "lenet5": "LeNet-5 (1998), with the connection table of its layer C3",
    "residual": "a small residual network, with logarithmic groups",
}
"""The models by name, as the commands list them."""
model_argument = click.argument("model", required=False)


def list_models(context: click.Context, as_json: bool) -> None:
    """List the models, for a command without MODEL and without other options; with options, MODEL is missing."""
    import json

    given = [
        parameter
        for parameter in context.command.params
        if parameter.name != "as_json"
        and parameter.name in context.params
        and context.get_parameter_source(parameter.name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"MODEL is missing; it must be one of {', '.join(MODELS)}")
    if as_json:
        click.echo(json.dumps({"models": MODELS}, indent=2))
        return
    click.echo(f"Models of refconv {context.info_name}:")
    for name, description in MODELS.items():
        click.echo(f"  {name:<10}{description}")
