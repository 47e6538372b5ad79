"""Helpers for the tests of layers: inputs, and a layer in the form for gradcheck."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from refconv import set_workers
from refconv.nn import Layer, SoftmaxCrossEntropy
from refconv.testing import gradcheck
from tests.helpers import Backend, cut_into


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def integers(shape: tuple[int, ...], seed: int = 0) -> Any:
    return rng(seed).integers(-4, 5, shape).astype("float64")


def apart(shape: tuple[int, ...], seed: int = 0) -> Any:
    """Distinct numbers, 100 apart and 50 from zero, so that gradcheck's steps cross no kink of a ReLU or a maximum."""
    size = math.prod(shape)
    return (rng(seed).permutation(size).reshape(shape) - size // 2) * 100.0 + 50


def check_gradients(
    backend: Backend,
    layer: Layer,
    x: Any,
    *,
    exact: bool = True,
    labels: Any = None,
    before: Callable[[], object] = lambda: None,
    **options: Any,
) -> None:
    """Check backward by gradcheck in x and every parameter: of f(x, w), or of the loss of f(x, w) with labels.

    With `exact`, f must be affine in each and all numbers whole, so that no comparison needs a tolerance.
    """
    parameters, loss = layer.parameters(), SoftmaxCrossEntropy()

    def checked(array: Any) -> Any:
        backend.check(array)
        return backend.to_numpy(array)

    def forward(x: Any, *values: Any) -> Any:
        before()
        for parameter, value in zip(parameters, values, strict=True):
            parameter.value = backend.asarray(value)
        y = layer.forward(backend.asarray(x))
        return checked(y) if labels is None else np.array(loss.forward(y, backend.asarray(labels)))

    def vjp(g: Any, *inputs: Any) -> list[Any]:
        forward(*inputs)
        grad_x = layer.backward(backend.asarray(g) if labels is None else loss.backward())
        gradients = [checked(array) for array in (grad_x, *(parameter.grad for parameter in parameters))]
        return gradients if labels is None else [g * gradient for gradient in gradients]

    values = [backend.to_numpy(parameter.value).copy() for parameter in parameters]
    if backend.name != "numpy":  # others are slow: random directions cover the other elements
        options = {"max_elements": 2, **options}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"inputs\[\d+\] is constant")  # such as biases before training
        result = gradcheck(forward, vjp, [x, *values], **options)
    for parameter, value in zip(parameters, values, strict=True):
        parameter.value = backend.asarray(value)
    assert not exact or all(result.exact)


def with_integers(backend: Backend, layer: Layer) -> Layer:
    for seed, parameter in enumerate(layer.parameters()):
        parameter.value = backend.asarray(integers(tuple(parameter.value.shape), seed + 1))
    return layer


def inputs_of_every_kind(x: Any) -> dict[str, Any]:
    """Return the same numbers in other layouts: read-only, in Fortran order, every second element, reversed."""
    frozen, spaced = x.copy(), np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    frozen.flags.writeable = False
    spaced[..., ::2] = x
    return {
        "read-only": frozen,
        "Fortran": np.asfortranarray(x),
        "spaced": spaced[..., ::2],
        "reversed": x[::-1].copy()[::-1],
    }


def check_tiles_and_layouts(layer: Layer, x: Any, tile_bytes: int) -> None:
    """Check that other layouts, small tiles and more workers change no bit of either pass."""
    y = layer.forward(x)
    g = integers(y.shape).astype(x.dtype)
    grad = layer.backward(g)
    for name, other in inputs_of_every_kind(x).items():
        np.testing.assert_array_equal(layer.forward(other), y, err_msg=name)
        np.testing.assert_array_equal(layer.backward(inputs_of_every_kind(g)[name]), grad, err_msg=name)
    for workers in (1, 3):
        with cut_into(tile_bytes), set_workers(workers):
            np.testing.assert_array_equal(layer.forward(x), y)
            np.testing.assert_array_equal(layer.backward(g), grad)


def write_cifar(folder: Path, train: int, test: int, *, brightness: int = 0) -> str:
    """Write files in CIFAR-10's format, `train` images in each of five and `test` in one; return the data set's name.

    With `brightness`, each class is that much brighter than the previous class, so that a network can learn them.
    """
    for name, count in {**{f"data_batch_{i}": train for i in range(1, 6)}, "test_batch": test}.items():
        labels = rng(ord(name[-1]) + 1).integers(0, 10, (count, 1), dtype="uint8")
        pixels = rng(ord(name[-1])).integers(0, 50, (count, 3072), dtype="uint8") + brightness * labels
        (folder / f"{name}.bin").write_bytes(np.concatenate([labels, pixels], axis=1).tobytes())
    (folder / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n")
    return f"cifar10:{folder}"
