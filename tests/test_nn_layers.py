"""Dropout, channel shuffle, tanh, scale and the matrix product of linear layers; all layers in one network."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from refconv import set_workers
from refconv.nn import (
    AvgPool,
    BatchNorm,
    ChannelShuffle,
    Conv,
    ConvTranspose,
    Dropout,
    Flatten,
    Linear,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    Residual,
    Scale,
    Sequential,
    Tanh,
)
from refconv.nn.product import product
from tests.helpers import Backend
from tests.nn_helpers import apart, check_gradients, inputs_of_every_kind, integers, rng

# --- Dropout ---


def splitmix64(state: int, count: int) -> Any:
    """Return the generator's numbers, computed with Python's integers, from the state of the first."""
    numbers = []
    for _ in range(count):
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        numbers.append(z ^ (z >> 31))
        state = (state + 0x9E3779B97F4A7C15) % 2**64
    return np.array(numbers, "uint64")


def drawn(shape: tuple[int, ...], p: float, seed: int) -> Any:
    """Return the elements that a new Dropout keeps in its first pass."""
    numbers = splitmix64(int(rng(seed).integers(2**63)), math.prod(shape))
    return (numbers >> 40).reshape(shape) >= p * 2**24


def test_the_numbers_are_those_of_splitmix64() -> None:
    """These are the first numbers of the published generator for the seed 1234567."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert splitmix64(1234567 + 0x9E3779B97F4A7C15, 4).tolist() == published


@pytest.mark.parametrize(("rescale", "training", "testing"), [("training", 4 / 3, 1.0), ("testing", 1.0, 0.75)])
def test_dropout(backend: Backend, rescale: str, training: float, testing: float) -> None:
    x, g = apart((40, 50)), integers((40, 50), 1)
    layer = Dropout(0.25, rng=rng(3), rescale=rescale)
    y = layer.forward(backend.asarray(x))
    kept = drawn((40, 50), 0.25, 3)  # the same numbers on every module
    assert 0.7 < kept.mean() < 0.8
    backend.assert_equal(y, np.where(kept, x * training, 0))
    backend.assert_equal(layer.backward(backend.asarray(g)), np.where(kept, g * training, 0))
    assert not np.array_equal(backend.to_numpy(layer.forward(backend.asarray(x))), backend.to_numpy(y))

    layer.eval()
    before = layer.rng.bit_generator.state
    backend.assert_equal(layer.forward(backend.asarray(x)), x * testing)
    backend.assert_equal(layer.backward(backend.asarray(g)), g * testing)
    assert layer.rng.bit_generator.state == before  # testing draws nothing


def test_dropped_elements_are_independent() -> None:
    """Pairs in rows, in columns and in successive masks are as frequent as at random, within 5 standard deviations."""
    layer, x, p = Dropout(0.25, rng=rng(1)), np.ones((512, 500)), 0.25
    first, second = (layer.forward(x) == 0 for _ in range(2))
    pairs = [(first, second), *((first[step:], first[:-step]) for step in (1, 2, 64))]
    pairs += [(first[:, step:], first[:, :-step]) for step in (1, 2, 64)]
    for a, b in pairs:
        assert abs(np.mean(a) - p) < 5 * math.sqrt(p * (1 - p) / a.size)
        assert abs(np.mean(a & b) - p * p) < 5 * math.sqrt(p * p * (1 - p * p) / a.size)


def test_dropout_of_nothing_draws_nothing(backend: Backend) -> None:
    layer = Dropout(0, rng=rng(3))
    x = backend.asarray(apart((3, 4)))
    y = layer.forward(x)
    assert y is not x
    backend.assert_equal(y, apart((3, 4)))
    backend.assert_equal(layer.backward(x), apart((3, 4)))
    assert layer.rng.bit_generator.state == rng(3).bit_generator.state


def test_dropped_elements_are_zero_whatever_they_were(backend: Backend) -> None:
    for value in (np.inf, -np.inf, np.nan):
        layer = Dropout(rng=rng(0))
        x = np.full((6, 6), value)
        kept = drawn((6, 6), 0.5, 0)
        backend.assert_equal(layer.forward(backend.asarray(x)), np.where(kept, value, 0))
        backend.assert_equal(layer.backward(backend.asarray(x)), np.where(kept, value, 0))


# --- Channel shuffle, tanh, scale ---


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 3), (1, 6, 2, 3)])
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_channel_shuffle(backend: Backend, shape: tuple[int, ...], groups: int) -> None:
    layer, x = ChannelShuffle(groups), integers(shape)
    expected = np.zeros_like(x)
    for group in range(groups):
        for c in range(6 // groups):
            expected[:, c * groups + group] = x[:, group * (6 // groups) + c]
    backend.assert_equal(layer.forward(backend.asarray(x)), expected)
    check_gradients(backend, layer, x)
    # integers are moved like any other numbers
    backend.assert_equal(layer.forward(backend.asarray(x.astype("int64"))), expected.astype("int64"))


def test_channel_shuffle_agrees_with_torch() -> None:
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    x = integers((2, 12, 2, 3))
    for groups in (2, 3, 4):
        np.testing.assert_array_equal(
            ChannelShuffle(groups).forward(x), torch.nn.ChannelShuffle(groups)(torch.tensor(x)).numpy()
        )


@pytest.mark.parametrize("options", [{}, {"amplitude": 1.7159, "slope": 2 / 3}, {"amplitude": -0.5, "slope": 0.0}])
def test_tanh(backend: Backend, options: dict[str, float]) -> None:
    x = rng(1).normal(size=(3, 2, 4))
    a, s = options.get("amplitude", 1), options.get("slope", 1)
    expected = np.array([a * math.tanh(s * v) for v in x.ravel()]).reshape(x.shape)
    y = Tanh(**options).forward(backend.asarray(x))
    backend.assert_close(y, expected, 1e-15 * 4, "float64")
    check_gradients(backend, Tanh(**options), x, exact=False)


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2), (2, 3, 2, 3)])
def test_scale(backend: Backend, shape: tuple[int, ...]) -> None:
    layer = Scale(3, xp=backend.xp, dtype="float64")
    assert [parameter.name for parameter in layer.parameters()] == ["weight", "bias"]
    x = integers(shape)
    backend.assert_equal(layer.forward(backend.asarray(x)), x)  # at first
    layer.weight.value, layer.bias.value = (backend.asarray(np.array(v, float)) for v in ([2, -3, 5], [1, 7, -4]))
    expected = np.stack([a * x[:, c] + b for c, (a, b) in enumerate(((2, 1), (-3, 7), (5, -4)))], axis=1)
    backend.assert_equal(layer.forward(backend.asarray(x)), expected)
    check_gradients(backend, layer, x)


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_layers_keep_the_data_type_and_read_every_layout(backend: Backend, name: str) -> None:
    if not backend.supports(name):
        pytest.skip(f"{backend} has no {name}")
    x = integers((3, 4, 2, 6)).astype(name)
    for make in (
        lambda: Dropout(rng=rng(1)),
        lambda: ChannelShuffle(2),
        Tanh,
        lambda: Scale(4, xp=backend.xp, dtype=name),
        ReLU,
    ):
        layer = make()
        y = backend.to_numpy(layer.forward(backend.asarray(x)))
        grad = backend.to_numpy(layer.backward(backend.asarray(x)))
        assert y.dtype == grad.dtype == np.dtype(name)
        empty = layer.forward(backend.asarray(x[:0]))
        assert tuple(layer.backward(empty).shape) == (0, 4, 2, 6)
        if backend.is_numpy:
            for other in inputs_of_every_kind(x).values():
                again = make()
                np.testing.assert_array_equal(again.forward(other), y)
                np.testing.assert_array_equal(again.backward(other), grad)
                np.testing.assert_array_equal(other, x)


# --- Linear ---


@pytest.mark.parametrize(("rows", "inner", "columns"), [(7, 5, 30), (31, 6, 4), (8, 8, 8), (0, 3, 4), (3, 0, 4)])
def test_products_in_blocks(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, rows: int, inner: int, columns: int
) -> None:
    monkeypatch.setattr("refconv.nn.product.SMALL_MULTIPLY_ADDS", 0)
    monkeypatch.setattr("refconv.nn.product.BLOCK_MULTIPLY_ADDS", 150)
    a, b = integers((rows, inner)), integers((inner, columns), 1)
    expected = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            expected[i, j] = sum(a[i, k] * b[k, j] for k in range(inner))
    backend.assert_equal(product(backend.asarray(a), backend.asarray(b)), expected)
    backend.assert_equal(product(backend.asarray(a[::-1]), backend.asarray(b[:, ::-1])), expected[::-1, ::-1])


@pytest.mark.parametrize(("batch", "c_in", "c_out"), [(64, 1500, 1100), (2100, 300, 400)], ids=["wide", "tall"])
def test_linear_gives_the_same_bits_for_any_number_of_workers(batch: int, c_in: int, c_out: int) -> None:
    x, g = (rng(seed).normal(size=(batch, n)).astype("float32") for seed, n in enumerate((c_in, c_out)))
    layer = Linear(c_in, c_out, rng=rng(2))
    results = []
    for workers in (1, 2, 3):
        with set_workers(workers):
            results.append((layer.forward(x), layer.backward(g), layer.weight.grad))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)
    wide = x.astype("float64") @ layer.weight.value.astype("float64").T
    np.testing.assert_allclose(results[0][0], wide, rtol=0, atol=c_in * 2**-24 * np.abs(wide).max() * 2)


def test_products_are_cut_by_shape_alone_and_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def spy(xp: Any, work: Any, tasks: Any, tile_bytes: int) -> Any:
        seen.append(tuple(task.stop for task in tasks))
        return map(work, tasks)

    monkeypatch.setattr("refconv.nn.product.spread", spy)
    a = np.ones((64, 1024), "float32")
    for workers in (1, 5):
        with set_workers(workers):
            product(a, np.ones((1024, 3000), "float32"))
            product(np.ones((3000, 1024), "float32"), a.T)
    assert seen == [(1024, 2048, 3000)] * 4
    product(a[:4], a[:4].T)  # a small one is one product
    assert len(seen) == 4


# --- All layers, end to end ---


def every_layer(backend: Backend) -> Sequential:
    where: dict[str, Any] = {"rng": rng(3), "xp": backend.xp, "dtype": "float64"}
    at: dict[str, Any] = {"xp": backend.xp, "dtype": "float64"}
    return Sequential(
        Conv(2, 4, 3, padding=1, bias=False, **where),  # a bias before a batch norm has no gradient
        BatchNorm(4, **at),
        ReLU(),
        LocalResponseNorm(3, k=1, alpha=0.5, sizes=(2, 2)),
        MaxPool(3, 2, padding=1, ceil_mode=True),
        block=Residual(Conv(4, 4, 3, groups=2, padding=1, **where), ChannelShuffle(2), Tanh(slope=0.5)),
        pool=AvgPool(2, 1, padding=1, count_include_pad=False),
        scale=Scale(4, **at),
        up=ConvTranspose(4, 2, 3, groups=2, stride=2, padding="same", **where),
        rows=Flatten(),
        drop=Dropout(0.25, rng=rng(5)),
        out=Linear(2 * 8 * 10, 3, **where),
    )


@pytest.mark.thinned(5)
@pytest.mark.parametrize("training", [True, False])
def test_the_gradient_of_a_network_of_every_layer(backend: Backend, training: bool) -> None:
    model = every_layer(backend)._set_training(training)
    drop = model.children()["drop"]
    assert isinstance(drop, Dropout)

    def before() -> None:
        drop.rng = rng(5)  # the same elements each time

    x = rng(1).normal(size=(3, 2, 5, 7))
    check_gradients(
        backend, model, x, exact=False, labels=np.array([2, 0, 1]), before=before, step=1e-5, max_elements=1
    )


# --- Bad input ---

BAD: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (ValueError, "p must be finite and at least 0 and less than 1; got 1.0", lambda: Dropout(1, rng=rng())),
    (TypeError, "p must be a number", lambda: Dropout("half", rng=rng())),  # type: ignore[arg-type]
    (TypeError, r"rng must be a numpy\.random\.Generator", lambda: Dropout(rng=0)),  # type: ignore[arg-type]
    (ValueError, "rescale must be .* got 'never'", lambda: Dropout(rng=rng(), rescale="never")),
    (TypeError, "float64 for Dropout; got int64", lambda: Dropout(rng=rng()).forward(np.ones(3, "int64"))),
    (ValueError, "groups must be at least 1", lambda: ChannelShuffle(0)),
    (ValueError, "groups=4 must divide the C=6", lambda: ChannelShuffle(4).forward(np.ones((1, 6)))),
    (ValueError, "for ChannelShuffle; got", lambda: ChannelShuffle(1).forward(np.ones(6))),
    (TypeError, "amplitude", lambda: Tanh(amplitude="1")),  # type: ignore[arg-type]
    (ValueError, "slope must be finite; got -inf", lambda: Tanh(slope=-math.inf)),
    (TypeError, "for Tanh; got complex128", lambda: Tanh().forward(np.ones(2) + 0j)),
    (ValueError, "channels must be at least 1", lambda: Scale(0)),
    (ValueError, "Scale expects 2 input channels, got 3", lambda: Scale(2).forward(np.ones((1, 3), "float32"))),
    (TypeError, "float32; got float64", lambda: Scale(2).forward(np.ones((1, 2)))),
    (TypeError, "x must be a dense array", lambda: Scale(2).forward([[1.0, 2]])),
]


@pytest.mark.parametrize(("error", "message", "call"), BAD, ids=[f"{i}" for i in range(len(BAD))])
def test_bad_input_is_refused(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_other_byte_order_is_the_same_data_type(dtype: str) -> None:
    where: dict[str, Any] = {"rng": np.random.default_rng(0), "dtype": dtype}
    model = Sequential(BatchNorm(2, dtype=dtype), Conv(2, 2, 1, groups=2, **where), Flatten(), Linear(6, 3, **where))
    draw = np.random.default_rng(1)
    x, g = (draw.integers(-3, 4, shape).astype(dtype) for shape in ((4, 2, 3, 1), (4, 3)))
    expected = model.forward(x), model.backward(g)
    x, g = (a.astype(a.dtype.newbyteorder()) for a in (x, g))
    for found, wanted in zip((model.forward(x), model.backward(g)), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
