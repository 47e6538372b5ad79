"""Real values: every element within the worst case of rounding, in every precision, padding mode and kind of groups."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from refconv.testing.oracles.bounds import COMPUTE, exact_and_bounds, real_dtype
from refconv.testing.oracles.problems import Operands, Problem, Results, normal_arrays
from refconv.testing.strategies import ConvProblem, conv_problems
from tests.helpers import Backend, forward, run

LONG = Problem(1, 64, 4, (8, 7), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), bias=True)


def assert_in_bounds(backend: Backend, problem: Problem, operands: Operands, **more: Any) -> None:
    dtype = operands.x.dtype
    arithmetic = COMPUTE[real_dtype(dtype)]
    if more:  # sums in float64, then one rounding
        info = np.finfo(dtype)
        arithmetic = replace(COMPUTE["float64"], result=float(info.eps) / 2, step=float(info.smallest_subnormal) / 2)
    exact, bounds = exact_and_bounds(problem, operands, arithmetic)
    actual = run(backend, problem, operands, **more)
    for name in Results._fields:
        try:
            backend.assert_close(getattr(actual, name), getattr(exact, name), getattr(bounds, name), dtype)
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
        operands = normal_arrays(problem, rng, dtype)
        spread_out = operands.mapped(lambda a: (a * np.exp(rng.uniform(-spread, spread, a.shape))).astype(dtype))
        assert_in_bounds(backend, problem, spread_out)


def test_long_sums(backend: Backend) -> None:
    """576 products per output, and constants, whose rounding errors do not cancel."""
    operands = normal_arrays(LONG, np.random.default_rng(8))
    assert_in_bounds(backend, LONG, operands)
    assert_in_bounds(backend, LONG, operands.mapped(lambda a: np.full_like(a, 0.1)))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_accumulating_in_float64_leaves_one_rounding(backend: Backend, dtype: str) -> None:
    if not backend.supports(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    operands = normal_arrays(LONG, np.random.default_rng(9), dtype)
    assert_in_bounds(backend, LONG, operands, accumulate_dtype="float64")


def test_an_exact_result_needs_no_bound(backend: Backend) -> None:
    """A kernel with a single tap of 1 copies its input, bit for bit."""
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 5)).astype("float32")
    problem = Problem(2, 3, 3, (4, 5), (1, 1), (1, 1), (1, 1), "valid", 3)
    operands = Operands(x, np.ones((3, 1, 1, 1), "float32"), None, x)
    backend.assert_equal(forward(backend, problem, operands), x)
