"""What the tests of layers share: inputs, and gradients by differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from refconv.nn import Layer, Parameter
from tests.helpers import Backend


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def integers(shape: tuple[int, ...], seed: int = 0) -> Any:
    return rng(seed).integers(-4, 5, shape).astype("float64")


def apart(shape: tuple[int, ...], seed: int = 0) -> Any:
    """Distinct numbers 10 apart and 5 from zero: a step of 1 crosses no kink of a ReLU or a maximum."""
    size = math.prod(shape)
    return (rng(seed).permutation(size).reshape(shape) - size // 2) * 10.0 + 5


def directions(backend: Backend, shape: tuple[int, ...]) -> list[Any]:
    """Return what to step along: every axis with NumPy, else (modules here are slow) three draws from {−1, 0, 1}."""
    size = math.prod(shape)
    rows = np.eye(size) if backend.name == "numpy" else rng(8).integers(-1, 2, (3, size)).astype("float64")
    return [row.reshape(shape) for row in rows]


def assert_gradient(
    backend: Backend, f: Callable[[Any], float], at: Any, grad: Any, *, step: float, atol: float
) -> None:
    """Compare ⟨grad, u⟩ with central differences of f along directions u."""
    assert grad.shape == at.shape
    assert grad.dtype == at.dtype
    along = directions(backend, at.shape)
    expected = [(f(at + step * u) - f(at - step * u)) / (2 * step) for u in along]
    np.testing.assert_allclose([np.sum(grad * u) for u in along], expected, rtol=0, atol=atol)


def check_gradients(backend: Backend, layer: Layer, x: Any, *, step: float = 1, atol: float = 0) -> None:
    """Compare backward with differences of Σ g·f(x, w), in x and in every parameter: with step 1, exactly."""
    parameters = layer.parameters()
    values = [backend.to_numpy(parameter.value).copy() for parameter in parameters]
    given = backend.asarray(x)
    y = layer.forward(given)
    g = integers(tuple(y.shape), seed=9)
    grad_output = backend.asarray(g)
    grad_x = layer.backward(grad_output)
    for array in (y, grad_x, *(parameter.grad for parameter in parameters)):
        backend.check(array)
    np.testing.assert_array_equal(backend.to_numpy(given), x)
    np.testing.assert_array_equal(backend.to_numpy(grad_output), g)
    grads = [backend.to_numpy(parameter.grad) for parameter in parameters]

    def at(x: Any) -> float:
        return float(np.sum(g * backend.to_numpy(layer.forward(backend.asarray(x)))))

    assert_gradient(backend, at, x, backend.to_numpy(grad_x), step=step, atol=atol)
    for parameter, value, grad in zip(parameters, values, grads, strict=True):

        def of(moved: Any, parameter: Parameter = parameter) -> float:
            parameter.value = backend.asarray(moved)
            return at(x)

        assert_gradient(backend, of, value, grad, step=step, atol=atol)
        parameter.value = backend.asarray(value)


def with_integers(backend: Backend, layer: Layer) -> Layer:
    for seed, parameter in enumerate(layer.parameters()):
        parameter.value = backend.asarray(integers(tuple(parameter.value.shape), seed + 1))
    return layer


def inputs_of_every_kind(x: Any) -> dict[str, Any]:
    """Return the same numbers in other places: read-only, in Fortran order, every second of more, reversed."""
    frozen, spaced = x.copy(), np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    frozen.flags.writeable = False
    spaced[..., ::2] = x
    return {
        "read-only": frozen,
        "Fortran": np.asfortranarray(x),
        "spaced": spaced[..., ::2],
        "reversed": x[::-1].copy()[::-1],
    }
