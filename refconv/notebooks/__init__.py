"""Make the notebooks from their texts, and copy them.

Each notebook is written once, as ``notebooks/NAME.md``, with the solutions of its exercises between two marks. Two
notebooks are made from it. The open one, without solutions, is stored next to the text as ``NAME.ipynb``, with its
outputs; the solved one is made on request. :mod:`refconv.notebooks.nbgrader` makes a third, for nbgrader.
``tests/run_notebooks.py`` runs and compares them.

Copying open notebooks needs no extra package; everything else needs the extra ``notebooks``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from refconv.files import replaced_folder

if TYPE_CHECKING:
    from nbformat import NotebookNode

TITLES = {
    "01_sliding_window": "Sliding window",
    "02_im2col": "im2col",
    "03_backward": "Backward",
    "04_channel_groups": "Channel groups",
    "05_transposed": "Transposed convolution",
    "06_alexnet": "AlexNet",
    "07_training_alexnet": "Training AlexNet",
    "08_logarithmic_groups": "Logarithmic groups",
    "09_break_it": "Break it",
    "10_check_your_own": "Check your own",
    "11_same_code_on_a_gpu": "Same code on a GPU",
    "12_how_fast_can_numpy_be": "How fast can NumPy be?",
}
"""The title of each notebook, by file name."""
STUB = "raise NotImplementedError  # your lines here"
"""Replaces a solution in an open notebook."""
SECONDS = dict.fromkeys(TITLES, 60) | {"08_logarithmic_groups": 180}
"""Seconds that each notebook may take."""


class NotebookError(Exception):
    """A notebook is missing, cannot be written, or does not run as it should."""


def folder() -> Path:
    """Return the folder with the notebooks: next to this file if refconv is installed, otherwise the repository's."""
    here = Path(__file__).resolve().parent
    candidates = (here / "files", here.parent.parent / "notebooks")
    for candidate in candidates:
        if (candidate / f"{next(iter(TITLES))}.md").is_file():
            return candidate
    raise NotebookError(f"no notebooks in {candidates[0]}")


def copy(to: Path, *, solved: bool = False) -> list[Path]:
    """Write all notebooks into a folder, creating it if necessary, and return their paths.

    Parameters
    ----------
    to : Path
        Its files may contain someone's work, so they are never overwritten.
    solved : bool
        Whether to write the solved notebooks, without outputs, as ``NAME_solved.ipynb``.

    Raises
    ------
    NotebookError
        If one of the files already exists or cannot be written, or if jupytext, which solved notebooks need, is
        missing. Nothing is written in that case.
    """
    texts = {}
    for name in TITLES:
        file = f"{name}_solved.ipynb" if solved else f"{name}.ipynb"
        texts[file] = to_json(build(name, solved=True)) if solved else read(name)
    return write_new(to, texts)


def write_new(to: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write texts into new files of a folder, either all or none, and return their paths.

    Parameters
    ----------
    to : Path
        The folder, created if necessary.
    texts : mapping of str to str
        Texts by file name; a name may contain folders.

    Raises
    ------
    NotebookError
        If one of the files already exists or cannot be written.
    """
    for name in texts:
        if (to / name).exists():
            raise NotebookError(f"{to / name} is there already, and is not overwritten")
    path = to
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with replaced_folder(to, sorted({_first_missing(to, name) for name in texts})) as new:
            for name, text in texts.items():
                path = to / name
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                (new / name).write_text(text, "utf-8")
    except OSError as error:
        raise NotebookError(f"{path} cannot be written: {error.strerror or error}; nothing was written") from error
    return [to / name for name in texts]


def _first_missing(to: Path, name: str) -> str:
    """Return the shortest missing part of a missing file's path: a folder above the file, or the file itself."""
    parts = Path(name).parts
    ways = (Path(*parts[:depth]) for depth in range(1, len(parts) + 1))
    return str(next(way for way in ways if not (to / way).exists()))


def read(name: str) -> str:
    """Return the contents of an open notebook's file, outputs included."""
    return (folder() / f"{name}.ipynb").read_text("utf-8")


# --- From a text to a notebook ---------------------------------------------------------------------------------------


def _without(word: str, source: str, stub: str = "") -> str:
    """Return a source with `stub` in place of each section between the marks of `word`."""
    return re.sub(rf"(?ms)^([ ]*)### BEGIN {word}$.*?^ *### END {word}$\n?", stub and rf"\g<1>{stub}\n", source)


def _unmarked(source: str) -> str:
    return re.sub(r"(?m)^ *### (BEGIN|END) (SOLUTION|MISTAKE)$\n?", "", source).rstrip("\n")


def opened(source: str) -> str:
    r"""Return a cell's source as an exercise: with a mistake to correct, or a stub, in place of its solution.

    Examples
    --------
    >>> print(opened("def f(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"))
    def f(x):
        raise NotImplementedError  # your lines here
    >>> print(opened("### BEGIN MISTAKE\ny = x\n### END MISTAKE\n### BEGIN SOLUTION\ny = 2 * x\n### END SOLUTION"))
    y = x
    """
    return _unmarked(_without("SOLUTION", source, "" if "### BEGIN MISTAKE" in source else STUB))


def solved_source(source: str) -> str:
    r"""Return a cell's source with its solutions and without the mistakes to correct.

    Examples
    --------
    >>> solved_source("### BEGIN MISTAKE\ny = x\n### END MISTAKE\n### BEGIN SOLUTION\ny = 2 * x\n### END SOLUTION")
    'y = 2 * x'
    """
    return _unmarked(_without("MISTAKE", source))


def build_source(name: str) -> NotebookNode:
    """Make a notebook from its text, without outputs but with every marked section.

    Raises
    ------
    NotebookError
        If jupytext is missing.
    """
    try:
        import jupytext
    except ImportError as error:
        raise NotebookError(f"notebooks need jupytext: pip install jupytext ({error})") from None
    notebook: NotebookNode = jupytext.read(folder() / f"{name}.md", fmt="md:myst")
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def build(name: str, *, solved: bool) -> NotebookNode:
    """Make a notebook, without outputs, from its text.

    Raises
    ------
    NotebookError
        If jupytext is missing.
    """
    notebook = build_source(name)
    if not solved:
        notebook.cells = [cell for cell in notebook.cells if "solution" not in cell.metadata.get("tags", [])]
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = f"cell-{number}"
        if "hide-input" in cell.metadata.get("tags", []):
            cell.metadata["jupyter"] = {"source_hidden": True}  # Jupyter folds the code of a figure
        if "alt" in cell.metadata:
            cell.metadata["mystnb"] = {"image": {"alt": cell.metadata["alt"]}}  # the site reads it there
        if cell.cell_type == "code":
            cell.source = solved_source(cell.source) if solved else opened(cell.source)
    return notebook


def to_json(notebook: NotebookNode) -> str:
    """Return a notebook as the text of its file."""
    import nbformat

    return str(nbformat.writes(notebook)).rstrip("\n") + "\n"
