"""Checkpoints: everything is read back bit for bit, and damaged files are refused."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refconv.nn import CheckpointError, load_checkpoint, save_checkpoint

safetensors = pytest.importorskip("safetensors", reason="safetensors is not installed: no checkpoints")

ARRAYS: dict[str, Any] = {
    "weight": np.arange(12, dtype="float32").reshape(3, 4)[:, ::2],
    "half": np.array([1.5, -2], "float16"),
    "order": np.array([3, 1, 2]),
    "empty": np.zeros((0, 4)),
    "odd": np.array([np.nan, np.inf, -0.0, 5e-324]),
}
META = {"step": 3, "loss": 0.1 + 0.2, "rng": {"state": 2**127 + 1}, "rows": [{"a": None}, {"b": "ü"}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, ARRAYS, META)
    return path


def test_it_comes_back_to_the_bit(path: Path) -> None:
    found = load_checkpoint(path)
    assert found.meta == META
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (found.arrays[name].dtype, found.arrays[name].shape) == (array.dtype, array.shape)
        assert found.arrays[name].tobytes() == array.tobytes()


def test_the_same_contents_are_the_same_bytes(path: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "again", dict(reversed(ARRAYS.items())), dict(reversed(META.items())))
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_any_safetensors_reader_can_read_it(path: Path) -> None:
    from safetensors.numpy import load_file

    np.testing.assert_array_equal(load_file(path)["weight"], ARRAYS["weight"])


def test_it_has_the_permissions_of_new_files(path: Path, tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


@pytest.mark.parametrize("seed", range(40))
def test_a_changed_bit_is_noticed(path: Path, seed: int) -> None:
    contents = bytearray(path.read_bytes())
    bit = int(np.random.default_rng(seed).integers(8 * len(contents)))
    contents[bit // 8] ^= 1 << bit % 8
    path.write_bytes(contents)
    with pytest.raises(CheckpointError, match=rf"{path.name}: (damaged|a safetensors file, but not)"):
        load_checkpoint(path)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_a_truncated_file_is_refused(path: Path, part: float) -> None:
    contents = path.read_bytes()
    path.write_bytes(contents[: int(part * len(contents))])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)


def test_something_else_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.ones(2)}, tmp_path / "foreign", {"format": "pt"})
    (tmp_path / "text").write_text("not a checkpoint, but a text longer than eight bytes")
    for name, message in (
        ("foreign", "not a refconv checkpoint"),
        ("text", "damaged, or not a safetensors file"),
        ("missing", "there is no checkpoint"),
        (".", "not a file; expected a checkpoint"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(tmp_path / name)


@pytest.mark.parametrize("meta", [3, None, "[]", "no JSON", "[" * 100_000])
def test_invalid_settings_are_refused(path: Path, meta: Any) -> None:
    from safetensors.numpy import save_file

    from refconv.nn.checkpoint import FORMAT, _digest

    arrays = {"a": np.ones(2)}
    header = {"format": FORMAT, "meta": meta, "sha256": _digest(arrays, str(meta))}
    save_file(arrays, path, {"refconv": json.dumps(header)})
    with pytest.raises(CheckpointError, match=f"{path.name}: (damaged|a safetensors file, but not)"):
        load_checkpoint(path)


@pytest.mark.parametrize("moment", ["write", "flush", "rename"])
def test_what_cannot_be_written_leaves_the_old_one(path: Path, monkeypatch: Any, moment: str) -> None:
    before = path.read_bytes()

    def full(*_: object) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if moment == "write":
        monkeypatch.setattr("safetensors.numpy.save_file", full)
    else:
        monkeypatch.setattr(*((os, "fsync") if moment == "flush" else (Path, "replace")), full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, {"new": np.ones(3)}, {})
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_error_of_the_library_is_an_error_of_the_file(path: Path, monkeypatch: Any) -> None:
    def full(*_: object) -> Any:
        raise safetensors.SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, {}, {})
    assert load_checkpoint(path).meta == META


def test_what_a_killed_process_left_is_overwritten(path: Path) -> None:
    (path.parent / f".{path.name}.partial").write_bytes(b"half")
    save_checkpoint(path, {}, {"step": 4})
    assert load_checkpoint(path).meta == {"step": 4}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_without_safetensors_one_error_says_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for call in (lambda: load_checkpoint(path), lambda: save_checkpoint(path, {}, {})):
        with pytest.raises(ImportError, match=r"pip install safetensors$"):
            call()
