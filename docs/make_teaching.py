"""Write the tables of docs/teaching.md from the notebooks and the tests: ``python docs/make_teaching.py``.

The points are those of the assignments for nbgrader; the mistakes are those that tests/test_exercises.py makes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from refconv.notebooks import TITLES
from refconv.notebooks.nbgrader import Graded, grades
from refconv.testing.exercises.logarithmic_sizes import MISTAKES
from refconv.testing.exercises.slips import SLIPS
from refconv.testing.mutants import CATALOGUE

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "teaching.md"


def graded_by(exercise: Graded) -> str:
    """Say who grades an exercise, and the reply to a wrong answer."""
    if not exercise.checks:
        return "you"
    return "checker, case" if set(exercise.checks) <= {"check_answer"} else "checker, case and name"


def points() -> Iterator[str]:
    """Return the table of points."""
    yield "| notebook | exercise | graded by | points |"
    yield "|---|---|---|--:|"
    for name in TITLES:
        exercises = grades(name)
        for exercise in exercises:
            title = f"{exercise.number}. {exercise.title}"
            yield f"| {int(name[:2])} | {title} | {graded_by(exercise)} | {exercise.points} |"
        yield f"| {int(name[:2])} | **all** | | **{sum(exercise.points for exercise in exercises)}** |"


def mistakes() -> Iterator[str]:
    """Return the table of mistakes in answers, and what the checker calls them."""
    sys.path.insert(0, str(ROOT))
    from tests.test_exercises import WRONG, WRONG_SIZES

    explanations = {mutant.name: mutant.explanation for mutant in CATALOGUE}
    explanations |= {mistake.name: mistake.explanation for mistake, _ in MISTAKES}
    explanations |= {slip.name: slip.explanation for slip in SLIPS}
    made = [(notebook, function, name) for _, notebook, function, _, answers in WRONG for _, name in answers]
    made += [("08_logarithmic_groups", "logarithmic_sizes", name) for name, _ in WRONG_SIZES]
    yield "| notebook | function | the checker's name | what is wrong |"
    yield "|---|---|---|---|"
    for notebook, function, name in sorted(dict.fromkeys(made), key=lambda row: row[0]):
        yield f"| {int(notebook[:2])} | `{function}` | {name} | {explanations[name]} |"


def page() -> str:
    """Return the page with its tables made again."""
    text = PAGE.read_text("utf-8")
    for table in (points, mistakes):
        marks = rf"(?s)(<!-- {table.__name__} -->\n).*?(<!-- end of {table.__name__} -->)"
        lines = "\n".join(table())
        text, count = re.subn(marks, lambda found, lines=lines: f"{found[1]}\n{lines}\n\n{found[2]}", text)
        if count != 1:
            raise SystemExit(f"docs/teaching.md has {count} places for the table of {table.__name__}")
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
