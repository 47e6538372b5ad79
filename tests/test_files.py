"""Files and folders are written completely or not at all: after any exception only the old one is there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from refconv.files import alone_in, check_destination, replaced_folder, replacing

Tree = dict[str, str]


def tree(folder: Path) -> Tree:
    """Return all files with their texts, and all folders."""
    return {
        path.relative_to(folder).as_posix(): "folder" if path.is_dir() else path.read_text()
        for path in folder.rglob("*")
    }


def test_the_new_file_is_on_the_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: Any) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("flush"), fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda a, b: (events.append("rename"), replace(a, b)))
    with replacing(tmp_path / "file") as partial:
        partial.write_text("new")
    assert events == ["flush", "rename", "flush"]
    assert tree(tmp_path) == {"file": "new"}


def fill(path: Path) -> None:
    path.write_text("half")
    raise OSError("full")


def test_an_interrupted_file_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match="full"), replacing(tmp_path / "file") as partial:
        fill(partial)
    assert tree(tmp_path) == {"file": "old"}


def place(folder: Path, name: str) -> Path:
    """Return a path in a folder with a file, a folder, a link to a file, a link to nothing and a half-written file."""
    (folder / "file").write_text("old")
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("file")
    (folder / "dangling").symlink_to("folder/new")
    (folder / ".busy.partial").write_text("half")
    return folder / name


@pytest.mark.parametrize(
    ("name", "is_folder"),
    [
        ("new", False),
        ("file", False),
        ("link", False),
        ("dangling", False),
        ("folder/new", False),
        ("busy", False),
        (os.devnull, False),
        ("new", True),
        ("new/and/newer", True),
        ("new/../newer", True),
        ("folder", True),
        (".", True),
    ],
)
def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path: Path, name: str, is_folder: bool) -> None:
    path = place(tmp_path, name)
    before = {found: found.lstat() for found in tmp_path.rglob("*") if found.is_symlink() or not found.is_dir()}
    check_destination(path, folder=is_folder)
    assert {found: found.lstat() for found in tmp_path.rglob("*") if found.is_symlink() or not found.is_dir()} == before


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_place_where_nothing_can_be_made_is_refused(tmp_path: Path, monkeypatch: Any, is_folder: bool) -> None:
    """The file system is read-only."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match="Read-only file system"):
        check_destination(tmp_path / "new", folder=is_folder)


def test_links_are_followed_and_devices_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/file")
    for text in ("first", "second"):
        with replacing(tmp_path / "link") as partial:
            partial.write_text(text)
    assert (tmp_path / "link").is_symlink()
    assert tree(tmp_path / "real") == {"file": "second"}
    device = Path(os.devnull)
    with replacing(device) as partial:
        assert partial == device


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises((OSError, RuntimeError), match=r"[Ll]oop|levels of"), replacing(tmp_path / "loop"):
        pass
    assert (tmp_path / "loop").is_symlink()


@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_a_new_folder_is_filled(tmp_path: Path, names: tuple[str, ...]) -> None:
    with replaced_folder(tmp_path / "out", names) as new:
        (new / "a").write_text("1")
        (new / "b").write_text("2")
        assert not (tmp_path / "out").exists()
    assert tree(tmp_path) == {"out": "folder", "out/a": "1", "out/b": "2"}


OLD = {"out": "folder", "out/a": "old", "out/c": "mine"}
REPLACED: dict[tuple[str, ...], Tree] = {
    (): {"out": "folder", "out/a": "1", "out/b": "2"},
    ("a", "b"): {"out": "folder", "out/a": "1", "out/b": "2", "out/c": "mine"},
}


def replace(folder: Path, names: tuple[str, ...]) -> None:
    """Replace the old folder, or these files in it."""
    folder.mkdir(exist_ok=True)
    (folder / "a").write_text("old")
    (folder / "c").write_text("mine")
    with replaced_folder(folder, names) as new:
        (new / "a").write_text("1")
        (new / "b").write_text("2")


@pytest.mark.parametrize("names", REPLACED)
def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path, names: tuple[str, ...]) -> None:
    replace(tmp_path / "out", names)
    assert tree(tmp_path) == REPLACED[names]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
@pytest.mark.parametrize("names", REPLACED)
@pytest.mark.parametrize("moved", [False, True])
def test_after_an_interruption_between_any_moves_the_old_one_is_back(
    tmp_path: Path, monkeypatch: Any, names: tuple[str, ...], moved: bool, error: type[BaseException]
) -> None:
    """Each move is interrupted once just before it happens and once just after."""
    rename: Callable[[Path, Path], Path] = Path.rename
    moves = 2 if not names else 3  # the old folder and the new one; or the old file, and the two new ones

    def interrupted(last: int) -> Callable[[Path, Path], Path]:
        count = 0

        def move(path: Path, target: Path) -> Path:
            nonlocal count
            count += 1
            if count == last and not moved:
                raise error
            found = rename(path, target)
            if count == last:
                raise error
            return found

        return move

    for last in range(1, moves + 1):
        folder = tmp_path / str(last)
        folder.mkdir()
        monkeypatch.setattr(Path, "rename", interrupted(last))
        with pytest.raises(error):
            replace(folder / "out", names)
        assert tree(folder) == OLD
    monkeypatch.setattr(Path, "rename", interrupted(moves + 1))
    replace(tmp_path / "out", names)  # there are no further moves


def test_a_file_that_was_not_written_replaces_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(FileNotFoundError), replaced_folder(tmp_path, ("a", "b")) as new:
        (new / "a").write_text("new")
    assert tree(tmp_path) == {"a": "old"}


def test_a_folder_is_had_alone_until_the_block_ends(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="this system has no such locks")
    for _ in range(2):
        with alone_in(tmp_path) as first, alone_in(tmp_path) as second:
            assert (first, second) == (True, False)
    assert list(tmp_path.iterdir()) == []
