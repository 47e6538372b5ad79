"""Progress of a tour, a training and a comparison: a moving bar on a terminal, and lines.

A function that reports progress calls a `Reporter`, an `Observer` or a `CompareObserver`. These classes are silent; the
commands use subclasses that print.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

    from refconv.nn import Step

Advance = Callable[[int, str], object]
"""Adds to the finished units of a step, and describes the next one."""


class Reporter:
    """Receives the steps of a tour and their findings.

    Examples
    --------
    >>> with Reporter().step("verify", 3) as advance:
    ...     advance(1, "one of three")
    """

    def say(self, line: str) -> None:
        """Receive one finding, to be shown immediately."""

    @contextlib.contextmanager
    def step(self, title: str, total: int) -> Iterator[Advance]:
        """Enter a step of `total` units; yields ``advance(units, what)``."""
        yield lambda units, what: None


class Observer:
    """Receives the steps and epochs of a training."""

    def begin(self, step: int, step_count: int, steps_per_epoch: int) -> None:
        """Receive the first step (not 0 if the training resumes) and the length of the training."""

    def after(self, step: Step) -> None:
        """Receive one step."""

    def epoch(self, row: dict[str, Any]) -> None:
        """Receive an epoch, a line of the metrics."""


class CompareObserver:
    """Receives the trainings of a comparison."""

    def begin(self, done: int, total: int) -> None:
        """Receive the number of finished trainings, from earlier runs, and the total."""

    def after(self, row: dict[str, Any]) -> None:
        """Receive a finished training, a line of the results."""


# --- On a console ----------------------------------------------------------------------------------------------------


def _print(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _progress(console: Console, indent: str, counts: str, *columns: ProgressColumn) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn

    texts = [TextColumn(text, markup=False) for text in (f"{indent}{{task.description}}", counts)]
    return Progress(texts[0], BarColumn(), texts[1], *columns, console=console, transient=True)


@contextlib.contextmanager
def counting(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar of units called `what` on a terminal, and nothing elsewhere; yields ``count(done, total)``."""
    from rich.progress import TextColumn, TimeRemainingColumn

    counts = "{task.completed:,.0f}/{task.total:,.0f}"
    bar = _progress(console, "", counts, TimeRemainingColumn(), TextColumn("left"))
    task = bar.add_task(what, total=1, visible=False)
    with bar if console.is_terminal else contextlib.nullcontext():
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


class ConsoleReporter(Reporter):
    """Prints a tour: each step's number and title, a bar of its units, its findings and how long it took.

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
        _print(self._console, f"    {line}")

    @contextlib.contextmanager
    def step(self, title: str, total: int) -> Iterator[Advance]:
        """Print the step's number and title, then how long it took."""
        from rich.progress import TimeElapsedColumn

        self._step += 1
        self._console.print(f"[{self._step}/{self._steps}] {title}", style="bold", highlight=False, markup=False)
        started = time.perf_counter()
        bar = _progress(self._console, "    ", "{task.completed:.0f}/{task.total:.0f}", TimeElapsedColumn())
        task = bar.add_task("", total=total)
        with bar if self._console.is_terminal else contextlib.nullcontext():
            yield lambda units, what: bar.update(task, advance=units, description=what)
        self.say(f"({time.perf_counter() - started:.1f} s)")


class _Bar:
    """A bar; use it as a context manager, which removes the bar at the end."""

    def __init__(self, console: Console) -> None:
        from rich.progress import TextColumn, TimeRemainingColumn

        counts = "{task.completed}/{task.total}  {task.fields[figures]}"
        self._console = console
        self._progress = _progress(console, "", counts, TimeRemainingColumn(), TextColumn("left"))

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._progress.stop()

    def _start(self, done: int, total: int, resuming: str) -> None:
        if done:
            _print(self._console, resuming)
        self._task = self._progress.add_task("", total=total, completed=done, figures="")


class ConsoleObserver(_Bar, Observer):
    """Prints a training: a bar of its steps, and one line per epoch."""

    def begin(self, step: int, step_count: int, steps_per_epoch: int) -> None:
        """Print the last step done, if the training resumes."""
        self._start(step, step_count, f"resuming after step {step} of {step_count}")
        self._epochs, self._images, self._started = step_count // steps_per_epoch, 0, time.perf_counter()

    def after(self, step: Step) -> None:
        """Move the bar."""
        self._images += step.images
        speed = self._images / max(time.perf_counter() - self._started, 1e-9)
        self._progress.update(
            self._task,
            completed=step.number,
            description=f"epoch {step.epoch}/{self._epochs}",
            figures=f"loss {step.loss:.3f}  accuracy {100 * step.accuracy:.1f} %  {speed:.0f} images/s",
        )

    def epoch(self, row: dict[str, Any]) -> None:
        """Print a line about an epoch."""
        _print(
            self._console,
            f"epoch {row['epoch']:>{len(str(self._epochs))}}/{self._epochs}  loss {row['train_loss']:.4f}  "
            f"accuracy: training {100 * row['train_accuracy']:.2f} %, test {100 * row['test_accuracy']:.2f} %  "
            f"{row['images_per_second']:.0f} images/s",
        )


class ConsoleCompareObserver(_Bar, CompareObserver):
    """Prints a comparison: a bar of its trainings on a terminal, otherwise one line per training."""

    def begin(self, done: int, total: int) -> None:
        """Print the number of finished trainings, if the comparison resumes."""
        self._start(done, total, f"resuming after {done} of {total} trainings")
        self._done, self._total = done, total

    def after(self, row: dict[str, Any]) -> None:
        """Move the bar, or print a line."""
        from refconv.experiments.tables import short_name

        self._done += 1
        what = f"{short_name(row['data'])}, {row['budget']:,} parameters, {row['groups']}, seed {row['seed']}"
        self._progress.update(self._task, completed=self._done, description=what)
        if not self._console.is_terminal:
            _print(
                self._console, f"{self._done:>{len(str(self._total))}}/{self._total}  {what}  {row['seconds']:.1f} s"
            )
