"""Named pipes where a file is expected: each command refuses them, instead of waiting for their contents."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refconv.testing.grader.folder import submissions
from tests.helpers import run_command

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")


@contextlib.contextmanager
def pipe(path: Path) -> Iterator[None]:
    """Make a pipe. Its other end is closed after two seconds, so that a wrong reader does not wait for ever."""
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR)
    timer = threading.Timer(2, os.close, [end])
    timer.start()
    try:
        yield
    finally:
        timer.join()


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    ("name", "given", "module", "message"),
    [
        ("checkpoint.safetensors", "predict {file}", "safetensors", "{file}: not a file; expected a checkpoint"),
        ("checkpoint.safetensors", "predict {folder}", "safetensors", "{file}: not a file; expected a checkpoint"),
        ("checkpoint.safetensors", "train --resume --out {folder}", "safetensors", "{file}: not a file; expected a"),
        ("metrics.jsonl", "train residual --out {folder}", "matplotlib", "{file} is not a file; choose another --out"),
        ("curves.png", "train residual --out {folder}", "matplotlib", "{file} is not a file; choose another --out"),
        ("results.jsonl", "compare --resume --data digits --out {folder}", "scipy", "{file} is not a file"),
        ("manifest.json", "vectors --out {folder}", "safetensors", "is not empty and contains no test vectors"),
        ("index.html", "tour --out {folder}", "skimage", "{file} does not belong to a report of refconv tour"),
        ("a.py", "check {file}:forward", "numpy", "there is no file {file}"),
    ],
)
def test_a_pipe_is_refused(capsys: Any, tmp_path: Path, name: str, given: str, module: str, message: str) -> None:
    pytest.importorskip(module, reason=f"{module} is not installed")
    names = {"file": tmp_path / name, "folder": tmp_path}
    with pipe(tmp_path / name):
        code, out, err = run_command(capsys, *given.format(**names).split())
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert re.search(re.escape(message.format(**names)), err)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_pipe_is_no_submission(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "right.py").write_text("def forward(): pass\n")
    with pipe(tmp_path / "one" / "a.py"):
        (found,) = submissions(tmp_path)
    assert found.file == tmp_path / "one" / "right.py"
