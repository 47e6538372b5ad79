"""Shared parts of ``refconv train``, ``compare`` and ``predict``."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence

import click

CLASSES_AT_MOST = 20
"""Number of classes up to which a confusion matrix is printed."""


@contextlib.contextmanager
def no_warnings() -> Iterator[None]:
    """Silence overflow warnings in a training that diverges, which ends with its own message."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def print_confusion(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> None:
    """Print the number of test images of each class that were classified as each class."""
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
