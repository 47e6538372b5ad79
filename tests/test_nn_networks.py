"""Networks as a new user sees them: printed, called, indexed, summarised, and named in errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from refconv import cost, logarithmic_groups
from refconv.nn import (
    SGD,
    AvgPool,
    BatchNorm,
    BinaryCrossEntropy,
    Conv,
    ConvTranspose,
    Dropout,
    Flatten,
    Layer,
    Linear,
    LocalResponseNorm,
    MaxPool,
    MeanSquaredError,
    ReLU,
    Residual,
    Scale,
    Sequential,
    SoftmaxCrossEntropy,
    Tanh,
    Towers,
    Trainer,
    accuracy,
    lenet5,
    residual_network,
    summary,
)
from tests.helpers import Backend
from tests.nn_helpers import inputs_of_every_kind, integers, rng


def network(backend: Backend | None = None, dtype: str = "float64") -> Sequential:
    at: dict[str, Any] = {"xp": backend.xp if backend else np, "dtype": dtype}
    groups = logarithmic_groups(4, 4, 3)
    return Sequential(
        Conv(2, 4, (3, 3), groups=2, padding=1, padding_mode="reflect", bias=False, rng=rng(), **at),
        ReLU(),
        block=Residual(Scale(4, **at), conv=Conv(4, 4, 1, groups=groups, rng=rng(1), **at)),
        pool=MaxPool(2),
        rows=Flatten(),
        out=Linear(4, 1, bias=False, rng=rng(2), **at),
    )


# --- Printing ---


def test_a_network_prints_as_a_tree_with_shapes_and_parameters() -> None:
    assert repr(network()).splitlines() == [
        "Sequential: 58 parameters",
        "  0: Conv(2, 4, (3, 3), groups=2, padding=1, padding_mode='reflect'), weight (4, 1, 3, 3): 36 parameters",
        "  1: ReLU()",
        "  block: Residual: 18 parameters",
        "    0: Scale(4), weight (4,), bias (4,): 8 parameters",
        "    conv: Conv(4, 4, 1, groups=ChannelGroups.from_sizes([2, 1, 1], [2, 1, 1])), weight (2, 2, 1, 1), "
        "weight 2 × (1, 1, 1, 1), bias (4,): 10 parameters",
        "  pool: MaxPool(2, stride=2)",
        "  rows: Flatten()",
        "  out: Linear(4, 1), weight (1, 4): 4 parameters",
    ]


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (Linear(1, 1, bias=False, rng=rng()), "Linear(1, 1), weight (1, 1): 1 parameter"),
        (
            ConvTranspose(2, 1, (1,), stride=2, output_padding=1, rng=rng()),
            "ConvTranspose(2, 1, (1,), stride=2, output_padding=1), weight (2, 1, 1), bias (1,): 3 parameters",
        ),
        (Dropout(0.25, rng=rng(), rescale="testing"), "Dropout(p=0.25, rescale='testing')"),
        (BatchNorm(3, eps=0.5), "BatchNorm(3, eps=0.5), weight (3,), bias (3,): 6 parameters"),
        (LocalResponseNorm(sizes=(1,) * 30), f"LocalResponseNorm(sizes=({'1, ' * 15}1...)"),
        (AvgPool((2, 3), 1), "AvgPool((2, 3), stride=1)"),
    ],
)
def test_layers_print_arguments_that_differ_from_defaults(layer: Layer, text: str) -> None:
    assert repr(layer) == text


class Shifted(Layer):
    """A layer written by a user, whose constructor arguments are found by their names."""

    def __init__(self, by: Any, *, sign: int = 1) -> None:
        self.by, self.sign = by, sign

    def forward(self, x: Any) -> Any:
        if np.any(self.by):
            raise np.linalg.LinAlgError(f"{self.by}")
        return x

    def backward(self, grad_output: Any) -> Any:
        return grad_output


def test_a_layer_of_a_user_prints_too() -> None:
    assert repr(Shifted(np.array([[1], [2]]), sign=-1)) == "Shifted(array([[1], [2]]), sign=-1)"


# --- Calling ---


def test_calling_is_forward(backend: Backend) -> None:
    model, x = network(backend), backend.asarray(integers((3, 2, 3, 3)))
    expected = backend.to_numpy(model.forward(x))
    backend.assert_equal(model(x), expected)
    backend.assert_equal(ReLU()(x), np.maximum(backend.to_numpy(x), 0))
    logits, labels = backend.asarray(integers((4, 3))), backend.asarray(np.array([2, 0, 1, 1]))
    loss = SoftmaxCrossEntropy()
    assert loss(logits, labels) == loss.forward(logits, labels)


def test_layers_by_number_and_by_name() -> None:
    model = network()
    assert len(model) == 6
    assert tuple(model) == model.layers
    for number, name in enumerate(("0", "1", "block", "pool", "rows", "out")):
        assert model[number] is model[number - 6] is model[name] is model.layers[number]
    assert model[np.int64(1)] is model.layers[1]
    assert model["block"]["conv"] is model.layers[2].children()["conv"]  # type: ignore[index]
    with pytest.raises(KeyError, match="name must be one of 0, 1, block, pool, rows, out; got 'conv'"):
        model["conv"]
    for number in (6, -7):
        with pytest.raises(IndexError, match=f"index must be from -6 to 5; got {number}"):
            model[number]
    for wrong in (slice(2), True, 1.0):
        with pytest.raises(TypeError, match="index must be an integer"):
            model[wrong]  # type: ignore[index]


@pytest.mark.parametrize("name", ["0", "block.conv", ""])
def test_names_that_would_share_a_path_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"name must not be empty, contain a dot, .*; got '{name}'$"):
        Sequential(ReLU(), **{name: ReLU()})
    assert list(Sequential(ReLU(), **{"1": ReLU()}).children()) == ["0", "1"]


def test_parameters_have_the_paths_of_the_state(backend: Backend) -> None:
    model = network(backend)
    named = model.named_parameters()
    paths = ["0.weight", "block.0.weight", "block.0.bias", *(f"block.conv.weight[{g}]" for g in range(3))]
    assert [path for path, _ in named] == [*paths, "block.conv.bias", "out.weight"]
    assert all(own is parameter for own, (_, parameter) in zip(model.parameters(), named, strict=True))
    state = model.state()
    assert all(state[path] is parameter.value for path, parameter in named)


# --- Errors ---


def test_an_error_names_the_layer() -> None:
    x = integers((1, 2, 3, 3))
    model = Sequential(first=Conv(2, 4, 1, rng=rng(), dtype="float64"), second=Conv(5, 6, 1, rng=rng()))
    with pytest.raises(ValueError, match=r"^layer 'second': expects 5 input channels, got 4: x has shape \(1, 4, 3, 3"):
        model(x)
    with pytest.raises(ValueError, match=r"^layer 'block\.conv\.0': expects 3 input channels, got 2"):
        Sequential(block=Residual(conv=Sequential(Conv(3, 2, 1, rng=rng()))))(x)
    with pytest.raises(ValueError, match=r"^layer 'inner': an identity shortcut"):
        Sequential(inner=Residual(MaxPool(2)))(x)
    with pytest.raises(TypeError, match=r"^layer '0': x must have the data type of the weight, float32; got float64"):
        Sequential(Linear(2, 1, rng=rng()))(x[:, :, 0, 0])
    with pytest.raises(RuntimeError, match=r"^layer 'out': Linear\.backward needs a forward"):
        network().backward(x)
    towers = Towers([[ReLU()], [Sequential(conv=Conv(7, 1, 1, rng=rng()))]])
    with pytest.raises(ValueError, match=r"^layer '1\.0\.conv': expects 7 input channels, got 2"):
        towers(x)
    towers = Towers([[Sequential(relu=ReLU())]])
    y = towers(x)
    towers.segments[0][0].forget()
    with pytest.raises(RuntimeError, match=r"^layer '0\.0\.relu': ReLU\.backward needs a forward"):
        towers.backward(y)


def test_an_error_of_another_kind_stays_as_it_is() -> None:
    with pytest.raises(np.linalg.LinAlgError, match=r"^1$"):
        Sequential(Shifted(1))(integers((1, 2)))


# --- NumPy arrays ---


def test_numpy_arrays_are_moved_to_the_model(backend: Backend) -> None:
    model, x = network(backend), integers((3, 2, 3, 3))
    expected = backend.to_numpy(model(backend.asarray(x)))
    for array in (x, x.astype(x.dtype.newbyteorder()), *inputs_of_every_kind(x).values()):
        backend.assert_equal(model(array), expected)
        backend.assert_equal(model.forward(array), expected)
        backend.check(model.backward(backend.asarray(np.ones_like(expected))))
    block = model["block"]
    images = integers((1, 4, 2, 2))
    backend.check(block.forward(images))
    backend.check(Towers([[model[0]]]).forward(x))
    backend.check(model["out"](integers((2, 4))))
    for other in ("float16", "float32"):
        with pytest.raises(TypeError, match=rf"the weight, float64; got {other}: write x\.astype\('float64'\)$"):
            model(x.astype(other))
    if not backend.supports("complex256") and hasattr(np, "complex256"):
        with pytest.raises(TypeError, match="has no data type complex256"):
            model(x.astype("complex256"))


def test_numpy_answers_are_moved_to_the_outputs(backend: Backend) -> None:
    z = integers((3, 2))
    for loss, answers in (
        (SoftmaxCrossEntropy(), np.array([1, 0, 1])),
        (MeanSquaredError(), z + 1),
        (BinaryCrossEntropy(), np.abs(z) / 4),
    ):
        expected = loss(z, answers)
        assert loss(backend.asarray(z), answers) == pytest.approx(expected, rel=1e-12)
        backend.check(loss.backward())


def test_a_numpy_state_is_loaded_and_trained_from(backend: Backend) -> None:
    model, other = network(backend, "float32"), network(None, "float32")
    other["out"].weight.value += 1  # type: ignore[attr-defined]
    model.load_state(other.state())
    for path, array in other.state().items():
        backend.assert_equal(model.state()[path], array)
    images, labels = integers((4, 2, 3, 3)).astype("float32"), np.zeros(4, int)
    trainer = Trainer(model, images, labels, optimiser=SGD(model.parameters(), 0.1), epochs=1, batch_size=2, rng=rng())
    assert [step.accuracy for step in trainer] == [1, 1]
    assert accuracy(model, images, labels) == 1


def test_arrays_of_a_third_module_are_refused() -> None:
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(TypeError, match="one module"):
        network()(strict.zeros((1, 2, 3, 3)))


def test_a_gradient_of_another_module_is_named() -> None:
    strict = pytest.importorskip("array_api_strict")
    layers = [
        ReLU(),
        Linear(2, 2, rng=rng(), dtype="float64"),
        Scale(2, dtype="float64"),
        Flatten(),
    ]
    for layer in layers:
        y, name = layer(integers((3, 2))), type(layer).__name__
        message = f"grad_output is an array of array_api_strict and the output of {name} is an array of numpy"
        with pytest.raises(TypeError, match=message):
            layer.backward(strict.asarray(y))


@pytest.mark.parametrize("layer", [ReLU(), Tanh(), Dropout(0.5, rng=rng())], ids=lambda layer: type(layer).__name__)
def test_an_array_without_axes_gives_one(layer: Any) -> None:
    y = layer(np.array(3.0))
    assert type(y) is np.ndarray
    assert layer.backward(y).shape == ()


# --- Summaries ---


@pytest.mark.parametrize(
    ("model", "counted"),
    [
        (lenet5(rng=rng()), cost.lenet5()),
        (residual_network("log:3", channels=16, side=16, rng=rng()), cost.residual("log:3", channels=16, side=16)),
    ],
    ids=["LeNet-5", "residual"],
)
def test_a_summary_counts_as_cost_does(model: Layer, counted: cost.Cost) -> None:
    found = summary(model, (3, *counted.input_shape))
    output = 850 if counted.model == "lenet5" else 0  # the paper's output layer has no trained parameters
    assert found.batch == 3
    assert found.cost.parameters == counted.parameters + output
    assert found.cost.macs == counted.macs
    assert found.cost.memory(3).activations == counted.memory(3).activations
    shapes = {layer.name: layer.output_shape for layer in found.cost.layers}
    for layer in counted.layers:
        name = next(n for n in (layer.name, f"{layer.name}.scale", f"{layer.name}.conv") if n in shapes)
        assert shapes[name] == layer.output_shape


def test_a_summary_by_hand() -> None:
    model = Sequential(
        up=ConvTranspose(2, 6, (3, 2), groups=2, stride=2, bias=False, rng=rng()),
        norm=LocalResponseNorm(),
        pool=MaxPool(2),
        flat=Sequential(rows=Flatten()),
        drop=Dropout(rng=rng()),
        tanh=Tanh(),
        last=Linear(108, 5, rng=rng()),
    )
    found = summary(model, (2, 2, 3, 6))
    rows = [(row.name, row.parameters, row.macs, row.output_shape, row.on_one_of(1)[1]) for row in found.cost.layers]
    assert rows == [
        ("up", 36, 36 * 18, (6, 7, 12), 4 * 36),  # x
        ("norm", 0, 0, (6, 7, 12), 8 * 504),  # x and its scale
        ("pool", 0, 0, (6, 3, 6), 108),  # an index
        ("flat.rows", 0, 0, (108,), 0),
        ("drop", 0, 0, (108,), 108),  # a mask
        ("tanh", 0, 0, (108,), 4 * 108),  # y
        ("last", 545, 540, (5,), 4 * 108),  # x
    ]
    assert found.kinds == ("ConvTranspose", "LocalResponseNorm", "MaxPool", "Flatten", "Dropout", "Tanh", "Linear")
    lines = str(found).splitlines()
    assert " ".join(lines[2].split()) == "up ConvTranspose (2, 6, 7, 12) 36 1,296 288"
    assert lines[-2].split() == ["all", "581", "2,376", "10,512"]
    assert lines[-1].startswith("A training step in float32 with momentum takes about 64.0 MiB")


def test_a_summary_changes_nothing_in_the_model(backend: Backend) -> None:
    drop, norm = Dropout(rng=rng(5)), BatchNorm(2, xp=backend.xp)
    model = Sequential(norm, drop, Conv(2, 1, 1, rng=rng(), xp=backend.xp))
    x = backend.asarray(integers((2, 2, 1, 1)).astype("float32"))
    y = model(x)
    before = {path: backend.to_numpy(array).copy() for path, array in model.state().items()}
    state = drop.rng.bit_generator.state
    found = summary(model, (4, 2, 3, 3))
    assert found.cost.layers[1].on_one_of(1)[1] == 18  # the mask of training
    assert drop.rng.bit_generator.state == state
    for path, array in model.state().items():
        backend.assert_equal(array, before[path])
    backend.check(model.backward(y))  # the earlier forward is still the latest
    assert "forward" not in vars(drop)
    model.eval()
    assert summary(model, (4, 2, 3, 3)).cost.layers[1].on_one_of(1)[1] == 0


@pytest.mark.parametrize(
    ("error", "message", "model", "shape"),
    [
        (TypeError, "model must be a Layer; got 3", 3, (1, 2)),
        (TypeError, "input_shape must be a sequence of integers; got 3", ReLU(), 3),
        (TypeError, r"input_shape\[1\] must be an integer; got 2\.5", ReLU(), (1, 2.5)),
        (ValueError, r"input_shape\[0\] must be at least 1; got 0", ReLU(), (0, 2)),
        (ValueError, r"input_shape must begin with the size of the batch; got \(\)", ReLU(), ()),
        (ValueError, r"2\^40", ReLU(), (2**30, 2**30)),
        (ValueError, "layer '0': expects 2 input channels, got 3", network(), (1, 3, 3, 3)),
    ],
)
def test_bad_summaries_are_refused(error: type[Exception], message: str, model: Any, shape: Any) -> None:
    with pytest.raises(error, match=message):
        summary(model, shape)
