"""Grading a folder of submissions, several at a time."""

from __future__ import annotations

import ast
import csv
import json
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from refconv.testing.checker.targets import TargetError
from refconv.testing.grader.parent import Graded, Limits, failed_report, grade

COLUMNS = ("submission", "verdict", "failed checks", "reason", "seconds")


@dataclass(frozen=True)
class Submission:
    """One submission of a folder.

    Attributes
    ----------
    name : str
        The name of its file or sub-folder.
    file : Path or None
        The file that contains its functions.
    problem : str
        Why there is no such file.
    """

    name: str
    file: Path | None
    problem: str = ""


@dataclass(frozen=True)
class Row:
    """One submission and its outcome."""

    submission: Submission
    graded: Graded

    def cells(self) -> tuple[str, ...]:
        """Return the texts of `COLUMNS`. The reason is the first failure's: the mistake's name if it is known."""
        failures = self.graded.report["failures"]
        reason = ""
        if failures:
            first = failures[0]
            names = [diagnosis["name"] for diagnosis in first["diagnoses"] if diagnosis["rank"] == 1]
            reason = " or ".join(names) or first.get("explanation") or first["message"]
        return (
            self.submission.name,
            "passed" if self.graded.passed else "FAILED",
            ", ".join(failure["check"] for failure in failures),
            reason,
            f"{self.graded.seconds:.1f}",
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the row as plain data, with the whole report and what the submission printed."""
        return {
            "name": self.submission.name,
            "file": None if self.submission.file is None else str(self.submission.file),
            "passed": self.graded.passed,
            "seconds": round(self.graded.seconds, 3),
            "output": self.graded.output,
            "report": self.graded.report,
        }


def submissions(folder: Path, function: str = "forward") -> list[Submission]:
    """Return the submissions of a folder: its Python files, and its sub-folders that contain Python files.

    Names that begin with a dot or an underscore are ignored. In a sub-folder, the file to check is the only one, or the
    only one that defines `function` at its top level. No code is run to find it.
    """
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")):
            continue
        if path.is_dir():
            files = sorted(path.glob("*.py"))
            chosen = files if len(files) == 1 else [file for file in files if _defines(file, function)]
            if len(chosen) == 1:
                found.append(Submission(path.name, chosen[0]))
            elif files:
                names = ", ".join(file.name for file in chosen)
                problem = f"{len(chosen)} files define {function}: {names}" if chosen else f"no file defines {function}"
                found.append(Submission(path.name, None, problem))
        elif path.suffix == ".py":
            found.append(Submission(path.name, path))
    return found


def _defines(file: Path, function: str) -> bool:
    """Return whether the top level of a file defines, assigns or imports a name."""
    if not file.is_file():  # reading a pipe might never end
        return False
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return False
    name = function.partition(".")[0]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return True
        if isinstance(node, ast.Import | ast.ImportFrom) and name in [a.asname or a.name for a in node.names]:
            return True
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return True
    return False


def grade_folder(
    found: Sequence[Submission],
    *,
    forward: str = "forward",
    backward: str | None = None,
    settings: Mapping[str, Any],
    limits: Limits,
    backend: str = "numpy",
    environment: Mapping[str, str] | None = None,
    jobs: int = 1,
) -> Generator[Row, None, None]:
    """Yield a row for each submission, in the order in which they finish.

    Parameters
    ----------
    found : sequence of Submission
        See :func:`submissions`.
    forward, backward : str
        Names of the functions. Without `backward`, a function called "backward" is checked where there is one.
    settings, limits, backend, environment
        See :func:`refconv.testing.grader.parent.grade`.
    jobs : int
        Number of submissions graded at the same time.
    """
    stop = threading.Event()

    def graded(submission: Submission) -> Row:
        started = time.perf_counter()
        problem = submission.problem
        if submission.file is not None:
            try:
                result = grade(
                    f"{submission.file}:{forward}",
                    f"{submission.file}:{backward or 'backward'}",
                    settings=settings,
                    limits=limits,
                    backend=backend,
                    environment=environment,
                    backward_optional=backward is None,
                    stop=stop,
                )
                return Row(submission, result)
            except TargetError as error:
                problem = str(error)
        made = failed_report(settings, limits.call, backward is not None, "call", problem)
        seconds = time.perf_counter() - started
        return Row(submission, Graded(json.loads(made.to_json()), str(made), "", seconds))

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for future in as_completed([pool.submit(graded, submission) for submission in found]):
                yield future.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def write_csv(rows: Sequence[Row], file: TextIO) -> None:
    """Write a table with the columns `COLUMNS`. Texts that a spreadsheet would read as formulas get a leading '."""
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([f"'{cell}" if cell.startswith(tuple("=+-@\t\r")) else cell for cell in row.cells()])
