"""The examples in docs/examples do what the pages state."""

import ctypes
import difflib
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from refconv.testing.checker.examine import CHECKS

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"
PAGE = (ROOT / "docs" / "checking.md").read_text("utf-8")


def source(name: str) -> str:
    return (EXAMPLES / f"{name}.py").read_text("utf-8")


def load(name: str):
    return load_text(source(name), name)


def load_text(text: str, name: str):
    module = ModuleType(f"example_{name}")
    exec(compile(text, f"{name}.py", "exec"), vars(module))
    return module


def run(name: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_homework_fails_and_its_mistake_is_named_first():
    report = load("homework").check()
    assert not report.passed
    assert {failure.part for failure in report.failures} == {"grad_x"}
    for failure in report.failures:
        assert [d.name for d in failure.diagnoses if d.rank == 1] == ["stride ignored in the input gradient"]
    first = report.failures[0]
    assert first.check == "grad_x"
    assert first.case.x.size <= 4


def test_page_shows_the_report_that_the_homework_prints():
    shown = run("homework")
    assert shown.returncode == 1, shown.stderr
    failure, _, checks = shown.stdout.partition("\n\n      ")
    assert checks
    assert f"```text\n{failure}\n```" in PAGE


def test_solution_passes():
    shown = run("homework_solution")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stdout.startswith("passed: 2-d convolution in float32, forward and backward, ")


def test_solution_differs_in_one_line_of_code():
    old, new = map(source, ("homework", "homework_solution"))
    code = [text.partition("import sys")[2].splitlines() for text in (old, new)]  # without the docstring
    changed = [line for line in difflib.ndiff(*code) if line[0] in "+-"]
    assert [line[0] for line in changed] == ["-", "+"]


def test_page_lists_every_check():
    listed = re.findall(r"^\| `([^`]+)` \| (.+) \|$", PAGE, re.MULTILINE)
    assert dict(listed) | CHECKS == dict(listed)
    assert [name for name, _ in listed if name in CHECKS] == list(CHECKS)


# --- The wrappers ----------------------------------------------------------------------------------------------------

WRAPPERS = {  # a line of the layer, the same line with a mistake, and the mistake's name
    "wrap_cs231n": (
        "dx_pad[place] +=",
        "dx_pad[..., i : i + HH, j : j + WW] +=",
        "stride ignored in the input gradient",
    ),
    "wrap_coursera": (" + b[0, 0, 0]", "", "bias ignored"),
    "wrap_channels_last": (
        "grad_y @ weight[t].T",
        "grad_y @ weight[tuple(-1 - i for i in t)].T",
        "kernel flipped in the input gradient",
    ),
    "wrap_keras": ("ops.conv(x, kernel,", "ops.conv(x, kernel[::-1, ::-1],", "kernel flipped in the forward pass"),
    "wrap_torch_function": (
        "grad_y.sum((0, 2))",
        "grad_y.sum((0, 2)) / len(x)",
        "bias gradient averaged over the batch",
    ),
}
NEEDS = {"wrap_keras": "keras", "wrap_torch_function": "torch"}


def needs_package(name: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"{NEEDS[name]} is not installed: docs/examples/{name}.py is not run")


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapped_layer_passes(name):
    needs_package(name)
    shown = run(name)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stdout.startswith("passed: 2-d convolution in float")


@pytest.mark.filterwarnings("ignore")  # Keras's own calls of NumPy cause warnings
@pytest.mark.parametrize("name", WRAPPERS)
def test_mistake_of_a_wrapped_layer_is_named(name):
    needs_package(name)
    right, wrong, mistake = WRAPPERS[name]
    text = source(name)
    assert text.count(right) == 1
    report = load_text(text.replace(right, wrong), name).check()
    assert not report.passed
    assert mistake in [d.name for d in report.failures[0].diagnoses if d.rank == 1]


@pytest.mark.parametrize("d", [1, 3])
def test_wrapper_for_channels_last_takes_any_number_of_axes(d):
    load("wrap_channels_last").check(d).raise_if_failed()


def test_wrapper_for_pytorch_takes_arrays_of_any_strides():
    needs_package("wrap_torch_function")
    torch = importlib.import_module("torch")
    tensor = load("wrap_torch_function").tensor
    array = np.arange(6.0).reshape(2, 3)
    frozen = array.copy()
    frozen.flags.writeable = False
    for given in (array, array.T, array[::-1], frozen):
        assert torch.equal(tensor(given), torch.tensor(given.tolist(), dtype=torch.float64))
    assert np.shares_memory(tensor(array).numpy(), array)


@pytest.mark.parametrize("name", WRAPPERS)
def test_page_shows_every_wrapper(name):
    wrapper = re.search(r"^# --- The wrapper -+\n\n\n(.+?)\n\n\n# ---", source(name), re.DOTALL | re.MULTILINE)
    assert f"```python\n{wrapper[1]}\n```" in PAGE
    assert f"(examples/{name}.py)" in PAGE


def test_every_wrapper_is_tested():
    assert {path.stem for path in EXAMPLES.glob("wrap_*.py")} == set(WRAPPERS)


# --- Second derivatives ----------------------------------------------------------------------------------------------

TERMS = {  # the first word of a name is the check that must fail; a part of the example, right and wrong
    "penalty without the direct part": ("return twice.weight + conv_weight_grad(of_a", "return conv_weight_grad(of_a"),
    "penalty without its factor": ("(2 * grad_x, None", "(grad_x, None"),
    "penalty without the slope of tanh": (" - 2 * a * grad_a * twice.grad_output", ""),
    "penalty without the loss": ("of_a = (of_z @ readout.T).reshape(a.shape) - 2", "of_a = -2"),
    "hessian along the weight": ("dweight=v", "dweight=w"),
    "hessian of another loss": ("(None, v, None), conv(x, w, **OPTIONS)", "(None, w, None), conv(x, v, **OPTIONS)"),
}


def test_page_shows_the_second_derivatives():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: no digits to differentiate on")
    shown = run("second_derivatives")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert f"```text\n{shown.stdout}```" in (ROOT / "docs" / "gradients.md").read_text("utf-8")


@pytest.mark.parametrize("name", TERMS)
def test_second_derivative_without_a_term_is_noticed(name):
    if name.startswith("penalty"):
        pytest.importorskip("sklearn", reason="scikit-learn is not installed: no digits to differentiate on")
    right, wrong = TERMS[name]
    text = source("second_derivatives")
    assert text.count(right) == 1
    example = load_text(text.replace(right, wrong), "second_derivatives")
    assert not getattr(example, f"check_{name.split()[0]}")()


# --- The CuPy kernels ------------------------------------------------------------------------------------------------


def test_cupy_kernel_passes_or_says_why_nothing_was_run():
    shown = run("cupy_kernel")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    if shown.stdout.startswith("passed: 2-d convolution in float32, forward and backward, "):
        return
    assert shown.stderr == ""
    reason = re.fullmatch(r"cupy_kernel\.py: nothing was run, (CuPy .+)\n", shown.stdout)
    assert reason, shown.stdout
    pytest.skip(f"the CuPy example is not run: {reason[1]}")


SERIAL = """
struct { unsigned x; } blockIdx, blockDim, threadIdx;
#define __global__
"""


def test_cupy_kernels_as_plain_c(tmp_path, monkeypatch):
    """The same source and host code run without a GPU, one thread after the other."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or os.name == "nt":
        pytest.skip("no C compiler: the CuPy kernels are not checked on the CPU")
    example = load("cupy_kernel")
    source, library = tmp_path / "kernels.c", tmp_path / "kernels.so"
    source.write_text(SERIAL + example.SOURCE.replace('extern "C"', ""), "utf-8")
    subprocess.run([compiler, "-std=gnu99", "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
    compiled = ctypes.CDLL(str(library))
    block_dim, block, thread = (ctypes.c_uint.in_dll(compiled, n) for n in ("blockDim", "blockIdx", "threadIdx"))

    def raw_kernel(code, name):
        assert code is example.SOURCE

        def start(grid, threads, arguments):
            assert all(isinstance(a, np.ndarray | np.int32) for a in arguments)
            assert all(a.flags.c_contiguous for a in arguments if isinstance(a, np.ndarray))
            assert np.prod(grid) > 0
            block_dim.value = threads[0]
            given = [
                ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else ctypes.c_int(a) for a in arguments
            ]
            for block.value in range(grid[0]):
                for thread.value in range(threads[0]):
                    compiled[name](*given)

        return start

    def empty(shape, dtype):
        return np.full(shape, np.nan, dtype)  # elements that a kernel does not write stay NaN

    stand_in = SimpleNamespace(
        RawKernel=raw_kernel, asarray=np.asarray, ascontiguousarray=np.ascontiguousarray, empty=empty, asnumpy=np.array
    )
    monkeypatch.setattr(example, "cp", stand_in)
    example.check().raise_if_failed()
