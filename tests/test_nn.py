"""Layers, loss, optimiser and training: gradients by gradcheck, values by loops, and PyTorch where installed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from refconv import ChannelGroups, depthwise_groups, logarithmic_groups, uniform_groups
from refconv.nn import (
    SGD,
    Conv,
    ConvTranspose,
    Flatten,
    Linear,
    MaxPool,
    Parameter,
    Recipe,
    ReLU,
    Residual,
    Sequential,
    SoftmaxCrossEntropy,
    Trainer,
    accuracy,
    load_digits_split,
    residual_network,
)
from refconv.testing.oracles.definition import definition_conv, definition_conv_transpose
from tests.helpers import Backend
from tests.nn_helpers import apart, check_gradients, integers, rng, with_integers

LENET_LIKE = ChannelGroups([(0, 1, 2), (3, 1), (0,)], [(1, 4), (0,), (3, 2)], c_in=5)


# --- Layers ---

CONVS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "strided": ((2, 4, 6, 5), {"c_out": 6, "kernel_size": (3, 2), "groups": 2, "stride": (2, 1), "padding": (1, 0)}),
    "dilated": ((2, 2, 5, 6), {"c_out": 3, "kernel_size": 2, "dilation": (2, 3), "padding": ((0, 2), (1, 0))}),
    "circular": ((1, 2, 4, 5), {"c_out": 2, "kernel_size": 3, "padding": "same", "padding_mode": "circular"}),
    "shared": ((2, 5, 3, 4), {"c_out": 5, "kernel_size": (2, 3), "groups": LENET_LIKE, "padding": 1}),
    "logarithmic": ((1, 4, 3, 4), {"c_out": 8, "kernel_size": 3, "groups": logarithmic_groups(4, 8, 3), "padding": 1}),
    "depthwise": ((2, 3, 7), {"c_out": 6, "kernel_size": (3,), "groups": depthwise_groups(3, 2), "stride": 2}),
    "without bias": ((2, 2, 6), {"c_out": 2, "kernel_size": (3,), "groups": 2, "bias": False}),
    "volume": ((1, 2, 3, 2, 4), {"c_out": 2, "kernel_size": (2, 1, 2), "groups": uniform_groups(2, 2, 2)}),
    "causal": ((2, 2, 6), {"c_out": 3, "kernel_size": (3,), "dilation": 2, "padding": "causal"}),
    "reflected far": (
        (1, 2, 3, 4),
        {"c_out": 2, "kernel_size": 2, "padding": ((7, 4), (2, 9)), "padding_mode": "reflect"},
    ),
    "circular far": ((2, 1, 3), {"c_out": 2, "kernel_size": (2,), "padding": ((8, 5),), "padding_mode": "circular"}),
}

TRANSPOSED: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "strided": (
        (2, 4, 3, 4),
        {"c_out": 6, "kernel_size": (3, 2), "groups": 2, "stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2)},
    ),
    "dilated": ((2, 2, 3, 4), {"c_out": 3, "kernel_size": 2, "dilation": (2, 3), "padding": ((0, 1), (2, -1))}),
    "same": ((1, 2, 4, 3), {"c_out": 2, "kernel_size": (4, 3), "stride": 2, "padding": "same"}),
    "same_lower": ((1, 2, 4, 3), {"c_out": 2, "kernel_size": (4, 3), "stride": 2, "padding": "same_lower"}),
    "valid": ((2, 2, 3), {"c_out": 2, "kernel_size": (2,), "stride": 2, "padding": "valid"}),
    "shared": ((2, 5, 2, 3), {"c_out": 5, "kernel_size": (2, 3), "groups": LENET_LIKE, "stride": 2, "padding": 1}),
    "logarithmic": ((1, 4, 3, 4), {"c_out": 8, "kernel_size": 3, "groups": logarithmic_groups(4, 8, 3), "padding": 1}),
    "without bias": ((2, 2, 4), {"c_out": 2, "kernel_size": (3,), "groups": 2, "bias": False}),
    "volume": ((1, 2, 3, 2, 2), {"c_out": 4, "kernel_size": (2, 1, 2), "groups": uniform_groups(2, 4, 2)}),
}

AMOUNTS = {  # worked out by hand
    (Conv, "circular"): ((1, 1), (1, 1)),
    (Conv, "causal"): ((4, 0),),
    (ConvTranspose, "same"): ((1, 1), (0, 1)),
    (ConvTranspose, "same_lower"): ((1, 1), (1, 0)),
    (ConvTranspose, "valid"): 0,
}

CASES = {Conv: CONVS, ConvTranspose: TRANSPOSED}
convolutions = pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in CASES for name in CASES[kind]])


def with_input(backend: Backend, kind: Any, name: str) -> tuple[Any, Any]:
    shape, options = CASES[kind][name]
    layer = kind(shape[1], rng=rng(), xp=backend.xp, dtype="float64", **options)
    return with_integers(backend, layer), integers(shape)


@convolutions
def test_convolutions_are_their_definition(backend: Backend, kind: Any, name: str) -> None:
    layer, x = with_input(backend, kind, name)
    options = {"groups": 1, **CASES[kind][name][1]}
    steps = {option: options[option] for option in options.keys() - {"c_out", "kernel_size", "bias", "groups"}}
    steps["padding"] = AMOUNTS.get((kind, name), options.get("padding", 0))
    weight, groups = tuple(backend.to_numpy(w.value) for w in layer.weights), options["groups"]
    if isinstance(groups, ChannelGroups):
        groups = list(zip(groups.in_channels, groups.out_channels, strict=True))
    else:
        (weight,) = weight
    bias = backend.to_numpy(layer.bias.value) if options.get("bias", True) else None
    definition = definition_conv if kind is Conv else definition_conv_transpose
    backend.assert_equal(layer.forward(backend.asarray(x)), definition(x, weight, bias, groups=groups, **steps))


@convolutions
def test_convolutions_are_differentiated_exactly(backend: Backend, kind: Any, name: str) -> None:
    check_gradients(backend, *with_input(backend, kind, name))


def test_convolutions_have_one_parameter_per_group(backend: Backend) -> None:
    def parts(groups: Any, bias: bool = True, kind: Any = Conv) -> dict[str, tuple[int, ...]]:
        layer = kind(8, 16, (3, 2), groups=groups, bias=bias, rng=rng(), xp=backend.xp)
        for parameter in layer.parameters():
            backend.check(parameter.value)
            assert parameter.grad is None
        return {parameter.name: tuple(parameter.value.shape) for parameter in layer.parameters()}

    assert parts(2) == {"weight": (16, 4, 3, 2), "bias": (16,)}
    assert parts(uniform_groups(8, 16, 2)) == {"weight[0]": (8, 4, 3, 2), "weight[1]": (8, 4, 3, 2), "bias": (16,)}
    assert parts(logarithmic_groups(8, 16, 3), bias=False) == {
        "weight[0]": (8, 4, 3, 2),
        "weight[1]": (4, 2, 3, 2),
        "weight[2]": (4, 2, 3, 2),
    }
    assert parts(2, kind=ConvTranspose) == {"weight": (8, 8, 3, 2), "bias": (16,)}
    assert parts(logarithmic_groups(8, 16, 3), kind=ConvTranspose) == {
        "weight[0]": (4, 8, 3, 2),
        "weight[1]": (2, 4, 3, 2),
        "weight[2]": (2, 4, 3, 2),
        "bias": (16,),
    }


def test_the_initial_weight_is_he_normal_and_the_same_on_every_module(backend: Backend) -> None:
    layer = Conv(32, 64, 3, groups=2, rng=rng(5), xp=backend.xp)
    weight = backend.to_numpy(layer.weights[0].value)
    assert weight.dtype == np.float32
    expected = math.sqrt(2 / (16 * 9)) * rng(5).standard_normal((64, 16, 3, 3))
    np.testing.assert_allclose(weight, expected, rtol=1e-6)
    linear = Linear(200, 300, std=0.01, rng=rng(1), xp=backend.xp)
    assert abs(float(np.std(backend.to_numpy(linear.weight.value))) / 0.01 - 1) < 0.02
    assert not np.any(backend.to_numpy(linear.bias.value))


@pytest.mark.parametrize(("kernel", "stride"), [((4, 4), 2), ((3, 3), (2, 1)), ((5, 2), (3, 4))])
@pytest.mark.parametrize("groups", [1, 2, logarithmic_groups(8, 16, 3)], ids=["dense", "two", "logarithmic"])
def test_the_fan_in_of_a_transposed_convolution_is_the_inputs_of_a_mean_output(
    backend: Backend, groups: Any, kernel: tuple[int, int], stride: Any
) -> None:
    layer = ConvTranspose(8, 16, kernel, groups=groups, stride=stride, rng=rng(5), xp=backend.xp)
    steps, taps, draw = np.broadcast_to(stride, 2), 1.0, rng(5)
    for k, s in zip(kernel, steps, strict=True):  # input l writes output l·s + t
        taps *= np.mean([sum((p - t) % s == 0 for t in range(k)) for p in range(s)])
    for parameter, channels in zip(layer.weights, {1: [8], 2: [4]}.get(groups, [4, 2, 2]), strict=True):
        weight = backend.to_numpy(parameter.value)
        expected = math.sqrt(2 / (channels * taps)) * draw.standard_normal(weight.shape)
        np.testing.assert_allclose(weight, expected, rtol=1e-6)


def test_a_group_may_read_no_channel(backend: Backend) -> None:
    groups = ChannelGroups([(), (0, 1)], [(0,), (1,)])
    for kind, shape in ((Conv, (1, 0, 3)), (ConvTranspose, (0, 1, 3))):
        layer = kind(2, 2, (3,), groups=groups, initial_bias=7, rng=rng(), xp=backend.xp, dtype="float64")
        assert tuple(layer.weights[0].value.shape) == shape
        y = backend.to_numpy(layer.forward(backend.asarray(integers((1, 2, 5)))))
        np.testing.assert_array_equal(y[:, 0], 7)


def test_relu(backend: Backend) -> None:
    check_gradients(backend, ReLU(), apart((3, 4, 5)))
    layer = ReLU()
    backend.assert_equal(layer.forward(backend.asarray(np.array([0.0, -3, 2, np.nan]))), np.array([0.0, 0, 2, np.nan]))
    infinite = backend.asarray(np.array([np.inf, np.inf, 5, 5]))
    backend.assert_equal(layer.backward(infinite), np.array([0.0, 0, 5, 0]))


def test_flatten_and_linear(backend: Backend) -> None:
    check_gradients(backend, Flatten(), integers((2, 3, 4)))
    for bias in (True, False):
        layer = Linear(4, 3, bias=bias, rng=rng(), xp=backend.xp, dtype="float64")
        check_gradients(backend, with_integers(backend, layer), integers((5, 4)))


def test_residual_adds_its_input(backend: Backend) -> None:
    groups = logarithmic_groups(4, 4, 2)
    inner = Conv(4, 4, 3, groups=groups, padding=1, rng=rng(), xp=backend.xp, dtype="float64")
    block = Residual(with_integers(backend, inner))
    x = integers((2, 4, 3, 5))
    expected = x + backend.to_numpy(inner.forward(backend.asarray(x)))
    backend.assert_equal(block.forward(backend.asarray(x)), expected)
    check_gradients(backend, block, x)
    assert [p.name for p in block.parameters()] == ["weight[0]", "weight[1]", "bias"]


def small_network(backend: Backend, groups: Any) -> Sequential:
    where: dict[str, Any] = {"rng": rng(3), "xp": backend.xp, "dtype": "float64"}
    return Sequential(
        Conv(1, 4, 3, padding=1, **where),
        ReLU(),
        MaxPool(3, stride=2),
        Residual(ReLU(), Conv(4, 4, 3, groups=groups, padding=1, **where)),
        ReLU(),
        Flatten(),
        Linear(4 * 2 * 3, 3, **where),
    )


@pytest.mark.thinned(15)
@pytest.mark.parametrize("groups", [1, 2, logarithmic_groups(4, 4, 3)], ids=["dense", "two", "logarithmic"])
def test_the_gradient_of_a_whole_network(backend: Backend, groups: Any) -> None:
    x = rng(1).normal(size=(3, 1, 5, 7))
    check_gradients(
        backend, small_network(backend, groups), x, exact=False, labels=np.array([2, 0, 1]), step=1e-5, max_elements=9
    )


# --- Loss and optimiser ---


def test_the_loss_is_its_formula(backend: Backend) -> None:
    logits, labels = rng(2).normal(size=(5, 4)) * 3, np.array([3, 0, 1, 1, 2], dtype="int32")
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.mean(np.log(p[np.arange(5), labels]))
    loss = SoftmaxCrossEntropy()
    found = loss.forward(backend.asarray(logits), backend.asarray(labels))
    assert type(found) is float
    assert math.isclose(found, expected, rel_tol=1e-12)
    grad = loss.backward()
    backend.check(grad)
    np.testing.assert_allclose(backend.to_numpy(grad), (p - np.eye(4)[labels]) / 5, atol=1e-14)
    check_gradients(backend, Flatten(), logits, exact=False, labels=labels)


def test_the_loss_does_not_overflow(backend: Backend) -> None:
    loss = SoftmaxCrossEntropy()
    logits = np.array([[1e4, 0, -1e4], [1e4, 0, -1e4]], dtype="float32")
    assert loss.forward(backend.asarray(logits), backend.asarray(np.array([0, 2]))) == 1e4
    backend.assert_equal(loss.backward(), np.array([[0, 0, 0], [0.5, 0, -0.5]], dtype="float32"))


def test_sgd_is_the_written_rule(backend: Backend) -> None:
    w = Parameter("weight", backend.asarray(np.array([1.0, -2.0])))
    optimiser = SGD([w], lr=0.5, momentum=0.25, weight_decay=0.125)
    first = w.value
    w.grad = backend.asarray(np.array([4.0, 1.0]))
    optimiser.step()  # v = −0.125·0.5·w − 0.5·grad
    backend.assert_equal(w.value, np.array([1 - 0.0625 - 2, -2 + 0.125 - 0.5]))
    backend.assert_equal(optimiser.velocities[0], np.array([-2.0625, -0.375]))
    assert w.grad is None  # used up
    optimiser.lr = 0.25  # the steps already in v keep their size
    w.grad = backend.asarray(np.array([4.0, 1.0]))
    optimiser.step()
    v = [0.25 * -2.0625 - 0.125 * 0.25 * -1.0625 - 1.0, 0.25 * -0.375 - 0.125 * 0.25 * -2.375 - 0.25]
    backend.assert_equal(w.value, np.array([-1.0625 + v[0], -2.375 + v[1]]))
    np.testing.assert_array_equal(backend.to_numpy(first), [1.0, -2.0])


def test_a_large_step_is_the_rule_in_every_piece(backend: Backend) -> None:
    value, grad, velocity = (rng(seed).normal(size=(3, 40, 1500)) for seed in range(3))
    w = Parameter("weight", backend.asarray(value), backend.asarray(grad))
    optimiser = SGD([w], lr=0.5, momentum=0.75, weight_decay=0.125)
    optimiser.velocities = [backend.asarray(velocity)]
    optimiser.step()
    expected = 0.75 * velocity - 0.0625 * value - 0.5 * grad
    backend.assert_equal(optimiser.velocities[0], expected)
    backend.assert_equal(w.value, value + expected)


# --- PyTorch ---


@pytest.mark.parametrize("groups", [1, 2])
def test_training_agrees_with_torch(groups: int) -> None:
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    F: Any = torch.nn.functional
    model = small_network(Backend("numpy", np, np.ndarray), groups)
    loss, optimiser = SoftmaxCrossEntropy(), SGD(model.parameters(), lr=0.1, weight_decay=0.01)
    x, labels = rng(1).normal(size=(4, 1, 5, 7)), np.array([2, 0, 1, 1])
    leaves = [torch.tensor(parameter.value, requires_grad=True) for parameter in model.parameters()]
    theirs = torch.optim.SGD(leaves, lr=0.1, momentum=0.9, weight_decay=0.01)  # the same at a constant rate
    for _ in range(3):
        found = loss.forward(model.forward(x), labels)
        model.backward(loss.backward())
        w1, b1, w2, b2, w3, b3 = leaves
        h = F.max_pool2d(F.relu(F.conv2d(torch.tensor(x), w1, b1, padding=1)), 3, stride=2)
        h = h + F.conv2d(F.relu(h), w2, b2, padding=1, groups=groups)
        expected = F.cross_entropy(F.linear(F.relu(h).flatten(1), w3, b3), torch.tensor(labels))
        theirs.zero_grad()
        expected.backward()
        assert math.isclose(found, float(expected.detach()), rel_tol=1e-10)
        for parameter, leaf in zip(model.parameters(), leaves, strict=True):
            np.testing.assert_allclose(parameter.grad, leaf.grad.numpy(), rtol=1e-9, atol=1e-12)
        optimiser.step()
        theirs.step()
        for parameter, leaf in zip(model.parameters(), leaves, strict=True):
            np.testing.assert_allclose(parameter.value, leaf.detach().numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_is_that_of_torch(groups: int) -> None:
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    steps: dict[str, Any] = {"stride": (2, 3), "padding": (1, 2), "output_padding": (1, 2), "dilation": (3, 1)}
    layer = ConvTranspose(4, 6, (3, 4), groups=groups, rng=rng(), dtype="float64", **steps)
    with_integers(Backend("numpy", np, np.ndarray), layer)
    theirs = torch.nn.ConvTranspose2d(4, 6, (3, 4), groups=groups, dtype=torch.float64, **steps)
    theirs.load_state_dict({path: torch.tensor(array) for path, array in layer.state().items()})
    x = torch.tensor(integers((2, 4, 3, 5)), requires_grad=True)
    y = theirs(x)
    np.testing.assert_array_equal(layer.forward(x.detach().numpy()), y.detach().numpy())
    g = integers(tuple(y.shape), 9)
    y.backward(torch.tensor(g))
    np.testing.assert_array_equal(layer.backward(g), x.grad.numpy())
    for parameter in layer.parameters():
        np.testing.assert_array_equal(parameter.grad, getattr(theirs, parameter.name).grad.numpy())


# --- Training ---


def toy(backend: Backend, count: int = 60) -> tuple[Any, Any]:
    """Return images with one bright corner of four, which determines the class."""
    draw = rng(7)
    labels = draw.integers(0, 4, count)
    images = 0.3 * draw.normal(size=(count, 1, 8, 8))
    for image, label in zip(images[:, 0], labels, strict=True):
        image[4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 1
    return backend.asarray(images.astype("float32")), backend.asarray(labels)


def epoch_losses(trainer: Trainer) -> list[float]:
    return [step.loss for step in trainer if step.ends_epoch]


def test_training_lowers_the_loss(backend: Backend) -> None:
    images, labels = toy(backend)
    model = residual_network("log:3", channels=8, rng=rng(), xp=backend.xp)
    optimiser = SGD(model.parameters(), lr=0.02)
    losses = epoch_losses(Trainer(model, images, labels, optimiser=optimiser, epochs=4, batch_size=16, rng=rng(1)))
    assert losses[-1] < losses[0] / 2
    assert accuracy(model, images, labels, batch_size=7) > 0.9


def test_the_digits_are_learnt() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: no digits to train on")
    split = load_digits_split()
    few = split._replace(train_images=split.train_images[:600], train_labels=split.train_labels[:600])
    model = residual_network("log:3", channels=16, rng=rng())
    losses = epoch_losses(Recipe(epochs=4).trainer(model, few.train_images, few.train_labels, rng=rng()))
    assert losses[-1] < losses[0] / 2
    assert accuracy(model, few.test_images, few.test_labels) > 0.85


# --- Bad input ---


def x64(*shape: int) -> Any:
    return np.zeros(shape)


BAD: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (ValueError, "groups=3 must divide c_in=4", lambda: Conv(4, 6, 3, groups=3, rng=rng())),
    (ValueError, "c_in=4 input and c_out=4", lambda: Conv(4, 4, 3, groups=uniform_groups(4, 8, 2), rng=rng())),
    (ValueError, "kernel_size", lambda: Conv(4, 4, 0, rng=rng())),
    (ValueError, "kernel_size", lambda: Conv(4, 4, (), rng=rng())),
    (TypeError, "kernel_size", lambda: Conv(4, 4, 1.5, rng=rng())),  # type: ignore[arg-type]
    (TypeError, "c_out", lambda: Conv(4, True, 3, rng=rng())),
    (TypeError, "groups", lambda: Conv(4, 4, 3, groups=2.0, rng=rng())),  # type: ignore[arg-type]
    (TypeError, r"rng must be a numpy\.random\.Generator", lambda: Conv(4, 4, 3, rng=0)),  # type: ignore[arg-type]
    (ValueError, "dtype must be", lambda: Conv(4, 4, 3, dtype="int32", rng=rng())),
    (
        ValueError,
        "'causal' is for one spatial axis",
        lambda: Conv(1, 1, 3, padding="causal", dtype="float64", rng=rng()).forward(x64(1, 1, 4, 4)),
    ),
    (
        ValueError,
        "'valid', 'same', 'same_lower' or 'causal'; got 'full'",
        lambda: Conv(1, 1, (3,), padding="full", dtype="float64", rng=rng()).forward(x64(1, 1, 4)),
    ),
    (
        ValueError,
        "'causal' has no meaning for a transposed convolution",
        lambda: ConvTranspose(1, 1, (3,), padding="causal", dtype="float64", rng=rng()).forward(x64(1, 1, 4)),
    ),
    (
        ValueError,
        "output_padding must be smaller than stride or dilation",
        lambda: ConvTranspose(1, 1, 3, output_padding=1, dtype="float64", rng=rng()).forward(x64(1, 1, 4, 4)),
    ),
    (
        ValueError,
        r"x must have 4 axes .* ConvTranspose",
        lambda: ConvTranspose(1, 1, 1, dtype="float64", rng=rng()).forward(x64(1, 2, 2)),
    ),
    (ValueError, "groups=3 must divide c_in=4 and c_out=6", lambda: ConvTranspose(4, 6, 3, groups=3, rng=rng())),
    (ValueError, "stride must be at least 1; got 0", lambda: ConvTranspose(4, 6, 3, stride=0, rng=rng())),
    (ValueError, r"stride .*\(2\); got \(1,\)", lambda: ConvTranspose(4, 6, 3, stride=(1,), rng=rng())),
    (RuntimeError, "ConvTranspose.backward needs a forward", lambda: ConvTranspose(1, 1, 1, rng=rng()).backward(0)),
    (ValueError, "std must be", lambda: Linear(4, 4, std=-1.0, rng=rng())),
    (
        ValueError,
        r"x must have 4 axes .* Conv",
        lambda: Conv(1, 1, 1, dtype="float64", rng=rng()).forward(x64(1, 2, 2)),
    ),
    (
        ValueError,
        r"Conv expects 3 input channels, got 2: x has shape \(1, 2, 2, 2\)",
        lambda: Conv(3, 1, 1, dtype="float64", rng=rng()).forward(x64(1, 2, 2, 2)),
    ),
    (
        ValueError,
        "ConvTranspose expects 1 input channel, got 2",
        lambda: ConvTranspose(1, 4, 1, dtype="float64", rng=rng()).forward(x64(1, 2, 2, 2)),
    ),
    (
        TypeError,
        r"the weight, float32; got float64: write x\.astype\('float32'\)$",
        lambda: Conv(1, 1, 1, rng=rng()).forward(x64(1, 1, 2, 2)),
    ),
    (
        TypeError,
        r"the weight, float32; got float64: write x\.astype\('float32'\)$",
        lambda: ConvTranspose(1, 1, 1, rng=rng()).forward(x64(1, 1, 2, 2)),
    ),
    (TypeError, "must be a dense array", lambda: Conv(1, 1, 1, rng=rng()).forward([[[[1.0]]]])),
    (
        ValueError,
        r"Linear expects 3 input features, got 4: x has shape \(5, 4\)",
        lambda: Linear(3, 2, dtype="float64", rng=rng()).forward(x64(5, 4)),
    ),
    (
        ValueError,
        r"must have shape \(N, in_features\) for Linear; got \(2, 3, 1\)",
        lambda: Linear(3, 2, dtype="float64", rng=rng()).forward(x64(2, 3, 1)),
    ),
    (TypeError, "float32; got float64", lambda: Linear(3, 2, rng=rng()).forward(x64(5, 3))),
    (TypeError, "x must be real for ReLU", lambda: ReLU().forward(x64(2) + 0j)),
    (ValueError, "batch axis", lambda: Flatten().forward(x64())),
    (ValueError, "identity shortcut", lambda: Residual(Flatten()).forward(x64(2, 2, 2))),
    (ValueError, "identity shortcut", lambda: Residual(MaxPool(2)).forward(x64(2, 2, 2))),
    (ValueError, "at least one layer", Sequential),
    (TypeError, r"layers\[1\] must be a Layer", lambda: Sequential(ReLU(), np.tanh)),
    (ValueError, "given twice", lambda: Sequential(*[ReLU()] * 2)),
    (RuntimeError, "ReLU.backward needs a forward", lambda: ReLU().backward(x64(2))),
    (RuntimeError, "needs a forward", lambda: Residual(ReLU()).backward(x64(2))),
    (RuntimeError, "needs a forward", lambda: SoftmaxCrossEntropy().backward()),
    (
        ValueError,
        r"logits must have shape \(N, K\)",
        lambda: SoftmaxCrossEntropy().forward(x64(0, 3), np.zeros(0, int)),
    ),
    (ValueError, "labels must have shape", lambda: SoftmaxCrossEntropy().forward(x64(2, 3), np.zeros(3, int))),
    (ValueError, "labels from -1 to 0", lambda: SoftmaxCrossEntropy().forward(x64(2, 3), np.array([0, -1]))),
    (ValueError, "labels from 0 to 3", lambda: SoftmaxCrossEntropy().forward(x64(2, 3), np.array([0, 3]))),
    (TypeError, "labels must be integers", lambda: SoftmaxCrossEntropy().forward(x64(2, 3), x64(2))),
    (TypeError, "logits must be real", lambda: SoftmaxCrossEntropy().forward(np.zeros((2, 3), int), np.zeros(2, int))),
    (ValueError, "lr must be", lambda: SGD([Parameter("w", x64(1))], lr=0)),
    (ValueError, "lr must be", lambda: SGD([Parameter("w", x64(1))], lr=math.nan)),
    (ValueError, "momentum must be", lambda: SGD([Parameter("w", x64(1))], lr=1, momentum=1)),
    (ValueError, "weight_decay must be", lambda: SGD([Parameter("w", x64(1))], lr=1, weight_decay=-1)),
    (ValueError, "at least one Parameter", lambda: SGD([], lr=1)),
    (ValueError, "given twice", lambda: SGD([Parameter("w", x64(1))] * 2, lr=1)),
    (TypeError, r"parameters\[0\] must be a Parameter", lambda: SGD([x64(1)], lr=1)),
    (RuntimeError, r"parameters\[0\] \(w\) has no gradient", lambda: SGD([Parameter("w", x64(1))], lr=1).step()),
    (ValueError, r"grad of parameters\[0\]", lambda: SGD([Parameter("w", x64(1), x64(2))], lr=1).step()),
    (ValueError, r"2\^40", lambda: Conv(2**30, 2**30, 3, rng=rng())),
    (ValueError, r"2\^40", lambda: Linear(2**40, 2**40, rng=rng())),
    (TypeError, "bias", lambda: Conv(1, 1, 3, rng=rng(), bias="no")),  # type: ignore[arg-type]
    (TypeError, "std", lambda: Conv(1, 1, 3, rng=rng(), std="a")),  # type: ignore[arg-type]
    (TypeError, "xp", lambda: Conv(1, 1, 3, rng=rng(), xp="numpy")),
    (TypeError, "lr", lambda: SGD([Parameter("w", x64(1))], lr="a")),  # type: ignore[arg-type]
    (TypeError, "lr", lambda: SGD([Parameter("w", x64(1))], lr=True)),
    (TypeError, "grad of", lambda: SGD([Parameter("w", np.ones(1, "f4"), x64(1))], 0.1).step()),
    (TypeError, "x must", lambda: ReLU().forward([1])),
    (ValueError, "images and labels", lambda: accuracy(Flatten(), x64(3, 2), np.zeros(2, int))),
    (ValueError, "batch_size", lambda: accuracy(Flatten(), x64(2, 2), np.zeros(2, int), batch_size=0)),
]


@pytest.mark.parametrize(("error", "message", "call"), BAD, ids=[f"{i}" for i in range(len(BAD))])
def test_bad_input_is_refused(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message):
        call()


def test_backward_wants_the_gradient_of_its_own_output(backend: Backend) -> None:
    layer = ReLU()
    layer.forward(backend.asarray(integers((2, 3))))
    with pytest.raises(ValueError, match=r"grad_output must have shape \(2, 3\).*ReLU"):
        layer.backward(backend.asarray(integers((3, 2))))
    with pytest.raises(TypeError, match="float64; got float32"):
        layer.backward(backend.asarray(integers((2, 3)).astype("float32")))
    layer.backward(backend.asarray(integers((2, 3))))  # a refused gradient does not use up the forward
    with pytest.raises(RuntimeError, match="each forward serves one backward"):
        layer.backward(backend.asarray(integers((2, 3))))


def test_a_step_without_all_gradients_changes_nothing() -> None:
    ready, missing = Parameter("a", np.ones(1), np.ones(1)), Parameter("b", np.ones(1))
    with pytest.raises(RuntimeError, match=r"parameters\[1\] \(b\)"):
        SGD([ready, missing], lr=1).step()
    np.testing.assert_array_equal(ready.value, [1.0])


def test_half_precision_does_not_overflow_in_the_loss() -> None:
    loss = SoftmaxCrossEntropy()
    assert loss.forward(np.zeros((30000, 10), "float16"), np.zeros(30000, int)) == pytest.approx(np.log(10), 1e-3)
    assert loss.backward().dtype == np.float16
