"""Files and folders that are written whole (what was there before stays until the new one is complete), and a lock."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a file to write; at the end it replaces `path`, or is removed after an exception.

    The contents reach the disk before the replacement and the name after it, so a power failure leaves no half file.
    Links are followed. What is not a regular file, such as /dev/null, is written directly.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path = path.resolve()
    partial = path.with_name(f".{path.name}.partial")  # a fixed name, so that a killed process leaves one file
    try:
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        partial.chmod(mode)  # the default mode: the writer may have set a more restrictive one
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):  # elsewhere a folder cannot be opened, which is not needed there
        folder = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def replaced_folder(folder: Path, names: Sequence[str] = ()) -> Iterator[Path]:
    """Yield a new folder to fill; at the end it takes the place of `folder`, or is removed after an exception.

    With `names`, only these files of the folder are replaced, all or none, and its other files stay as they are. After
    any exception, even an interruption between two moves, everything is as before. After a kill between two moves, the
    old files are in the hidden folder beside it or, with `names`, inside it.
    """
    beside = folder if names and folder.exists() else folder.parent  # on the same disk
    stage = Path(tempfile.mkdtemp(prefix=f".{folder.name[:100]}.", suffix=".part", dir=beside))
    new, old = stage / "new", stage / "old"
    try:
        new.mkdir()  # with usual permissions, unlike the stage
        yield new
        if names and folder.exists():
            old.mkdir()
            _take_places([(new / name, folder / name, old / name) for name in names])
        else:
            _take_places([(new, folder, old)])
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _take_places(moves: Sequence[tuple[Path, Path, Path]]) -> None:
    """Move each (new, place, old): what is at its place to old, and new to its place. After an exception, undo it."""
    for new, _, _ in moves:
        new.lstat()  # raises if it is missing
    try:
        for new, place, old in moves:
            if os.path.lexists(place):
                place.rename(old)
            new.rename(place)
    except BaseException:
        for new, place, old in moves:
            if not new.exists():
                place.rename(new)
            if os.path.lexists(old):
                old.rename(place)
        raise


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[bool]:
    """Yield whether this process is the only one in this block with the same folder.

    Nothing is written, and the system releases the lock with the process. Without such locks, the answer is True.
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return
    number, alone = os.open(folder, os.O_RDONLY), True
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            alone = False
        except OSError:  # a file system without locks
            pass
        yield alone
    finally:
        os.close(number)
