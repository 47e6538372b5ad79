"""The site that runs the notebooks in the browser; the notebooks need nothing that a browser lacks."""

import json
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from refconv import notebooks
from tests.helpers import script

nbformat = pytest.importorskip("nbformat", reason="the extra 'notebooks' is not installed")

NAMES = list(notebooks.TITLES)
ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
make_lite = script("docs/make_lite.py")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_for_the_browser_installs_what_it_needs_and_is_else_the_same(name):
    lesson, kept = make_lite.lesson(name), nbformat.reads(notebooks.read(name), as_version=4)
    nbformat.validate(lesson)
    assert lesson.cells[0].source.startswith("%pip install -q refconv")
    assert {"ipywidgets", "matplotlib", "pillow"} <= set(lesson.cells[0].source.split())
    assert lesson.cells[1:] == kept.cells


def test_a_notebook_that_trains_gets_what_training_needs(monkeypatch):
    text = nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("from refconv.nn import ReLU")]))
    monkeypatch.setattr(notebooks, "read", lambda name: text)
    assert {"scikit-image", "scikit-learn", "scipy"} <= set(make_lite.lesson("any").cells[0].source.split())


@pytest.mark.parametrize("name", NAMES)
def test_the_install_cell_asks_for_nothing_that_pyodide_lacks(name):
    """No extra of refconv, whose minimum versions and compiled safetensors are not in Pyodide, and no version."""
    packages = make_lite.lesson(name).cells[0].source.removeprefix("%pip install -q ").split()
    assert set(packages) <= {"refconv", *make_lite.LACKING, *make_lite.LOADED}


def test_everything_works_where_no_thread_can_be_started():
    code = """
        import threading

        def start(self):
            raise RuntimeError("can't start new thread")

        threading.Thread.start = start
        import numpy as np
        import refconv
        from refconv.testing.exercises import check_backward, check_forward

        def forward(x, weight, bias, stride, padding, dilation, groups):
            return refconv.conv(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)

        def backward(g, x, weight, stride, padding, dilation, groups):
            return refconv.conv_backward(g, x, weight, stride=stride, padding=padding, dilation=dilation, groups=groups)

        print(check_forward(forward, supports=("bias", "stride", "padding", "dilation", "groups")))
        print(check_backward(backward, supports=("stride", "padding", "dilation", "groups")))
        with refconv.set_workers(4):
            x, weight = np.ones((16, 64, 40, 40), "float32"), np.ones((64, 16, 3, 3), "float32")
            print(refconv.conv(x, weight, groups=4).max())
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *verdicts, largest = done.stdout.splitlines()
    for function, verdict in zip(("forward", "backward"), verdicts, strict=True):
        assert re.fullmatch(rf"passed: {function} is right in all \d{{3}} cases", verdict)
    assert largest == str(16 * 9.0)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, with only refconv's own wheel, and with a substitute for a copy of Pyodide."""
    for package in ("jupyterlite_core", "jupyterlite_pyodide_kernel", "jupyter_server"):
        pytest.importorskip(package, reason="the extra 'lite' is not installed: make lite")
    folder = tmp_path_factory.mktemp("lite")
    (folder / "pyodide").mkdir()
    for file in ("pyodide.js", "pyodide-lock.json"):
        (folder / "pyodide" / file).write_text("{}", "utf-8")
    wheel = make_lite.own_wheel(folder / "wheels")
    make_lite.build(folder / "site", [wheel], folder / "pyodide")
    return folder / "site"


def test_site_holds_the_notebooks_and_the_wheel(site):
    listed = json.loads((site / "api" / "contents" / "all.json").read_text("utf-8"))["content"]
    assert sorted(entry["path"] for entry in listed) == [f"{name}.ipynb" for name in NAMES]
    for name in NAMES:
        lesson = nbformat.read(site / "files" / f"{name}.ipynb", as_version=4)
        assert lesson.cells[0].source == make_lite.lesson(name).cells[0].source
    index = json.loads((site / "pypi" / "all.json").read_text("utf-8"))
    ((release,),) = index["refconv"]["releases"].values()
    assert (site / "pypi" / release["filename"]).is_file()


def test_site_finds_its_wheels_its_kernel_and_its_pyodide(site):
    config = json.loads((site / "jupyter-lite.json").read_text("utf-8"))["jupyter-config-data"]
    assert {one["name"] for one in config["federated_extensions"]} == set(make_lite.EXTENSIONS)
    settings = config["litePluginSettings"]["@jupyterlite/pyodide-kernel-extension:kernel"]
    assert any(url.startswith("./pypi/all.json") for url in settings["pipliteUrls"])
    assert (site / settings["pyodideUrl"]).is_file()
    assert (site / "lab" / "index.html").is_file()


def test_a_folder_that_is_not_pyodide_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["make_lite.py", "--to", str(tmp_path / "site"), "--pyodide", str(tmp_path)])
    with pytest.raises(SystemExit, match="no pyodide-lock"):
        make_lite.main()
    assert not Path(tmp_path / "site").exists()


def test_a_pyodide_of_another_version_or_without_packages_is_refused(tmp_path):
    packages = {name: {"file_name": f"{name}.whl", "depends": []} for name in (*make_lite.LOADED, "contour-py")}
    packages["matplotlib"]["depends"] = ["Contour_Py", "numpy"]

    def lock(abi):
        text = json.dumps({"info": {"abi_version": abi}, "packages": packages})
        (tmp_path / "pyodide-lock.json").write_text(text, "utf-8")

    lock("2026_0")
    with pytest.raises(SystemExit, match=r"must be version 0\.27, ABI 2024_0; got ABI 2026_0"):
        make_lite.check_pyodide(tmp_path)
    lock(make_lite.ABI)
    for name in make_lite.LOADED:
        (tmp_path / f"{name}.whl").touch()
    with pytest.raises(SystemExit, match=r"missing are contour-py\.whl$"):
        make_lite.check_pyodide(tmp_path)
    (tmp_path / "contour-py.whl").touch()
    make_lite.check_pyodide(tmp_path)


def test_the_site_has_the_wheels_of_every_requirement():
    """refconv's own requirements are in Pyodide's distribution or among the wheels."""
    required = {re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"]}
    assert required <= {*make_lite.LACKING, *make_lite.LOADED}
