"""The same results as PyTorch and its automatic gradients, on problems drawn jointly."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import refconv
from refconv.testing.oracles.bounds import COMPUTE, exact_and_bounds, real_dtype
from refconv.testing.oracles.problems import Results, normal_arrays
from refconv.testing.strategies import ConvProblem, conv_problems
from tests.helpers import load, run

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to agree with")

from tests.torch_reference import leaves, numpy, output, torch_results  # noqa: E402  (they need PyTorch)


def parts(array: Any) -> tuple[Any, ...]:
    return array if isinstance(array, tuple) else (array,)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_within_both_bounds_on_real_numbers(name: str, transposed: bool) -> None:
    backend = load(name)

    @given(conv_problems(dtypes=("float32", "float64", "complex64"), values="normal", transposed=transposed))
    def check(case: ConvProblem) -> None:
        problem, operands = case
        _, bounds = exact_and_bounds(problem, operands, COMPUTE[real_dtype(operands.x.dtype)])
        ours, theirs = run(backend, problem, operands), torch_results(problem, operands)
        for field in Results._fields:
            mine, other, bound = (getattr(r, field) for r in (ours, theirs, bounds))
            twice = tuple(2 * b for b in parts(bound))  # each of the two is within one bound of the exact result
            for m, o, b in zip(parts(mine), parts(other), twice, strict=True):
                backend.assert_close(m, o, b, operands.x.dtype)

    check()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning")  # forward mode imports it
@pytest.mark.parametrize("transposed", [False, True])
def test_second_derivatives_and_forward_mode(transposed: bool) -> None:
    @given(conv_problems(dtypes=("float64", "complex128"), values="normal", transposed=transposed))
    def check(case: ConvProblem) -> None:
        problem, operands = case
        rng = np.random.default_rng(1)
        direction = normal_arrays(problem, rng, operands.x.dtype)
        bias = normal_arrays(dataclasses.replace(problem, bias=True), rng, operands.x.dtype).bias
        direction = direction._replace(bias=bias)
        x, *weights, b, g = leaves(problem, operands)
        dx, *dweights, db, _ = leaves(problem, direction)
        y = output(problem, x, *weights, b)
        grads = torch.autograd.grad(y, [x, *weights, b], g, create_graph=True)
        loss = sum(torch.sum(h.conj() * grad).real for h, grad in zip((dx, *dweights, db), grads, strict=True))
        twice = torch.autograd.grad(loss, [g, x, *weights], allow_unused=True, materialize_grads=True)
        primals, tangents = (x, *weights, b), (dx, *dweights, db)
        _, dy = torch.func.jvp(lambda *parts: output(problem, *parts), primals, tangents)
        prefix = "conv_transpose" if transposed else "conv"
        jvp = getattr(refconv, f"{prefix}_jvp")(
            operands.x, operands.weight, dx=direction.x, dweight=direction.weight, dbias=bias, **problem.options()
        )
        ours = getattr(refconv, f"{prefix}_double_backward")(
            (direction.x, direction.weight, bias),
            operands.grad_output,
            operands.x,
            operands.weight,
            **problem.options(),
        )
        due = [
            problem.from_plain(numpy(dy)),
            *(problem.from_plain(numpy(t)) for t in twice[:2]),
            *map(numpy, twice[2:]),
        ]
        mine = [jvp, ours.grad_output, ours.x, *parts(ours.weight)]
        for actual, wanted in zip(mine, due, strict=True):
            scale = np.max(np.abs(wanted), initial=1)
            np.testing.assert_allclose(actual, wanted, rtol=1e-9, atol=1e-9 * scale)

    check()


STEPS = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 3)},
    {"dilation": 2, "stride": 3, "padding": (3, 1)},
]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("kernel", [(2, 3), (1, 1), (3, 2)])
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_im2col_is_unfold_and_col2im_is_fold(name: str, kernel: Any, steps: Any) -> None:
    backend, functional = load(name), torch.nn.functional
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 7, 9)).astype("float32")
    columns = functional.unfold(torch.from_numpy(x), kernel, **steps)
    backend.assert_equal(refconv.im2col(backend.asarray(x), kernel, **steps), columns.numpy())
    c = rng.integers(-9, 9, tuple(columns.shape)).astype("float32")
    back = functional.fold(torch.from_numpy(c), (7, 9), kernel, **steps)
    backend.assert_equal(refconv.col2im(backend.asarray(c), x.shape, kernel, **steps), back.numpy())


def test_pytorch_parameters_and_leaves_are_tensors() -> None:
    """A parameter of a model, or any tensor that requires a gradient, is used like any other tensor."""
    layer = torch.nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2).double()
    x = torch.arange(4 * 5 * 6, dtype=torch.float64).reshape(1, 4, 5, 6).requires_grad_()
    y = layer(x)
    ours = refconv.conv(x, layer.weight, layer.bias, stride=2, padding=1, groups=2)
    np.testing.assert_allclose(refconv.to_numpy(ours), y.detach().numpy(), rtol=1e-12, atol=1e-12)
    g = torch.ones_like(y)
    theirs = torch.autograd.grad(y, [x, layer.weight, layer.bias], g)
    grads = refconv.conv_backward(g, x, layer.weight, stride=2, padding=1, groups=2)
    for mine, other in zip(grads, theirs, strict=True):
        np.testing.assert_allclose(refconv.to_numpy(mine), other.numpy(), rtol=1e-12, atol=1e-12)


def test_tensors_that_are_views_conjugated_or_negated_lazily() -> None:
    x = torch.view_as_complex(torch.arange(24.0).reshape(1, 2, 6, 2))
    w = torch.view_as_complex(torch.arange(16.0).reshape(2, 2, 2, 2))
    y = refconv.conv(x.conj(), w.conj())
    expected = refconv.conv(x.conj().resolve_conj().clone(), w.conj().resolve_conj().clone())
    np.testing.assert_array_equal(refconv.to_numpy(y), refconv.to_numpy(expected))
    real = torch.imag(x.conj())  # a lazily negated view
    assert real.is_neg()
    y = refconv.conv(real, torch.imag(w))
    expected = refconv.conv(real.resolve_neg().clone(), torch.imag(w).clone())
    np.testing.assert_array_equal(refconv.to_numpy(y), refconv.to_numpy(expected))
