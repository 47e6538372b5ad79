"""What every data set is: images and labels to train on, others to test with, and the names of the classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refconv.integers import cut

Images = np.ndarray[Any, Any]
_AT_A_TIME = 1024
"""Images that are counted or converted at once, so that a large set takes little memory beyond its own."""


class DataError(ValueError):
    """Files of the user's are missing, or are not what they should be; the message names them and what was expected."""


class Split(NamedTuple):
    """Images and labels to train on, and others to test with; NumPy arrays.

    Images are float32 (N, C, H, W), shifted and scaled so that every channel of the training images has mean 0 and
    standard deviation 1; the test images take the same shift and scale. Labels are int64 (N,), from 0.
    """

    train_images: np.ndarray[Any, Any]
    train_labels: np.ndarray[Any, Any]
    test_images: np.ndarray[Any, Any]
    test_labels: np.ndarray[Any, Any]
    classes: tuple[str, ...]
    """``classes[label]`` is the name of a class."""


def make_split(train: Images, train_labels: Images, test: Images, test_labels: Images, classes: Sequence[str]) -> Split:
    """Return a Split of uint8 images (N, C, H, W), standardised by what the training images show.

    A uint8 has 256 values. Counting them gives mean and standard deviation exactly, and a table of 256 entries a
    channel then standardises any image. A channel of one single value is only shifted.
    """
    levels = np.arange(256)
    tables = []
    for channel in range(train.shape[1]):
        parts = (train[part, channel] for part in cut(train.shape[0], _AT_A_TIME))
        counts = sum(np.bincount(values.ravel(), minlength=256) for values in parts)
        mean = float(np.average(levels, weights=counts))
        deviation = float(np.average((levels - mean) ** 2, weights=counts)) ** 0.5
        tables.append(((levels - mean) / (deviation or 1.0)).astype("float32"))

    def standardised(images: Images) -> Images:
        result = np.empty(images.shape, "float32")
        for channel, table in enumerate(tables):
            for part in cut(images.shape[0], _AT_A_TIME):
                result[part, channel] = np.take(table, images[part, channel])
        return result

    return Split(
        standardised(train),
        train_labels.astype("int64"),
        standardised(test),
        test_labels.astype("int64"),
        tuple(classes),
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an error of the system into one that names the file or folder."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


@contextmanager
def needing(what: str, package: str) -> Iterator[None]:
    """Turn a failed import into an error that says what needs the package and how to install it."""
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{what} need {package}: pip install 'refconv[train]'") from error
