"""The textbook: equal to the definition, bounded in memory, short; and it works if the engine is deleted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refconv
from refconv import cpu, textbook
from refconv.settings import ENGINES
from refconv.testing.oracles.problems import definition_results
from refconv.testing.strategies import ConvProblem, conv_problems
from tests.helpers import Backend, assert_results, long, run

PACKAGE = Path(refconv.__file__).parent
PASSES = ("correlate", "scatter", "outer")


@pytest.fixture
def slices() -> Any:
    """List the number of batch slices of each pass."""
    seen: list[int] = []
    real = textbook._slices

    def spy(*arguments: Any) -> Any:
        found = real(*arguments)
        seen.append(len(found))
        return found

    with mock.patch.object(textbook, "_slices", spy):
        yield seen


@pytest.mark.parametrize("transposed", [False, True])
def test_equals_the_definition_whatever_the_workspace(backend: Backend, transposed: bool) -> None:
    dtypes = backend.dtypes(("float32", "float16", "complex64", "int16"))

    @given(conv_problems(transposed=transposed, empty=True, dtypes=dtypes), st.sampled_from([1, 2**10, 2**26]))
    def check(case: ConvProblem, workspace: int) -> None:
        with refconv.set_engine("textbook"), refconv.set_workspace(workspace):
            assert_results(backend, run(backend, *case), definition_results(*case))

    check()


def test_an_engine_runs_alone(backend: Backend) -> None:
    """The tests' backends run the right engine: NumPy the fast engine, all others the textbook."""
    calls: dict[str, int] = {}

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def spy(*arguments: Any, **options: Any) -> Any:
            calls[name] = calls.get(name, 0) + 1
            return function(*arguments, **options)

        return spy

    x, w = backend.asarray(np.ones((2, 4, 5))), backend.asarray(np.ones((6, 2, 3)))
    spies = {
        module: {name: counted(module.__name__, getattr(module, name)) for name in (*PASSES, "gradients")}
        for module in (cpu, textbook)
    }
    with mock.patch.multiple(cpu, **spies[cpu]), mock.patch.multiple(textbook, **spies[textbook]):
        y = refconv.conv(x, w, groups=2)
        refconv.conv_backward(y, x, w, groups=2)
    assert set(calls) == {"refconv.cpu" if backend.name == "numpy" else "refconv.textbook"}


def test_the_workspace_cuts_the_batch_of_every_array_module(backend: Backend, slices: list[int]) -> None:
    x, w = backend.asarray(np.ones((6, 8, 20, 20), "f4")), backend.asarray(np.ones((8, 8, 3, 3), "f4"))
    sample = 4 * (8 * (9 * 18 * 18 + 2 * 20 * 20) + 2 * 8 * 18 * 18)
    with refconv.set_engine("textbook"):
        for samples, count in ((1, 6), (2, 3), (4, 2), (6, 1)):
            slices.clear()
            with refconv.set_workspace(samples * sample):
                y = refconv.conv(x, w)
                refconv.conv_backward(y, x, w)
            assert slices == [count] * 3


def test_a_larger_workspace_cuts_alexnets_batch_into_fewer_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every slice takes the same number of operations, and a GPU must start each."""
    cut, found = textbook._cut_batch, []

    def cuts(call: Any, number_bytes: int, budget: int) -> tuple[slice, ...]:
        found.extend(len(cut(call, number_bytes, size)) for size in (2**22, 2**26, 2**30))
        return ()

    monkeypatch.setattr(textbook, "_cut_batch", cuts)
    x, w = np.empty((128, 96, 27, 27), "f4"), np.empty((256, 48, 5, 5), "f4")
    with refconv.set_engine("textbook"):
        refconv.conv(x, w, padding=2, groups=2)  # AlexNet's second convolution
    assert found == [128, 19, 2]


def test_arrays_on_a_gpu_have_a_larger_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w, budgets = np.ones((1, 1, 5)), np.ones((1, 1, 3)), []

    def cut(call: Any, number_bytes: int, budget: int) -> tuple[slice, ...]:
        budgets.append(budget)
        return (slice(0, 1),)

    monkeypatch.setattr(textbook, "_cut_batch", cut)
    for found in (False, True):
        monkeypatch.setattr(textbook, "on_gpu", lambda array, found=found: found)
        with refconv.set_engine("textbook"):
            refconv.conv(x, w)
            with refconv.set_workspace(1000):
                refconv.conv(x, w)
    assert budgets == [2**26, 1000, 2**30, 1000]


@pytest.mark.parametrize("groups", [1, 4, "shared"])
@pytest.mark.parametrize(("padding_mode", "dtype"), [("zeros", "f4"), ("reflect", "f4"), long("zeros", "c8")])
def test_memory_stays_within_the_workspace(groups: Any, padding_mode: str, dtype: str) -> None:
    x = np.ones((16, 16, 40, 40), dtype)
    if groups == "shared":
        groups = refconv.ChannelGroups([range(12 - g % 2) for g in range(8)], [(g, g + 8) for g in range(8)], c_in=16)
        w: Any = [np.ones(shape, dtype) for shape in groups.weight_shapes((3, 3))]
    else:
        w = np.ones((16, 16 // groups, 3, 3), dtype)
    options: dict[str, Any] = {"padding": 1, "padding_mode": padding_mode, "groups": groups}
    budget = 2**22
    with refconv.set_engine("textbook"), refconv.set_workspace(budget):
        y = refconv.conv(x, w, **options)
        for call in (
            lambda: refconv.conv(x, w, **options),
            lambda: refconv.conv_backward(y, x, w, needs=("x",), **options),
            lambda: refconv.conv_backward(y, x, w, needs=("weight",), **options),
        ):
            tracemalloc.start()
            result = call()
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            size = result.nbytes if isinstance(result, np.ndarray) else (x.nbytes if result.x is not None else 0)
            assert budget / 8 < peak - size < 1.1 * budget


@pytest.mark.parametrize("groups", [1, "shared"])
def test_opposite_infinities_warn_of_nothing(groups: Any) -> None:
    """Sums of +∞ and −∞ over batch slices, windows, padding, shared channels and the bias are NaN without a warning."""
    if groups == "shared":
        groups = refconv.ChannelGroups([(0, 1), (1, 0, 2)], [(0,), (1,)])
        w: Any = [np.ones((1, 2, 3)), -np.ones((1, 3, 3))]
    else:
        w = np.ones((2, 3, 3))
    x = np.full((2, 3, 6), np.inf)
    x[1] = -np.inf
    options: dict[str, Any] = {"padding": 2, "padding_mode": "reflect", "groups": groups}
    with refconv.set_engine("textbook"), refconv.set_workspace(1):
        y = refconv.conv(x, w, np.array([-np.inf, np.inf]), **options)
        g = np.where(np.arange(y.shape[2]) % 2, np.inf, -np.inf) * np.ones_like(y)
        grads = refconv.conv_backward(g, x, w, **options)
    assert np.isnan(y).any()
    assert np.isnan(grads.x).any()
    assert all(np.isnan(grad).any() for grad in grads.weight)


def test_no_weight_is_copied_for_each_sample() -> None:
    """With a large weight and small images, scratch memory is less than one copy of the weight."""
    x, w = np.ones((32, 128, 4, 4), "f4"), np.ones((256, 128, 4, 4), "f4")
    with refconv.set_engine("textbook"):
        y = refconv.conv(x, w)
        for call in (lambda: refconv.conv(x, w), lambda: refconv.conv_input_grad(y, w, x.shape)):
            tracemalloc.start()
            call()
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < w.nbytes


def test_a_tiny_call_is_short() -> None:
    """It makes at most 60 Python calls, in 8 files of the package."""
    x, w, calls = np.ones((1, 1, 5)), np.ones((1, 1, 3)), []

    def trace(frame: Any, event: str, argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            calls.append(path.name)

    with refconv.set_engine("textbook"):
        refconv.conv(x, w)  # fills caches
        sys.setprofile(trace)
        try:
            refconv.conv(x, w)
        finally:
            sys.setprofile(None)
    assert 20 < len(calls) <= 60
    assert len(set(calls)) <= 8


@pytest.mark.parametrize("engine", ENGINES)
def test_indices_have_numpys_own_type(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """In 32-bit NumPy, as in a browser, `take` refuses int64."""
    take, types = np.take, set()

    def recorded(x: Any, indices: Any, axis: int) -> Any:
        types.add(indices.dtype)
        return take(x, indices, axis=axis)

    monkeypatch.setattr(np, "take", recorded)
    monkeypatch.setattr(np, "intp", np.int32)
    groups = refconv.ChannelGroups([[1, 0], [0, 2]], [[0], [1]])
    x, weights = np.ones((1, 3, 4)), [np.ones(shape) for shape in groups.weight_shapes((3,))]
    with refconv.set_engine(engine):
        refconv.conv_backward(refconv.conv(x, weights, groups=groups), x, weights, groups=groups)
        refconv.conv(x, np.ones((1, 3, 3)), padding=40, padding_mode="reflect")
    assert types == {np.dtype("int32")}


def test_the_page_stays_one_page() -> None:
    lines = (PACKAGE / "textbook.py").read_text("utf-8").splitlines()
    assert len(lines) <= 200


TRAINING = """
import numpy as np, refconv
from refconv import uniform_groups
from refconv.nn import SGD, SoftmaxCrossEntropy, residual_network
from refconv.testing.oracles.definition import definition_conv
rng = np.random.default_rng(0)
x, w = rng.integers(-3, 4, (2, 4, 6, 5)).astype("f4"), rng.integers(-3, 4, (6, 2, 3, 3)).astype("f4")
for engine in (None, "fast", "textbook"):
    with refconv.set_engine(engine), refconv.set_workers(2):
        y = refconv.conv(x, w, groups=2, padding=1)
        assert np.array_equal(y, definition_conv(x, w, groups=2, padding=1))
        grads = refconv.conv_backward(y, x, w, groups=2, padding=1)
        assert np.sum(y * y) == np.sum(grads.x * x) == np.sum(grads.weight * w)
        back = refconv.conv_transpose(y, w, groups=2, padding=1)
        assert np.array_equal(back, grads.x)
        assert refconv.conv_transpose_backward(back, y, w, groups=2, padding=1).x.shape == y.shape
        build = lambda c_in, c_out: uniform_groups(c_in, c_out, 4)
        model = residual_network(build, channels=8, rng=np.random.default_rng(1))
        loss, optimiser, losses = SoftmaxCrossEntropy(), SGD(model.parameters(), lr=0.01), []
        images, labels = rng.normal(size=(20, 1, 8, 8)).astype("f4"), rng.integers(0, 10, 20)
        for step in range(5):
            losses.append(loss.forward(model.forward(images), labels))
            model.backward(loss.backward())
            optimiser.step()
        assert losses[-1] < losses[0], losses
print(refconv.engine.cpu)
"""


def python(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code with the package in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, "-c", code], env=environment, cwd=folder, capture_output=True, text=True)


def test_columns_of_absurd_size_are_refused() -> None:
    """The fast engine would compute them row by row."""
    x, w = np.zeros((1, 2, 2**20), "f4"), np.broadcast_to(np.float32(0), (1, 2, 2**20))
    y = np.zeros((1, 1, 2**21 + 1), "f4")
    for call in (
        lambda: refconv.conv(x, w, padding=2**20),
        lambda: refconv.conv_input_grad(y, w, x.shape, padding=2**20),
        lambda: refconv.conv_weight_grad(y, x, 2**20, padding=2**20),
    ):
        with refconv.set_engine("textbook"), pytest.raises(ValueError, match=r"^the columns of one sample would need"):
            call()


@pytest.mark.parametrize("folder_stays", [False, True])
def test_everything_works_without_the_cpu_engine(tmp_path: Path, folder_stays: bool) -> None:
    shutil.copytree(PACKAGE, tmp_path / "refconv", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(tmp_path / "refconv" / "cpu")
    if folder_stays:
        (tmp_path / "refconv" / "cpu").mkdir()
    done = python(tmp_path, TRAINING)
    assert (done.returncode, done.stdout.strip()) == (0, "None"), done.stderr


def test_a_broken_cpu_engine_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "refconv", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "refconv" / "cpu" / "plan.py").write_text("import no_such_package\n", "utf-8")
    done = python(tmp_path, "from refconv import conv")
    assert done.returncode == 1
    assert "No module named 'no_such_package'" in done.stderr
