"""Progress of trainings and comparisons: a bar on a terminal, and lines."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from refconv.experiments.compare import CompareObserver
from refconv.experiments.tables import short_name
from refconv.experiments.train import Observer
from refconv.nn import Step

if TYPE_CHECKING:
    from rich.console import Console


class _Console:
    """Prints to a rich console; use it as a context manager, which removes the bar at the end.

    Parameters
    ----------
    console : rich.console.Console
        Where to print.
    """

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}  {task.fields[figures]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class ConsoleObserver(_Console, Observer):
    """Shows one training: a bar of its steps, and one line per epoch."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._epochs = 0
        self._started, self._images = 0.0, 0

    def begin(self, step: int, step_count: int, steps_per_epoch: int) -> None:
        """Print the last step done, if the training resumes."""
        self._epochs = step_count // steps_per_epoch
        if step:
            self._say(f"resuming after step {step} of {step_count}")
        self._task = self._progress.add_task("", total=step_count, completed=step, figures="")
        self._started = time.perf_counter()

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
        self._say(
            f"epoch {row['epoch']:>{len(str(self._epochs))}}/{self._epochs}  loss {row['train_loss']:.4f}  "
            f"accuracy: training {100 * row['train_accuracy']:.2f} %, test {100 * row['test_accuracy']:.2f} %  "
            f"{row['images_per_second']:.0f} images/s"
        )


class ConsoleCompareObserver(_Console, CompareObserver):
    """Shows a comparison: a bar of its trainings on a terminal, otherwise one line per training."""

    def begin(self, done: int, total: int) -> None:
        """Print the number of finished trainings, if the comparison resumes."""
        self._done, self._total = done, total
        if done:
            self._say(f"resuming after {done} of {total} trainings")
        self._task = self._progress.add_task("", total=total, completed=done, figures="")

    def after(self, row: dict[str, Any]) -> None:
        """Move the bar, or print a line."""
        self._done += 1
        what = f"{short_name(row['data'])}, {row['budget']:,} parameters, {row['groups']}, seed {row['seed']}"
        self._progress.update(self._task, completed=self._done, description=what)
        if not self._console.is_terminal:
            self._say(f"{self._done:>{len(str(self._total))}}/{self._total}  {what}  {row['seconds']:.1f} s")
