"""The files of a public project are correct: workflows, forms, and the pip commands of pages and messages."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml

import refconv
from tests.helpers import script
from tests.test_pages import unknown_words

ROOT = Path(__file__).resolve().parent.parent
GITHUB = ROOT / ".github"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WORKFLOWS = {path.stem: path.read_text("utf-8") for path in (GITHUB / "workflows").glob("*.yml")}
TEMPLATES = [*sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")), GITHUB / "PULL_REQUEST_TEMPLATE.md"]
TARGETS = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
PATTERNS = ("*.md", "docs/**/*.md", "notebooks/*.md", "refconv/**/*.py")
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for p in PATTERNS for path in ROOT.glob(p)}


def jobs(workflow: str) -> dict:
    return yaml.safe_load(WORKFLOWS[workflow])["jobs"]


def untrue_installs(text: str) -> list[str]:
    """Return the pip commands that need an index with refconv, and those with an unknown extra."""
    commands = re.findall(r"pip install[^`\n&#]*", text)
    of_an_index = [c for c in commands if re.search(r"""[\s'"]refconv(\[[^\]]*\])?(?! ?@)(['"\s]|$)""", c)]
    named = [(c, set(extras.split(","))) for c in commands for extras in re.findall(r"'(?:\.|\S+\.whl)\[(.*?)\]", c)]
    return of_an_index + [c for c, extras in named if not extras <= set(PROJECT["optional-dependencies"])]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_pip_commands_work_without_an_index_that_has_refconv(text):
    assert untrue_installs(text) == []


@pytest.mark.parametrize(
    ("command", "is_true"),
    [
        ("pip install '.[train]'", True),
        ("pip install -c constraints.txt -e '.[dev]' && refconv tour", True),
        ("pip install 'dist/refconv-0.1.0-py3-none-any.whl[tour,strict]'", True),
        ('pip install -q "refconv[notebooks] @ git+ADDRESS"', True),
        ("pip install safetensors  # refconv needs it", True),
        ("pip install 'refconv[train]'", False),
        ("pip install refconv", False),
        ("pip install '.[training]'", False),
    ],
)
def test_untrue_pip_commands_are_seen(command, is_true):
    assert (untrue_installs(f"`{command}`") == []) == is_true


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_by_commit(name):
    uses = re.findall(r"uses: (.*)", WORKFLOWS[name])
    assert uses
    for action in uses:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_workflows_make_what_the_makefile_makes():
    commands = [
        step["run"] for name in WORKFLOWS for job in jobs(name).values() for step in job["steps"] if "run" in step
    ]
    commands += yaml.safe_load((ROOT / ".readthedocs.yaml").read_text("utf-8"))["build"]["commands"]
    made = {target for command in commands for target in re.findall(r"^make ([a-z]+)$", command)}
    made |= {row["versions"] for row in jobs("tests")["versions"]["strategy"]["matrix"]["include"]}
    assert made == {"test", "check", "oldest", "newest", "wheel", "workflows", "site"}
    assert made <= TARGETS


def test_supported_pythons_are_tested():
    tested = jobs("tests")["pinned"]["strategy"]["matrix"]["python"]
    claimed = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert tested == claimed
    assert PROJECT["requires-python"] == f">={tested[0]}"
    ends = {row["versions"]: row["python"] for row in jobs("tests")["versions"]["strategy"]["matrix"]["include"]}
    assert ends == {"oldest": tested[0], "newest": tested[-1]}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_templates_ask_for_a_report_of_the_checker(template):
    text = template.read_text("utf-8")
    assert "refconv check" in text
    for command in re.findall(r"refconv check \S+:\S+[^`\n]*", text):
        assert unknown_words(command) == []
        files = re.findall(r"(\S+\.py):(\w+)", command)
        assert [function for _, function in files] == ["forward", "backward"]
        for path, function in files:
            assert f"\ndef {function}(" in (ROOT / path).read_text("utf-8")


def test_the_functions_that_templates_ask_to_check_are_refconvs_own():
    itself = script("docs/examples/refconv_itself.py")
    x, w, b = np.ones((1, 2, 4, 5)), np.ones((4, 1, 2, 3)), np.ones(4)
    options = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}
    y = refconv.conv(x, w, b, **options)
    assert np.array_equal(itself.forward(x, w, b, *options.values()), y)
    for own, grad in zip(
        itself.backward(y, x, w, *options.values()), refconv.conv_backward(y, x, w, **options), strict=True
    ):
        assert np.array_equal(own, grad)
