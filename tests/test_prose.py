"""The linter of the project's English, tests/prose.py, sees the phrases that it looks for."""

import subprocess
import sys

import pytest

from tests import prose


def test_phrases_are_seen_across_lines():
    text = "A job, and\nwhat\nis left. A plan holds no array.\n"
    assert [(line, phrase) for line, phrase, _ in prose.marks("a.md", text)] == [(2, "what is"), (3, "holds no")]


def test_of_python_only_strings_and_comments_are_read():
    text = 'apart = 1  # lies\n"""Mended."""\nprint(f"{apart} brings")\n'
    assert [(line, phrase) for line, phrase, _ in prose.marks("a.py", text)] == [
        (1, "lies"),
        (2, "mended"),
        (3, "brings"),
    ]


def test_every_phrase_can_be_found():
    examples = (
        "whoever, whom, whatever, somebody, what is, what it, what comes, all that, of which, from which, so many, "
    )
    examples += (
        "is had, is to be, This is no function, no int, holds no, must hold, stands, lies, beside, apart, at once, "
    )
    examples += (
        "turned round, going on, mended, brought, anew, for itself, is told, asked for, the one before, those of, "
    )
    examples += "Tell whether, As of `x`, will do, in all, one must, as it is, is felt, the very same"
    found = {better for _, _, better in prose.marks("a.md", examples)}
    assert found == set(prose.MARKS.values())


def test_list_is_read_as_written():
    counts = prose.read_allowed("a.md: lies 1, what is 2\nb/c.py: apart 3\n")
    assert counts["a.md"] == {"lies": 1, "what is": 2}
    assert prose.written(counts) == "a.md: lies 1, what is 2\nb/c.py: apart 3\n"


@pytest.mark.parametrize(
    ("text", "status"), [("A plain text.\n", 0), ("It lies here.\n", 0), ("It lies, and lies.\n", 1)]
)
def test_only_more_than_the_list_allows_is_refused(text, status, tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "prose.py").write_bytes((prose.ROOT / "tests" / "prose.py").read_bytes())
    (tmp_path / "tests" / "prose_allowed.txt").write_text("a.md: lies 1\n", "utf-8")
    (tmp_path / "a.md").write_text(text, "utf-8")
    command = [sys.executable, "tests/prose.py"]
    assert subprocess.run([*command, "--fewer"], cwd=tmp_path, capture_output=True, check=False).returncode == status
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == status


def test_list_with_more_than_is_left_is_refused(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "prose.py").write_bytes((prose.ROOT / "tests" / "prose.py").read_bytes())
    (tmp_path / "tests" / "prose_allowed.txt").write_text("a.md: lies 1\n", "utf-8")
    (tmp_path / "a.md").write_text("A plain text.\n", "utf-8")
    result = subprocess.run(
        [sys.executable, "tests/prose.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "--fewer" in result.stdout
