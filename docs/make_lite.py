"""Build the notebooks as a JupyterLite site, which runs them in the browser: ``make lite``.

The site is files only. It holds JupyterLab, the notebooks, refconv's own wheel and the wheels that Pyodide, Python for
the browser, lacks. Pyodide itself is loaded from its network when a notebook is opened, unless a copy is given with
``--pyodide``; then the site needs nothing from elsewhere.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat

from refconv import notebooks

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "build" / "lite"
LACKING = ("array-api-compat", "click", "comm", "ipywidgets", "jupyterlab-widgets", "markdown-it-py", "mdurl", "rich")
"""Packages of Python alone that the notebooks, their kernel or refconv require, and that Pyodide may lack."""
NEEDED = ("ipywidgets", "matplotlib", "pillow")
"""Packages that the notebooks import, besides refconv and its requirements."""
DATA = ("scikit-image", "scikit-learn", "scipy")
"""Packages of the notebooks with images or training, any version: Pyodide's are older than the extra train allows."""

ABI = "2024_0"
"""Of Pyodide 0.27, which the pinned kernel needs."""
LOADED = ("ipython", "matplotlib", "micropip", "numpy", "pillow", "threadpoolctl", *DATA)
"""Packages of Pyodide's distribution that the kernel and the notebooks load, with what these depend on."""

EXTENSIONS = ("@jupyterlite/pyodide-kernel-extension", "@jupyter-widgets/jupyterlab-manager")
"""Parts of JupyterLab: the kernel in the browser, and sliders."""


def lesson(name: str) -> nbformat.NotebookNode:
    """Return an open notebook, with its outputs, whose first cell installs the packages for the browser."""
    notebook = nbformat.reads(notebooks.read(name), as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells)
    trains = re.search(r"\brefconv\.(nn|experiments)\b|\b(skimage|sklearn|scipy)\b", text)
    wanted = ["refconv", *NEEDED, *(DATA if trains else ())]
    cell = nbformat.v4.new_code_cell(f"%pip install -q {' '.join(wanted)}", id="install")
    notebook.cells.insert(0, cell)
    return notebook


def wheels(to: Path) -> list[Path]:
    """Build refconv's wheel, and fetch those that Pyodide lacks in the pinned versions."""
    own_wheel(to)
    fetch = ["pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    run(*fetch, "--constraint", ROOT / "constraints.txt", "--dest", to, *LACKING)
    return sorted(to.glob("*.whl"))


def own_wheel(to: Path) -> Path:
    """Build refconv's wheel."""
    run("build", "--wheel", "--no-isolation", "--outdir", to, ROOT)
    (wheel,) = to.glob("refconv-*.whl")
    return wheel


def build(to: Path, packages: Sequence[Path], pyodide: Path | None = None) -> None:
    """Write the site, with these wheels; the previous contents are removed."""
    shutil.rmtree(to, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        contents = Path(folder) / "contents"
        contents.mkdir()
        for name in notebooks.TITLES:
            nbformat.write(lesson(name), contents / f"{name}.ipynb")
        options = ["--contents", contents, "--output-dir", to, "--no-sourcemaps", "--ignore-sys-prefix"]
        extensions = Path(sys.prefix) / "share" / "jupyter" / "labextensions"
        options += [f"--LiteBuildConfig.federated_extensions={extensions / name}" for name in EXTENSIONS]
        options += [part for path in packages for part in ("--piplite-wheels", path)]
        if pyodide:
            shutil.copytree(pyodide, Path(folder) / "static" / "pyodide")  # where JupyterLite looks for it
        run("jupyterlite_core", "build", "--lite-dir", folder, *options, where=folder)


def check_pyodide(folder: Path) -> None:
    """Exit with a message unless the folder has a Pyodide that the kernel can start and that the notebooks can use."""
    lock = folder / "pyodide-lock.json"
    if not lock.is_file():
        raise SystemExit(f"no pyodide-lock.json in {folder}: it is not Pyodide's distribution")
    contents = json.loads(lock.read_text("utf-8"))
    if (abi := contents["info"].get("abi_version")) != ABI:
        raise SystemExit(f"the Pyodide in {folder} must be version 0.27, ABI {ABI}; got ABI {abi}")
    wanted = list(LOADED)
    for name in wanted:  # grows
        depends = [needed.lower().replace("_", "-") for needed in contents["packages"][name]["depends"]]
        wanted += [needed for needed in depends if needed not in wanted]
    files = [contents["packages"][name]["file_name"] for name in sorted(wanted)]
    if missing := [file for file in files if not (folder / file).is_file()]:
        raise SystemExit(
            f"{folder} must have all files of Pyodide's full distribution, which its npm package leaves out; "
            f"missing are {', '.join(missing)}"
        )


def run(module: str, *arguments: object, where: str | Path = ROOT) -> None:
    """Run a module of this Python, and print its output only if it fails."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def main() -> None:
    """Build the site in build/lite."""
    parser = argparse.ArgumentParser(description="Build the notebooks as a JupyterLite site.")
    parser.add_argument("--to", type=Path, default=SITE, help="the site's folder; its contents are removed")
    parser.add_argument("--pyodide", type=Path, help="a folder with Pyodide's distribution, to be part of the site")
    arguments = parser.parse_args()
    if arguments.pyodide:
        check_pyodide(arguments.pyodide)
    with tempfile.TemporaryDirectory() as folder:
        build(arguments.to, wheels(Path(folder)), arguments.pyodide and arguments.pyodide.resolve())


if __name__ == "__main__":
    main()
