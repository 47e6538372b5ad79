"""Convolutions and transposed ones equal the definition bit for bit, and their gradients are adjoint, exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from refconv.testing.oracles.problems import WIDER, definition_results, inner, integer_arrays, random_problem
from refconv.testing.strategies import ConvProblem, conv_problems
from tests.helpers import DTYPES, Backend, assert_results, forward, run

pytestmark = pytest.mark.parametrize("transposed", [False, True])


def test_equals_the_definition(backend: Backend, transposed: bool) -> None:
    dtypes = backend.dtypes(("float32", "float64", "complex64", "int16"))

    @given(conv_problems(dtypes=dtypes, transposed=transposed))
    def check(case: ConvProblem) -> None:
        assert_results(backend, run(backend, *case), definition_results(*case))

    check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_definition_in_every_dtype(backend: Backend, transposed: bool, dtype: str) -> None:
    if not backend.supports(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    rng = np.random.default_rng(4)
    for _ in range(12):
        problem = random_problem(rng, transposed=transposed)
        operands = integer_arrays(problem, rng, dtype)
        assert_results(backend, run(backend, problem, operands), definition_results(problem, operands))


def test_wide_results_equal_the_definition(backend: Backend, transposed: bool) -> None:
    """Of int8 over its whole range, int32 has the sums that wrap in int8; float32 those that float16 rounds."""

    @given(conv_problems(dtypes=backend.dtypes(WIDER), transposed=transposed))
    def check(case: ConvProblem) -> None:
        wide = WIDER[case.x.dtype.name]
        y = definition_results(*case, output_dtype=wide).y
        backend.assert_equal(forward(backend, *case, output_dtype=wide), y)

    check()


def test_gradients_are_adjoint(backend: Backend, transposed: bool) -> None:
    """⟨g, conv(x, w)⟩ = ⟨grad_x, x⟩ = ⟨grad_w, w⟩ with conj on the left; the bias sees the sum of g."""
    dtypes = backend.dtypes(("float32", "complex64"))

    @given(conv_problems(dtypes=dtypes, transposed=transposed))
    def check(case: ConvProblem) -> None:
        problem, operands = case[0], case[1]._replace(bias=None)
        y, grad_x, grad_w, grad_b = (backend.to_numpy(a) for a in run(backend, problem, operands))
        product = inner(operands.grad_output, y)
        assert inner(grad_x, operands.x) == product
        assert inner(grad_w, operands.weight) == product
        ones = np.ones(problem.c_out, grad_b.dtype)
        assert inner(ones, grad_b) == np.sum(operands.grad_output, dtype="complex128")

    check()
