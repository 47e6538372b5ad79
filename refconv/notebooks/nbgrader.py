"""The notebooks as assignments for nbgrader: the same text, with points and with checks that raise exceptions.

Each notebook is a separate assignment, ``source/NAME/NAME.ipynb`` in a course's folder. A cell's tag determines its
metadata for nbgrader:

* ``exercise``: an autograded answer. Its solution stays between nbgrader's marks. A mistake to correct is given in a
  separate cell, because nbgrader puts "not written yet" in place of every solution that it removes.
* ``check``: a locked test worth points, which raises an exception unless it prints "passed: …".
* ``solution``: an answer in words, graded by hand. In code, it is worth no points and is only removed.

A cell's points are its metadata ``points``, otherwise :data:`POINTS`.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refconv.notebooks import (
    SECONDS,
    STUB,
    TITLES,
    NotebookError,
    build_source,
    opened,
    solved_source,
    to_json,
    write_new,
)
from refconv.testing import exercises

if TYPE_CHECKING:
    from nbformat import NotebookNode

POINTS = 2
"""Points of a cell whose metadata give none."""
MENDED = "# The corrected function. (Or correct it above, and empty this cell.)"
CONFIG = f'''"""nbgrader's settings for this course; see the teacher's guide of refconv."""

c = get_config()
c.CourseDirectory.course_id = "refconv"
c.ClearSolutions.code_stub = {{"python": "{STUB}"}}
c.ExecutePreprocessor.timeout = {max(SECONDS.values())}  # seconds a cell may take; nbgrader allows 30
'''


@dataclass(frozen=True)
class Graded:
    """An exercise that is worth points.

    Attributes
    ----------
    notebook, number, title
        Its notebook, its number there, and its title.
    points : int
        Points for a right answer.
    checks : tuple of str
        The functions of :mod:`refconv.testing.exercises` that check it; none if it is graded by hand.
    grade_id : str
        Name of its cell in nbgrader.
    """

    notebook: str
    number: int
    title: str
    points: int
    checks: tuple[str, ...]
    grade_id: str


def write(to: Path) -> list[Path]:
    """Write the folder of a course for nbgrader and return the paths of its files.

    Raises
    ------
    NotebookError
        If one of the files already exists or cannot be written, or jupytext is missing. Nothing is written in that
        case.
    """
    texts = {f"source/{name}/{name}.ipynb": to_json(build(name)) for name in TITLES}
    texts["nbgrader_config.py"] = CONFIG
    return write_new(to, texts)


def build(name: str) -> NotebookNode:
    """Make the instructor's version of a notebook, solutions included, without outputs.

    Raises
    ------
    NotebookError
        If jupytext is missing, or a cell cannot be graded.
    """
    notebook = build_source(name)
    cells: list[NotebookNode] = []
    for cell in notebook.cells:
        cells += _graded(cell, _lead(cells), name)
    seen: Counter[str] = Counter()
    for number, cell in enumerate(cells, 1):
        cell.id = f"cell-{number}"
        if facts := cell.metadata.get("nbgrader"):
            seen[facts["grade_id"]] += 1
            if (count := seen[facts["grade_id"]]) > 1:
                facts["grade_id"] += f"-part-{count}"
    notebook.cells = cells
    return notebook


def grades(name: str) -> list[Graded]:
    """Return the exercises of a notebook that are worth points, in order."""
    found, cells = [], build(name).cells
    for index, cell in enumerate(cells):
        facts = cell.metadata.get("nbgrader", {})
        if facts.get("grade"):
            number, title = _lead(cells[:index])
            checks = () if facts["solution"] else tuple(sorted(_names(ast.parse(cell.source)) & _CHECKS))
            found.append(Graded(name, number, title, facts["points"], checks, facts["grade_id"]))
    return found


def checked(source: str) -> str:
    """Return the source of a check so that it raises an AssertionError unless it prints "passed: …".

    Raises
    ------
    NotebookError
        If no print of a verdict is found in it.

    Examples
    --------
    >>> print(checked("print(check_im2col(im2col))"))
    from refconv.testing.exercises import check_im2col, must_pass
    <BLANKLINE>
    must_pass(check_im2col(im2col))
    """
    tree = ast.parse(source)
    prints = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    last = tree.body[-1].value if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    verdicts = [node for node in prints if len(node.args) == 1 and (node is last or _names(node) & _CHECKS)]
    if not verdicts:
        raise NotebookError(f"no print(verdict) in the check:\n{source}")
    lines = source.split("\n")
    for node in verdicts:  # col_offset counts bytes
        line = lines[node.lineno - 1].encode()
        start = node.func.col_offset
        lines[node.lineno - 1] = (line[:start] + b"must_pass" + line[start + len("print") :]).decode()
    needed = ", ".join(sorted({"must_pass", *(_names(tree) & _CHECKS)}))
    return "\n".join([f"from refconv.testing.exercises import {needed}", "", *lines])


_CHECKS = {name for name in vars(exercises) if name.startswith("check_")}


def _names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _graded(cell: NotebookNode, lead: tuple[int, str], notebook: str) -> list[NotebookNode]:
    """Return the cell in nbgrader's form, or two cells if it contains a mistake to correct."""
    tags = {*cell.metadata.get("tags", [])}
    points = cell.metadata.pop("points", POINTS)
    kind = tags & {"exercise", "check", "solution"}
    if not kind:
        return [cell]
    if len(kind) > 1 or (cell.cell_type != "code" and "solution" not in kind):
        raise NotebookError(f"{notebook}: a cell cannot be {' and '.join(sorted(tags))}:\n{cell.source}")
    number = lead[0]
    if "check" in kind:
        cell.source = checked(cell.source)
        return [_told(cell, f"check-{number}", grade=True, locked=True, points=points)]
    if "exercise" in kind:
        if "### BEGIN MISTAKE" not in cell.source:
            return [_told(cell, f"exercise-{number}", solution=True)]
        given = cell.copy()
        given.metadata = type(cell.metadata)()
        given.source = opened(cell.source)
        cell.source = f"{MENDED}\n{_marked(solved_source(cell.source))}"
        return [given, _told(cell, f"exercise-{number}", solution=True)]
    if cell.cell_type == "code":
        cell.source = _marked(solved_source(cell.source))
        return [_told(cell, f"solution-{number}", solution=True)]
    cell.source = f"<!-- ### BEGIN SOLUTION -->\n{cell.source}\n<!-- ### END SOLUTION -->"
    return [_told(cell, f"answer-{number}", grade=True, solution=True, points=points)]


def _marked(source: str) -> str:
    return f"### BEGIN SOLUTION\n{source}\n### END SOLUTION"


def _told(cell: NotebookNode, grade_id: str, **facts: Any) -> NotebookNode:
    """Return the cell with nbgrader's metadata, in version 3 of its schema."""
    known = {"grade": False, "locked": False, "solution": False, "task": False, **facts}
    cell.metadata["nbgrader"] = {"schema_version": 3, "grade_id": grade_id, **known}
    return cell


def _lead(cells: list[NotebookNode]) -> tuple[int, str]:
    """Return the last exercise's number and title in these cells, from a line such as "**1. The size.**"."""
    for cell in reversed(cells):
        if cell.cell_type == "markdown" and (found := re.findall(r"(?m)^\*\*(\d+)\. (.+?)\.?\*\*", cell.source)):
            return int(found[-1][0]), " ".join(found[-1][1].split())
    return 0, ""
