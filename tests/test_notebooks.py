"""The notebooks: none is missing, all agree with their texts, and all run with the same outputs as the saved ones."""

import asyncio
import contextlib
import copy
import json
import re
from pathlib import Path

import pytest

from refconv import notebooks
from refconv.notebooks import nbgrader
from tests.helpers import long, run_command

pytest.importorskip("jupytext", reason="the extra 'notebooks' is not installed")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient", reason="nbclient, which runs notebooks, is not installed")

from tests import run_notebooks  # noqa: E402 - not skipped if it is broken

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
NAMES = list(notebooks.TITLES)


def kept(name: str) -> nbformat.NotebookNode:
    return nbformat.reads(notebooks.read(name), as_version=4)


def code(notebook: nbformat.NotebookNode, tag: str = "") -> list[nbformat.NotebookNode]:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in cells if not tag or tag in cell.metadata.get("tags", [])]


# --- The set of notebooks --------------------------------------------------------------------------------------------


def test_folder_holds_every_notebook_and_no_other():
    assert notebooks.folder() == FOLDER
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES
    assert sorted(path.stem for path in FOLDER.glob("*.md") if path.name != "README.md") == NAMES


def test_readme_lists_every_notebook():
    listed = re.findall(r"^\| \[(\d+)\. (.+)\]\((.+)\.ipynb\)", (FOLDER / "README.md").read_text("utf-8"), re.MULTILINE)
    assert {name: title for _, title, name in listed} == notebooks.TITLES
    assert [int(number) for number, _, _ in listed] == [int(name[:2]) for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_notebook_has_its_title_its_aim_and_exercises(name):
    notebook = kept(name)
    first = notebook.cells[0].source
    assert first.startswith(f"# {int(name[:2])}. ")
    assert "After this notebook you can" in first
    headings = re.findall(r"(?m)^## (.+)$", "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown"))
    assert headings[-1] == "Exercises"
    assert len(code(notebook, "exercise")) == len(code(notebook, "check")) >= 3


WIDTH = 88
"""Columns of code that a notebook shows without a scroll bar."""


@pytest.mark.parametrize("name", NAMES)
def test_code_of_a_notebook_is_narrow(name):
    for solved in (False, True):
        lines = [line for cell in code(notebooks.build(name, solved=solved)) for line in cell.source.splitlines()]
        assert [line for line in lines if len(line) > WIDTH] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_picture_of_a_notebook_has_a_text_that_says_what_is_seen(name):
    for cell in code(kept(name)):
        pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        assert ("alt" in cell.metadata) == bool(pictures), cell.source
        for picture in pictures:
            text = cell.metadata["alt"]
            assert len(text.split()) >= 10, text
            assert text.endswith(".")
            assert cell.metadata["mystnb"] == {"image": {"alt": text}}
            assert picture.metadata["image/png"] == {"alt": text}


# --- Running ---------------------------------------------------------------------------------------------------------


QUICK = {"01_sliding_window", "11_same_code_on_a_gpu"}
"""Notebooks that `make test` runs; `make check` runs the others."""


def without_once(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Leave out the long measurements, which run in `make check`."""
    cells = [cell for cell in notebook.cells if "once" not in cell.metadata.get("tags", [])]
    return nbformat.v4.new_notebook(cells=cells)


def graded_lesson(name):
    """Return an open notebook, the cells to run, and nbgrader's checks before and after the solutions.

    After each check of the notebook come nbgrader's check, the solutions and nbgrader's check again.
    """
    lesson, source = without_once(notebooks.build(name, solved=False)), nbgrader.build(name)
    steps = []  # for each check: nbgrader's check of the student's version, and of the solutions
    answers = []
    for cell in source.cells:
        kind = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "code" and kind.get("solution"):
            answers.append(cell)
        elif cell.cell_type == "code" and kind.get("grade"):
            before, after = copy.deepcopy(cell), copy.deepcopy(cell)
            before.metadata["tags"] = ["raises-exception"]  # nbclient continues after it
            steps.append((before, answers, after))
            answers = []
    assert answers == []
    cells, waiting = [], list(steps)
    for cell in lesson.cells:
        cells.append(cell)
        if "check" in cell.metadata.get("tags", []):
            before, answers, after = waiting.pop(0)
            cells += [before, *answers, after]
    assert waiting == []
    for number, cell in enumerate(cells, 1):
        cell.id = f"cell-{number}"
    return lesson, cells, steps


@pytest.mark.parametrize("name", NAMES)
def test_saved_notebook_has_the_cells_of_its_text_and_of_nbgrader(name):
    saved, text = (
        [(cell.cell_type, cell.source, cell.metadata) for cell in notebook.cells]
        for notebook in (kept(name), notebooks.build(name, solved=False))
    )
    assert saved == text
    assert len(graded_lesson(name)[2]) == len(code(kept(name), "check"))


@pytest.mark.parametrize("name", [name if name in QUICK else long(name) for name in NAMES])
def test_notebook_runs_and_each_check_fails_for_the_stub_and_passes_for_the_solution(name):
    lesson, cells, steps = graded_lesson(name)
    run_notebooks.execute(nbformat.v4.new_notebook(cells=cells), limit=notebooks.SECONDS[name])

    assert run_notebooks.stale(without_once(kept(name)), lesson) == []
    found = run_notebooks.checks(lesson)
    assert len(found) == len(steps) >= 3
    assert all(text.startswith("FAILED: ") for text in found), found
    assert "*Answer" not in "".join(cell.source for cell in lesson.cells)
    errors = [next((o for o in before.outputs if o.output_type == "error"), None) for before, _, _ in steps]
    assert all(error and f"{error.ename}: {error.evalue}".startswith("AssertionError: FAILED: ") for error in errors)
    verdicts = ["".join(output.get("text", "") for output in after.outputs) for _, _, after in steps]
    assert all(text.startswith("passed: ") for text in verdicts), verdicts


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_whole_notebook_runs_and_its_outputs_are_not_stale(name):
    fresh = notebooks.build(name, solved=False)
    run_notebooks.execute(fresh, limit=notebooks.SECONDS[name])
    assert run_notebooks.stale(kept(name), fresh) == []


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_solved_notebook_passes_its_checks_and_says_the_same_on_other_array_modules(name, other_backend):
    solved = without_once(notebooks.build(name, solved=True))
    run_notebooks.execute(solved, backend=other_backend.name, limit=notebooks.SECONDS[name])
    left_out = {"check", "exercise", "once", "solution"}
    lessons = [
        [cell for cell in notebook.cells if not left_out & {*cell.metadata.get("tags", [])}]
        for notebook in (kept(name), solved)
    ]
    assert run_notebooks.stale(*(nbformat.v4.new_notebook(cells=cells) for cells in lessons)) == []
    found = run_notebooks.checks(solved)
    assert len(found) == len(code(solved, "check"))
    assert all(text.startswith("passed: ") for text in found), found
    assert "NotImplementedError" not in "".join(cell.source for cell in code(solved, "exercise"))
    assert "*Answer" in "".join(cell.source for cell in solved.cells)


def notebook_of(*sources: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


def test_a_notebook_must_keep_to_its_time():
    with pytest.raises(notebooks.NotebookError, match=r"it may take 0\.5 s"):
        run_notebooks.execute(notebook_of("import time\ntime.sleep(0.6)"), limit=0.5)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import warnings\nwarnings.warn('old')", "UserWarning"),
        ("import urllib.request\nurllib.request.urlopen('http://192.0.2.1/', timeout=2)", "must not use the network"),
        ("import sys\nprint('oh', file=sys.stderr)", "standard error"),
        ("1 / 0", "ZeroDivisionError"),
        ("from ipywidgets import interact\ninteract(lambda n: 1 / n, n=0);", "behind sliders: ZeroDivisionError"),
    ],
)
def test_what_a_notebook_must_not_do(source, message):
    with pytest.raises(notebooks.NotebookError, match=message):
        run_notebooks.execute(notebook_of(source))


@pytest.mark.parametrize(("kind", "arrives"), [("Channel", True), ("AsyncZMQSocketChannel", False)])
def test_a_reply_that_comes_while_a_slider_sends_is_not_missed(kind, arrives):
    """The channel of jupyter_client must miss it; otherwise this would test nothing."""
    zmq = pytest.importorskip("zmq")
    from jupyter_client.session import Session

    async def wait_for_reply():
        with zmq.asyncio.Context() as context, zmq.Context(context).socket(zmq.PAIR) as kernel:
            kernel.bind("inproc://kernel")
            session, socket = Session(), context.socket(zmq.PAIR)
            socket.connect("inproc://kernel")
            channel = getattr(run_notebooks, kind)(socket, session)
            waiting = asyncio.create_task(channel.get_msg(timeout=60))
            await asyncio.sleep(0.1)
            session.send(kernel, "execute_reply")
            channel.send(session.msg("comm_msg"))
            try:
                return (await asyncio.wait_for(waiting, 3))["msg_type"] == "execute_reply"
            except TimeoutError:
                return False
            finally:
                socket.close(0)

    assert asyncio.run(wait_for_reply()) is arrives


# --- Stale outputs are noticed ---------------------------------------------------------------------------------------


def test_the_same_notebook_is_not_stale():
    for name in NAMES:
        assert run_notebooks.stale(kept(name), kept(name)) == []


def compared(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Return the outputs that must stay the same."""
    cells = [cell for cell in code(notebook) if "measured" not in cell.metadata.get("tags", [])]
    return [output for cell in cells for output in cell.outputs]


def other_text(notebook):
    next(o for o in compared(notebook) if o.output_type == "stream").text += "1"


def other_source(notebook):
    code(notebook)[1].source += "\npass"


def lost_cell(notebook):
    del notebook.cells[-1]


def lost_tags(notebook):
    code(notebook, "check")[0].metadata = {}


def lost_output(notebook):
    next(cell for cell in code(notebook) if cell.outputs).outputs = []


def other_picture(notebook):
    pictures = [o.data for o in compared(notebook) if "image/png" in o.get("data", {})]
    pictures[0]["image/png"] = pictures[-1]["image/png"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [other_text, other_source, lost_cell, lost_tags, lost_output, other_picture])
def test_a_change_makes_a_notebook_stale(name, change):
    changed = copy.deepcopy(kept(name))
    change(changed)
    assert run_notebooks.stale(changed, kept(name)) != []


DRAW = "import matplotlib.pyplot as plt; plt.imshow([[0, {0}]]);"


@pytest.fixture(scope="module")
def measurements() -> dict[str, nbformat.NotebookNode]:
    """One notebook for each kind of output, all with the same source for the comparison."""
    sources = {
        "text": "print(1)",
        "other text": "print(2, 3)",
        "picture": DRAW.format(1),
        "other picture": DRAW.format(-1),
        "both": "print(1);" + DRAW.format(1),
        "none": "a = 1",
    }
    run = notebook_of(*sources.values())
    run_notebooks.execute(run)
    for cell in run.cells:
        cell.source, cell.metadata["tags"] = "measure()", ["measured"]
    return {kind: nbformat.v4.new_notebook(cells=[cell]) for kind, cell in zip(sources, run.cells, strict=True)}


@pytest.mark.parametrize(("old", "new"), [("text", "other text"), ("picture", "other picture")])
def test_measurements_may_differ(measurements, old, new):
    assert run_notebooks.stale(measurements[old], measurements[new]) == []
    assert run_notebooks.stale(measurements[new], measurements[old]) == []
    plain = [copy.deepcopy(measurements[kind]) for kind in (old, new)]
    for notebook in plain:
        notebook.cells[0].metadata = {}
    assert run_notebooks.stale(*plain) != []


@pytest.mark.parametrize(
    ("old", "new"),
    [("text", "none"), ("none", "text"), ("none", "none"), ("text", "picture"), ("picture", "both"), ("both", "text")],
)
def test_measurements_must_be_there_and_of_the_same_kind(measurements, old, new):
    assert run_notebooks.stale(measurements[old], measurements[new]) != []


def test_a_measurement_without_its_tag_is_stale(measurements):
    untagged = copy.deepcopy(measurements["text"])
    untagged.cells[0].metadata = {}
    assert run_notebooks.stale(measurements["text"], untagged) != []


# --- Copying ---------------------------------------------------------------------------------------------------------


def test_command_copies_the_open_notebooks(capsys, tmp_path):
    status, output, errors = run_command(capsys, "notebooks", "--to", tmp_path / "new" / "folder")
    assert status == 0, errors
    assert [Path(line).stem for line in output.splitlines()] == NAMES
    for name in NAMES:
        assert (tmp_path / "new" / "folder" / f"{name}.ipynb").read_text("utf-8") == notebooks.read(name)


def test_command_writes_the_solved_notebooks(capsys, tmp_path):
    status, _, errors = run_command(capsys, "notebooks", "--to", tmp_path, "--solutions")
    assert status == 0, errors
    for name in NAMES:
        text = (tmp_path / f"{name}_solved.ipynb").read_text("utf-8")
        assert "NotImplementedError" not in "".join(
            "".join(cell["source"])
            for cell in json.loads(text)["cells"]
            if "exercise" in cell["metadata"].get("tags", [])
        )


def test_command_never_overwrites_work(capsys, tmp_path):
    work = tmp_path / f"{NAMES[-1]}.ipynb"
    work.write_text("a night's work", "utf-8")
    status, _, errors = run_command(capsys, "notebooks", "--to", tmp_path)
    assert status == 2
    assert "is there already" in errors
    assert [path.name for path in tmp_path.iterdir()] == [work.name]
    assert work.read_text("utf-8") == "a night's work"


@contextlib.contextmanager
def files_of_at_most(size):
    """Let a longer write fail halfway, as on a full disk."""
    resource = pytest.importorskip("resource", reason="this system has no such limits")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))  # Python ignores the signal
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_leaves_no_notebook_and_the_command_can_be_repeated(capsys, tmp_path, there):
    to = tmp_path / "learning"
    if there:
        to.mkdir()
        (to / "mine.txt").write_text("mine")
    sizes = {name: len(notebooks.read(name).encode()) for name in NAMES}
    with files_of_at_most(max(sizes.values()) - 1):
        status, output, errors = run_command(capsys, "notebooks", "--to", to)
    largest = max(sizes, key=sizes.get)
    assert (status, output) == (2, "")
    assert errors == f"refconv: {to / largest}.ipynb cannot be written: File too large; nothing was written\n"
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == (
        ["learning/mine.txt"] if there else []
    )
    assert run_command(capsys, "notebooks", "--to", to)[0] == 0
    assert len([*to.glob("*.ipynb")]) == len(NAMES)


def test_new_files_join_the_ones_that_are_there(tmp_path):
    (tmp_path / "source" / "a").mkdir(parents=True)
    (tmp_path / "source" / "a" / "mine").write_text("mine")
    names = ["source/a/1", "source/b/2", "new/deep/3", "4"]
    assert notebooks.write_new(tmp_path, {name: name for name in names}) == [tmp_path / name for name in names]
    files = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {
        "source/a/mine": "mine",
        **{name: name for name in names},
    }
