"""The notebooks for nbgrader have the right metadata. test_notebooks.py tests that every check raises or passes.

In the last tests nbgrader itself makes the students' versions and grades them; `make grading` installs and runs it.
"""

import copy
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from refconv import notebooks
from refconv.notebooks import nbgrader
from tests.helpers import run_command

pytest.importorskip("jupytext", reason="the extra 'notebooks' is not installed")
nbformat = pytest.importorskip("nbformat")

NAMES = list(notebooks.TITLES)
SEEN = ("grade", "locked", "solution", "task")


def told(notebook, kind: str = ""):
    """Return the cells with nbgrader's metadata, of one kind or of all kinds."""
    kinds = {
        "answer": (False, False, True),
        "check": (True, True, False),
        "words": (True, False, True),
    }
    cells = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    facts = [(cell, tuple(cell.metadata["nbgrader"][name] for name in SEEN[:3])) for cell in cells]
    assert all(seen in kinds.values() for _, seen in facts), facts
    return [cell for cell, seen in facts if not kind or seen == kinds[kind]]


def student_version(notebook):
    """Return a student's version: a stub replaces the lines between the marks, as nbgrader documents."""
    found = copy.deepcopy(notebook)
    for cell in told(found):
        stub = notebooks.STUB if cell.cell_type == "code" else "YOUR ANSWER HERE"
        kept, inside = [], False
        for line in cell.source.split("\n"):
            if "### BEGIN SOLUTION" in line:
                assert not inside
                inside = True
                kept.append(line[: len(line) - len(line.lstrip())] + stub)
            elif "### END SOLUTION" in line:
                inside = False
            elif not inside:
                kept.append(line)
        assert not inside
        cell.source = "\n".join(kept)
    return found


def solve(release, source):
    """Put the solutions into a student's version."""
    answers = {cell.metadata["nbgrader"]["grade_id"]: cell.source for cell in told(source)}
    for cell in told(release):
        if not cell.metadata["nbgrader"]["locked"]:
            cell.source = answers[cell.metadata["nbgrader"]["grade_id"]]
    return release


# --- Metadata for nbgrader -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_metadata_for_nbgrader_is_complete(name):
    source, lesson = nbgrader.build(name), notebooks.build_source(name)
    nbformat.validate(source)
    for cell in told(source):
        facts = cell.metadata["nbgrader"]
        assert facts["schema_version"] == 3
        assert facts["task"] is False
        assert ("points" in facts) == facts["grade"]
        assert facts.get("points", 1) > 0
        assert isinstance(facts.get("points", 1), int)
    ids = [cell.metadata["nbgrader"]["grade_id"] for cell in told(source)]
    assert len(ids) == len(set(ids))

    def tagged(tag):
        return [cell for cell in lesson.cells if tag in cell.metadata.get("tags", [])]

    assert len(told(source, "check")) == len(tagged("check")) >= 3
    words = [cell for cell in tagged("solution") if cell.cell_type == "markdown"]
    assert len(told(source, "words")) == len(words)
    assert len(told(source, "answer")) == len(tagged("exercise")) + len(tagged("solution")) - len(words)
    assert all("### BEGIN SOLUTION" in cell.source for cell in told(source) if cell not in told(source, "check"))
    marks = [cell for cell in source.cells if "### BEGIN" in cell.source]
    assert all(cell in told(source) for cell in marks)
    assert "### BEGIN MISTAKE" not in "".join(cell.source for cell in source.cells)


def test_cells_of_one_exercise_get_different_names(monkeypatch):
    cells = [nbformat.v4.new_markdown_cell("**1. Twice.** Two functions.")]
    for _ in range(2):
        cells.append(nbformat.v4.new_code_cell("pass", metadata={"tags": ["exercise"]}))
        cells.append(nbformat.v4.new_code_cell("print(check_im2col(f))", metadata={"tags": ["check"]}))
    monkeypatch.setattr(nbgrader, "build_source", lambda name: nbformat.v4.new_notebook(cells=copy.deepcopy(cells)))
    ids = [cell.metadata["nbgrader"]["grade_id"] for cell in told(nbgrader.build("any"))]
    assert ids == ["exercise-1", "check-1", "exercise-1-part-2", "check-1-part-2"]
    assert [(one.number, one.title, one.points) for one in nbgrader.grades("any")] == [(1, "Twice", 2)] * 2


@pytest.mark.parametrize("name", NAMES)
def test_every_exercise_has_its_number_and_title(name):
    found = nbgrader.grades(name)
    assert all(one.number >= 1 and one.title for one in found), found
    assert [one.number for one in found] == sorted(one.number for one in found)
    assert {one.number for one in found} == set(range(1, found[-1].number + 1))


@pytest.mark.parametrize("name", NAMES)
def test_student_version_holds_no_solution_and_shows_the_mistakes_to_mend(name):
    student, source = student_version(nbgrader.build(name)), nbgrader.build(name)
    text = "\n".join(cell.source for cell in student.cells)
    assert "### " not in "\n".join(cell.source for cell in told(student))
    assert "*Answer" not in text
    assert text.count(notebooks.STUB) == len(told(source, "answer"))
    for cell in notebooks.build(name, solved=False).cells:
        if "exercise" in cell.metadata.get("tags", []) and notebooks.STUB not in cell.source:
            assert cell.source in text  # a mistake to fix is there as in the open notebook


def test_check_without_a_verdict_is_an_error():
    with pytest.raises(notebooks.NotebookError, match="no print"):
        nbgrader.checked("verdict = check_im2col(im2col)")


@pytest.mark.parametrize(
    "source",
    [
        "right = len\nPRINT(check_answer(f, right))",
        "verdict = check_answer(f)\nPRINT(verdict)",
        "for f in fs:\n    PRINT(check_answer(f))",
        "é = 1; PRINT(check_answer(é))",
        "print(1, 2)\nPRINT(check_answer(f))",
    ],
)
def test_verdicts_are_found(source):
    found = nbgrader.checked(source.replace("PRINT", "print"))
    imported = "from refconv.testing.exercises import check_answer, must_pass\n\n"
    assert found == imported + source.replace("PRINT", "must_pass")


# --- The command -----------------------------------------------------------------------------------------------------


def test_command_writes_a_course_and_never_overwrites_one(capsys, tmp_path):
    status, output, errors = run_command(capsys, "notebooks", "--to", tmp_path, "--nbgrader")
    assert status == 0, errors
    written = [Path(line).relative_to(tmp_path).as_posix() for line in output.splitlines()]
    assert written == [*(f"source/{name}/{name}.ipynb" for name in NAMES), "nbgrader_config.py"]
    for name in NAMES:
        kept = nbformat.read(tmp_path / "source" / name / f"{name}.ipynb", as_version=4)
        assert [cell.source for cell in kept.cells] == [cell.source for cell in nbgrader.build(name).cells]
    compile((tmp_path / "nbgrader_config.py").read_text("utf-8"), "nbgrader_config.py", "exec")
    (tmp_path / "nbgrader_config.py").unlink()
    status, output, errors = run_command(capsys, "notebooks", "--to", tmp_path, "--nbgrader")
    assert status == 2
    assert "is there already" in errors
    assert not (tmp_path / "nbgrader_config.py").exists()


def test_command_writes_one_kind_at_a_time(capsys, tmp_path):
    status, _, errors = run_command(capsys, "notebooks", "--to", tmp_path / "new", "--nbgrader", "--solutions")
    assert status == 2
    assert "choose one" in errors
    assert not (tmp_path / "new").exists()


# --- nbgrader itself -------------------------------------------------------------------------------------------------


def fix_above(release, source) -> set[str]:
    """Fix each given mistake in its own cell, leave the solution's cell unchanged, and return the checks that pass."""
    numbers = set()
    for given, cell in itertools.pairwise(release.cells):
        facts = cell.metadata.get("nbgrader", {})
        if cell.source.startswith(nbgrader.MENDED):
            (answer,) = (one for one in told(source) if one.metadata["nbgrader"]["grade_id"] == facts["grade_id"])
            given.source = "\n".join(line for line in answer.source.split("\n") if not line.startswith("#"))
            numbers.add(facts["grade_id"].replace("exercise", "check"))
    return numbers


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course whose assignments nbgrader itself has made, and graded for three students.

    Ada solved everything, Bob nothing; Cyd only fixed the given mistakes, in their own cells.
    """
    pytest.importorskip("nbgrader", reason="nbgrader is not installed: make grading")
    root = tmp_path_factory.mktemp("course")
    nbgrader.write(root)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # nbgrader starts alembic by name

    def tool(*arguments: str):
        command = [sys.executable, "-m", "nbgrader", *arguments]
        environment = os.environ | {"PATH": path}
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    for name in NAMES:
        tool("generate_assignment", name)
        release = nbformat.read(root / "release" / name / f"{name}.ipynb", as_version=4)
        source = nbformat.read(root / "source" / name / f"{name}.ipynb", as_version=4)
        fixed = copy.deepcopy(release)
        fix_above(fixed, source)
        handed_in = {"ada": solve(copy.deepcopy(release), source), "bob": release, "cyd": fixed}
        for student, notebook in handed_in.items():
            folder = root / "submitted" / student / name
            folder.mkdir(parents=True)
            nbformat.write(notebook, folder / f"{name}.ipynb")
        tool("autograde", name)
    return root


@pytest.mark.parametrize("name", NAMES)
def test_nbgrader_makes_the_students_version(course, name):
    release = nbformat.read(course / "release" / name / f"{name}.ipynb", as_version=4)
    expected = student_version(nbgrader.build(name))
    assert [cell.source for cell in release.cells] == [cell.source for cell in expected.cells]


@pytest.mark.parametrize("name", NAMES)
def test_nbgrader_gives_all_points_for_the_solutions_and_none_for_nothing(course, name):
    from nbgrader.api import Gradebook

    grades = nbgrader.grades(name)
    fixed = fix_above(student_version(nbgrader.build(name)), nbgrader.build(name))
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        ada, bob, cyd = (book.find_submission(name, student) for student in ("ada", "bob", "cyd"))
        assert ada.max_score == bob.max_score == sum(one.points for one in grades)
        assert ada.score == sum(one.points for one in grades if one.checks)
        assert bob.score == 0
        assert cyd.score == sum(one.points for one in grades if one.grade_id in fixed)
        assert ada.needs_manual_grade == any(not one.checks for one in grades)
