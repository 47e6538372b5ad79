"""CIFAR-10 from its binary files; the Python version uses pickle, which is never loaded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from refconv.nn.data.split import DataError, Images, Split, make_split, reading

SIDE = 32
_CLASSES = 10
_RECORD = 1 + 3 * SIDE * SIDE  # a label, then the red, the green and the blue plane
_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST, _NAMES = "test_batch.bin", "batches.meta.txt"
_SUBFOLDER = "cifar-10-batches-bin"
_WANTED = f"the CIFAR-10 binary version: {_TRAIN[0]} … {_TRAIN[-1]}, {_TEST} and {_NAMES}"


def load_cifar10(folder: str | os.PathLike[str]) -> Split:
    """Return CIFAR-10's 50,000 training and 10,000 test images from a folder with its binary version.

    Nothing is downloaded: get "CIFAR-10 binary version (suitable for C programs)" from
    https://www.cs.toronto.edu/~kriz/cifar.html and unpack it. Each file is a sequence of records of 3,073 bytes: the
    label, then 1,024 bytes each of red, green and blue, row by row. Any whole number of records is accepted.

    Parameters
    ----------
    folder : path
        The folder with the files, or the folder that contains ``cifar-10-batches-bin``.

    Returns
    -------
    Split
        Images float32 (N, 3, 32, 32), labels int64 (N,), classes "airplane" … "truck" from ``batches.meta.txt``.

    Raises
    ------
    DataError
        If a file is missing, cannot be read, does not consist of whole records, or has a label above 9; or if the
        folder contains the Python version, which uses pickle.

    References
    ----------
    A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", University of Toronto, 2009.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from refconv.nn.data import load_cifar10
    >>> files = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for label, name in enumerate(files):
    ...         _ = Path(folder, name).write_bytes(bytes([label]) + bytes(3072))
    ...     _ = Path(folder, "batches.meta.txt").write_text(" ".join("abcdefghij"))
    ...     split = load_cifar10(folder)
    >>> split.train_images.shape, split.train_labels.tolist(), split.classes[3]
    ((5, 3, 32, 32), [0, 1, 2, 3, 4], 'd')
    """
    folder = Path(folder)
    with reading(folder):
        place = _find(folder)
    names = _class_names(place / _NAMES)
    parts = [_records(place / name) for name in _TRAIN]
    train = np.concatenate([images for images, _ in parts])
    train_labels = np.concatenate([labels for _, labels in parts])
    return make_split(train, train_labels, *_records(place / _TEST), names)


def _find(folder: Path) -> Path:
    """Return the folder that contains all of the files."""
    if not folder.is_dir():
        raise DataError(f"{folder} is {'not a folder' if folder.exists() else 'missing'}; expected {_WANTED}")
    places = [folder, folder / _SUBFOLDER]
    missing = {place: [name for name in (*_TRAIN, _TEST, _NAMES) if not (place / name).exists()] for place in places}
    place = min(places, key=lambda place: len(missing[place]))
    if not missing[place]:
        return place
    for python_version in (folder, folder / "cifar-10-batches-py"):
        if (python_version / "data_batch_1").exists():
            raise DataError(
                f"{python_version} contains the Python version of CIFAR-10, which uses pickle and is never loaded: "
                "loading a pickle may run any program. Download the CIFAR-10 binary version"
            )
    raise DataError(f"{place} lacks {', '.join(missing[place])}; expected {_WANTED}")


def _read(path: Path) -> bytes:
    with reading(path):
        if not path.is_file():  # a folder, or a pipe or device, whose reading might never end
            raise DataError(f"{path} is not a file")
        return path.read_bytes()


def _class_names(path: Path) -> list[str]:
    names = _read(path).decode("utf-8", errors="replace").split()
    if len(names) != _CLASSES:
        raise DataError(f"{path} must contain the names of {_CLASSES} classes, one per line; got {len(names)}")
    return names


def _records(path: Path) -> tuple[Images, Images]:
    """Return images uint8 (N, 3, 32, 32) and labels uint8 (N,)."""
    data = _read(path)
    if not data or len(data) % _RECORD:
        raise DataError(
            f"{path} has {len(data):,} bytes; expected a multiple of {_RECORD:,} and at least one record "
            f"({10_000 * _RECORD:,} bytes as downloaded)"
        )
    records = np.frombuffer(data, "uint8").reshape(-1, _RECORD)
    labels = records[:, 0]
    wrong = np.flatnonzero(labels >= _CLASSES)
    if wrong.size:
        raise DataError(
            f"{path}: the label of record {wrong[0]} (from 0) is {labels[wrong[0]]}; expected 0 … {_CLASSES - 1}"
        )
    return records[:, 1:].reshape(-1, 3, SIDE, SIDE), labels
