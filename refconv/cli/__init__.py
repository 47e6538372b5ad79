"""The command ``refconv``: a file for each command, which parses its options, calls the library and prints.

Exit codes: 0 success, 1 a check failed, 2 bad usage (or a missing backend or package), 130 interrupted. Known errors
are one line on standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from refconv.cli.signals import leaving_immediately


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line, by default this process's, and exit with its code: the console command ``refconv``."""
    with leaving_immediately():
        from refconv.cli.run import run

        run(sys.argv[1:] if arguments is None else list(arguments))
