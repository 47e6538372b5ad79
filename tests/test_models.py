"""Whole networks: their layers, initial values, gradients, towers, agreement with PyTorch, and memory per step."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from refconv import cost, logarithmic_groups
from refconv.experiments.trainable import TRAINABLE, build_model
from refconv.groups import lenet5_c3_groups
from refconv.nn import (
    SGD,
    Conv,
    Dropout,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Parameter,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Tanh,
    Towers,
    alexnet,
    alexnet_towers,
    lenet5,
    residual_network,
    tower_state,
)
from tests.helpers import Backend
from tests.nn_helpers import check_gradients, integers, rng, with_integers

SMALL: dict[str, Any] = {"classes": 4, "side": 67, "width": 1 / 16, "dtype": "float64"}


def small_alexnet(groups: Any = 2, **options: Any) -> Sequential:
    return alexnet(groups, **SMALL | {"rng": rng(1), "dropout_rng": rng(2)} | options)


def grads(model: Layer) -> dict[str, Any]:
    """Return the gradients by the paths of ``model.state()``; neither network has running statistics."""
    return dict(zip(model.state(), (parameter.grad for parameter in model.parameters()), strict=True))


def widen(model: Layer, seed: int = 5) -> Layer:
    """Draw weights such that activations keep their size, and biases that differ."""
    draw = rng(seed)
    for parameter in model.parameters():
        shape = parameter.value.shape
        scale = math.sqrt(2 / max(1, math.prod(shape[1:]))) if len(shape) > 1 else 0.1
        parameter.value = scale * draw.standard_normal(shape)
    return model


# --- AlexNet as in the paper ---

NAMES = [
    "conv1", "relu1", "norm1", "pool1", "conv2", "relu2", "norm2", "pool2", "conv3", "relu3", "conv4", "relu4",
    "conv5", "relu5", "pool5", "flatten", "fc6", "relu6", "drop6", "fc7", "relu7", "drop7", "fc8",
]  # fmt: skip


def shapes(model: Sequential, x: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of each layer's output, without the batch."""
    found = {}
    for name, layer in model.children().items():
        x = layer.forward(x)
        found[name] = tuple(x.shape[1:])
    return found


def kept_bytes(layer: Layer) -> int:
    """Return the bytes of the arrays that a forward pass left in a network for the backward pass."""
    values = layer._saved[2] if layer._saved else ()
    own = sum(value.nbytes for value in values if isinstance(value, np.ndarray))
    return own + sum(kept_bytes(child) for child in layer.children().values())


def test_alexnet_is_the_papers_and_costs_what_is_counted() -> None:
    model = alexnet(rng=rng(), dropout_rng=rng())
    counted = cost.alexnet(2)
    assert sum(parameter.value.size for parameter in model.parameters()) == counted.parameters == 60_965_224
    found = shapes(model, np.zeros((1, 3, 224, 224), "float32"))
    assert list(found) == NAMES
    assert {layer.name: layer.output_shape for layer in counted.layers} == {
        layer.name: found[layer.name] for layer in counted.layers
    }
    assert counted.macs == 724_406_816
    image = 4 * 3 * (227**2 - 224**2)  # the count takes the 227×227 image
    assert kept_bytes(model) == counted.memory(1).activations - image

    of = model.children()
    biases = {name: of[name].parameters()[1].value for name in NAMES if of[name].parameters()}
    ones = {"conv2", "conv4", "conv5", "fc6", "fc7"}
    for name, bias in biases.items():
        assert np.all(bias == (name in ones)), name
        weight = of[name].parameters()[0].value
        assert abs(weight.std() / 0.01 - 1) < 0.02, name
        assert abs(weight.mean()) < 5 * 0.01 / math.sqrt(weight.size), name
    for name, sizes in {"norm1": (48, 48), "norm2": (128, 128)}.items():
        norm = of[name]
        assert isinstance(norm, LocalResponseNorm)
        assert (norm.size, norm.k, norm.alpha, norm.beta, norm.divide_by_size) == (5, 2, 1e-4, 0.75, False)
        assert norm.sizes == sizes
    for name in ("drop6", "drop7"):
        drop = of[name]
        assert isinstance(drop, Dropout)
        assert (drop.p, drop.rescale) == (0.5, "testing")


@pytest.mark.parametrize(
    ("groups", "sizes"),
    [
        (1, (None, None)),
        ("uniform:2", ((3, 3), (8, 8))),
        ("log:2", ((3, 3), (8, 8))),
        (lambda a, b: logarithmic_groups(a, b, 3), ((3, 2, 1), (8, 4, 4))),
        (lambda a, b: 2, ((3, 3), (8, 8))),
    ],
    ids=["one", "two", "log:2", "log:3", "function"],
)
def test_alexnets_groups(groups: Any, sizes: Any) -> None:
    model = small_alexnet(groups)
    of = model.children()
    assert tuple(of[name].sizes for name in ("norm1", "norm2")) == sizes  # type: ignore[attr-defined]
    dense = [name for name in ("conv1", "conv3") if len(of[name].parameters()) == 2]
    assert dense == ["conv1", "conv3"]
    assert of["conv3"].parameters()[0].value.shape == (24, 16, 3, 3)
    assert model.forward(np.ones((2, 3, 67, 67))).shape == (2, 4)


def test_alexnet_with_one_group_has_the_parameters_of_the_table() -> None:
    def count(model: Layer) -> int:
        return sum(parameter.value.size for parameter in model.parameters())

    two, one = (alexnet(n, width=1 / 4, rng=rng(), dropout_rng=rng()) for n in (2, 1))
    # conv2, conv4 and conv5 have twice the weights; at a quarter of the width, a sixteenth of the paper's.
    assert (count(one) - count(two)) * 16 == cost.alexnet(1).parameters - cost.alexnet(2).parameters == 1_413_120
    assert cost.alexnet(1).parameters == 62_378_344


def test_alexnet_needs_at_least_63_pixels() -> None:
    options: dict[str, Any] = {"rng": rng(), "dropout_rng": rng(), "width": 1 / 32, "classes": 3}
    assert alexnet(side=63, **options).forward(np.ones((1, 3, 63, 63), "float32")).shape == (1, 3)
    with pytest.raises(ValueError, match="side must be at least 63; got 62"):
        alexnet(side=62, **options)
    with pytest.raises(ValueError, match="must fit the spatial axes"):
        alexnet(side=63, **options).forward(np.ones((1, 3, 62, 62), "float32"))


def test_width_rounds_to_multiples_of_the_groups() -> None:
    def channels(groups: Any, width: float) -> list[int]:
        model = alexnet(groups, side=63, classes=2, width=width, rng=rng(), dropout_rng=rng())
        return [model.children()[name].parameters()[-1].value.shape[0] for name in ("conv1", "conv2", "conv3", "fc6")]

    assert channels(2, 0.01) == [2, 2, 4, 40]
    assert channels(1, 0.01) == [1, 3, 4, 41]
    assert channels("4", 0.01) == [4, 4, 4, 40]
    assert channels("log:2", 0.03) == [3, 8, 12, 123]


def test_the_gradient_of_a_whole_alexnet() -> None:
    model, loss = widen(small_alexnet()), SoftmaxCrossEntropy()
    x, labels = rng(3).normal(size=(2, 3, 67, 67)), np.array([3, 0])

    def run() -> float:
        for name in ("drop6", "drop7"):
            model.children()[name].rng = rng(7)  # type: ignore[attr-defined]  # the same elements each time
        return loss.forward(model.forward(x), labels)

    run()
    grad_x = model.backward(loss.backward())
    found = grads(model)

    def slope(set_to: Callable[[Any], None], at: Any, along: Any) -> float:
        step, ends = 1e-6, []
        for sign in (1, -1):
            set_to(at + sign * step * along)
            ends.append(run())
        set_to(at)
        return (ends[0] - ends[1]) / (2 * step)

    assert len(found) == 16
    for (path, grad), parameter in zip(found.items(), model.parameters(), strict=True):

        def set_value(value: Any, parameter: Parameter = parameter) -> None:
            parameter.value = value

        along = rng(len(path)).standard_normal(grad.shape)
        along *= 1 / np.linalg.norm(along)
        expected = slope(set_value, parameter.value, along)
        assert np.linalg.norm(grad) > 1e-4, path
        assert abs(np.sum(grad * along) - expected) < 1e-7 * max(1, np.linalg.norm(grad)), path

    u = rng(4).standard_normal(x.shape) / math.sqrt(x.size)
    ends = []
    for sign in (1, -1):
        moved, x = x, x + sign * 1e-6 * u
        ends.append(run())
        x = moved
    assert abs(np.sum(grad_x * u) - (ends[0] - ends[1]) / 2e-6) < 1e-7


# --- PyTorch ---


def torch_alexnet(torch: Any, x: Any, w: dict[str, Any], groups: int) -> Any:
    """Run the network with PyTorch's functions, in testing mode."""
    F = torch.nn.functional

    def norm(x: Any) -> Any:  # PyTorch divides alpha by 5
        parts = x.chunk(groups, dim=1)
        return torch.cat([F.local_response_norm(part, 5, alpha=5e-4, beta=0.75, k=2) for part in parts], dim=1)

    def conv(name: str, x: Any, **options: Any) -> Any:
        return F.relu(F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **options))

    def linear(name: str, x: Any) -> Any:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    x = F.max_pool2d(norm(conv("conv1", x, stride=4, padding=2)), 3, 2)
    x = F.max_pool2d(norm(conv("conv2", x, padding=2, groups=groups)), 3, 2)
    x = conv("conv3", x, padding=1)
    x = conv("conv4", x, padding=1, groups=groups)
    x = F.max_pool2d(conv("conv5", x, padding=1, groups=groups), 3, 2).flatten(1)
    x = 0.5 * F.relu(linear("fc6", x))
    return linear("fc8", 0.5 * F.relu(linear("fc7", x)))


@pytest.mark.parametrize("groups", [2, 1])
def test_alexnet_agrees_with_torch(groups: int) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    model = alexnet(groups, classes=10, side=131, width=1 / 8, rng=rng(), dropout_rng=rng(), dtype="float64").eval()
    widen(model)
    x, labels = rng(3).normal(size=(3, 3, 131, 131)), np.array([3, 0, 9])
    loss = SoftmaxCrossEntropy()
    y = model.forward(x)
    loss.forward(y, labels)
    found = {"x": model.backward(loss.backward()), "y": y, **grads(model)}

    leaves = {path: torch.from_numpy(np.array(value)).requires_grad_() for path, value in model.state().items()}
    tx = torch.from_numpy(x.copy()).requires_grad_()
    ty = torch_alexnet(torch, tx, leaves, groups)
    torch.nn.functional.cross_entropy(ty, torch.from_numpy(labels)).backward()
    expected = {"x": tx.grad, "y": ty.detach(), **{path: leaf.grad for path, leaf in leaves.items()}}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert np.abs(found[name] - value.numpy()).max() <= 1e-10 * np.abs(value.numpy()).max(), name


# --- Towers ---


def conv_towers(backend: Backend) -> Towers:
    def conv(c_in: int, c_out: int, kernel: int = 2) -> Layer:
        return with_integers(backend, Conv(c_in, c_out, kernel, rng=rng(), xp=backend.xp, dtype="float64"))

    return Towers([[conv(2, 3), conv(2, 1), conv(2, 2)], [conv(6, 1), conv(6, 2), conv(6, 1)]])


def test_towers_are_differentiated_exactly(backend: Backend) -> None:
    model = conv_towers(backend)
    assert model.crossings == ()
    check_gradients(backend, model, integers((2, 2, 4, 3)))
    assert model.crossings == (2 * 6 * 3 * 2,)  # each of three towers receives what the two others made
    assert list(model.children()) == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]


def test_towers_put_channels_in_order(backend: Backend) -> None:
    model = conv_towers(backend)
    x = backend.asarray(integers((2, 2, 4, 3)))
    y = model.forward(x)
    middle = backend.xp.concat([part.forward(x) for part in model.segments[0]], axis=1)
    backend.assert_equal(
        y, np.concatenate([backend.to_numpy(part.forward(middle)) for part in model.segments[1]], axis=1)
    )


def sparse_integers(model: Layer, seed: int = 3) -> None:
    """Set weights to small whole numbers, few enough in each row that every sum of the network is exact."""
    draw = rng(seed)
    for parameter in model.parameters():
        shape = parameter.value.shape
        if len(shape) == 1:
            value = draw.integers(-1, 2, shape)
        else:
            value = draw.integers(-2, 3, shape) * (draw.random(shape, dtype="float32") < 6 / math.prod(shape[1:]))
        parameter.value = value.astype("float64")


def response_norms(layer: Layer) -> Iterator[LocalResponseNorm]:
    if isinstance(layer, LocalResponseNorm):
        yield layer
    for child in layer.children().values():
        yield from response_norms(child)


def single_and_towers(**options: Any) -> tuple[Sequential, Towers]:
    options = SMALL | options
    single = alexnet(2, rng=rng(), dropout_rng=rng(), **options).eval()
    return single, alexnet_towers(2, rng=rng(1), dropout_rng=rng(), **options).eval()


def both(single: Sequential, towers: Towers, x: Any, g: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the output and every gradient of the single network (cut for towers) with its counterpart of the towers."""
    towers.load_state(tower_state(single.state(), 2))
    y = single.forward(x)
    yield "y", y, towers.forward(x)
    yield "x", single.backward(g), towers.backward(g)
    mine, theirs = tower_state(grads(single), 2), grads(towers)
    assert mine.keys() == theirs.keys()
    assert len(mine) == 2 * len(single.state())
    for path in mine:
        yield path, mine[path], theirs[path]


def test_two_towers_are_the_grouped_network_exactly() -> None:
    single, towers = single_and_towers(classes=10, side=224, width=0.5)
    sparse_integers(single)
    for norm in (*response_norms(single), *response_norms(towers)):
        norm.k, norm.alpha = 16.0, 0.0  # 16^−0.75 is 1/8
    x, g = integers((2, 3, 224, 224)), integers((2, 10), 1)
    for name, mine, theirs in both(single, towers, x, g):
        np.testing.assert_array_equal(mine, theirs, err_msg=name)
        assert np.any(mine), name
        scaled = mine * 2**12  # whole numbers, far from where float64 begins to round
        assert np.all(scaled == np.round(scaled)), name
        assert np.abs(scaled).max() < 2**48, name
    # Before conv3, fc6, fc7 and fc8, at half the width.
    assert towers.crossings == (128 * 13 * 13, 128 * 6 * 6, 2048, 2048)


def test_two_towers_are_the_grouped_network_with_the_papers_norms() -> None:
    single, towers = single_and_towers()
    widen(single)
    x, g = rng(3).normal(size=(3, 3, 67, 67)), rng(4).normal(size=(3, 4))
    assert {norm.alpha for norm in response_norms(towers)} == {1e-4}
    for name, mine, theirs in both(single, towers, x, g):
        assert np.abs(mine - theirs).max() <= 1e-10 * np.abs(mine).max(), name


def test_towers_start_and_train_as_the_single_network_does() -> None:
    options = SMALL | {"width": 1 / 8}
    towers = alexnet_towers(2, rng=rng(), dropout_rng=rng(), **options)
    fc6 = towers.state()["2.1.fc6.weight"]
    assert abs(fc6.std() / 0.01 - 1) < 0.05
    assert np.all(towers.state()["2.1.fc6.bias"] == 1)
    assert np.all(towers.state()["1.0.conv3.bias"] == 0)
    three = alexnet_towers(4, rng=rng(), dropout_rng=rng(), **options)
    assert three.forward(np.ones((1, 3, 67, 67))).shape == (1, 4)
    assert three.crossings[-1] == 3 * 512


# --- LeNet-5 ---


def test_lenet5_is_the_papers() -> None:
    model, counted = lenet5(rng=rng()), cost.lenet5()
    of = model.children()
    parameters = {name: sum(p.value.size for p in layer.parameters()) for name, layer in of.items()}
    assert {name: n for name, n in parameters.items() if n} == {
        "C1": 156, "S2": 12, "C3": 1516, "S4": 32, "C5": 48_120, "F6": 10_164, "output": 850,
    }  # fmt: skip
    assert sum(parameters.values()) == counted.parameters + 850 == 60_850
    found = shapes(model, np.zeros((1, 1, 32, 32), "float32"))
    assert [layer.output_shape for layer in counted.layers] == [found[layer.name] for layer in counted.layers[:4]] + [
        found["C5"], found["F6"], found["output"]
    ]  # fmt: skip
    assert kept_bytes(model) == counted.memory(1).activations
    c3 = of["C3"]
    assert isinstance(c3, Conv)
    assert c3.groups == lenet5_c3_groups()
    for name in ("C1", "S2", "C3", "S4", "C5", "F6"):
        sigmoid = of[f"{name}_tanh"]
        assert isinstance(sigmoid, Tanh)
        assert (sigmoid.amplitude, sigmoid.slope) == (1.7159, 2 / 3)
    assert "output_tanh" not in of


@pytest.mark.parametrize(("groups", "c3"), [("dense", 2416), (2, 1216), (lambda a, b: 1, 2416), ("log:3", 916)])
def test_lenet5_in_other_groups(groups: Any, c3: int) -> None:
    model = lenet5(groups, c_in=3, classes=7, side=37, rng=rng())
    assert sum(p.value.size for p in model.children()["C3"].parameters()) == c3
    assert model.forward(np.ones((2, 3, 37, 37), "float32")).shape == (2, 7)


def test_lenet5_learns() -> None:
    model, loss = lenet5(rng=rng()), SoftmaxCrossEntropy()
    optimiser = SGD(model.parameters(), lr=0.02)
    x, labels = rng(1).normal(size=(20, 1, 32, 32)).astype("float32"), rng(2).integers(0, 10, 20)
    losses = []
    for _ in range(25):
        losses.append(loss.forward(model.forward(x), labels))
        model.backward(loss.backward())
        optimiser.step()
    assert losses[-1] < 0.1 * losses[0]


# --- Counts equal the networks' real costs ---


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"groups": 4, "channels": 8, "blocks": 1, "side": 17, "c_in": 3, "classes": 5},
        {"groups": "dense", "channels": 6, "blocks": 0, "side": 32},
        {"groups": "log:2", "channels": 4, "blocks": 3, "side": 7},
        {"groups": "uniform:3", "channels": 12, "blocks": 1, "c_in": 3, "classes": 7, "side": 19},
        {"groups": "log:4", "channels": 11, "blocks": 3, "c_in": 2, "classes": 3, "side": 32},
    ],
)
def test_the_residual_network_costs_what_is_counted(options: dict[str, Any]) -> None:
    counted = cost.residual(**options)
    model = residual_network(**options, rng=rng())
    assert sum(parameter.value.size for parameter in model.parameters()) == counted.parameters
    found = shapes(model, np.zeros((1, *counted.input_shape), "float32"))
    assert {layer.name: layer.output_shape for layer in counted.layers} == {
        layer.name: found[layer.name] for layer in counted.layers
    }
    macs = {  # a weight is used once at every position
        name: math.prod(found[name][1:]) * sum(p.value.size for p in layer.parameters() if p.value.ndim > 1)
        for name, layer in model.children().items()
    }
    assert {layer.name: layer.macs for layer in counted.layers} == {
        layer.name: macs[layer.name] for layer in counted.layers
    }
    assert kept_bytes(model) == counted.memory(1).activations


def test_the_groups_of_a_residual_network_are_given_as_of_the_other_models() -> None:
    x = np.ones((1, 1, 8, 8), "float32")
    for spec, function in ((2, lambda a, b: 2), ("log:3", lambda a, b: logarithmic_groups(a, b, 3))):
        one, other = (residual_network(groups, channels=8, rng=rng(1)) for groups in (spec, function))
        assert [p.value.shape for p in one.parameters()] == [p.value.shape for p in other.parameters()]
        np.testing.assert_array_equal(one.forward(x), other.forward(x))


def traced_step(model: Layer, x: Any, labels: Any) -> int:
    """Return the peak of allocated memory in a step, in addition to the values and momentum from before it."""
    optimiser, loss = SGD(model.parameters(), lr=0.01), SoftmaxCrossEntropy()
    tracemalloc.start()
    try:
        loss.forward(model.forward(x), labels)
        model.backward(loss.backward())
        optimiser.step()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("batch", [1, 64])
def test_a_step_holds_what_is_predicted(batch: int) -> None:
    model = alexnet(width=1 / 4, rng=rng(), dropout_rng=rng())
    # The cost of the narrow network, counted independently.
    walk = cost.Walk("narrow", cost.parse_groups(2), (3, 224, 224))
    walk.conv("conv1", 24, 11, stride=4, padding=2)
    walk.activate("relu")
    walk.normalise("norm1")
    walk.window("pool1", 3, stride=2)
    walk.conv("conv2", 64, 5, padding=2, grouped=True)
    walk.activate("relu")
    walk.normalise("norm2")
    walk.window("pool2", 3, stride=2)
    for channels, grouped in ((96, False), (96, True), (64, True)):
        walk.conv("conv", channels, 3, padding=1, grouped=grouped)
        walk.activate("relu")
    walk.window("pool5", 3, stride=2)
    for _ in range(2):
        walk.linear("fc", 1024)
        walk.activate("relu")
        walk.activate("dropout")
    walk.linear("fc8", 1000)
    memory = walk.cost().memory(batch)
    x = rng().standard_normal((batch, 3, 224, 224), dtype="float32")
    image = x.nbytes  # the caller's, allocated before
    held = traced_step(model, x, rng().integers(0, 1000, batch))
    predicted = memory.predicted - memory.parameters - memory.momentum - image
    assert predicted - memory.workspace <= 1.03 * held
    assert held <= predicted


def test_the_catalogue_builds_every_model() -> None:
    assert TRAINABLE.keys() == cost.MODELS.keys()
    for name, entry in TRAINABLE.items():
        counted = cost.model_cost(name)
        assert cost.parse_groups(entry.groups).label == counted.groups
        options = {"width": 1 / 16} if name == "alexnet" else {}
        side = entry.side or counted.input_shape[-1]
        model = build_model(
            name, entry.groups, options, c_in=2, classes=5, side=side, rng=rng(), dropout_rng=rng(), xp=np
        )
        y = model.forward(np.ones((1, 2, side, side), "float32"))
        assert y.shape == (1, 5)
    recipe = TRAINABLE["alexnet"].recipe
    assert (recipe.batch_size, recipe.lr, recipe.momentum, recipe.weight_decay) == (128, 0.01, 0.9, 0.0005)
    assert (recipe.epochs, recipe.schedule.count(",")) == (90, 2)  # three drops


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: small_alexnet(rng=rng(seed)),
        lambda seed: small_alexnet("log:3", rng=rng(seed)),
        lambda seed: alexnet_towers(2, **SMALL, rng=rng(seed), dropout_rng=rng(seed)),
        lambda seed: lenet5(rng=rng(seed), c_in=3, side=67, classes=4, dtype="float64"),
    ],
    ids=["alexnet", "alexnet log:3", "towers", "lenet5"],
)
def test_state_is_all_there_is(make: Callable[[int], Layer]) -> None:
    one, other = make(1).eval(), make(2).eval()
    x = rng(3).normal(size=(1, 3, 67, 67))
    y = one.forward(x)
    assert not np.array_equal(other.forward(x), y)
    other.load_state(one.state())
    np.testing.assert_array_equal(other.forward(x), y)


# --- Bad input ---

OPTIONS: dict[str, Any] = {"rng": rng(), "dropout_rng": rng(), "side": 63, "width": 1 / 16, "classes": 4}
BAD: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (ValueError, r"groups=3 must divide AlexNet's 96, 256 and 384", lambda: alexnet(3, **OPTIONS)),
    (ValueError, r"^groups must be a number N", lambda: alexnet("two", **OPTIONS)),
    (ValueError, r"^groups must be at least 1", lambda: alexnet(0, **OPTIONS)),
    (TypeError, r"^groups must be an integer", lambda: alexnet(2.0, **OPTIONS)),  # type: ignore[arg-type]
    (ValueError, r"groups=table is LeNet-5's", lambda: alexnet("table", **OPTIONS)),
    (ValueError, r"largest n that fits", lambda: alexnet("log:9", **OPTIONS)),
    (ValueError, r"^side must be at least 63; got 5", lambda: alexnet(**OPTIONS | {"side": 5})),
    (TypeError, r"^side must be an integer", lambda: alexnet(**OPTIONS | {"side": 224.0})),
    (ValueError, r"^width must be finite and at least 0", lambda: alexnet(**OPTIONS | {"width": -1})),
    (ValueError, r"^width must be finite", lambda: alexnet(**OPTIONS | {"width": math.nan})),
    (ValueError, r"^width must be finite and .* less than", lambda: alexnet(**OPTIONS | {"width": 1e308})),
    (ValueError, r"^width=1000000.0: the weight of fc7 .*2\^40", lambda: alexnet(**OPTIONS | {"width": 1e6})),
    (TypeError, r"^width must be a number", lambda: alexnet(**OPTIONS | {"width": "wide"})),
    (TypeError, r"^rng must be", lambda: alexnet(**OPTIONS | {"rng": 0})),
    (TypeError, r"^rng must be", lambda: alexnet(**OPTIONS | {"dropout_rng": None})),
    (ValueError, r"^out_features must be at least 1", lambda: alexnet(**OPTIONS | {"classes": 0})),
    (ValueError, r"^towers=3 must divide AlexNet's", lambda: alexnet_towers(3, **OPTIONS)),
    (ValueError, r"^towers=2 must be at most 1, the outputs", lambda: alexnet_towers(2, **OPTIONS | {"classes": 1})),
    (ValueError, r"^towers must be a number N, .* share channels", lambda: alexnet_towers("table", **OPTIONS)),
    (ValueError, r"^towers must be at least 1", lambda: alexnet_towers(0, **OPTIONS)),
    (ValueError, r"^state must come from alexnet\(groups=2\)", lambda: tower_state({"C1.weight": np.ones((2, 2))})),
    (ValueError, r"a row for each of 2 towers", lambda: tower_state({"fc8.bias": np.ones(1)})),
    (ValueError, r"got 'conv2.weight\[0\]'", lambda: tower_state(alexnet("log:2", **OPTIONS).state())),
    (ValueError, r"^groups=3 must divide c_in=6 and c_out=16", lambda: lenet5(3, rng=rng())),
    (ValueError, r"^groups must be a number N", lambda: residual_network("two", rng=rng())),
    (TypeError, r"^groups must be an integer", lambda: residual_network(2.0, rng=rng())),  # type: ignore[arg-type]
    (ValueError, r"^groups=3 must divide c_in=32 and", lambda: residual_network(3, rng=rng())),
    (ValueError, r"^channels must be at most 16777216; got", lambda: residual_network(channels=10**8, rng=rng())),
    (ValueError, r"^channels=10000000: the weight of a block", lambda: residual_network(channels=10**7, rng=rng())),
    (ValueError, r"^side must be at least 32; got 28", lambda: lenet5(side=28, rng=rng())),
    (TypeError, r"^segments must be a sequence of sequences", lambda: Towers(3)),  # type: ignore[arg-type]
    (TypeError, r"^segments must be a sequence of sequences", lambda: Towers([ReLU()])),  # type: ignore[list-item]
    (TypeError, r"^segments\[0\]\[1\] must be a Layer", lambda: Towers([[ReLU(), 3]])),  # type: ignore[list-item]
    (ValueError, r"same number of towers, at least 1; got none", lambda: Towers([])),
    (ValueError, r"same number of towers, at least 1; got \[0\]", lambda: Towers([[]])),
    (ValueError, r"same number of towers, at least 1; got \[1, 2\]", lambda: Towers([[ReLU()], [ReLU(), ReLU()]])),
    (ValueError, r"distinct layers", lambda: Towers([[layer := ReLU(), layer]])),
    (
        ValueError,
        r"got shape \(1, 2, 1\) from tower 1 and \(1, 2, 2\) from tower 0 of segment 0",
        lambda: Towers([[ReLU(), MaxPool(2)]]).forward(np.ones((1, 2, 2))),
    ),
    (ValueError, r"x must have shape \(N, C", lambda: Towers([[ReLU(), ReLU()]]).forward(np.ones(3))),
    (RuntimeError, r"Towers.backward needs a forward", lambda: Towers([[ReLU()]]).backward(np.ones((1, 1)))),
]


@pytest.mark.parametrize(("error", "message", "call"), BAD, ids=[message for _, message, _ in BAD])
def test_bad_arguments(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
