"""Adam and the optimisers' state: the published rule, in pieces, in half precision, and PyTorch where installed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from refconv import set_workers
from refconv.nn import SGD, Adam, Optimiser, Parameter, parse_schedule
from tests.helpers import Backend, cut_into
from tests.nn_helpers import rng


def parameters(backend: Backend, dtype: str = "float64") -> list[Parameter]:
    return [Parameter(f"{shape}", backend.asarray(rng(1).normal(size=shape).astype(dtype))) for shape in ((2, 3), (4,))]


def take(backend: Backend, optimiser: Optimiser, seed: int) -> list[Any]:
    """Take a step with large, small and zero gradients, and return them."""
    grads = []
    for i, parameter in enumerate(optimiser.parameters):
        shape = tuple(parameter.value.shape)
        grad = rng(10 * seed + i).normal(size=shape) * 10.0 ** rng(seed).integers(-5, 4, shape)
        grad.flat[0] = 0
        dtype = backend.to_numpy(parameter.value).dtype
        grads.append(grad.astype(dtype))
        parameter.grad = backend.asarray(grads[-1])
    optimiser.step()
    return grads


def adam_by_hand(value: float, gradients: list[float], rates: list[float], b1: float, b2: float, eps: float) -> float:
    """Return one weight after these steps, with the two means written as sums."""
    for t, lr in enumerate(rates, 1):
        ages = range(t - 1, -1, -1)  # the gradient of step i has age t − 1 − i
        mean = sum(b1**age * g for age, g in zip(ages, gradients, strict=False)) / sum(b1**age for age in ages)
        square = sum(b2**age * g * g for age, g in zip(ages, gradients, strict=False)) / sum(b2**age for age in ages)
        value -= lr * mean / (math.sqrt(square) + eps)
    return value


def test_adam_is_the_written_rule(backend: Backend) -> None:
    rates = [0.5, 0.5, 0.125, 2.0]
    optimiser = Adam(parameters(backend), lr=0.5, betas=(0.75, 0.5), eps=0.01)
    first = [parameter.value for parameter in optimiser.parameters]
    before = [backend.to_numpy(value).copy() for value in first]
    steps = []
    for seed, lr in enumerate(rates):
        optimiser.change_lr(lr)
        steps.append(take(backend, optimiser, seed))
    for i, parameter in enumerate(optimiser.parameters):
        gradients = np.stack([step[i] for step in steps])
        expected = np.empty_like(before[i])
        for place in np.ndindex(expected.shape):
            series = gradients[(slice(None), *place)].tolist()
            expected[place] = adam_by_hand(before[i][place], series, rates, 0.75, 0.5, 0.01)
        backend.assert_close(parameter.value, expected, 1e-13, "float64")
        np.testing.assert_array_equal(backend.to_numpy(first[i]), before[i])  # new arrays each time
        assert parameter.grad is None
    assert optimiser.steps == 4


def test_pieces_and_workers_change_no_bit() -> None:
    grad = rng(2).normal(size=(3, 40, 1500))
    results = []
    for workers, tile in ((1, 2**20), (1, 4096), (3, 4096)):
        optimiser = Adam([Parameter("w", rng(1).normal(size=grad.shape))])
        with set_workers(workers), cut_into(tile):
            for _ in range(2):
                optimiser.parameters[0].grad = grad
                optimiser.step()
        results.append([optimiser.parameters[0].value, *optimiser.state().values()])
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_adam_in_half_precision_remembers_in_single() -> None:
    w = Parameter("w", np.array([1, 1, 1], "float16"), np.array([1e-4, 0, -300], "float16"))  # squares of 1e-8 and 9e4
    optimiser = Adam([w], lr=0.25)
    optimiser.step()
    assert w.value.dtype == np.float16
    np.testing.assert_allclose(w.value, [0.75, 1, 1.25], rtol=1e-3)
    assert optimiser.means[0].dtype == optimiser.squares[0].dtype == np.float32


def test_adam_agrees_with_torch() -> None:
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    numpy = Backend("numpy", np, np.ndarray)
    for options in ({}, {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3}):
        optimiser = Adam(parameters(numpy), **options)  # type: ignore[arg-type]
        leaves = [torch.tensor(parameter.value, requires_grad=True) for parameter in optimiser.parameters]
        theirs = torch.optim.Adam(leaves, **options)
        for seed in range(5):
            for leaf, grad in zip(leaves, take(numpy, optimiser, seed), strict=True):
                leaf.grad = torch.tensor(grad)
            theirs.step()
            for leaf, parameter in zip(leaves, optimiser.parameters, strict=True):
                np.testing.assert_allclose(parameter.value, leaf.detach().numpy(), rtol=1e-12)


def test_the_cosine_schedule_is_that_of_torch() -> None:
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=12)
    for step in range(12):
        assert 0.5 * parse_schedule("cosine")(step / 12) == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-12)
        theirs.step()
        scheduler.step()


# --- State ---

KINDS: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "SGD": (lambda given: SGD(given, 0.1), ["velocity.0", "velocity.1"]),
    "Adam": (Adam, ["steps", "mean.0", "mean.1", "square.0", "square.1"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_is_all_that_later_steps_depend_on(backend: Backend, kind: str) -> None:
    make, names = KINDS[kind]
    one = make(parameters(backend))
    for seed in range(2):
        take(backend, one, seed)
    other = make([Parameter(p.name, p.value) for p in one.parameters])
    state = one.state()
    assert list(state) == names
    other.load_state(dict(reversed(state.items())))
    third = make([Parameter(p.name, p.value) for p in one.parameters])
    third.load_state({name: backend.to_numpy(array) for name, array in state.items()})  # as from a checkpoint
    for seed in range(2, 4):
        for optimiser in (one, other, third):
            take(backend, optimiser, seed)
    for name, array in one.state().items():
        for optimiser in (other, third):
            backend.assert_equal(optimiser.state()[name], backend.to_numpy(array))
    for p, *others in zip(one.parameters, other.parameters, third.parameters, strict=True):
        for q in others:
            backend.assert_equal(q.value, backend.to_numpy(p.value))


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_does_not_fit_changes_nothing(kind: str) -> None:
    numpy = Backend("numpy", np, np.ndarray)
    optimiser, names = KINDS[kind][0](parameters(numpy)), KINDS[kind][1]
    take(numpy, optimiser, 0)
    good = {name: array + 1 for name, array in optimiser.state().items()}
    before = {name: array.copy() for name, array in optimiser.state().items()}
    last = names[-1]
    for bad, error, message in (
        ({name: good[name] for name in names[:-1]}, ValueError, f"lacks 1 of the optimiser's .*{last}"),
        ({**good, "other": good[last]}, ValueError, "1 arrays unknown to the optimiser, first 'other'"),
        ({**good, last: np.zeros(3)}, ValueError, r"shape \(4,\), the shape of the optimiser's"),
        ({**good, last: np.zeros(4, "float32")}, TypeError, "data type float64; got float32"),
        (3, TypeError, "state must be a mapping"),
    ):
        with pytest.raises(error, match=message):
            optimiser.load_state(bad)
        for name, array in optimiser.state().items():
            np.testing.assert_array_equal(array, before[name])
    optimiser.load_state(good)
    for name, array in optimiser.state().items():
        np.testing.assert_array_equal(array, before[name] + 1)
        assert array is not good[name]


BAD: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (ValueError, "lr must be finite and more than 0; got 0", {"lr": 0}),
    (TypeError, "betas must be a pair of numbers; got 0.9", {"betas": 0.9}),
    (TypeError, r"betas must be a pair of numbers; got \(0\.9,\)", {"betas": (0.9,)}),
    (ValueError, r"betas\[1\] must be finite and at least 0 and less than 1; got 1\.0", {"betas": (0, 1)}),
    (ValueError, r"betas\[0\] must be .* at least 0 .* got -0\.5", {"betas": (-0.5, 0.9)}),
    (ValueError, "eps must be finite and more than 0; got 0", {"eps": 0}),
]


@pytest.mark.parametrize(("error", "message", "options"), BAD, ids=[f"{i}" for i in range(len(BAD))])
def test_bad_options_are_refused(error: type[Exception], message: str, options: dict[str, Any]) -> None:
    with pytest.raises(error, match=message):
        Adam([Parameter("w", np.zeros(1))], **options)


def test_an_optimiser_prints_its_settings() -> None:
    parameters = [Parameter(name, np.zeros(2)) for name in "ab"]
    optimiser = Adam(parameters, lr=0.5)
    optimiser.change_lr(0.25)
    assert repr(optimiser) == "Adam(2 parameters, lr=0.25, betas=(0.9, 0.999), eps=1e-08)"
    assert repr(SGD(parameters[:1], 0.5)) == "SGD(1 parameter, lr=0.5, momentum=0.9, weight_decay=0.0)"


def test_a_step_without_all_gradients_does_not_count() -> None:
    optimiser = Adam([Parameter("a", np.ones(1), np.ones(1)), Parameter("b", np.ones(1))])
    with pytest.raises(RuntimeError, match=r"parameters\[1\] \(b\)"):
        optimiser.step()
    assert optimiser.steps == 0
    assert optimiser.parameters[0].value == 1
