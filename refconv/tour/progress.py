"""How the tour tells how far it is: a bar on a terminal, plain lines everywhere else."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


class Reporter:
    """Receives the tour's steps and what they say. This one keeps silent; subclasses print.

    Examples
    --------
    >>> with Reporter().step("verify", 3) as advance:
    ...     advance(1, "one of three")
    """

    def say(self, line: str) -> None:
        """Take one finding, worth reading when it comes."""

    @contextlib.contextmanager
    def step(self, title: str, total: int) -> Iterator[Advance]:
        """Enter a step of `total` units; yields ``advance(units, what=None)``."""
        yield Advance()


class Advance:
    """Counts the finished units of a step."""

    def __call__(self, units: int = 1, what: str | None = None) -> None:
        """Count `units`, and say what comes next."""


class ConsoleReporter(Reporter):
    """Prints to a rich console: bars that move if it is a terminal, a line per step if it is not.

    Parameters
    ----------
    console : rich.console.Console
        Where to print.
    steps : int
        How many steps the whole tour has.
    """

    def __init__(self, console: Console, steps: int) -> None:
        self._console, self._steps, self._step = console, steps, 0

    def say(self, line: str) -> None:
        """Print one line."""
        self._console.print(f"    {line}", highlight=False, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def step(self, title: str, total: int) -> Iterator[Advance]:
        """Print the step's number and title, then how long it took."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._step += 1
        self._console.print(f"[{self._step}/{self._steps}] {title}", style="bold", highlight=False, markup=False)
        started = time.perf_counter()
        if self._console.is_terminal:
            columns = (
                TextColumn("    {task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TimeElapsedColumn(),
            )
            with Progress(*columns, console=self._console, transient=True) as progress:
                yield _Bar(progress, progress.add_task("", total=total))
        else:
            yield Advance()
        self.say(f"({time.perf_counter() - started:.1f} s)")


class _Bar(Advance):
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def __call__(self, units: int = 1, what: str | None = None) -> None:
        if what is None:
            self._progress.update(self._task, advance=units)
        else:
            self._progress.update(self._task, advance=units, description=what)
