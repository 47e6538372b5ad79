"""Local response and batch normalisation: values by loops, gradients by differences, and PyTorch where installed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from refconv.nn import BatchNorm, LocalResponseNorm
from tests.helpers import Backend
from tests.nn_helpers import check_gradients, check_tiles_and_layouts, inputs_of_every_kind, rng


def normalised(x: Any, size: int = 5, k: float = 2, alpha: float = 1e-4, beta: float = 0.75, sizes: Any = None) -> Any:
    """Compute the paper's formula, one number at a time, with windows max(0, i − n/2) … min(N − 1, i + n/2)."""
    block_of = np.repeat(np.arange(len(sizes)), sizes) if sizes else np.zeros(x.shape[1], int)
    y = np.zeros_like(x)
    for i in range(x.shape[1]):
        total = np.zeros_like(x[:, 0])
        for j in range(x.shape[1]):
            # an even window, as in PyTorch, has one channel fewer after i than before it
            if -(size // 2) <= j - i <= (size - 1) // 2 and block_of[i] == block_of[j]:
                total += x[:, j] ** 2
        y[:, i] = x[:, i] / (k + alpha * total) ** beta
    return y


RESPONSES: list[dict[str, Any]] = [
    {},
    {"size": 3, "k": 1.0, "alpha": 0.5, "beta": 0.75},
    {"size": 4, "k": 1.5, "alpha": 0.3, "beta": 0.6, "sizes": (3, 4)},
    {"size": 1, "k": 0.5, "alpha": 2.0, "beta": 1.0},
    {"size": 20, "k": 1.0, "alpha": 0.1, "beta": 2.0},
    {"size": 5, "k": 1.0, "alpha": 1.0, "beta": 0.0, "sizes": (1, 5, 1)},
    {"size": 2, "k": 1.0, "alpha": 1.0, "beta": 0.75, "sizes": [2, 2, 2, 1]},
]


@pytest.mark.parametrize("options", RESPONSES)
@pytest.mark.parametrize("shape", [(2, 7, 2, 3), (3, 7)], ids=["image", "row"])
def test_local_response_norm(backend: Backend, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    x = 3 * rng(1).normal(size=shape)
    layer = LocalResponseNorm(**options)
    y = layer.forward(backend.asarray(x))
    backend.check(y)
    np.testing.assert_allclose(backend.to_numpy(y), normalised(x, **options), rtol=1e-13)
    check_gradients(backend, layer, x, exact=False)


def test_the_defaults_are_the_papers() -> None:
    x = 100 * rng(2).normal(size=(2, 9, 3))
    y = LocalResponseNorm().forward(x)
    np.testing.assert_allclose(y, normalised(x, 5, 2, 1e-4, 0.75), rtol=1e-13)
    divided = LocalResponseNorm(divide_by_size=True).forward(x)
    np.testing.assert_allclose(divided, normalised(x, 5, 2, 1e-4 / 5, 0.75), rtol=1e-13)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8])
def test_local_response_norm_agrees_with_torch(size: int) -> None:
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    x = rng(size).normal(size=(2, 6, 3, 4))
    layer, leaf = LocalResponseNorm(size, k=1.5, alpha=0.7, divide_by_size=True), torch.tensor(x, requires_grad=True)
    y, expected = layer.forward(x), torch.nn.functional.local_response_norm(leaf, size, alpha=0.7, k=1.5)
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-13)
    g = rng(9).normal(size=x.shape)
    expected.backward(torch.tensor(g))
    np.testing.assert_allclose(layer.backward(g), leaf.grad.numpy(), rtol=1e-11, atol=1e-14)


def test_blocks_are_normalised_as_if_they_were_alone() -> None:
    x, g = (rng(seed).normal(size=(2, 8, 3, 2)) for seed in (1, 2))
    layer, alone = LocalResponseNorm(alpha=1, sizes=(3, 5)), LocalResponseNorm(alpha=1)
    y, grad = layer.forward(x), layer.backward(g)
    for part in (slice(0, 3), slice(3, 8)):
        np.testing.assert_array_equal(y[:, part], alone.forward(x[:, part]))
        np.testing.assert_array_equal(grad[:, part], alone.backward(g[:, part]))


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_normalisation_keeps_the_data_type(backend: Backend, name: str) -> None:
    if not backend.supports(name):
        pytest.skip(f"{backend} has no {name}")
    x = (300 * rng(4).normal(size=(4, 6, 5))).astype(name)  # squares overflow half precision
    eps = float(np.finfo(name).eps)
    response = LocalResponseNorm(alpha=0.01)
    y = response.forward(backend.asarray(x))
    backend.assert_close(y, normalised(x.astype("float64"), alpha=0.01), 20 * eps * np.abs(x), name)
    assert backend.to_numpy(response.backward(y)).dtype == np.dtype(name)
    batch = BatchNorm(6, xp=backend.xp, dtype=name)
    wide = x.astype("float64")
    mean, var = (np.reshape(f(wide, axis=(0, 2)), (6, 1)) for f in (np.mean, np.var))
    backend.assert_close(
        batch.forward(backend.asarray(x)), (wide - mean) / np.sqrt(var + 1e-5), 20 * eps + 0 * wide, name
    )
    grad = batch.backward(backend.asarray(x))
    for array in (grad, batch.weight.grad, batch.bias.grad, batch.running_mean, batch.running_var):
        assert backend.to_numpy(array).dtype == np.dtype(name)


def test_response_norm_in_tiles_and_of_other_layouts() -> None:
    check_tiles_and_layouts(LocalResponseNorm(alpha=1), rng(1).normal(size=(5, 6, 4, 4)).astype("float32"), 500)


def batch_norm(backend: Backend, channels: int, **options: Any) -> BatchNorm:
    layer = BatchNorm(channels, xp=backend.xp, dtype="float64", **options)
    layer.weight.value = backend.asarray(1 + np.arange(channels) / 4)
    layer.bias.value = backend.asarray(np.arange(channels) / 2 - 1)
    return layer


@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 4), (3, 3, 2, 2), (2, 3, 1, 2, 3)])
def test_batch_norm(backend: Backend, shape: tuple[int, ...]) -> None:
    x = 2 + 3 * rng(5).normal(size=shape)
    layer = batch_norm(backend, 3, momentum=0.25, eps=1e-3)
    expected, running = np.zeros_like(x), []
    for c in range(3):
        values = [float(v) for v in x[:, c].ravel()]
        mean = math.fsum(values) / len(values)
        squares = math.fsum((v - mean) ** 2 for v in values)
        expected[:, c] = (1 + c / 4) * (x[:, c] - mean) / math.sqrt(squares / len(values) + 1e-3) + c / 2 - 1
        running.append((0.25 * mean, 0.75 + 0.25 * squares / (len(values) - 1)))
    given = backend.asarray(x)
    y = layer.forward(given)
    backend.check(y)
    np.testing.assert_allclose(backend.to_numpy(y), expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(backend.to_numpy(layer.running_mean), [mean for mean, _ in running], rtol=1e-12)
    np.testing.assert_allclose(backend.to_numpy(layer.running_var), [var for _, var in running], rtol=1e-12)
    check_gradients(backend, layer, x, exact=False)

    layer.eval()
    mean, var = (backend.to_numpy(a).copy().reshape(3, *[1] * (len(shape) - 2)) for a in
                 (layer.running_mean, layer.running_var))  # fmt: skip
    weight, bias = (backend.to_numpy(p.value).reshape(mean.shape) for p in layer.parameters())
    expected = weight * (x - mean) / np.sqrt(var + 1e-3) + bias
    np.testing.assert_allclose(backend.to_numpy(layer.forward(given)), expected, rtol=1e-12, atol=1e-13)
    check_gradients(backend, layer, x, exact=False)
    np.testing.assert_array_equal(backend.to_numpy(layer.running_mean), mean.ravel())  # testing does not change them


def test_backward_differentiates_the_forward_that_was_made() -> None:
    """This also holds if the mode changes between the two."""
    x, g = (rng(seed).normal(size=(4, 2, 3)) for seed in (1, 2))
    layer = BatchNorm(2, dtype="float64")
    layer.forward(x)
    grad = layer.backward(g)
    layer.forward(x)
    np.testing.assert_array_equal(layer.eval().backward(g), grad)


def test_batch_norm_of_an_empty_batch_in_testing(backend: Backend) -> None:
    layer = batch_norm(backend, 3).eval()
    y = layer.forward(backend.asarray(np.zeros((0, 3, 4))))
    assert tuple(layer.backward(y).shape) == (0, 3, 4)
    response = LocalResponseNorm()
    assert tuple(response.backward(response.forward(y)).shape) == (0, 3, 4)


@pytest.mark.parametrize("d", [0, 1, 2, 3])
def test_batch_norm_agrees_with_torch(d: int) -> None:
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    theirs = getattr(torch.nn, f"BatchNorm{max(d, 1)}d")(3, momentum=0.3, eps=1e-4, dtype=torch.float64)
    layer = BatchNorm(3, momentum=0.3, eps=1e-4, dtype="float64")
    for step, training in enumerate((True, True, False)):
        draw = rng(step)
        for ours, their in zip(layer.parameters(), (theirs.weight, theirs.bias), strict=True):
            ours.value = draw.normal(size=3)
            their.data = torch.tensor(ours.value)
        layer._set_training(training)
        theirs.train(training)
        x, g = (1 + 2 * draw.normal(size=(4, 3, 2, 3, 2)[: d + 2]) for _ in range(2))
        leaf = torch.tensor(x, requires_grad=True)
        y, expected = layer.forward(x), theirs(leaf)
        theirs.zero_grad()
        expected.backward(torch.tensor(g))
        for a, b in (
            (y, expected.detach()),
            (layer.backward(g), leaf.grad),
            (layer.weight.grad, theirs.weight.grad),
            (layer.bias.grad, theirs.bias.grad),
            (layer.running_mean, theirs.running_mean),
            (layer.running_var, theirs.running_var),
        ):
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-10, atol=1e-12)


def test_batch_norm_reads_every_layout_and_changes_none() -> None:
    x = rng(1).normal(size=(4, 3, 4)).astype("float32")
    y = BatchNorm(3).forward(x)
    for name, other in inputs_of_every_kind(x).items():
        np.testing.assert_allclose(BatchNorm(3).forward(other), y, rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(other, x)


def ones(*shape: int) -> Any:
    return np.ones(shape, "float32")


BAD: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (ValueError, "size must be at least 1", lambda: LocalResponseNorm(0)),
    (TypeError, "size must be an integer", lambda: LocalResponseNorm(2.0)),  # type: ignore[arg-type]
    (ValueError, "k must be finite and more than 0", lambda: LocalResponseNorm(k=0)),
    (ValueError, "alpha must be", lambda: LocalResponseNorm(alpha=-1)),
    (ValueError, "beta must be finite", lambda: LocalResponseNorm(beta=math.inf)),
    (TypeError, "divide_by_size", lambda: LocalResponseNorm(divide_by_size=1)),  # type: ignore[arg-type]
    (TypeError, "sizes must be a sequence", lambda: LocalResponseNorm(sizes=4)),  # type: ignore[arg-type]
    (ValueError, r"sizes\[1\] must be at least 1", lambda: LocalResponseNorm(sizes=(4, 0))),
    (ValueError, r"C=6 channels .* with sum 5", lambda: LocalResponseNorm(sizes=(2, 3)).forward(ones(1, 6))),
    (ValueError, r"Dd\) for LocalResponseNorm; got \(3,\)", lambda: LocalResponseNorm().forward(ones(3))),
    (TypeError, "for LocalResponseNorm; got int64", lambda: LocalResponseNorm().forward(ones(1, 2).astype(int))),
    (ValueError, "channels must be at least 1", lambda: BatchNorm(0)),
    (ValueError, "momentum must be from 0 to 1; got 1.5", lambda: BatchNorm(2, momentum=1.5)),
    (ValueError, "eps must be finite and more than 0", lambda: BatchNorm(2, eps=0)),
    (ValueError, "dtype must be", lambda: BatchNorm(2, dtype="int8")),
    (ValueError, "2\\^40", lambda: BatchNorm(2**50)),
    (ValueError, "BatchNorm expects 2 input channels, got 3", lambda: BatchNorm(2).forward(ones(4, 3))),
    (TypeError, "float32; got float64", lambda: BatchNorm(2).forward(np.ones((4, 2)))),
    (ValueError, r"at least 2 values per channel.*\(1, 2, 1\)", lambda: BatchNorm(2).forward(ones(1, 2, 1))),
    (ValueError, "at least 2 values per channel", lambda: BatchNorm(2).forward(ones(0, 2, 5))),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "call"), BAD, ids=[f"{i}" for i in range(len(BAD))])
def test_bad_normalisation_is_refused(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message):
        call()
