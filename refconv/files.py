"""Write files and folders completely or not at all: the old ones stay until the new ones are complete. Also a lock.

A destination can be checked before the work whose result will be written there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path


def check_destination(path: Path, *, folder: bool) -> None:
    """Check that a file or a folder can be written at `path`, without leaving a trace.

    The parents of a folder may be missing, because they will be created; the parent of a file must exist.

    Raises
    ------
    OSError
        If `path` exists but is of another kind, or cannot be written; `strerror` says why.
    """
    path = Path(os.path.abspath(path)) if folder else Path(os.path.realpath(path))  # noqa: PTH100 - "..", as users mean
    found = path
    while True:
        try:
            found.stat()
            break
        except FileNotFoundError:
            if os.path.lexists(found):
                raise OSError(errno.ENOENT, f"{found} is a link to nothing") from None
            if not folder and found != path:
                raise OSError(errno.ENOENT, f"there is no folder {path.parent}") from None
            found = found.parent
    if found == path and folder and not path.is_dir():
        raise OSError(errno.ENOTDIR, "it is a file")
    if found == path and not folder and not path.is_file():
        if path.is_dir():
            raise OSError(errno.EISDIR, "it is a folder")
        if not os.access(path, os.W_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return
    if folder:
        with tempfile.TemporaryFile(dir=found):
            return
    partial = _partial(path)
    with contextlib.suppress(FileExistsError):  # left by a killed process, or another process is writing it
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        partial.unlink()


def _partial(path: Path) -> Path:
    """Return the path of the incomplete file; it is always the same, so that killed processes leave at most one."""
    return path.with_name(f".{path.name}.partial")


def resolved(path: Path) -> Path:
    """Return an absolute path without links; a loop of links raises OSError, which Path does not do on Python 3.13."""
    found = path.resolve()
    if found.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return found


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a file to write; at the end it replaces `path`, or is removed after an exception.

    The contents are flushed to disk before the replacement and the name after it, so even a power failure leaves no
    incomplete file. Links are followed. Anything but a regular file, such as /dev/null, is written directly.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path = resolved(path)
    partial = _partial(path)
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
    if hasattr(os, "O_DIRECTORY"):  # Windows cannot open folders, and does not need to
        folder = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def replaced_folder(folder: Path, names: Sequence[str] = ()) -> Iterator[Path]:
    """Yield a new folder to fill; at the end it replaces `folder`, or is removed after an exception.

    With `names`, only these files of the folder are replaced, all or none, and its other files stay. After any
    exception, even an interruption between two moves, everything is as before. If the process is killed between two
    moves, the old files are in a hidden folder next to `folder` or, with `names`, inside it.
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
    """For each (new, place, old), move the file at place to old, and new to place. After an exception, undo it all."""
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
    """Yield whether no other process is inside this block with the same folder.

    The lock writes nothing, and the system releases it when the process ends. Without file locks, the answer is True.
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
