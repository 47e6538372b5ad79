"""The group of all commands, and how a command line is run: each known error becomes one line and an exit code."""

from __future__ import annotations

import io
import os
import re
import sys
from typing import NoReturn

import click

import refconv
from refconv.cli import bench, check, compare, cost, notebooks, predict, tour, towers, train, vectors
from refconv.cli.options import BAD_USAGE, stop
from refconv.cli.signals import INTERRUPTED


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(refconv.__version__, prog_name="refconv")
@click.pass_context
def cli(context: click.Context) -> None:
    """Run and check grouped convolution: to read, run and trust."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for module in (tour, check, cost, train, predict, compare, towers, bench, notebooks, vectors):
    cli.add_command(module.command)


def run(given: list[str]) -> NoReturn:
    """Run a command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character shows ? instead of failing
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        cli.main(given, prog_name="refconv", standalone_mode=False, obj=given)
    except click.ClickException as error:
        stop(_message(error), BAD_USAGE)
    except click.Abort:
        stop("interrupted", INTERRUPTED)
    except MemoryError as error:
        stop(" ".join(f"too little memory: {error}".split()).rstrip(":"), BAD_USAGE)
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        sys.stdout = None  # its buffer cannot be written either
        where = "" if error.filename is None else f"{error.filename}: "
        stop(f"cannot write the output: {where}{error.strerror or error}", BAD_USAGE)
    sys.exit(0)


def _message(error: click.ClickException) -> str:
    """Return an error's message in one line. If it begins with an argument of the library, name the option instead."""
    message = " ".join(error.format_message().split())
    context = error.ctx if isinstance(error, click.UsageError) else None
    for option in context.command.params if context else ():
        name = option.opts[0] if isinstance(option, click.Option) else str(option.name).upper()
        message = re.sub(rf"^{option.name}(?==| must | needs )", name, message)
    if context and isinstance(error, click.MissingParameter | click.NoSuchOption):
        message += f" See {context.command_path} --help."
    return message
