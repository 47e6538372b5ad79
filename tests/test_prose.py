"""The linter of the project's English, tests/prose.py, sees the phrases that it looks for."""

import shutil
import subprocess
import sys

import pytest

from tests import prose

FIRST, SECOND = (prose.MARKS[row][2] for row in (18, 20))
"""Two phrases of one word each."""


def run(folder, *options):
    """Run the linter on a folder in which one file may have the first phrase once."""
    (folder / "tests").mkdir(exist_ok=True)
    for name in ("prose.py", "prose_marks.txt"):
        shutil.copy(prose.ROOT / "tests" / name, folder / "tests")
    (folder / "tests" / "prose_allowed.txt").write_text(f"a.md: {FIRST} 1\n", "utf-8")
    command = [sys.executable, "tests/prose.py", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_phrases_are_seen_across_lines():
    (phrase,) = [example for _, _, example in prose.MARKS if example.endswith("only")]
    text = f"A plan\n{phrase.replace(' ', chr(10))} numbers.\n"
    assert [(line, found) for line, found, _ in prose.marks("a.md", text)] == [(2, phrase)]


def test_of_python_only_strings_and_comments_are_read():
    text = f'{FIRST} = 1  # {SECOND}\n"""{FIRST}"""\nprint(f"{{{FIRST}}} {SECOND}")\n'
    assert [(line, found) for line, found, _ in prose.marks("a.py", text)] == [(1, SECOND), (2, FIRST), (3, SECOND)]


@pytest.mark.parametrize(("mark", "better", "example"), prose.MARKS)
def test_every_phrase_can_be_found(mark, better, example):
    assert better in [instead for _, _, instead in prose.marks("a.md", f"A, {example}.")], mark


def test_list_is_read_as_written():
    text = f"a.md: {FIRST} 1, two words 2\nb/c.py: {SECOND} 3\n"
    assert prose.read_allowed(text)["a.md"] == {FIRST: 1, "two words": 2}
    assert prose.written(prose.read_allowed(text)) == text


def test_more_than_the_list_allows_is_refused(tmp_path):
    (tmp_path / "a.md").write_text(f"It {FIRST}.\n", "utf-8")
    assert run(tmp_path).returncode == 0
    (tmp_path / "a.md").write_text(f"It {FIRST}, and\n{FIRST}.\n", "utf-8")
    assert f"a.md:2: “{FIRST}”" in run(tmp_path).stdout
    assert run(tmp_path).returncode == 1
    assert run(tmp_path, "--fewer").returncode == 1


def test_list_that_is_too_long_is_refused_until_it_is_shortened(tmp_path):
    (tmp_path / "a.md").write_text("A plain text.\n", "utf-8")
    result = run(tmp_path)
    assert result.returncode == 1
    assert "--fewer" in result.stdout
    assert run(tmp_path, "--fewer").returncode == 0
    assert (tmp_path / "tests" / "prose_allowed.txt").read_text("utf-8") == ""
