"""Real values: every element within the worst case of rounding, derived and not chosen.

A sum of n products computed in any order, with unit roundoff u, is off by at most γ_n·Σ|a||b| where
γ_n = n·u/(1 − n·u) (Higham, Accuracy and Stability of Numerical Algorithms, §3.1). n is counted for every element:
it is the same convolution of ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import refconv
from refconv.testing.oracles.definition import definition_conv
from refconv.testing.oracles.problems import Operands, Problem, Results, definition_results, normal_arrays
from refconv.testing.strategies import ConvProblem, conv_problems
from tests.helpers import Backend, assert_within, forward, run

UNIT = {
    "float16": 2.0**-11,
    "float32": 2.0**-24,
    "float64": 2.0**-53,
    "longdouble": float(np.finfo("longdouble").eps) / 2,
}
PARTS = {"complex64": "float32", "complex128": "float64"}


def gamma(n: Any, unit: float) -> Any:
    return n * unit / (1 - n * unit)


def mapped(operands: Operands, function: Any) -> Operands:
    return Operands(*(a if a is None else each(a, function) for a in operands))


def each(array: Any, function: Any) -> Any:
    return tuple(map(function, array)) if isinstance(array, tuple) else function(array)


def exact_and_bounds(problem: Problem, operands: Operands, accumulate: str | None = None) -> tuple[Results, Results]:
    """Return output and gradients in a wider data type, and a bound for every one of their elements."""
    dtype = operands.x.dtype
    complex_ = dtype.kind == "c"
    real = PARTS.get(dtype.name, dtype.name)
    sums = accumulate or {"float16": "float32"}.get(real, real)
    wider = "longdouble" if sums == "float64" else "float64"
    wide = np.result_type(wider, "complex64") if complex_ else np.dtype(wider)
    # |a| for a real number; for a complex one |re| + |im|, which bounds both parts of a product
    size = (lambda a: np.abs(a.real.astype(wider)) + np.abs(a.imag.astype(wider))) if complex_ else np.abs
    exact = definition_results(problem, mapped(operands, lambda a: a.astype(wide)))
    magnitudes = definition_results(problem, mapped(operands, lambda a: size(a).astype(wider)))
    terms = definition_results(problem, mapped(operands, lambda a: np.ones(a.shape)))

    def bound(y: Any, magnitude: Any, n: Any) -> Any:
        n = (2 if complex_ else 1) * n.astype(wider)
        summed = (gamma(n, UNIT[sums]) + gamma(n, UNIT[wider])) * magnitude
        if sums != real:  # and rounded once to the operands' data type, whose smallest step is that of subnormals
            summed = summed + UNIT[real] * (np.abs(y) + summed) + float(np.finfo(real).smallest_subnormal) / 2
        return summed * (np.sqrt(2.0) if complex_ else 1)

    bounds = []
    for triple in zip(exact, magnitudes, terms, strict=True):
        whole = isinstance(triple[0], tuple)
        bounds.append(tuple(bound(*t) for t in zip(*triple, strict=True)) if whole else bound(*triple))
    return exact, Results(*bounds)


def assert_in_bounds(backend: Backend, problem: Problem, operands: Operands, **more: Any) -> None:
    exact, bounds = exact_and_bounds(problem, operands, more.get("accumulate_dtype"))
    actual = run(backend, problem, operands, **more)
    for name in Results._fields:
        try:
            backend.assert_close(getattr(actual, name), getattr(exact, name), getattr(bounds, name), operands.x.dtype)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


@pytest.mark.parametrize("transposed", [False, True])
def test_output_and_gradients_stay_within_their_bounds(backend: Backend, transposed: bool) -> None:
    dtypes = backend.dtypes(("float32", "float64", "float16", "complex64"))

    @settings(max_examples=50)
    @given(conv_problems(dtypes=dtypes, values="normal", transposed=transposed))
    def check(case: ConvProblem) -> None:
        assert_in_bounds(backend, *case)

    check()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_numbers_of_very_different_size(backend: Backend, dtype: str) -> None:
    if not backend.supports(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    rng = np.random.default_rng(7)
    spread = 2 if dtype == "float16" else 12
    problem = Problem(2, 6, 8, (7, 6), (3, 2), (1, 2), (2, 1), ((1, 2), (0, 1)), 2, padding_mode="reflect")
    for _ in range(5):
        operands = mapped(
            normal_arrays(problem, rng, dtype),
            lambda a: (a * np.exp(rng.uniform(-spread, spread, a.shape))).astype(dtype),
        )
        assert_in_bounds(backend, problem, operands)


LONG = Problem(1, 64, 4, (8, 7), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), bias=True)


def test_long_sums(backend: Backend) -> None:
    """576 products for an output, and constants, whose rounding errors do not cancel."""
    rng = np.random.default_rng(8)
    operands = normal_arrays(LONG, rng)
    assert_in_bounds(backend, LONG, operands)
    assert_in_bounds(backend, LONG, mapped(operands, lambda a: np.full_like(a, 0.1)))


@pytest.mark.parametrize(("dtype", "wide"), [("float32", "float64"), ("float16", "float64")])
def test_accumulating_in_float64_leaves_one_rounding(backend: Backend, dtype: str, wide: str) -> None:
    if not backend.supports(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    operands = normal_arrays(LONG, np.random.default_rng(9), dtype)
    assert_in_bounds(backend, LONG, operands, accumulate_dtype=wide)


def test_the_bounds_have_teeth() -> None:
    """One tap dropped at one of 64 channels, or operands rounded to 10 bits, are beyond the bound."""
    rng = np.random.default_rng(10)
    for _ in range(8):
        operands = normal_arrays(LONG, rng)
        x, weight, bias = (a.astype("float64") for a in operands[:3])
        exact = definition_conv(x, weight, bias, padding=1)
        bound = gamma(577, UNIT["float32"]) * definition_conv(abs(x), abs(weight), abs(bias), padding=1)
        assert_within(refconv_y(operands), exact, bound)
        dropped = operands.weight.copy()
        dropped[2, rng.integers(64), 1, 2] = 0
        with pytest.raises(AssertionError, match="times its bound"):
            assert_within(refconv_y(operands._replace(weight=dropped)), exact, bound)
        rounded = mapped(operands, lambda a: a.astype("float16").astype("float32"))
        with pytest.raises(AssertionError, match="times its bound"):
            assert_within(refconv_y(rounded), exact, bound)


def refconv_y(operands: Operands) -> Any:
    return refconv.conv(operands.x, operands.weight, operands.bias, padding=1)


def test_bounds_count_the_terms_of_every_element() -> None:
    """A corner of a padded input has fewer terms than the middle; the middle has C·k² and the bias."""
    operands = normal_arrays(LONG, np.random.default_rng(0))
    ones = mapped(operands, lambda a: np.ones(a.shape))
    terms = definition_results(LONG, ones)
    assert (terms.y[0, 0, 0, 0], terms.y[0, 0, 4, 4]) == (64 * 4 + 1, 64 * 9 + 1)
    assert (terms.grad_x[0, 0, 4, 4], terms.grad_weight[0, 0, 1, 1], terms.grad_bias[0]) == (4 * 9, 56, 56)


def test_an_exact_result_needs_no_bound(backend: Backend) -> None:
    """A kernel of one tap that is one copies its input, bit for bit."""
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 5)).astype("float32")
    problem = Problem(2, 3, 3, (4, 5), (1, 1), (1, 1), (1, 1), "valid", 3)
    operands = Operands(x, np.ones((3, 1, 1, 1), "float32"), None, x)
    backend.assert_equal(forward(backend, problem, operands), x)
