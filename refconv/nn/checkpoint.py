"""Checkpoints: arrays and settings in one safetensors file, written atomically."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refconv.files import replacing

FORMAT = "refconv checkpoint 1"


class CheckpointError(ValueError):
    """A checkpoint cannot be read: it is missing, damaged, or not a checkpoint."""


class Checkpoint(NamedTuple):
    """The contents of a checkpoint."""

    arrays: dict[str, np.ndarray[Any, Any]]
    meta: dict[str, Any]
    """Values that `json` can write: numbers, strings, lists and dictionaries."""


def save_checkpoint(path: str | os.PathLike[str], arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Write a checkpoint in place of the one at `path`, atomically.

    The file is written under another name in the same folder, flushed to disk and then renamed. Even if the process or
    the machine dies or the disk is full, `path` is either the complete old checkpoint or the complete new one.

    Parameters
    ----------
    path : path
        In an existing folder.
    arrays : mapping of str to numpy.ndarray
        The arrays to save.
    meta : mapping
        Values that `json` can write; numbers are restored exactly.

    Raises
    ------
    OSError
        If the file cannot be written; the old checkpoint stays.
    ImportError
        If safetensors is not installed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/a.safetensors", {"w": np.arange(3)}, {"step": 7})
    ...     load_checkpoint(f"{folder}/a.safetensors")
    Checkpoint(arrays={'w': array([0, 1, 2])}, meta={'step': 7})
    """
    _, save_file, error = _safetensors()
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps(dict(meta), sort_keys=True)
    path = Path(path)
    with replacing(path) as partial:
        try:
            # One entry, because the library may write several entries in any order.
            header = {"format": FORMAT, "meta": text, "sha256": _digest(plain, text)}
            save_file(plain, partial, {"refconv": json.dumps(header)})
        except error as failure:  # the library reports a full disk as its own kind of error
            raise OSError(f"{path}: {failure}") from failure


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint, and verify its checksum.

    Parameters
    ----------
    path : path
        A file written by :func:`save_checkpoint`.

    Returns
    -------
    Checkpoint
        ``(arrays, meta)``.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged or not a checkpoint of this project.
    ImportError
        If safetensors is not installed.
    """
    safe_open, _, error = _safetensors()
    path = Path(path)
    if path.exists() and not path.is_file():  # reading a pipe might never end
        raise CheckpointError(f"{path}: not a file; expected a checkpoint")
    try:
        with safe_open(path, "np") as file:
            header = json.loads((file.metadata() or {}).get("refconv", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dictionary)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no checkpoint") from None
    except OSError as failure:
        raise CheckpointError(f"{path}: cannot be read: {failure.strerror or failure}") from failure
    except (error, ValueError, KeyError, TypeError, RecursionError) as failure:
        raise CheckpointError(f"{path}: damaged, or not a safetensors file ({failure})") from failure
    if not isinstance(header, dict) or header.keys() != {"format", "meta", "sha256"} or header["format"] != FORMAT:
        raise CheckpointError(f"{path}: a safetensors file, but not a refconv checkpoint")
    if not isinstance(header["meta"], str) or _digest(arrays, header["meta"]) != header["sha256"]:
        raise CheckpointError(f"{path}: damaged: its contents do not match the checksum stored with them")
    try:
        meta = json.loads(header["meta"])
    except (ValueError, RecursionError):
        meta = None
    if not isinstance(meta, dict):
        raise CheckpointError(f"{path}: a safetensors file, but not a refconv checkpoint")
    return Checkpoint(arrays, meta)


def _digest(arrays: Mapping[str, np.ndarray[Any, Any]], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _safetensors() -> tuple[Any, Any, type[Exception]]:
    try:
        from safetensors import SafetensorError, safe_open
        from safetensors.numpy import save_file
    except ImportError as error:
        raise ImportError("checkpoints need safetensors: pip install safetensors") from error
    return safe_open, save_file, SafetensorError
