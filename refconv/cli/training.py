"""What ``refconv train``, ``compare`` and ``predict`` share."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence

import click

CLASSES_AT_MOST = 20
"""Number of classes up to which a confusion matrix is printed."""


@contextlib.contextmanager
def no_warnings() -> Iterator[None]:
    """Be silent on overflow in a training that diverges, which ends with a message of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def print_confusion(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> None:
    """Print how many test images of each class were taken for each class."""
    from refconv.tables import Column, print_table

    tested, right = sum(map(sum, confusion)), sum(row[index] for index, row in enumerate(confusion))
    if len(classes) > CLASSES_AT_MOST:
        click.echo(
            f"{right:,} of {tested:,} test images right; --json has the confusion matrix of {len(classes)} classes"
        )
        return
    rows = [(name, *(f"{count:,}" for count in row)) for name, row in zip(classes, confusion, strict=True)]
    title = f"{right:,} of {tested:,} test images right. Row: the class; column: the prediction"
    print_table(title, [Column("", words=True), *map(Column, classes)], rows)
