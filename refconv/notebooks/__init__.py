"""The notebooks: how they are copied, made from their texts, run and compared.

Each notebook is written once, as ``notebooks/NAME.md``, with the solutions of its exercises between two marks. Out of
it come two notebooks: the open one, whose exercises are still to be solved, which stands beside the text as
``NAME.ipynb`` with its outputs; and the solved one, which is made when it is asked for. A third, for nbgrader, is made
by :mod:`refconv.notebooks.nbgrader`.

Copying needs nothing; the rest needs the extra ``notebooks``.
"""

from __future__ import annotations

import base64
import io
import math
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refconv.files import replacing

if TYPE_CHECKING:
    from nbformat import NotebookNode

TITLES = {
    "01_sliding_window": "Sliding window",
    "02_im2col": "im2col",
    "03_backward": "Backward",
    "04_channel_groups": "Channel groups",
    "05_alexnet": "AlexNet",
    "06_logarithmic_groups": "Logarithmic groups",
    "07_break_it": "Break it",
    "08_same_code_on_a_gpu": "Same code on a GPU",
    "09_how_fast_can_numpy_be": "How fast can NumPy be?",
}
"""Every notebook by its file's name."""
STUB = "raise NotImplementedError  # your lines here"
"""Stands in an open notebook in place of a solution."""
SECONDS = dict.fromkeys(TITLES, 60) | {"06_logarithmic_groups": 180}
"""How long each notebook may take."""
SLIDERS = "(Sliders: they appear when this cell is run.)"

_GUARD = """
import socket as _socket, warnings as _warnings
def _refuse(self, address, _connect=_socket.socket.connect):
    if self.family != getattr(_socket, "AF_UNIX", None) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"a notebook must not use the network; it asked for {address}")
    return _connect(self, address)
_socket.socket.connect = _refuse
_warnings.simplefilter("error")
_warnings.simplefilter("ignore", PendingDeprecationWarning)  # of the kernel, when it shuts down
"""


class NotebookError(Exception):
    """A notebook is missing, cannot be written, or does not run as it should."""


def folder() -> Path:
    """Return the folder with the notebooks: beside this file in an installed package, else the repository's."""
    here = Path(__file__).resolve().parent
    candidates = (here / "files", here.parent.parent / "notebooks")
    for candidate in candidates:
        if (candidate / f"{next(iter(TITLES))}.md").is_file():
            return candidate
    raise NotebookError(f"no notebooks in {candidates[0]}")


def copy(to: Path, *, solved: bool = False) -> list[Path]:
    """Write all notebooks into a folder, which is made if it is missing, and return their paths.

    Parameters
    ----------
    to : Path
        No file in it is ever overwritten: it may hold somebody's work.
    solved : bool
        Whether to write the solved notebooks, without outputs, as ``NAME_solved.ipynb``.

    Raises
    ------
    NotebookError
        If one of the files is there already, or jupytext is missing, which solved notebooks need.
    """
    texts = {}
    for name in TITLES:
        file = f"{name}_solved.ipynb" if solved else f"{name}.ipynb"
        texts[to / file] = to_json(build(name, solved=True)) if solved else read(name)
    return write_new(texts)


def write_new(texts: Mapping[Path, str]) -> list[Path]:
    """Write texts into new files and return their paths, or raise a NotebookError if one of the files is there."""
    for path in texts:
        if path.exists():
            raise NotebookError(f"{path} is there already, and is not overwritten")
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(text, "utf-8")
    return list(texts)


def read(name: str) -> str:
    """Return the text of an open notebook as it stands, outputs included."""
    return (folder() / f"{name}.ipynb").read_text("utf-8")


# --- From a text to a notebook ---------------------------------------------------------------------------------------


def _without(word: str, source: str, stub: str = "") -> str:
    """Return a source with `stub` in place of what stands between the marks of `word`."""
    return re.sub(rf"(?ms)^([ ]*)### BEGIN {word}$.*?^ *### END {word}$\n?", stub and rf"\g<1>{stub}\n", source)


def _unmarked(source: str) -> str:
    return re.sub(r"(?m)^ *### (BEGIN|END) (SOLUTION|MISTAKE)$\n?", "", source).rstrip("\n")


def opened(source: str) -> str:
    r"""Return a cell's source as an exercise: each solution gives way to a mistake to mend, if there is one, or a stub.

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
    r"""Return a cell's source with its solutions, and without mistakes to mend.

    Examples
    --------
    >>> solved_source("### BEGIN MISTAKE\ny = x\n### END MISTAKE\n### BEGIN SOLUTION\ny = 2 * x\n### END SOLUTION")
    'y = 2 * x'
    """
    return _unmarked(_without("MISTAKE", source))


def build_source(name: str) -> NotebookNode:
    """Make a notebook, without outputs, from its text, with all that is between marks in it.

    Raises
    ------
    NotebookError
        If jupytext is missing.
    """
    try:
        import jupytext
    except ImportError as error:
        advice = "pip install 'refconv[notebooks]'"
        raise NotebookError(f"this needs a package that is missing ({error}): {advice}") from None
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
        if cell.cell_type == "code":
            cell.source = solved_source(cell.source) if solved else opened(cell.source)
    return notebook


def to_json(notebook: NotebookNode) -> str:
    """Return a notebook as the text of its file."""
    import nbformat

    return str(nbformat.writes(notebook)).rstrip("\n") + "\n"


# --- Running ---------------------------------------------------------------------------------------------------------


def execute(notebook: NotebookNode, *, backend: str = "numpy", limit: float = 60) -> float:
    """Run a notebook in place, from top to bottom, and return the seconds that took: `limit` at most.

    The network and warnings are errors. What the sliders draw is left out, because it lives only as long as a kernel.

    Raises
    ------
    NotebookError
        If a cell raises an exception or writes to standard error, or all of them take too long.
    """
    import nbformat
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    guard = nbformat.v4.new_code_cell(_GUARD)
    notebook.cells.insert(0, guard)
    start = time.perf_counter()
    try:
        _run(notebook, backend, limit)
    except (CellExecutionError, CellTimeoutError) as error:
        raise NotebookError(str(error)) from error
    seconds = time.perf_counter() - start
    notebook.cells.remove(guard)
    _refuse_errors_of_sliders(notebook.metadata.pop("widgets", {}))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count -= 1
            cell.outputs = list(_tidied(cell))
    if seconds > limit:
        raise NotebookError(f"the notebook takes {seconds:.0f} s; it may take {limit:g} s")
    return seconds


def _run(notebook: NotebookNode, backend: str, limit: float) -> None:
    from nbclient import NotebookClient
    from traitlets.config import Config

    paths = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONPATH": os.pathsep.join(paths),
        "REFCONV_BACKEND": backend,
    }
    # Two kernels that start at once may take the same port of the machine; files in a folder of their own they cannot.
    with tempfile.TemporaryDirectory(prefix="refconv-") as sockets:
        channels = {} if os.name == "nt" else {"transport": "ipc", "ip": str(Path(sockets) / "kernel")}
        client = NotebookClient(
            notebook,
            timeout=math.ceil(limit),
            iopub_timeout=10,
            raise_on_iopub_timeout=True,  # rather than to go on without the output
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,  # how a stream is cut into pieces is chance
            extra_arguments=["--Application.log_level=50"],
            config=Config({"KernelManager": {**channels, "client_factory": "refconv.notebooks.client.Client"}}),
        )
        client.execute(env=environment)


def _refuse_errors_of_sliders(widgets: dict[str, Any]) -> None:
    """Raise NotebookError if the function behind some sliders failed: it writes into their output, and goes on."""
    for kind in widgets.values():
        for widget in kind["state"].values():
            for output in widget["state"].get("outputs", []):
                if output["output_type"] == "error":
                    raise NotebookError(f"behind sliders: {output['ename']}: {output['evalue']}")


def _tidied(cell: NotebookNode) -> Iterator[NotebookNode]:
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stderr":
            raise NotebookError(f"a cell writes to standard error:\n{cell.source}\n{output.text}")
        if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
            output.data = {"text/plain": SLIDERS}
        if "execution_count" in output:
            output.execution_count = cell.execution_count
        yield output


def checks(notebook: NotebookNode) -> list[str]:
    """Return what the checks of a notebook's exercises printed: the cells that are tagged "check"."""
    tagged = [cell for cell in notebook.cells if "check" in cell.metadata.get("tags", [])]
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in tagged]


# --- Comparing -------------------------------------------------------------------------------------------------------


def stale(kept: NotebookNode, fresh: NotebookNode) -> list[str]:
    """Return what differs between two runs of a notebook: none if the outputs that are kept are still right.

    Text must be equal. Pictures must have nearly the same size and look nearly alike, because the bytes of a picture
    depend on the versions of the libraries that draw it. Of a cell tagged "measured" there must be outputs, of the same
    kinds, and no more is asked: they are measurements, or depend on what is installed.
    """
    found = []
    if [c.source for c in kept.cells] != [c.source for c in fresh.cells]:
        return ["the cells differ from the text"]
    for number, (old, new) in enumerate(zip(kept.cells, fresh.cells, strict=True), 1):
        if old.cell_type != new.cell_type or old.metadata != new.metadata:
            found.append(f"cell {number}: kind or tags differ")
        elif "measured" in old.metadata.get("tags", []):
            kinds = _kinds(old), _kinds(new)
            if not kinds[0] or kinds[0] != kinds[1]:
                found.append(f"cell {number}: kept {kinds[0]}, now {kinds[1]}")
        elif old.cell_type == "code":
            texts, pictures = (_texts(old), _texts(new)), (_pictures(old), _pictures(new))
            if texts[0] != texts[1]:
                found.append(f"cell {number}: kept {texts[0]!r}, now {texts[1]!r}")
            if len(pictures[0]) != len(pictures[1]) or not all(map(_alike, *pictures)):
                found.append(f"cell {number}: another picture")
    return found


def _kinds(cell: NotebookNode) -> list[str]:
    """Return which of "picture" and "text" a code cell's outputs are."""
    return ["picture"] * bool(_pictures(cell)) + ["text"] * bool(_texts(cell))


def _texts(cell: NotebookNode) -> list[str]:
    """Return a code cell's outputs as texts; a picture's text holds an address and does not count."""
    shown = []
    for output in cell.outputs:
        data = output.get("data", {})
        if output.output_type == "stream":
            shown.append(str(output.text))
        elif not any(kind.startswith("image/") for kind in data):
            shown += [f"{kind}: {data[kind]}" for kind in sorted(data)]
    return shown


def _pictures(cell: NotebookNode) -> list[bytes]:
    return [
        base64.b64decode(text)
        for output in cell.outputs
        for kind, text in output.get("data", {}).items()
        if kind == "image/png"
    ]


def _alike(old: bytes, new: bytes) -> bool:
    import numpy as np
    from PIL import Image

    images = [Image.open(io.BytesIO(data)) for data in (old, new)]
    if getattr(images[0], "n_frames", 1) != getattr(images[1], "n_frames", 1):
        return False
    if any(abs(a - b) > 0.03 * a + 2 for a, b in zip(images[0].size, images[1].size, strict=True)):
        return False
    for frame in range(getattr(images[0], "n_frames", 1)):
        small: list[Any] = []
        for image in images:
            image.seek(frame)
            small.append(np.asarray(image.convert("L").resize((96, 96)), dtype=float))
        if np.abs(small[0] - small[1]).mean() > 6:
            return False
    return True


def main(names: Sequence[str] = ()) -> None:
    """Make the open notebooks anew from their texts, run them and keep their outputs: ``make notebooks``."""
    for name in names or TITLES:
        notebook = build(name, solved=False)
        seconds = execute(notebook, limit=SECONDS[name])
        path = folder() / f"{name}.ipynb"
        with replacing(path) as partial:
            partial.write_text(to_json(notebook), "utf-8")
        print(f"{path.name}: {seconds:.1f} s")  # noqa: T201
