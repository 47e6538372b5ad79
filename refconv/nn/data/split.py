"""The form of every data set: images and labels for training and for testing, and the names of the classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refconv.integers import cut

Images = np.ndarray[Any, Any]
_AT_A_TIME = 1024
"""Number of images counted or converted together, so that a large set takes little extra memory."""


class DataError(ValueError):
    """The user's files are missing or unsuitable; the message names them and the expected form."""


class Split(NamedTuple):
    """Images and labels for training, and others for testing, as NumPy arrays.

    Images are float32 (N, C, H, W), shifted and scaled so that every channel of the training images has mean 0 and
    standard deviation 1; the test images take the same shift and scale. Labels are int64 (N,), from 0.
    """

    train_images: np.ndarray[Any, Any]
    train_labels: np.ndarray[Any, Any]
    test_images: np.ndarray[Any, Any]
    test_labels: np.ndarray[Any, Any]
    classes: tuple[str, ...]
    """``classes[label]`` is the name of a class."""
    scale: tuple[tuple[float, float], ...] = ()
    """Mean and standard deviation of each channel before standardising, where 0 is black and 1 is white (or ink)."""


def make_split(
    train: Images,
    train_labels: Images,
    test: Images,
    test_labels: Images,
    classes: Sequence[str],
    *,
    largest: int = 255,
) -> Split:
    """Return a Split of uint8 images (N, C, H, W), standardised by the statistics of the training images.

    A uint8 has 256 values. Counting them gives the exact mean and standard deviation, and a table of 256 entries per
    channel then standardises any image. A channel with a single value is only shifted. `largest` is the largest value
    that a pixel may have.
    """
    levels = np.arange(256)
    tables, scale = [], []
    for channel in range(train.shape[1]):
        parts = (train[part, channel] for part in cut(train.shape[0], _AT_A_TIME))
        counts = sum(np.bincount(values.ravel(), minlength=256) for values in parts)
        mean = float(np.average(levels, weights=counts))
        deviation = float(np.average((levels - mean) ** 2, weights=counts)) ** 0.5 or 1.0
        tables.append(((levels - mean) / deviation).astype("float32"))
        scale.append((mean / largest, deviation / largest))

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
        tuple(scale),
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn a system error into a DataError that names the file or folder."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


@contextmanager
def needing(what: str, *packages: str) -> Iterator[None]:
    """Turn a failed import into an error that says why the package is needed and how to install it."""
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{what} need {' and '.join(packages)}: pip install {' '.join(packages)}") from error
