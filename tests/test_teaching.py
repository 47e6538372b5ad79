"""The teacher's guide is correct: points, mistakes, lessons, commands, and the files for Binder."""

import re
import tomllib
from pathlib import Path

import pytest

from refconv import notebooks
from refconv.notebooks import nbgrader
from tests.helpers import run_command, script

pytest.importorskip("jupytext", reason="the extra 'notebooks' is not installed")

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs" / "teaching.md").read_text("utf-8")
NAMES = list(notebooks.TITLES)


def test_tables_are_up_to_date():
    assert script("docs/make_teaching.py").page() == GUIDE, "run python docs/make_teaching.py"


@pytest.mark.parametrize("name", NAMES)
def test_points_agree_with_those_for_nbgrader(name):
    told = [cell.metadata["nbgrader"] for cell in nbgrader.build(name).cells if "nbgrader" in cell.metadata]
    points = [facts["points"] for facts in told if facts["grade"]]
    rows = re.findall(rf"^\| {int(name[:2])} \| (\d+)\. .+ \| (\d+) \|$", GUIDE, re.MULTILINE)
    assert [int(worth) for _, worth in rows] == points
    total = re.search(rf"^\| {int(name[:2])} \| \*\*all\*\* \| \| \*\*(\d+)\*\* \|$", GUIDE, re.MULTILINE)
    assert total
    assert int(total[1]) == sum(points)


@pytest.mark.parametrize("name", NAMES)
def test_every_notebook_has_a_lesson(name):
    lesson = re.search(rf"(?ms)^### Notebook {int(name[:2])}: (.*?)(?=^##)", GUIDE)
    assert lesson
    assert re.search(rf"(?m)^\| {int(name[:2])} \| [a-z][^|]+ \|$", GUIDE), "an objective"
    minutes = [int(number) for number in re.findall(r"(?m)^\| (\d+) \| ", lesson[1])]
    assert sum(minutes) % 90 in (0, 60), minutes  # whole lessons, or two of 75 minutes
    assert sum(minutes) >= 90


def test_commands_in_the_guide_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"refconv (notebooks --to [a-z-]+(?: --[a-z]+)?)", GUIDE)
    assert len(commands) == 3
    for command in commands:
        status, _, errors = run_command(capsys, *command.split())
        assert status == 0, errors
    assert (tmp_path / "course" / "source" / NAMES[0] / f"{NAMES[0]}.ipynb").is_file()
    targets = re.findall(r"(?m)(?:^|`)make ([a-z]+)", GUIDE)
    rules = (ROOT / "Makefile").read_text("utf-8")
    assert {"lite", "grading"} <= set(targets)
    assert all(re.search(rf"(?m)^{target}:", rules) for target in targets)


def test_files_for_binder_name_what_there_is():
    lines = (ROOT / "binder" / "requirements.txt").read_text("utf-8").splitlines()
    (pins, package) = lines
    assert (ROOT / "binder" / pins.removeprefix("-c ")).resolve() == ROOT / "constraints.txt"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extra = re.fullmatch(r"\.\[(.+)\]", package)
    assert extra
    assert extra[1] in project["optional-dependencies"]
    # Pins are made on the oldest supported Python.
    version = (ROOT / "binder" / "runtime.txt").read_text("utf-8").strip()
    assert f">={version.removeprefix('python-')}" == project["requires-python"]
