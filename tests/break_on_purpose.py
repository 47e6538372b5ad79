# ruff: noqa: E501  (the table of breaks reads best one to a line)
"""Break refconv on purpose, one place at a time, and show that a test turns red.

    python tests/break_on_purpose.py [NAME …]

Mutation testing changes single tokens (docs/mutation-testing.md). The breaks below are plausible mistakes that it does
not make: a forgotten statement or call, a wrong name, a reversed order. A break names its function and the change there, not
a line. Each is made in a copy of the repository, where the named file of tests, as `make test` runs it, must fail.
"""

from __future__ import annotations

import ast
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
Change = Callable[[ast.AST], list[tuple[Any, str]]]
"""Returns the places that a break changes in a function, with their new texts; if not exactly one, it is out of date."""


def operation(replacement: Callable[..., str | None]) -> Callable[..., Change]:
    """Change the only node that `replacement` returns a text for; of several, `nth` picks one, counted from 1."""

    def make(*arguments: Any, nth: int | None = None) -> Change:
        def change(function: ast.AST) -> list[tuple[Any, str]]:
            nodes = [(n, new) for n in ast.walk(function) if (new := replacement(n, *arguments)) is not None]
            nodes.sort(key=lambda found: (found[0].lineno, found[0].col_offset))
            return nodes if nth is None else nodes[nth - 1 : nth]

        return change

    return make


@operation
def drop(node: Any, name: str) -> str | None:
    """Forget a call or an assignment."""
    targets = [node.value] if isinstance(node, ast.Expr) else getattr(node, "targets", [getattr(node, "target", node)])
    names = [name_of(part) for target in targets for part in getattr(target, "elts", [target])]
    return "pass" if isinstance(node, ast.Expr | ast.Assign | ast.AugAssign) and name in names else None


@operation
def unwrap(node: Any, name: str, argument: int = -1) -> str | None:
    """Forget a call, f(a, x) becomes x or another argument, or an index, x[i] becomes x."""
    if not isinstance(node, ast.Call | ast.Subscript) or name_of(node) != name:
        return None
    return ast.unparse(node.args[argument] if isinstance(node, ast.Call) else node.value)


@operation
def replace(node: Any, old: object, new: object) -> str | None:
    """Replace a name that is read, or a constant. Of ``a.old``, a name replaces only ``old``, a constant all of it."""
    if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load) and name_of(node) == old:
        return f"{ast.unparse(node.value)}.{new}" if hasattr(node, "attr") and isinstance(new, str) else str(new)
    return repr(new) if isinstance(node, ast.Constant) and repr(node.value) == repr(old) else None


def name_of(node: Any) -> str | None:
    """Return the name that is called, indexed, read or assigned: b for ``a.b``, ``a.b(x)`` and ``a.b[i]``."""
    node = node.func if isinstance(node, ast.Call) else node.value if isinstance(node, ast.Subscript) else node
    return getattr(node, "attr", getattr(node, "id", None))


# name: module of refconv:function (nested ones with dots), change, file of tests
BREAKS: dict[str, tuple[str, Change, str]] = {
    # Convolution
    "weight not conjugated": ("conv:_conj_kernels", unwrap("conj"), "test_definition"),
    "transposed: x not conjugated": ("conv:conv_transpose_backward", unwrap("conj"), "test_definition"),
    "groups reversed": ("conv:_to_kernels", replace("arrays", "arrays[::-1]", nth=3), "test_definition"),
    "shared channels not added": ("textbook:_onto_channels", drop("add_to"), "test_definition"),
    "results of all groups not counted": ("textbook:_cut_batch", replace("is_contiguous", True), "test_textbook"),
    "calls remembered by equality": ("shapes:_describe_once", replace(True, False), "test_errors"),
    "a view beyond the memory": ("arrays:strided", replace("c_contiguous", True), "test_conv_forward"),
    "infinite weights spread": ("cpu.passes:_copy_in_parts.copy", drop("watch"), "test_cpu_adjoint"),
    "infinities of x spread": ("cpu.passes:_Tiles.listed", drop("watch"), "test_cpu_adjoint"),
    "tasks do not wait": ("cpu.threads:_in_threads.work", drop("wait"), "test_cpu_threads"),
    "threads not waited for": ("cpu.threads:_in_threads", drop("join"), "test_cpu_threads"),
    "threads joined once only": ("cpu.threads:_in_threads", replace("interrupted", False), "test_cpu_threads"),
    "the current device": ("arrays:on_their_device", replace("cupy", "torch", nth=2), "test_devices"),
    # Layers
    "fan-in without the stride": ("nn.layers:_Convolution.__init__", drop("taps"), "test_nn"),
    "NaN gets no gradient": ("nn.pooling:_largest", replace("nan", False), "test_nn_pooling"),
    "a layer waits for the GPU": ("nn.pooling:_largest", replace("may_have_nan", "(lambda xp, y: bool(xp.any(xp.isnan(y))))"), "test_devices"),
    "windows beyond the padding": ("nn.pooling:_Windows.counts", unwrap("minimum", 0, nth=1), "test_nn_pooling"),
    "alpha always divided": ("nn.normalisation:LocalResponseNorm._alpha", replace("divide_by_size", True), "test_nn_normalisation"),
    "testing moves with the batch": ("nn.normalisation:BatchNorm.forward", replace("training", True, nth=1), "test_nn_normalisation"),
    "state without statistics": ("nn.base:Layer.state", drop("own", nth=2), "test_nn_state"),
    "mode of this layer only": ("nn.base:Layer._set_training", drop("_set_training"), "test_nn_state"),
    "forgets itself only": ("nn.base:Layer.forget", drop("forget"), "test_nn_state"),
    "layers not named in backward": ("nn.sequential:Sequential.backward", replace("named", "__import__('contextlib').nullcontext"), "test_nn_networks"),
    "a summary of the model itself": ("nn.summary:summary", unwrap("deepcopy", 0), "test_nn_networks"),
    "the first mean too small": ("nn.optim:Adam._rule", replace("steps", "steps + 10**6"), "test_nn_optim"),
    "Adam forgets its steps": ("nn.optim:Adam._set_state", drop("steps"), "test_nn_optim"),
    "towers in another order": ("nn.towers:Towers.forward", replace("outputs", "outputs[::-1]", nth=1), "test_models"),
    "norm2 cut as conv2 reads": ("nn.models.alexnet:_segments", replace("written", "read"), "test_models"),
    "smallest image too small": ("nn.models.alexnet:SMALLEST", replace(63, 62), "test_models"),
    # Training and data
    "checkpoint not on the disk": ("files:replacing", drop("fsync", nth=1), "test_files"),
    "velocities not resumed": ("nn.training:Trainer.load_state", drop("load_state", nth=2), "test_training"),
    "metrics as a kill left them": ("experiments.train:_run", drop("_write_metrics"), "test_training"),
    "seeds not paired": ("experiments.tables:evaluation", replace("others", "others[::-1]"), "test_compare"),
    "test blocks trained on": ("nn.data.patches:cut_patches", unwrap("order", nth=2), "test_data"),
    "standardised by the test images": ("nn.data.split:make_split", replace("train", "test", nth=2), "test_data"),
    "a bomb is opened": ("nn.data.folder:read_image", replace("error", "ignore", nth=1), "test_data"),
    # Towers and clusters
    "fewer workers than started": ("distributed.cluster:_started", drop("wait_for_workers"), "test_distributed"),
    "any server is a scheduler": ("distributed.cluster:_connected", drop("_check_scheduler"), "test_distributed"),
    "Ctrl-C ends the workers": ("distributed.local:dask_setup", drop("signal"), "test_distributed"),
    "a lost tower is an error of ours": ("distributed.tower:_tower", replace("TowerMissingError", "KeyError"), "test_distributed"),
    "own gradient added again": ("distributed.tower:backward", replace("own", None, nth=1), "test_distributed"),
    "velocities of another rate": ("distributed.towers:RemoteSGD.change_lr", drop("change_lr", nth=2), "test_distributed"),
    "drops of the first tower": ("nn.models.alexnet:alexnet_tower.dropout", replace("start", 0), "test_distributed"),
    "sent to its own worker": ("distributed.report:received_bytes", replace("others", "mine", nth=1), "test_distributed"),
    "absurd channels drawn": ("nn.models.residual:residual_network", drop("refuse_absurd"), "test_models"),
    "a pipe is read": ("nn.checkpoint:load_checkpoint", replace("is_file", "exists"), "test_pipes"),
    "a KiB of 1,000 bytes": ("integers:as_bytes", replace(1024, 1000), "test_integers"),
    # Tools
    "processes left over": ("testing.grader.parent:_Process._end", drop("killpg"), "test_grader"),
    "orphans left over": ("testing.grader.child:_Channel._end_with_parent", drop("killpg"), "test_grader"),
    "no sign of life": ("testing.grader.child:_Channel._beat", drop("send"), "test_grader"),
    "solutions left open": ("notebooks:opened", unwrap("_without", 1), "test_notebooks"),
    "the mistake to fix not given": ("notebooks.nbgrader:_graded", unwrap("opened"), "test_nbgrader"),
    "an unprintable exception": ("testing.exercises.checks:_sizes_of", unwrap("raised"), "test_exercises"),
}  # fmt: skip


def broken(name: str) -> tuple[Path, str]:
    """Return the file of a break and its text with the break made; a ValueError says that it is out of date."""
    where, change, _ = BREAKS[name]
    module, _, function = where.partition(":")
    path = Path("refconv", *module.split("."))
    path = path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")
    text = (ROOT / path).read_bytes()
    node: Any = ast.parse(text)
    for part in function.split("."):  # a function, a class or a plain assignment
        (node,) = (
            n for n in ast.walk(node) if part in (getattr(n, "name", ""), *map(name_of, getattr(n, "targets", ())))
        )
    ((old, new),) = change(node)
    starts = [0, *itertools.accumulate(map(len, text.splitlines(keepends=True)))]  # offsets count bytes
    start, end = starts[old.lineno - 1] + old.col_offset, starts[old.end_lineno - 1] + old.end_col_offset
    return path, (text[:start] + new.encode() + text[end:]).decode()


def left_out(folder: str, names: list[str]) -> set[str]:
    """Return the generated files of a folder, and at the root also the folder of mutation testing."""
    built = shutil.ignore_patterns(".*", "__pycache__", "build", "dist")(folder, names)
    return built | {"mutants"} if Path(folder) == ROOT else built


def run(name: str) -> str:
    """Make one break in a copy and return the first test that fails, or an empty string."""
    path, text = broken(name)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT, folder, ignore=left_out, dirs_exist_ok=True)
        Path(folder, path).write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not long", "--backend", "numpy"]
        environment = os.environ | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [*command, f"tests/{BREAKS[name][2]}.py"], cwd=folder, env=environment, capture_output=True, text=True
        )
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode and not failed:
        raise SystemExit(f"{name}: the tests did not run\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return failed[0].split(" - ")[0] if failed else ""


if __name__ == "__main__":
    found = {}
    for name in sys.argv[1:] or BREAKS:
        found[name] = run(name)
        print(f"{name:36} {found[name] or 'NOT CAUGHT'}", flush=True)  # noqa: T201
    sys.exit(not all(found.values()))
