"""Parts of layers: children, modes, kept values that are discarded, and state by path."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from refconv import logarithmic_groups
from refconv.nn import BatchNorm, Conv, ConvTranspose, Dropout, Layer, Linear, Parameter, ReLU, Residual, Sequential
from tests.helpers import Backend
from tests.nn_helpers import rng


def nested(backend: Backend, seed: int = 0) -> Sequential:
    at: dict[str, Any] = {"xp": backend.xp, "dtype": "float64"}
    where = {"rng": rng(seed), **at}
    return Sequential(
        Conv(1, 4, 1, **where),
        ReLU(),
        Residual(BatchNorm(4, **at), inner=Sequential(conv=Conv(4, 4, 1, groups=logarithmic_groups(4, 4, 2), **where))),
        named=Sequential(Dropout(rng=rng(1))),
        last=ConvTranspose(4, 2, 1, bias=False, **where),
    )


PATHS = [
    "0.weight",
    "0.bias",
    "2.0.weight",
    "2.0.bias",
    "2.0.running_mean",
    "2.0.running_var",
    "2.inner.conv.weight[0]",
    "2.inner.conv.weight[1]",
    "2.inner.conv.bias",
    "last.weight",
]


def leaves(layer: Layer) -> list[Layer]:
    return [leaf for child in layer.children().values() for leaf in leaves(child)] or [layer]


def test_children_have_names_and_an_order(backend: Backend) -> None:
    model = nested(backend)
    assert list(model.children()) == ["0", "1", "2", "named", "last"]
    assert tuple(model.children().values()) == model.layers
    assert list(model.layers[2].children()) == ["0", "inner"]
    assert ReLU().children() == {}
    model.children().clear()  # a copy: this changes nothing
    assert len(model.children()) == 5
    arrays = [path for path in PATHS if "running" not in path]
    assert [parameter.name for parameter in model.parameters()] == [path.rpartition(".")[2] for path in arrays]
    with pytest.raises(TypeError, match="relu must be a Layer; got str"):
        Sequential(relu="ReLU")  # type: ignore[arg-type]


def test_modes_reach_every_layer(backend: Backend) -> None:
    model = nested(backend)
    assert all(layer.training for layer in leaves(model))
    assert model.eval() is model
    assert not any(layer.training for layer in [model, model.layers[2], *leaves(model)])
    assert model.train() is model
    assert all(layer.training for layer in [model, model.layers[2], *leaves(model)])


def test_forget_frees_what_every_layer_kept(backend: Backend) -> None:
    model = nested(backend)
    y = model.forward(backend.asarray(np.ones((2, 1, 3, 3))))
    assert all(layer._saved is not None for layer in leaves(model))
    model.forget()
    assert all(layer._saved is None for layer in leaves(model))
    with pytest.raises(RuntimeError, match=r"ConvTranspose\.backward needs a forward"):
        model.backward(y)


def test_state_goes_by_path_and_restores_the_model(backend: Backend) -> None:
    model, other = nested(backend), nested(backend, seed=1)
    x = backend.asarray(rng(2).normal(size=(3, 1, 2, 2)))
    model.forward(x)  # updates the running statistics
    state = model.state()
    assert list(state) == PATHS
    assert state["2.0.running_mean"] is model.layers[2].children()["0"].running_mean  # type: ignore[attr-defined]
    assert float(backend.to_numpy(state["2.0.running_mean"])[0]) != 0
    expected = backend.to_numpy(model.eval().forward(x)).copy()
    other.eval().load_state(dict(reversed(state.items())))
    backend.assert_equal(other.forward(x), expected)
    assert list(other.state()) == PATHS
    for path, array in other.state().items():
        backend.assert_equal(array, backend.to_numpy(state[path]))
        assert array is not state[path]


class Scaled(Layer):
    """A layer of a user, with a layer inside and a parameter of its own, before the child's in the order."""

    def __init__(self) -> None:
        self.inner, self.scale = ReLU(), Parameter("scale", np.full(1, 3.0))
        self.norm = BatchNorm(2, dtype="float64")

    def forward(self, x: Any) -> Any:
        return self.norm.forward(self.scale.value * x)

    def backward(self, grad_output: Any) -> Any:
        return self.scale.value * self.norm.backward(grad_output)

    def children(self) -> dict[str, Layer]:
        return {"inner": self.inner, "norm": self.norm}

    def parameters(self) -> list[Parameter]:
        return [self.norm.parameters()[1], self.scale]


def test_a_layer_may_have_layers_inside_and_parameters_of_its_own() -> None:
    model = Sequential(Scaled())
    layer = model.layers[0]
    assert isinstance(layer, Scaled)
    assert list(model.state()) == [f"0.{path}" for path in ("scale", *(f"norm.{p}" for p in layer.norm.state()))]
    assert model.named_parameters() == [("0.norm.bias", layer.norm.parameters()[1]), ("0.scale", layer.scale)]
    model.load_state({path: array + 1 for path, array in model.state().items()})
    assert layer.scale.value.tolist() == [4.0]
    assert layer.norm.parameters()[1].value.tolist() == [1.0, 1.0]
    assert "Scaled, scale (1,): 3 parameters" in repr(model)


@pytest.mark.parametrize("state", [None, 3, [1]])
def test_a_state_must_be_a_mapping(state: Any) -> None:
    with pytest.raises(TypeError, match="state must be a mapping of paths to arrays"):
        BatchNorm(2).load_state(state)


def test_loaded_arrays_are_copies() -> None:
    layer = BatchNorm(2, dtype="float64")
    state = {path: array.copy() for path, array in layer.state().items()}
    layer.load_state(state)
    for array in state.values():
        array += 1
    for path, array in layer.state().items():
        np.testing.assert_array_equal(array, state[path] - 1)
        assert not np.shares_memory(array, state[path])


def test_a_state_that_does_not_fit_changes_nothing(backend: Backend) -> None:
    model = nested(backend)
    before = {path: backend.to_numpy(array).copy() for path, array in model.state().items()}
    good = {path: backend.asarray(array + 1) for path, array in before.items()}
    path = "last.weight"  # the last one: all before it fit
    for bad, error, message in (
        (
            {p: a for p, a in good.items() if p != path},
            ValueError,
            "lacks 1 of the model's 10 arrays, first 'last.weight'",
        ),
        ({}, ValueError, "lacks 10 of the model's 10 arrays, first '0.bias'"),
        ({**good, "9.weight": good[path]}, ValueError, "1 arrays unknown to the model, first '9.weight'"),
        ({**good, path: backend.asarray(np.ones((2, 4, 1, 1)))}, ValueError, r"\['last.weight'\].*\(4, 2, 1, 1\)"),
        ({**good, path: backend.asarray(np.ones((4, 2, 1, 1), "float32"))}, TypeError, "float64; got float32"),
        ({**good, path: [[1.0]]}, TypeError, r"state\['last.weight'\] must be a dense array"),
    ):
        with pytest.raises(error, match=message):
            model.load_state(bad)
        for name, array in model.state().items():
            backend.assert_equal(array, before[name])
    model.load_state(good)
    for name, array in model.state().items():
        backend.assert_equal(array, before[name] + 1)


def test_a_state_of_another_module_is_refused() -> None:
    strict = pytest.importorskip("array_api_strict")
    layer = Linear(2, 1, rng=rng(), dtype="float64")
    state = layer.state() | {"bias": strict.zeros(1)}
    with pytest.raises(TypeError, match="one module"):
        layer.load_state(state)
