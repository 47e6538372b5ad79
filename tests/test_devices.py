"""Results stay on the device of the operands, even if it is not the current one.

array-api-strict simulates a second device and refuses to mix arrays of two. CuPy runs these tests if it has two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import refconv
from refconv import arrays
from refconv.nn import (
    SGD,
    Adam,
    AvgPool,
    BatchNorm,
    BinaryCrossEntropy,
    Conv,
    Dropout,
    Flatten,
    Linear,
    LocalResponseNorm,
    MaxPool,
    MeanSquaredError,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Trainer,
    accuracy,
    summary,
)
from refconv.nn.training import shifted
from refconv.testing.oracles.problems import PADDING_MODES, Problem, definition_results, integer_arrays
from tests.helpers import Backend, Missing, assert_results, cut_into, load, run


@dataclass(frozen=True, repr=False)
class OnSecondDevice(Backend):
    """An array module that keeps its arrays on a device other than the current one."""

    first: Any
    second: Any

    def asarray(self, array: Any) -> Any:
        if array is None or isinstance(array, list | tuple):
            return super().asarray(array)
        return self.xp.asarray(np.array(array), device=self.second)

    def to_numpy(self, array: Any) -> Any:
        return tuple(map(self.to_numpy, array)) if isinstance(array, tuple) else refconv.to_numpy(array)


@pytest.fixture(scope="module", params=["array_api_strict", "cupy"])
def second(request: pytest.FixtureRequest) -> OnSecondDevice:
    try:
        found = load(request.param)
    except Missing as reason:
        pytest.skip(str(reason))
    if found.name == "array_api_strict":
        devices = [found.xp.Device(name) for name in ("CPU_DEVICE", "device1")]
    elif found.xp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("CuPy finds no second device")
    else:
        devices = [found.xp.cuda.Device(number) for number in (0, 1)]
    return OnSecondDevice(found.name, found.xp, found.array_type, *devices)


LISTS = (((0, 1, 2), (4, 0)), ((5, 2), (1,)), ((3,), (2, 3)))  # overlapping, in no order


@pytest.mark.parametrize(
    "problem",
    [
        *(Problem(2, 6, 5, (7, 6), (2, 3), (2, 1), (1, 1), ((3, 1), (0, 2)), LISTS, mode) for mode in PADDING_MODES),
        Problem(2, 6, 4, (7, 6), (2, 3), (5, 1), (1, 1), ((3, 0), (0, 0)), 2),
        Problem(2, 6, 5, (4, 6), (2, 3), (5, 1), (1, 2), ((3, 1), (0, 2)), LISTS, "zeros", (0, 0), transposed=True),
        Problem(2, 6, 4, (4, 6), (2, 3), (5, 1), (1, 1), ((3, 0), (0, 0)), 2, "zeros", (0, 0), transposed=True),
    ],
)
@pytest.mark.parametrize("tile", [1, 2**21])
def test_convolutions_stay_on_the_device(second: OnSecondDevice, problem: Problem, tile: int) -> None:
    operands = integer_arrays(problem, np.random.default_rng(5))
    with cut_into(tile):
        expected = definition_results(problem, operands)
        assert_results(second, run(second, problem, operands), expected)
        if not problem.transposed:
            x, weight, _, grad = map(second.asarray, operands)
            more = problem.options()
            second.assert_equal(refconv.conv_input_grad(grad, weight, problem.x_shape, **more), expected.grad_x)
            second.assert_equal(refconv.conv_weight_grad(grad, x, problem.kernel, **more), expected.grad_weight)


@pytest.mark.parametrize("padding", [0, 1])
def test_columns_stay_on_the_device(second: OnSecondDevice, padding: int) -> None:
    x = np.arange(1.0, 61.0).reshape(1, 3, 4, 5)
    columns = refconv.im2col(x, (2, 3), padding=padding)
    second.assert_equal(refconv.im2col(second.asarray(x), (2, 3), padding=padding), columns)
    second.assert_equal(refconv.im2col(second.asarray(x[:0]), (2, 3), padding=padding), columns[:0])
    back = refconv.col2im(second.asarray(columns), x.shape, (2, 3), padding=padding)
    second.assert_equal(back, refconv.col2im(columns, x.shape, (2, 3), padding=padding))


def test_an_empty_image_stays_on_the_device(second: OnSecondDevice) -> None:
    back = refconv.col2im(second.asarray(np.ones((0, 6, 4))), (0, 3, 5), 2)
    second.assert_equal(back, np.ones((0, 3, 5)))


def test_operands_of_two_devices_are_refused(second: OnSecondDevice) -> None:
    x, weight = second.asarray(np.ones((1, 1, 3))), second.xp.ones((1, 1, 2))
    with pytest.raises(ValueError, match="all arrays must be on one device") as caught:
        refconv.conv(x, weight)
    assert str(caught.value) == (
        f"all arrays must be on one device, but x is on {x.device} and weight on {weight.device}"
    )


def test_layers_refuse_arrays_of_two_devices(second: OnSecondDevice) -> None:
    """Before they compute, with the names of the arrays."""
    x, elsewhere = second.asarray(np.ones((2, 4))), second.xp.ones((2, 4), dtype=second.xp.float64)
    labels = second.xp.zeros(2, dtype=second.xp.int64)
    place: dict[str, Any] = {"xp": second.xp, "device": second.second, "dtype": "float64"}
    linear = Linear(4, 4, rng=np.random.default_rng(0), **place)
    optimisers = [SGD(linear.parameters(), 0.1), Adam(linear.parameters(), 0.1)]
    normal, relu, flat = BatchNorm(4, **place), ReLU(), Flatten()
    for layer in (normal, relu, flat):
        layer.forward(x)
    calls: list[tuple[Any, str]] = [
        (lambda: linear(elsewhere), "x is on {0} and weight on {1}"),
        (lambda: BatchNorm(4, **place)(elsewhere), "x is on {0} and weight on {1}"),
        (lambda: linear.load_state({**linear.state(), "bias": elsewhere[0, :]}), "'] is on {0} and the model's on {1}"),
        (lambda: SoftmaxCrossEntropy()(x, labels), "logits is on {1} and labels on {0}"),
        (lambda: MeanSquaredError()(x, elsewhere), "predictions is on {1} and targets on {0}"),
        (lambda: BinaryCrossEntropy()(x, elsewhere), "logits is on {1} and targets on {0}"),
        (lambda: accuracy(linear, x, labels), "images is on {1} and labels on {0}"),
        *((lambda layer=layer: layer.backward(elsewhere), f"on {{0}} and the output of {type(layer).__name__} on {{1}}")
          for layer in (normal, relu, flat)),
    ]  # fmt: skip
    for parameter in linear.parameters():
        parameter.grad = second.xp.ones(parameter.value.shape, dtype=second.xp.float64)
    for optimiser in optimisers:
        calls.append((optimiser.step, "grad of parameters[0] (weight) is on {0} and its value on {1}"))
        state = {name: second.xp.zeros(array.shape, dtype=array.dtype) for name, array in optimiser.state().items()}
        calls.append((lambda o=optimiser, s=state: o.load_state(s), "is on {0} and the optimiser's on {1}"))
    for call, message in calls:
        with pytest.raises(ValueError, match="device") as caught:
            call()
        assert message.format(elsewhere.device, x.device) in str(caught.value)
    assert all(parameter.value.device == x.device for parameter in linear.parameters())


@pytest.mark.parametrize("wrong", ["gpu:x", -1, 1.0, True, object()])
@pytest.mark.parametrize("name", ["numpy", "array_api_strict", "torch", "cupy"])
def test_a_device_that_the_module_lacks_is_refused(name: str, wrong: Any) -> None:
    try:
        xp = load(name).xp
    except Missing as reason:
        pytest.skip(str(reason))
    for make in (
        lambda: Conv(2, 4, 3, rng=np.random.default_rng(0), xp=xp, device=wrong),
        lambda: BatchNorm(4, xp=xp, device=wrong),
    ):
        with pytest.raises(ValueError, match=rf"^device must be a device of {name}; got .+ \(.+\)$"):
            make()


def test_a_failure_of_cupys_device_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def asarray(array: Any, device: Any) -> Any:
        raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    cupy = type("cupy", (), {"__name__": "array_api_compat.cupy", "asarray": staticmethod(asarray)})()
    with pytest.raises(ValueError, match=r"^device must be a device of cupy; got 7 \(cudaErrorInvalidDevice: .*\)$"):
        arrays.check_device(cupy, 7)


@pytest.mark.parametrize("wrong", [1.0, np.float64(1), True])
def test_only_an_integer_is_the_number_of_cupys_device(wrong: Any) -> None:
    """CuPy takes anything that int() takes."""
    cupy = type("cupy", (), {"__name__": "array_api_compat.cupy", "asarray": lambda self, array, device: array})()
    arrays.check_device(cupy, 1)
    with pytest.raises(ValueError, match=r"^device must be a device of cupy; got .* is not a device\)$"):
        arrays.check_device(cupy, wrong)


def test_a_module_of_immutable_arrays_is_no_place_for_parameters() -> None:
    array = type("ArrayImpl", (), {"__module__": "jaxlib._jax"})()
    jax = type("jax", (), {"asarray": lambda self, values: array})()
    with pytest.raises(TypeError, match=r"numpy, cupy, torch or array_api_strict; got jaxlib\._jax\.ArrayImpl"):
        BatchNorm(4, xp=jax)


def test_cupys_own_namespace_places_parameters_too() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        xp = load("cupy").xp
    except Missing as reason:
        pytest.skip(str(reason))
    for found in (cupy, xp):
        assert refconv.array_namespace(BatchNorm(4, xp=found).weight.value) is xp


@pytest.mark.parametrize("groups", [2, refconv.ChannelGroups([[0, 1], [1, 3]], [[1, 2], [0, 3]])])
def test_derivatives_stay_on_the_device(second: OnSecondDevice, groups: Any) -> None:
    shapes = [(4, 2, 3)] if groups == 2 else groups.weight_shapes((3,))
    x, dx, g = (np.arange(40.0).reshape(2, 4, 5) % n for n in (7, 5, 3))
    w, dw = ([np.arange(np.prod(shape)).reshape(shape) % n for shape in shapes] for n in (4.0, 3.0))
    w, dw = (w[0], dw[0]) if groups == 2 else (tuple(w), tuple(dw))
    found = []
    for make in (lambda array: array, second.asarray):
        more: dict[str, Any] = {"groups": groups, "padding": 1, "padding_mode": "circular"}
        jvp = refconv.conv_jvp(make(x), make(w), dx=make(dx), dweight=make(dw), dbias=make(x[0, :, 0]), **more)
        twice = refconv.conv_double_backward((make(dx), make(dw), None), make(g), make(x), make(w), **more)
        found.append((jvp, *twice))
    for expected, actual in zip(*found, strict=True):
        second.assert_equal(actual, expected)


def network(on: OnSecondDevice | None = None) -> Sequential:
    rng, place = np.random.default_rng(1), {"xp": on.xp if on else np, "device": on and on.second, "dtype": "float64"}
    return Sequential(
        Conv(2, 4, 3, padding=1, groups=2, bias=False, rng=rng, **place), BatchNorm(4, **place), ReLU(), MaxPool(3, 2),
        LocalResponseNorm(3), AvgPool(2, 1), Flatten(), Dropout(0.25, rng=rng), Linear(4, 3, rng=rng, **place),
    )  # fmt: skip


IMAGES, LABELS = np.random.default_rng(3).standard_normal((6, 2, 6, 6)), np.array([0, 2, 1, 1, 0, 2])


def trainer(model: Any, optimiser: Any) -> Trainer:
    return Trainer(
        model, IMAGES, LABELS, optimiser=optimiser(model.parameters(), 0.01), epochs=2, batch_size=4, shift=1,
        schedule=lambda done: 1 - done / 2, rng=np.random.default_rng(5), generators={"dropout": model[7].rng},
    )  # fmt: skip


@pytest.mark.parametrize("optimiser", [SGD, Adam])
def test_a_training_stays_on_the_device(second: OnSecondDevice, optimiser: Any) -> None:
    """NumPy's arrays, which are moved, give NumPy's numbers; so does a training resumed from a copied state."""
    reference, moved, resumed = (trainer(network(on), optimiser) for on in (None, second, second))
    for step, (expected, found) in enumerate(zip(reference, moved, strict=True)):
        assert found.loss == pytest.approx(expected.loss, rel=1e-9)
        if step == 1:
            resumed.load_state(*moved.state())
    list(resumed)
    for name, expected in reference.model.state().items():
        for found in (moved, resumed):
            array = found.model.state()[name]
            second.check(array)
            np.testing.assert_allclose(second.to_numpy(array), expected, rtol=1e-9, atol=1e-12)
    for array in (*moved.optimiser.state().values(), *resumed.optimiser.state().values()):
        second.check(array)
    assert accuracy(moved.model, IMAGES, LABELS) == accuracy(reference.model, IMAGES, LABELS)
    assert str(summary(moved.model, (2, 2, 6, 6))) == str(summary(reference.model, (2, 2, 6, 6)))


@pytest.mark.parametrize("optimiser", [SGD, Adam])
def test_a_training_step_waits_for_the_device_once(
    second: OnSecondDevice, optimiser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, waits = iter(trainer(network(second), optimiser)), []

    def watch(name: str, method: Any) -> None:
        def watched(*args: Any) -> Any:
            waits.append(name)
            return method(*args)

        monkeypatch.setattr(second.array_type, name, watched)

    try:
        for name in {"__bool__", "__int__", "__float__", "to_device", "get", "item", "tolist"}:
            if method := getattr(second.array_type, name, None):
                watch(name, method)
    except TypeError:
        pytest.skip("the methods of CuPy's arrays cannot be watched")
    for _ in steps:
        assert len(waits) == 1, waits
        waits.clear()


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy, MeanSquaredError, BinaryCrossEntropy])
def test_losses_stay_on_the_device(second: OnSecondDevice, loss: Any) -> None:
    outputs, answers = np.array([[1.0, -2.0], [0.5, 3.0]]), np.array([[1.0, 0.0], [0.0, 0.0]])
    answers = np.array([1, 0]) if loss is SoftmaxCrossEntropy else answers
    expected, found = loss(), loss()
    assert found(second.asarray(outputs), second.asarray(answers)) == pytest.approx(expected(outputs, answers))
    second.assert_close(found.backward(), expected.backward(), 1e-12, "float64")


def test_shifted_images_stay_on_the_device(second: OnSecondDevice) -> None:
    images = np.arange(60.0).reshape(3, 1, 4, 5)
    rngs = np.random.default_rng(0), np.random.default_rng(0)
    second.assert_equal(shifted(second.asarray(images), 2, rngs[0]), shifted(images, 2, rngs[1]))


def test_the_device_is_entered_for_the_arrays_of_cupy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arrays only imitate CuPy's, so that this is tested without CuPy too."""
    entered = []

    class Device:
        def __enter__(self) -> None:
            entered.append(self)

        def __exit__(self, *_: object) -> None:
            entered.append(None)

    array = type("ndarray", (), {"__module__": "cupy", "device": Device()})()
    function = arrays.on_their_device(lambda *args, **options: list(entered))
    monkeypatch.setitem(arrays.sys.modules, "cupy", arrays)
    assert function(np.ones(2), 3) == []
    assert function(None, x=array) == [array.device]
    assert entered == [array.device, None]
