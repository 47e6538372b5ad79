"""Forward mode and double backward equal loops from the definition and differences with step 1, exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import refconv
from refconv import ConvGrads
from refconv.testing.oracles.problems import Operands, Problem, Results, definition_results, inner, integer_arrays
from refconv.testing.strategies import ConvProblem, conv_problems
from tests.helpers import FLOATS, INTEGERS, Backend, arange

NAMES = ("grad_output", "x", "weight")
KINDS = pytest.mark.parametrize("transposed", [False, True])


def jvp(problem: Problem) -> Any:
    return refconv.conv_transpose_jvp if problem.transposed else refconv.conv_jvp


def double_backward(problem: Problem) -> Any:
    return refconv.conv_transpose_double_backward if problem.transposed else refconv.conv_double_backward


def direction(problem: Problem, dtype: Any, seed: int = 1) -> Operands:
    """Return whole numbers in the shapes of the operands, including a bias."""
    rng = np.random.default_rng(seed)
    values = integer_arrays(problem, rng, dtype)
    return values._replace(
        bias=integer_arrays(Problem(1, 1, problem.c_out, (1,), (1,), (1,), (1,), ((0, 0),)), rng, dtype).bias
    )


def wide(array: Any) -> Any:
    """Return floating-point arrays in double precision, in which sums of these whole numbers are exact."""
    if isinstance(array, tuple):
        return tuple(map(wide, array))
    return array if array.dtype.kind in "iu" else array.astype(np.result_type(array, np.float64))


def by_definition(problem: Problem, x: Any, weight: Any, bias: Any, g: Any) -> Results:
    return definition_results(problem, Operands(wide(x), wide(weight), None if bias is None else wide(bias), wide(g)))


def as_dtype(array: Any, dtype: Any) -> Any:
    return tuple(a.astype(dtype) for a in array) if isinstance(array, tuple) else array.astype(dtype)


def expected(problem: Problem, point: Operands, d: Operands) -> tuple[Any, Any, Any]:
    """Return the gradients of ⟨(ẋ, ẇ, ḃ), backward(g, x, w)⟩ with respect to g (which is ẏ), x and w."""
    x, w, _, g = point
    along_x, along_w = by_definition(problem, d.x, w, d.bias, g), by_definition(problem, x, d.weight, None, g)
    found = along_x.y + along_w.y, along_w.grad_x, along_x.grad_weight
    return tuple(as_dtype(array, x.dtype) for array in found)  # type: ignore[return-value]


@KINDS
def test_equal_to_the_definition(backend: Backend, transposed: bool) -> None:
    @settings(max_examples=20)
    @given(conv_problems(transposed=transposed, dtypes=backend.dtypes((*FLOATS, *INTEGERS)), empty=True))
    def check(case: ConvProblem) -> None:
        problem, point = case
        d = direction(problem, point.x.dtype)
        x, w, _, g = map(backend.asarray, point)
        dx, dw, db, _ = map(backend.asarray, d)
        due = expected(problem, point, d)
        options = problem.options()
        backend.assert_equal(jvp(problem)(x, w, dx=dx, dweight=dw, dbias=db, **options), due[0])
        found = double_backward(problem)(ConvGrads(dx, dw, db), g, x, w, **options)
        for name, e in zip(NAMES, due, strict=True):
            backend.assert_equal(getattr(found, name), e)

    check()


@KINDS
def test_they_are_derivatives(transposed: bool) -> None:
    """s = ⟨(ẋ, ẇ, ḃ), backward(g, x, w)⟩ is linear in each operand, so that a step of 1 shows its gradient exactly."""

    @settings(max_examples=20)
    @given(conv_problems(transposed=transposed, dtypes=("float64", "complex128")))
    def check(case: ConvProblem) -> None:
        problem, point = case
        d, step = direction(problem, point.x.dtype), direction(problem, point.x.dtype, 2)

        def s(x: Any, weight: Any, g: Any) -> Any:
            found = by_definition(problem, x, weight, None, g)
            return sum(inner(a, b).real for a, b in zip((d.x, d.weight, d.bias), found[1:], strict=True))

        def moved(name: str) -> dict[str, Any]:
            at = {"x": point.x, "weight": point.weight, "g": point.grad_output}
            by = {"x": step.x, "weight": step.weight, "g": step.grad_output}[name]
            start = at[name]
            at[name] = tuple(a + b for a, b in zip(start, by, strict=True)) if isinstance(by, tuple) else start + by
            return at

        grads = double_backward(problem)(
            (d.x, d.weight, d.bias), point.grad_output, point.x, point.weight, **problem.options()
        )
        here = s(point.x, point.weight, point.grad_output)
        assert s(**moved("g")) - here == inner(grads.grad_output, step.grad_output).real
        assert s(**moved("x")) - here == inner(grads.x, step.x).real
        assert s(**moved("weight")) - here == inner(grads.weight, step.weight).real
        # Forward mode is the same derivative in the other direction: ⟨ẏ, g⟩ = ⟨ẋ, x̄⟩ + ⟨ẇ, w̄⟩ + ⟨ḃ, b̄⟩.
        dy = jvp(problem)(point.x, point.weight, dx=d.x, dweight=d.weight, dbias=d.bias, **problem.options())
        assert inner(dy, point.grad_output).real == here

    check()


@KINDS
def test_what_is_left_out_counts_as_zeros(backend: Backend, transposed: bool) -> None:
    @settings(max_examples=6)
    @given(conv_problems(transposed=transposed))
    def check(case: ConvProblem) -> None:
        problem, point = case
        zero = direction(problem, "float32")
        zero = Operands(*(tuple(0 * w for w in a) if isinstance(a, tuple) else 0 * a for a in zero))
        d = direction(problem, "float32", 3)
        x, w, _, g = map(backend.asarray, point)
        options = problem.options()
        for kept in ((), ("x",), ("weight",), ("bias",), ("x", "bias"), ("weight", "bias")):
            some = {name: backend.asarray(getattr(d, name)) if name in kept else None for name in ConvGrads._fields}
            due = expected(problem, point, zero._replace(**{name: getattr(d, name) for name in kept}))
            found = double_backward(problem)(tuple(some.values()), g, x, w, **options)
            for name, e in zip(NAMES, due, strict=True):
                backend.assert_equal(getattr(found, name), e)
            backend.assert_equal(jvp(problem)(x, w, **{f"d{name}": a for name, a in some.items()}, **options), due[0])
        for needs in ((), ("x",), ("weight", "grad_output")):
            found = double_backward(problem)(map_grads(backend, d), g, x, w, **options, needs=needs)
            assert [name for name in NAMES if getattr(found, name) is not None] == [n for n in NAMES if n in needs]

    check()


def map_grads(backend: Backend, d: Operands) -> ConvGrads:
    return ConvGrads(*map(backend.asarray, (d.x, d.weight, d.bias)))


def test_an_operand_that_does_not_count_may_be_infinite() -> None:
    """If the loss does not depend on an operand, its gradient is zero, not 0 · ∞."""
    x, w, g = np.full((1, 1, 3), np.inf), np.full((1, 1, 2), np.nan), np.full((1, 1, 2), np.inf)
    np.testing.assert_array_equal(refconv.conv_jvp(x, w, dbias=np.ones(1)), np.ones((1, 1, 2)))
    found = refconv.conv_double_backward((None, None, np.ones(1)), g, x, w)
    for actual, due in zip(found, (np.ones((1, 1, 2)), np.zeros((1, 1, 3)), np.zeros((1, 1, 2))), strict=True):
        np.testing.assert_array_equal(actual, due)


def test_half_precision_is_rounded_once() -> None:
    """2048 + 1.5 is 2050 in float16; 2048 + 1 + 0.5, rounded after each sum, would stay 2048."""
    x, w = np.array([[[2048.0, 1.0]]], "float16"), np.array([[[1.0]]], "float16")
    dy = refconv.conv_jvp(
        x,
        w,
        dx=np.array([[[1.0, 0]]], "float16"),
        dweight=np.ones((1, 1, 1), "float16"),
        dbias=np.array([0.5], "float16"),
    )
    np.testing.assert_array_equal(dy, np.array([[[2050.0, 1.5]]], "float16"), strict=True)
    wider = refconv.conv_jvp(*(a.astype("float32") for a in (x, w)), dx=x.astype("float32"), accumulate_dtype="float64")
    assert wider.dtype == np.float32


def test_operands_are_not_changed_and_results_are_new() -> None:
    x, w, g = arange((1, 2, 5)), arange((2, 2, 3)), arange((1, 2, 3))
    kept = [a.copy() for a in (x, w, g)]
    found = refconv.conv_double_backward((x, w, None), g, x, w)
    dy = refconv.conv_jvp(x, w, dx=x, dweight=w)
    for array, copy in zip((x, w, g), kept, strict=True):
        np.testing.assert_array_equal(array, copy)
        assert not any(np.shares_memory(array, result) for result in (*found, dy))
