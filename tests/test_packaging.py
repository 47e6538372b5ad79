"""The installed package: built from this tree, installed into an empty folder, imported in a separate process."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from textwrap import dedent

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
OPTIONAL = (
    "IPython", "PIL", "array_api_strict", "click", "cupy", "hypothesis", "ipywidgets", "jinja2", "jupytext",
    "matplotlib", "nbclient", "nbformat", "rich", "safetensors", "scipy", "skimage", "sklearn", "torch",
)  # fmt: skip


def run(*command: object, **environment: str) -> str:
    """Run a command outside the source tree and return its output."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=Path(sys.prefix),
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel made from that sdist: (sdist, wheel)."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT)
    (sdist,) = out.glob("*.tar.gz")
    (wheel,) = out.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """A folder that contains only the installed wheel."""
    target = tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", "--target", target, built[1])
    return target


def test_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = wheel.namelist()
    info = f"refconv-{PROJECT['version']}.dist-info"
    assert {name.split("/")[0] for name in names} == {"refconv", info}
    source = [path for path in (ROOT / "refconv").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    lessons = [path for path in (ROOT / "notebooks").iterdir() if path.is_file()]
    assert {name for name in names if name.startswith("refconv/")} == {
        *(path.relative_to(ROOT).as_posix() for path in source),
        *(f"refconv/notebooks/files/{path.name}" for path in lessons),
    }
    assert "refconv/py.typed" in names
    texts = [(ROOT / name).read_text("utf-8") for name in names if name.endswith(".py")]
    assert not [text for text in texts if "nbclient" in text]  # running notebooks is for the repository
    assert f"{info}/licenses/LICENSE" in names


def test_sdist_can_be_tested_and_cited(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = {"Makefile", "constraints.txt", "LICENSE", "CITATION.cff", "tests/conftest.py", "refconv/py.typed"}
    assert wanted <= names
    assert not [name for name in names if name.startswith((".venv", ".git/")) or name.endswith(".pyc")]


def test_installed_wheel_runs_from_where_it_was_put(installed):
    code = """
        import importlib.metadata, refconv, numpy as np
        y = refconv.conv(np.ones((1, 4, 3, 5)), np.ones((2, 2, 3, 3)), groups=2)
        assert y.tolist() == [[[[18.0] * 3]] * 2], y
        print(refconv.__file__)
        print(importlib.metadata.version("refconv"), refconv.__version__)
    """
    file, versions = run(sys.executable, "-c", dedent(code), PYTHONPATH=str(installed)).splitlines()
    assert Path(file).resolve() == (installed / "refconv" / "__init__.py").resolve()
    assert versions == f"{PROJECT['version']} {PROJECT['version']}"


def test_command_is_installed(installed):
    # Only the commands need click and rich, which are dependencies; the extras must not be needed for --help.
    code = f"""
        import sys
        sys.modules.update(dict.fromkeys(set({OPTIONAL}) - {{"click", "rich"}}))
        from importlib.metadata import distribution
        (command,) = distribution("refconv").entry_points.select(group="console_scripts", name="refconv")
        sys.argv = ["refconv", "--help"]
        command.load()()
    """
    assert "tour" in run(sys.executable, "-c", dedent(code), PYTHONPATH=str(installed))


def test_installed_command_copies_the_notebooks(installed, tmp_path):
    code = f"""
        import sys
        sys.modules.update(dict.fromkeys(set({OPTIONAL}) - {{"click", "rich"}}))
        from refconv.cli import main
        main(["notebooks", "--to", {str(tmp_path / "copies")!r}])
    """
    run(sys.executable, "-c", dedent(code), PYTHONPATH=str(installed))
    copies = {path.name: path.read_bytes() for path in (tmp_path / "copies").iterdir()}
    assert copies == {path.name: path.read_bytes() for path in (ROOT / "notebooks").glob("*.ipynb")}


def test_core_layers_and_definition_need_numpy_only():
    # None in sys.modules makes an import fail as if the package were not installed.
    code = f"""
        import sys
        sys.modules.update(dict.fromkeys({OPTIONAL}))
        import refconv, refconv.nn
        import numpy as np
        from refconv.testing.oracles.definition import definition_conv
        x, weight = np.arange(24.0).reshape(1, 4, 6), np.arange(24.0).reshape(6, 2, 2)
        assert np.array_equal(refconv.conv(x, weight, groups=2), definition_conv(x, weight, groups=2))
    """
    run(sys.executable, "-c", dedent(code))


def test_first_use_loads_numpy_and_nothing_heavier():
    code = """
        import sys
        import refconv
        assert "numpy" not in sys.modules
        import refconv.textbook, refconv.engine
        assert callable(refconv.im2col)
        assert callable(refconv.conv)  # the functions, not the modules of these names
        assert {*refconv.__all__} <= {*dir(refconv)}
        assert all(hasattr(refconv, name) for name in refconv.__all__)
        assert not hasattr(refconv, "convolution")
        print(*{name.split('.')[0] for name in sys.modules})
    """
    loaded = run(sys.executable, "-c", dedent(code))
    assert "numpy" in loaded.split()
    assert not {*OPTIONAL, "array_api_compat", "threadpoolctl", "pytest"} & set(loaded.split())


def test_import_is_quick():
    code = """
        import time, numpy
        start = time.perf_counter()
        from refconv import conv
        print(time.perf_counter() - start)
    """
    seconds = min(float(run(sys.executable, "-c", dedent(code))) for _ in range(5))
    assert seconds < 0.3  # in addition to NumPy's


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_constraints_are_plain_pins():
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        assert re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line), line
        assert not re.search(r"://|\.(org|com|io|net)\b|--|file:", line), line


def test_every_requirement_of_the_two_commands_is_pinned():
    pinned = {canonicalize_name(name): version for name, version in pins().items()}
    wanted = list(PROJECT["dependencies"])
    for extra in ("tour", "train", "testing", "strict", "notebooks", "docs", "dev"):
        wanted += PROJECT["optional-dependencies"][extra]
    for requirement in map(Requirement, wanted):
        if requirement.name != PROJECT["name"]:
            version = pinned.get(canonicalize_name(requirement.name))
            assert version is not None, f"constraints.txt does not pin {requirement.name}: run make lock"
            assert requirement.specifier.contains(version), f"{requirement} excludes {version}: run make lock"


def test_one_version_everywhere():
    version = PROJECT["version"]
    assert f'\n__version__ = "{version}"\n' in (ROOT / "refconv" / "__init__.py").read_text("utf-8")
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.search(rf"^## \[{re.escape(version)}\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
