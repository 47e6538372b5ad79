"""Convolutions, transposed ones and their derivatives equal the definition bit for bit; gradients are adjoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import refconv
from refconv.testing.oracles.derivatives import definition_double_backward, definition_jvp, polarised
from refconv.testing.oracles.problems import (
    WIDER,
    Operands,
    definition_results,
    inner,
    integer_arrays,
    random_problem,
)
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
    """int32 represents the sums that wrap in int8, and float32 the sums that float16 rounds."""

    @given(conv_problems(dtypes=backend.dtypes(WIDER), transposed=transposed))
    def check(case: ConvProblem) -> None:
        wide = WIDER[case.x.dtype.name]
        y = definition_results(*case, output_dtype=wide).y
        backend.assert_equal(forward(backend, *case, output_dtype=wide), y)

    check()


def test_gradients_are_adjoint(backend: Backend, transposed: bool) -> None:
    """⟨g, conv(x, w)⟩ = ⟨grad_x, x⟩ = ⟨grad_w, w⟩ with conj on the left; the bias gradient is the sum of g."""
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


def jvp(backend: Backend, case: ConvProblem, v: Operands) -> Any:
    """Return the derivative of the output along x, weight and bias of `v`."""
    function = refconv.conv_transpose_jvp if case.problem.transposed else refconv.conv_jvp
    x, weight, dx, dweight, dbias = map(backend.asarray, (case.x, case.weight, v.x, v.weight, v.bias))
    return function(x, weight, dx=dx, dweight=dweight, dbias=dbias, **case.options)


def double_backward(backend: Backend, case: ConvProblem, v: Operands) -> Any:
    """Return the gradients of ⟨v, backward pass⟩ with respect to grad_output, x and weight."""
    p = case.problem
    function = refconv.conv_transpose_double_backward if p.transposed else refconv.conv_double_backward
    g, x, weight, *grad_grads = map(backend.asarray, (case.grad_output, case.x, case.weight, v.x, v.weight, v.bias))
    return function(tuple(grad_grads), g, x, weight, **case.options)


def test_derivatives_equal_the_definition(backend: Backend, transposed: bool) -> None:
    dtypes = backend.dtypes(("float32", "complex64", "int16"))

    @settings(max_examples=20)
    @given(conv_problems(dtypes=dtypes, transposed=transposed))
    def check(case: ConvProblem) -> None:
        v = integer_arrays(case.problem, np.random.default_rng(case.x.size), case.x.dtype)
        backend.assert_equal(jvp(backend, case, v), definition_jvp(*case, v))
        found, right = double_backward(backend, case, v), definition_double_backward(*case, v)
        for name in right._fields:
            backend.assert_equal(getattr(found, name), getattr(right, name))

    check()


def test_derivatives_are_adjoint(backend: Backend, transposed: bool) -> None:
    """The identities of `inner` hold, and along any direction the double backward is a difference of the backward."""
    dtypes = backend.dtypes(("float32", "complex64"))

    @settings(max_examples=20)
    @given(conv_problems(dtypes=dtypes, transposed=transposed))
    def check(case: ConvProblem) -> None:
        rng = np.random.default_rng(case.x.size)
        dot, v = (integer_arrays(case.problem, rng, case.x.dtype) for _ in range(2))
        _, *grads = (backend.to_numpy(a) for a in run(backend, *case))
        dy, found = backend.to_numpy(jvp(backend, case, dot)), backend.to_numpy(double_backward(backend, case, dot))
        product = inner(tuple(grads), (dot.x, dot.weight, dot.bias))
        assert inner(case.grad_output, dy) == inner(case.grad_output, found[0]) == product
        assert inner(found[1], case.x) == inner(grads[1], dot.weight)
        assert inner(found[2], case.weight) == inner(grads[0], dot.x)
        along = inner(found, (v.grad_output, v.x, v.weight))
        assert np.real(along) == polarised(*case, dot, v)

    check()
