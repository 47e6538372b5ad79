"""Code blocks of the pages that are not doctests: Python compiles, commands have their options, source is included."""

import ast
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from refconv.cli.run import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
FIGURES = sorted(ROOT.glob("docs/**/*.png"))
LANGUAGES = {"python", "sh", "text", "{toctree}", "{eval-rst}", "{literalinclude}", "{notebook-cards}"}
INCLUDE = re.compile(r"^```\{literalinclude\} (\S+)\n((?::.*\n)*)```$", re.MULTILINE)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the language and the text of each fenced block."""
    return re.findall(r"^ *```(\S*)(?: \S+)?\n(.*?)^ *```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def unknown_words(line: str) -> list[str]:
    """Return the words of a refconv command line that the command does not know."""
    name, *words = shlex.split(line, comments=True)[1:]
    command = cli.commands.get(name)
    if command is None:
        return [name]
    options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    return [word for word in words if word.startswith("--") and word.partition("=")[0] not in options]


def included(page: str) -> dict[str, list[str]]:
    """Return the functions that a page includes from each file of refconv/."""
    found: dict[str, list[str]] = {}
    for path, options in INCLUDE.findall(page):
        found.setdefault(path.rpartition("refconv/")[2], []).extend(re.findall(r":pyobject: (\S+)", options))
    return found


def functions(source: str) -> list[str]:
    """Return the functions of a module, in order."""
    return [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_are_what_they_say(page):
    for language, text in blocks(page):
        assert language in LANGUAGES
        if language == "python" and not text.startswith(">>>"):
            compile(text, page.name, "exec")
        if language == "sh":
            for line in re.findall(r"^(?:\w+=\w+ )?(refconv .*)", text, re.MULTILINE):
                assert unknown_words(line) == [], line


@pytest.mark.parametrize("figure", FIGURES, ids=lambda path: path.name)
def test_figures_are_cut_nowhere(figure):
    Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    image = np.asarray(Image.open(figure).convert("L"))
    assert min(edge.min() for edge in (image[0], image[-1], image[:, 0], image[:, -1])) == 255


def test_figures_are_described():
    for page in PAGES:
        assert "![](" not in page.read_text("utf-8")


def test_stale_commands_are_seen():
    assert unknown_words("refconv cots alexnet") == ["cots"]
    assert unknown_words("refconv cost alexnet --gruops 2 --json") == ["--gruops"]


def test_page_about_the_gpu_runs(monkeypatch):
    """Its block runs with NumPy in place of CuPy, because the calls are the same."""
    stand_in = ModuleType("cupy")
    stand_in.asarray, stand_in.ones_like = np.asarray, np.ones_like
    monkeypatch.setitem(sys.modules, "cupy", stand_in)
    (block,) = [t for kind, t in blocks(ROOT / "docs" / "gpu.md") if kind == "python" and not t.startswith(">>>")]
    names = {"images": np.ones((1, 4, 3, 3)), "kernels": np.ones((2, 2, 3, 3)), "print": lambda total: None}
    exec(block, names)
    assert names["y"].shape == (1, 2, 3, 3)
    assert names["grads"].weight.shape == (2, 2, 3, 3)


def test_textbook_page_shows_the_whole_textbook():
    shown = included((ROOT / "docs" / "textbook.md").read_text("utf-8"))
    assert shown["textbook.py"] == functions((ROOT / "refconv" / "textbook.py").read_text("utf-8"))
    assert shown["im2col.py"] == ["gather_columns", "scatter_columns"]


def test_a_function_missing_from_the_page_is_seen():
    page = "```{literalinclude} ../refconv/textbook.py\n:language: python\n:pyobject: a\n```\n"
    assert included(page) == {"textbook.py": ["a"]}
    assert functions("def a():\n    pass\n\n\ndef b():\n    pass\n") == ["a", "b"]
