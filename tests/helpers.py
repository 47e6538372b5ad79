"""Helpers of the tests: one interface to all array modules, exact comparison, and calls of the functions under test."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest

import refconv
from refconv.cpu import passes, plan, threads
from refconv.testing.oracles.problems import Operands, Problem, Results, definition_results, integer_arrays

NUMPY = ("numpy", "textbook")
"""NumPy arrays: read-only with the fast engine, so that writing to an operand fails; writable with the textbook."""
TORCH = {"torch": "cpu", "torch_cuda": "cuda"}
"""PyTorch's tensors, and the device that they are on."""
BACKENDS = (*NUMPY, "array_api_strict", *TORCH, "cupy")
FLOATS = ("float16", "float32", "float64", "complex64", "complex128")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = FLOATS + INTEGERS


@contextlib.contextmanager
def cut_into(tile_bytes: int) -> Iterator[None]:
    """Cut calls into tiles this small, on every backend, so that small problems are tiled like large ones."""
    with (
        mock.patch.object(plan, "TILE_BYTES", tile_bytes),
        mock.patch.object(threads, "TASK_BYTES", tile_bytes),
        mock.patch.object(passes, "COPIED_AT_ONCE", -(-tile_bytes // 8)),
        refconv.set_workspace(tile_bytes),
    ):
        yield


class Missing(Exception):  # noqa: N818
    """A backend cannot be tested here; the message says why."""


@dataclass(frozen=True)
class Backend:
    """An array module, with functions that make and compare its arrays."""

    name: str
    xp: Any
    array_type: type

    def __repr__(self) -> str:
        return self.name

    def supports(self, dtype: str) -> bool:
        return hasattr(self.xp, dtype)

    @property
    def is_numpy(self) -> bool:
        return self.array_type is np.ndarray

    @property
    def module(self) -> str:
        """Name of the module for `load_backend`."""
        return "numpy" if self.is_numpy else "torch" if self.name in TORCH else self.name

    def by_default(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which new arrays are made on the device even if no device is named."""
        return self.xp.device(TORCH[self.name]) if self.name == "torch_cuda" else contextlib.nullcontext()

    def dtypes(self, names: Iterable[str] = DTYPES) -> list[str]:
        return [name for name in names if self.supports(name)]

    def asarray(self, array: Any) -> Any:
        """Return a new array of this module; a tuple for a tuple, and None for None."""
        if array is None:
            return None
        if isinstance(array, list | tuple):
            return tuple(self.asarray(a) for a in array)
        array = np.array(array)  # a copy, so that the code under test cannot reach the caller's array
        if self.is_numpy:
            array.flags.writeable = self.name == "textbook"
            return array
        if self.name in TORCH:
            return importlib.import_module("torch").from_numpy(array).to(TORCH[self.name])
        return self.xp.asarray(array)

    def to_numpy(self, array: Any) -> Any:
        if isinstance(array, tuple):
            return tuple(self.to_numpy(a) for a in array)
        if self.name == "cupy":
            return array.get()
        if self.name in TORCH:
            return array.detach().cpu().resolve_conj().numpy()
        return np.asarray(array)

    def check(self, array: Any) -> None:
        """Check that an array belongs to this module, lives on its device and can be written to."""
        assert type(array) is self.array_type
        if hasattr(array, "device"):
            assert array.device == self.asarray(np.zeros(1)).device
        if self.is_numpy:
            assert array.flags.writeable
            assert array.dtype.isnative

    def assert_equal(self, actual: Any, expected: Any) -> None:
        """Check module, device, data type, shape and every value: bit for bit but for the sign of zero."""
        if isinstance(expected, tuple):
            assert isinstance(actual, tuple)
            assert len(actual) == len(expected)
            for a, e in zip(actual, expected, strict=True):
                self.assert_equal(a, e)
            return
        self.check(actual)
        np.testing.assert_array_equal(self.to_numpy(actual), expected, strict=True)

    def assert_close(self, actual: Any, expected: Any, bound: Any, dtype: Any) -> None:
        """Check module, device, data type and shape, and |actual − expected| ≤ bound for every element."""
        if isinstance(expected, tuple):
            assert isinstance(actual, tuple)
            for a, e, b in zip(actual, expected, bound, strict=True):
                self.assert_close(a, e, b, dtype)
            return
        self.check(actual)
        values = self.to_numpy(actual)
        assert values.dtype == np.dtype(dtype)
        assert values.shape == expected.shape
        assert_within(values, expected, bound)


def assert_within(actual: Any, expected: Any, bound: Any) -> None:
    """Check |actual − expected| ≤ bound for every element, and report the worst one."""
    if not actual.size:
        return
    error = np.abs(actual.astype(np.result_type(expected)) - expected)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error == 0, 0, error / bound)
    worst = np.unravel_index(np.argmax(np.nan_to_num(ratio, nan=np.inf)), ratio.shape)
    assert ratio[worst] <= 1, f"error {error[worst]} is {ratio[worst]} times its bound at {worst}"


def load(name: str) -> Backend:
    """Return the backend of that name, or raise Missing with the reason."""
    modules = {
        **dict.fromkeys(NUMPY, "numpy"),
        **dict.fromkeys(TORCH, "array_api_compat.torch"),
        "cupy": "array_api_compat.cupy",
    }
    try:
        xp = importlib.import_module(modules.get(name, name))
        array = xp.zeros(1)
    except ImportError as error:
        raise Missing(f"backend {name} is not installed: {error}") from error
    except Exception as error:
        if name != "cupy":
            raise
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Missing(f"backend {name} finds no device: {first}") from error
    if name == "torch_cuda" and not xp.cuda.is_available():
        raise Missing(f"backend {name} finds no device: torch.cuda.is_available() is False")
    if name in TORCH:
        xp.set_num_threads(1)  # waking threads takes longer than these small problems
    return Backend(name, xp, type(array))


def long(*case: Any) -> Any:
    """Return a case of a parametrised test that only `make check` runs."""
    return pytest.param(*case, marks=pytest.mark.long)


# Calls of the functions under test


def forward(backend: Backend, problem: Problem, operands: Operands, **more: Any) -> Any:
    function = refconv.conv_transpose if problem.transposed else refconv.conv
    x, weight, bias, _ = map(backend.asarray, operands)
    return function(x, weight, bias, **problem.options(), **more)


def backward(backend: Backend, problem: Problem, operands: Operands, **more: Any) -> Any:
    function = refconv.conv_transpose_backward if problem.transposed else refconv.conv_backward
    x, weight, _, grad_output = map(backend.asarray, operands)
    return function(grad_output, x, weight, **problem.options(), **more)


def run(backend: Backend, problem: Problem, operands: Operands, **more: Any) -> Results:
    """Return the output and the three gradients, as the functions under test compute them."""
    return Results(forward(backend, problem, operands, **more), *backward(backend, problem, operands, **more))


def assert_results(backend: Backend, actual: Results, expected: Results) -> None:
    for name in Results._fields:
        try:
            backend.assert_equal(getattr(actual, name), getattr(expected, name))
        except AssertionError as error:
            raise AssertionError(f"{name} is wrong: {error}") from error


@functools.cache
def large() -> tuple[Problem, Operands, Results]:
    """Return a problem that a small workspace cuts into many tiles, along every possible axis."""
    problem = Problem(3, 12, 18, (33, 11), (3, 4), (2, 1), (2, 1), ((2, 1), (0, 3)), 3, channels_last=True)
    operands = integer_arrays(problem, np.random.default_rng(17))
    return problem, operands, definition_results(problem, operands)


def run_command(capsys: Any, *arguments: object) -> tuple[int, str, str]:
    """Run a command line in this process; return exit code, standard output and standard error."""
    from refconv.cli import main

    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def arange(shape: Sequence[int], dtype: Any = "float32", start: int = 1) -> Any:
    """Return whole numbers start, start + 1, … in a shape: every element differs from every other."""
    return np.arange(start, start + int(np.prod(shape))).reshape(shape).astype(dtype)


def script(path: str) -> ModuleType:
    """Return a script of the repository, outside the package, as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, Path(__file__).parent.parent / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
