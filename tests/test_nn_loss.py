"""Mean squared error and binary cross-entropy: formulas, gradients, extreme numbers, and PyTorch where installed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from refconv.nn import BinaryCrossEntropy, MeanSquaredError
from refconv.testing import gradcheck
from tests.helpers import Backend
from tests.nn_helpers import integers, rng

LOSSES = {"squared": MeanSquaredError, "binary": BinaryCrossEntropy}
SHAPES = [(7,), (3, 1), (2, 3, 2, 2)]


def answers(shape: tuple[int, ...]) -> Any:
    """Return numbers from 0 to 1, including both ends."""
    targets = rng(4).random(shape)
    targets.flat[0], targets.flat[1] = 0, 1
    return targets


def by_hand(kind: str, z: Any, t: Any) -> float:
    """Return the mean over elements, each computed by the definition."""
    total = 0.0
    for a, b in zip(z.ravel().tolist(), t.ravel().tolist(), strict=True):
        if kind == "squared":
            total += (a - b) ** 2
        else:
            p = 1 / (1 + math.exp(-a))
            total -= b * math.log(p) + (1 - b) * math.log(1 - p)
    return total / z.size


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", LOSSES)
def test_losses_are_their_formulas_and_gradients(backend: Backend, kind: str, shape: tuple[int, ...]) -> None:
    loss, t = LOSSES[kind](), answers(shape)
    targets = backend.asarray(t)

    def forward(z: Any) -> Any:
        return np.array(loss(backend.asarray(z), targets))

    def vjp(g: Any, z: Any) -> Any:
        forward(z)
        grad = loss.backward()
        backend.check(grad)
        return g * backend.to_numpy(grad)

    z = 3 * rng(1).normal(size=shape)
    assert float(forward(z)) == pytest.approx(by_hand(kind, z, t), rel=1e-12)
    assert type(loss(backend.asarray(z), targets)) is float
    gradcheck(forward, vjp, [z])


def test_squares_of_whole_numbers_are_exact(backend: Backend) -> None:
    z, t = integers((4, 4)), integers((4, 4), 1)
    loss = MeanSquaredError()
    assert loss(backend.asarray(z), backend.asarray(t)) == np.sum((z - t) ** 2) / 16
    backend.assert_equal(loss.backward(), (z - t) / 8)


def test_extreme_logits_neither_overflow_nor_lose_digits(backend: Backend) -> None:
    loss = BinaryCrossEntropy()
    z, t = np.array([1e4, -1e4, 1e4, -1e4], "float32"), np.array([1, 0, 0, 1], "float32")
    assert loss(backend.asarray(z), backend.asarray(t)) == 5e3
    backend.assert_equal(loss.backward(), np.array([0, 0, 0.25, -0.25], "float32"))
    z = np.array([-40.0, -700])  # 1 − σ(z) would round to 1, and its logarithm to 0
    assert loss(backend.asarray(z), backend.asarray(np.zeros(2))) == pytest.approx(math.exp(-40) / 2, rel=1e-15, abs=0)
    backend.assert_close(loss.backward(), np.exp(z) / 2, 1e-15 * np.exp(z), "float64")


@pytest.mark.parametrize("kind", LOSSES)
def test_half_precision_is_summed_in_single(kind: str) -> None:
    loss = LOSSES[kind]()
    z = np.full(100000, 4, "float16")
    expected = by_hand(kind, z[:1].astype(float), np.ones(1))
    assert loss(z, np.ones_like(z)) == pytest.approx(expected, rel=1e-4)
    assert loss.backward().dtype == np.float16


def test_losses_agree_with_torch() -> None:
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    F: Any = torch.nn.functional
    theirs = {"squared": F.mse_loss, "binary": F.binary_cross_entropy_with_logits}
    for kind, make in LOSSES.items():
        for shape in SHAPES:
            z, t, loss = 5 * rng(2).normal(size=shape), answers(shape), make()
            leaf = torch.tensor(z, requires_grad=True)
            expected = theirs[kind](leaf, torch.tensor(t))
            expected.backward()
            assert loss(z, t) == pytest.approx(float(expected.detach()), rel=1e-12)
            np.testing.assert_allclose(loss.backward(), leaf.grad.numpy(), rtol=1e-12, atol=1e-15)


def pair(loss: Any, z: Any, t: Any) -> Callable[[], Any]:
    return lambda: loss()(z, t)


X, T = np.zeros((2, 3)), np.array([[0.0, 1, 2], [0, 0, 1]])
BAD: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (
        ValueError,
        r"targets must have shape \(2, 1\), the shape of the predictions",
        pair(MeanSquaredError, X[:, :1], X[:, 0]),
    ),
    (ValueError, r"targets must have shape \(2, 3\), the shape of the logits", pair(BinaryCrossEntropy, X, X[:1])),
    (
        TypeError,
        r"data type of the predictions, float64; got float32: write targets\.astype\('float64'\)",
        pair(MeanSquaredError, X, X.astype("float32")),
    ),
    (TypeError, "data type of the logits, float64; got int64", pair(BinaryCrossEntropy, X, X.astype(int))),
    (TypeError, "predictions must be real floating point; got int64", pair(MeanSquaredError, X.astype(int), X)),
    (TypeError, "logits must be real floating point; got complex128", pair(BinaryCrossEntropy, X + 0j, X)),
    (TypeError, "predictions must be a dense array", pair(MeanSquaredError, [1.0], X)),
    (TypeError, "targets must be a dense array", pair(MeanSquaredError, X, 0.0)),
    (ValueError, "logits must have at least one axis and one element", pair(BinaryCrossEntropy, X[:0], X[:0])),
    (
        ValueError,
        r"predictions must have at least one axis and one element; got shape \(\)",
        pair(MeanSquaredError, np.zeros(()), np.zeros(())),
    ),
    (
        ValueError,
        "targets must be from 0 to 1; got numbers from 0.0 to 2.0",
        pair(BinaryCrossEntropy, X, T),
    ),
    (ValueError, "targets must be from 0 to 1; got numbers from -1.0", pair(BinaryCrossEntropy, X, -T / 2)),
    (ValueError, "targets must be from 0 to 1", pair(BinaryCrossEntropy, X, np.full_like(X, np.nan))),
    (RuntimeError, "MeanSquaredError.backward needs a forward", lambda: MeanSquaredError().backward()),
    (RuntimeError, "BinaryCrossEntropy.backward needs a forward", lambda: BinaryCrossEntropy().backward()),
]


@pytest.mark.parametrize(("error", "message", "call"), BAD, ids=[f"{i}" for i in range(len(BAD))])
def test_bad_input_is_refused(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_message_converts_the_array_that_was_given(other_backend: Backend) -> None:
    z = other_backend.asarray(X.astype("float32"))
    with pytest.raises(TypeError, match=r"got float64: write targets\.astype\('float32'\)$"):
        MeanSquaredError()(z, X)


@pytest.mark.parametrize("kind", LOSSES)
def test_a_loss_prints_its_name(kind: str) -> None:
    assert repr(LOSSES[kind]()) == f"{LOSSES[kind].__name__}()"


@pytest.mark.parametrize("kind", LOSSES)
def test_each_forward_serves_one_backward(kind: str) -> None:
    loss = LOSSES[kind]()
    loss(X, X)
    loss.backward()
    with pytest.raises(RuntimeError, match="each forward serves one backward"):
        loss.backward()
