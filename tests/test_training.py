"""Training that stops and resumes ends with the same bits as a training that never stopped."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refconv.experiments.train import (
    CHECKPOINT,
    CURVES,
    METRICS,
    DivergedError,
    InterruptedTrainingError,
    Observer,
    TrainError,
    TrainSettings,
    run_training,
)
from refconv.nn import (
    SGD,
    Adam,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    Linear,
    Optimiser,
    Parameter,
    Recipe,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Trainer,
    accuracy,
    load_checkpoint,
    parse_schedule,
    save_checkpoint,
)
from refconv.nn.training import shifted
from tests.helpers import Backend
from tests.nn_helpers import rng, write_cifar

pytest.importorskip("safetensors", reason="safetensors is not installed: no checkpoints")


def momentum(given: list[Parameter]) -> SGD:
    return SGD(given, 0.1, weight_decay=0.01)


def make(backend: Backend, epochs: int = 3, optimiser: Callable[[list[Parameter]], Optimiser] = momentum) -> Trainer:
    """Return a training with every kind of state: parameters, statistics, velocities, order, dropout and a schedule."""
    dropped = rng(5)
    where: dict[str, Any] = {"rng": rng(0), "xp": backend.xp}
    model = Sequential(
        conv=Conv(1, 4, 3, groups=1, **where),
        norm=BatchNorm(4, xp=backend.xp),
        relu=ReLU(),
        flatten=Flatten(),
        dropout=Dropout(0.5, rng=dropped),
        linear=Linear(16, 3, **where),
    )
    images = backend.asarray(rng(1).normal(size=(17, 1, 4, 4)).astype("float32"))
    labels = backend.asarray(rng(2).integers(0, 3, 17))
    return Trainer(
        model,
        images,
        labels,
        optimiser=optimiser(model.parameters()),
        epochs=epochs,
        batch_size=5,
        rng=rng(3),
        schedule=parse_schedule("cosine"),
        generators={"dropout": dropped},
    )


def copied(state: Any) -> Any:
    """Return a state as a checkpoint would: sharing nothing, and with only JSON values besides the arrays."""
    arrays, meta = state
    return {name: array.copy() for name, array in arrays.items()}, json.loads(json.dumps(meta))


def assert_same(a: Any, b: Any) -> None:
    assert a[0].keys() == b[0].keys()
    for name in a[0]:
        np.testing.assert_array_equal(a[0][name], b[0][name], err_msg=name, strict=True)
    assert a[1] == b[1]


def test_a_training_goes_on_from_any_step_with_the_same_bits(backend: Backend) -> None:
    whole = make(backend)
    states, steps = [copied(whole.state())], []
    for step in whole:
        states.append(copied(whole.state()))
        steps.append(step)
    assert len(steps) == whole.step_count == 12
    assert list(make(backend, epochs=0)) == []
    for stop, state in enumerate(states):
        resumed = make(backend)
        resumed.load_state(*copied(state))
        assert_same(resumed.state(), state)
        assert list(resumed) == steps[stop:]
        assert_same(resumed.state(), states[-1])


def test_a_training_with_adam_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    numpy = Backend("numpy", np, np.ndarray)
    whole, resumed = make(numpy, optimiser=Adam), make(numpy, optimiser=Adam)
    for step in whole:
        if step.number == 5:
            save_checkpoint(tmp_path / CHECKPOINT, *whole.state())
    resumed.load_state(*load_checkpoint(tmp_path / CHECKPOINT))
    assert [step.number for step in resumed] == list(range(6, 13))
    assert_same(resumed.state(), whole.state())


@pytest.mark.parametrize(
    ("lost", "optimiser"),
    [
        ("model.norm.running_var", momentum),
        ("velocity.0", momentum),
        ("order", momentum),
        ("dropout", momentum),
        ("steps", Adam),
        ("mean.1", Adam),
        ("square.1", Adam),
    ],
)
def test_every_part_of_the_state_is_needed(lost: str, optimiser: Any) -> None:
    """If one part stays in its initial state, the result differs."""
    numpy = Backend("numpy", np, np.ndarray)
    whole, fresh = make(numpy, optimiser=optimiser), make(numpy, optimiser=optimiser).state()
    for _ in zip(range(6), whole, strict=False):
        pass
    arrays, meta = copied(whole.state())
    if lost == "order":
        arrays["order"] = arrays["order"][::-1].copy()
    elif lost in arrays:
        arrays[lost] = fresh[0][lost].copy()
    else:
        meta["generators"][lost] = fresh[1]["generators"][lost]
    resumed = make(numpy, optimiser=optimiser)
    resumed.load_state(arrays, meta)
    for training in (whole, resumed):
        list(training)
    with pytest.raises(AssertionError):
        assert_same(whole.state(), resumed.state())


def test_the_reported_loss_is_the_mean_over_the_epoch_so_far() -> None:
    model = Sequential(Linear(3, 2, rng=rng(0), dtype="float64"))
    images, labels = rng(1).normal(size=(7, 3)), rng(2).integers(0, 2, 7)
    trainer = Trainer(
        model, images, labels, optimiser=SGD(model.parameters(), 1e-9), epochs=2, batch_size=3, rng=rng(3)
    )
    order, loss = rng(3), SoftmaxCrossEntropy()
    found = list(trainer)
    for epoch in range(2):
        permutation = order.permutation(7)
        for index, stop in enumerate((3, 6, 7)):
            step, seen = found[3 * epoch + index], permutation[:stop]
            logits = model.forward(images[seen])
            assert step.loss == pytest.approx(loss.forward(logits, labels[seen]), rel=1e-6)
            assert step.accuracy == np.mean(np.argmax(logits, axis=1) == labels[seen])
            assert step[:3] == (3 * epoch + index + 1, epoch + 1, (3, 3, 1)[index])
            assert step.ends_epoch is (index == 2)


@pytest.mark.parametrize(("option", "minimum"), [("epochs", 0), ("batch_size", 1)])
def test_numbers_below_their_minimum_are_refused(option: str, minimum: int) -> None:
    model = Sequential(Linear(3, 2, rng=rng(0)))
    settings = {"epochs": 1, "batch_size": 2, option: minimum - 1}
    with pytest.raises(ValueError, match=f"{option} must be at least {minimum}; got {minimum - 1}"):
        Trainer(
            model,
            np.ones((4, 3), "float32"),
            np.zeros(4, int),
            optimiser=momentum(model.parameters()),
            rng=rng(1),
            **settings,
        )


def test_a_state_of_another_training_is_refused_and_changes_nothing() -> None:
    numpy = Backend("numpy", np, np.ndarray)
    trainer = make(numpy)
    next(iter(trainer))
    before = copied(trainer.state())

    def broken(**changes: Any) -> Any:
        arrays, meta = copied(before)
        for name, value in changes.items():
            where = arrays if name in arrays else meta
            where[name] = value
        return arrays, meta

    bad: list[tuple[str, Any]] = [
        ("its entries differ", ({}, before[1])),
        ("its entries differ", (before[0], {})),
        ("step must be at most 12", broken(step=13)),
        ("on 17 images; got 3", broken(order=np.arange(3))),
        ("shape of the model's", broken(**{"model.linear.bias": np.zeros(2, "float32")})),
        ("data type", broken(**{"model.linear.bias": np.zeros(3)})),
        (
            "shape of the optimiser's",
            broken(**{"velocity.0": np.zeros(2, "float32"), "model.linear.bias": np.ones(3, "float32")}),
        ),
        ("its entries differ", make(numpy, optimiser=Adam).state()),
        ("generators must contain the states of order, dropout", broken(generators=3)),
    ]
    first = before[1]["generators"]
    others = ({}, None, {"bit_generator": "MT19937"}, first["dropout"] | {"state": {"state": 2**300, "inc": 1}})
    message = r"generators\['dropout'\] must be the state of a PCG64"
    bad += [(message, broken(generators=first | {"dropout": other})) for other in others]
    for message, state in bad:
        with pytest.raises((ValueError, TypeError), match=message):
            trainer.load_state(*state)
        assert_same(trainer.state(), before)


def test_schedules() -> None:
    constant, cosine, steps = map(parse_schedule, ("constant", "cosine", "steps:.25,0.5"))
    parts = [0.0, 0.2499, 0.25, 0.5, 0.99]
    assert [constant(part) for part in parts] == [1.0] * 5
    assert [steps(part) for part in parts] == [1.0, 1.0, 0.1, 0.01, 0.01]
    np.testing.assert_allclose([cosine(part) for part in (0, 1 / 3, 0.5, 2 / 3)], [1, 0.75, 0.5, 0.25])
    for spec in ("", "step:0.5", "steps:", "steps:0", "steps:1", "steps:0.5,0.5", "steps:.7,.5", "steps:x", "steps:٣"):
        with pytest.raises(ValueError, match="schedule must be"):
            parse_schedule(spec)
    with pytest.raises(TypeError, match="schedule must be a string"):
        parse_schedule(0.5)  # type: ignore[arg-type]


def test_the_schedule_sets_the_rate_of_each_step() -> None:
    model = Sequential(Linear(2, 2, rng=rng(0)))
    images, labels = np.zeros((4, 2), "float32"), np.zeros(4, int)
    trainer = Recipe(epochs=2, batch_size=2, lr=0.5, schedule="steps:0.5").trainer(model, images, labels, rng=rng(1))
    assert [trainer.optimiser.lr for _ in trainer] == [0.5, 0.5, 0.05, 0.05]


def test_a_changing_rate_scales_the_steps_under_way(backend: Backend) -> None:
    """With change_lr the rule equals PyTorch's, whose rate is outside the momentum, for any sequence of rates."""
    w, v = np.array([1.0, -2.0, 0.5]), np.zeros(3)
    parameter = Parameter("w", backend.asarray(w))
    optimiser = SGD([parameter], lr=0.5, momentum=0.75, weight_decay=0.125)
    for lr, gradient in zip((0.5, 0.5, 0.0625, 0.25, 2.0), rng(0).integers(-4, 5, (5, 3)), strict=True):
        v = 0.75 * v + gradient + 0.125 * w
        w = w - lr * v
        optimiser.change_lr(lr)
        parameter.grad = backend.asarray(gradient.astype("float64"))
        optimiser.step()
        assert optimiser.lr == lr
        backend.assert_equal(parameter.value, w)  # every number is a multiple of a power of two
    for bad in (0, -1, float("nan"), "a"):
        with pytest.raises((ValueError, TypeError), match="lr must be"):
            optimiser.change_lr(bad)  # type: ignore[arg-type]


def test_accuracy_tests_and_leaves_the_model_training() -> None:
    model = Sequential(Dropout(0.9, rng=rng(0)), Flatten())
    images, labels = np.array([[2.0, 1.0], [0.0, 1.0]] * 20), np.array([0, 1] * 20)
    assert accuracy(model, images, labels) == 1
    assert model.training
    assert model.layers[0].training
    assert not accuracy(model.eval(), images, labels) < 1
    assert not model.training
    with pytest.raises(RuntimeError, match="needs a forward"):  # nothing is kept
        model.backward(images)


# --- A whole run, with its files ---


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> TrainSettings:
    """A short training on a few images in CIFAR-10's format."""
    data = write_cifar(tmp_path_factory.mktemp("cifar"), 12, 20, brightness=15)
    options = {"channels": 8, "blocks": 1}
    recipe = Recipe(epochs=3, batch_size=16)
    return TrainSettings(data=data, side=8, options=options, recipe=recipe)


def ends(folder: Path) -> Any:
    """Return the files of a training, without times."""
    arrays, meta = load_checkpoint(folder / CHECKPOINT)
    timeless = [
        {key: value for key, value in row.items() if key not in ("seconds", "images_per_second")}
        for row in meta["epochs"]
    ]
    return arrays, [meta["training"], meta["config"], timeless]


def test_a_run_leaves_checkpoint_metrics_and_curves(settings: TrainSettings, tmp_path: Path) -> None:
    seen: list[Any] = []

    class Recorder(Observer):
        def begin(self, *numbers: int) -> None:
            seen.append(numbers)

        def after(self, step: Any) -> None:
            seen.append(step.number)

        def epoch(self, row: Any) -> None:
            seen.append(row)

    result = run_training(settings, tmp_path / "a" / "b", observer=Recorder())
    folder = tmp_path / "a" / "b"
    assert sorted(p.name for p in folder.iterdir()) == sorted([CHECKPOINT, METRICS, CURVES])
    rows = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    assert rows == result.epochs == load_checkpoint(folder / CHECKPOINT).meta["epochs"]
    assert seen == [(0, 12, 4), 1, 2, 3, 4, rows[0], 5, 6, 7, 8, rows[1], 9, 10, 11, 12, rows[2]]
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert (folder / CURVES).read_bytes()[:4] == b"\x89PNG"
    assert result.to_dict()["test_accuracy"] == result.test_accuracy == rows[-1]["test_accuracy"]
    assert result.settings["groups"] == "log:3"


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("stop", "shift"), [(1, 0), (3, 0), (4, 0), (7, 2), (11, 0)])
def test_a_run_that_was_stopped_ends_the_same(settings: TrainSettings, tmp_path: Path, stop: int, shift: int) -> None:
    settings = dataclasses.replace(settings, recipe=dataclasses.replace(settings.recipe, shift=shift))
    run_training(settings, tmp_path / "whole")
    calls = iter(range(100))
    with pytest.raises(InterruptedTrainingError, match=f"after step {stop} of 12, which is saved"):
        run_training(settings, tmp_path / "cut", stopping=lambda: next(calls) == stop - 1)
    with (tmp_path / "cut" / METRICS).open("a") as file:  # as after a kill between metrics and checkpoint
        file.write('{"epoch": 9}\n{"epo')
    run_training(settings, tmp_path / "cut", resume=True)
    assert_same(ends(tmp_path / "cut"), ends(tmp_path / "whole"))
    lines = (tmp_path / "cut" / METRICS).read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]
    result = run_training(settings, tmp_path / "cut", resume=True)  # nothing is left to do
    assert len(result.epochs) == 3


def with_recipe(settings: TrainSettings, **recipe: Any) -> TrainSettings:
    return dataclasses.replace(settings, recipe=dataclasses.replace(settings.recipe, **recipe))


def test_epochs_can_be_added(settings: TrainSettings, tmp_path: Path) -> None:
    """With a constant rate, the result equals that of a training that had them from the beginning."""
    for schedule, same in (("constant", True), ("cosine", False)):
        short, long = (with_recipe(settings, epochs=epochs, schedule=schedule) for epochs in (1, 3))
        run_training(long, tmp_path / f"{schedule} whole")
        run_training(short, tmp_path / schedule)
        run_training(long, tmp_path / schedule, resume=True)
        assert len((tmp_path / schedule / METRICS).read_text().splitlines()) == 3
        (arrays, facts), (others, other_facts) = ends(tmp_path / schedule), ends(tmp_path / f"{schedule} whole")
        assert (facts == other_facts) is same
        assert all(np.array_equal(arrays[name], others[name]) for name in arrays) is same


def test_the_learning_rate_of_the_steps_to_come_can_change(settings: TrainSettings, tmp_path: Path) -> None:
    run_training(with_recipe(settings, epochs=1, schedule="constant"), tmp_path)
    slower = with_recipe(settings, epochs=2, schedule="constant", lr=0.0025)
    assert [row["lr"] for row in run_training(slower, tmp_path, resume=True).epochs] == [0.02, 0.0025]
    assert load_checkpoint(tmp_path / CHECKPOINT).meta["config"]["lr"] == 0.0025


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_weights_that_are_not_finite_are_not_saved(settings: TrainSettings, tmp_path: Path) -> None:
    """The loss of the first step is computed before the update, so it is still finite."""
    with pytest.raises(DivergedError, match=r"a weight is not finite after step 1: .* diverged") as error:
        run_training(with_recipe(settings, lr=1e39, batch_size=60), tmp_path)
    assert error.value.saved == 0
    arrays, meta = load_checkpoint(tmp_path / CHECKPOINT)
    assert meta["training"]["step"] == 0
    assert all(np.isfinite(array).all() for array in arrays.values())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_that_is_not_finite_ends_the_training(settings: TrainSettings, tmp_path: Path) -> None:
    diverging = dataclasses.replace(settings, recipe=dataclasses.replace(settings.recipe, lr=1e9))
    with pytest.raises(TrainError, match=r"the loss is (nan|inf) at step \d"):
        run_training(diverging, tmp_path)
    assert (tmp_path / METRICS).read_text() == ""


def test_checkpoints_between_epochs(settings: TrainSettings, tmp_path: Path) -> None:
    found: list[int] = []

    class Recorder(Observer):
        def after(self, step: Any) -> None:
            found.append(load_checkpoint(tmp_path / CHECKPOINT).meta["training"]["step"])

    run_training(settings, tmp_path, checkpoint_every=3, observer=Recorder())
    assert found == [0, 0, 0, 3, 4, 4, 6, 6, 8, 9, 9, 9]  # every third step, and the epochs' ends: 4, 8


def test_a_run_that_cannot_resume_is_refused_and_nothing_is_overwritten(
    settings: TrainSettings, tmp_path: Path
) -> None:
    run_training(settings, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    replace = dataclasses.replace
    others = [
        ("already exists", settings, False),
        (
            "channels=8, not channels=4; resume with its own settings: --channels 8 --seed 0$",
            replace(settings, options={"channels": 4, "blocks": 1}, seed=1),
            True,
        ),
        ("blocks=1, not blocks=2; .*: --blocks 1$", replace(settings, options={"channels": 8}), True),
        (
            "model=residual, not model=lenet5; .*: residual --groups log:3 ",
            TrainSettings("lenet5", settings.data),
            True,
        ),
        ("groups=log:3, not groups=2", replace(settings, groups="2"), True),
        ("seed=0, not seed=1", replace(settings, seed=1), True),
        ("epochs must be at least 3", replace(settings, recipe=replace(settings.recipe, epochs=2)), True),
        ("momentum=0.9, not momentum=0.5", replace(settings, recipe=replace(settings.recipe, momentum=0.5)), True),
        ("data=cifar10:.*, not data=digits", replace(settings, data="digits"), True),
    ]
    for message, other, resume in others:
        with pytest.raises(TrainError, match=message):
            run_training(other, tmp_path, resume=resume)
    with pytest.raises(TrainError, match=r"cannot resume: .* there is no checkpoint"):
        run_training(settings, tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()
    contents = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(contents[:-1])
    with pytest.raises(TrainError, match=r"cannot resume: .* damaged"):
        run_training(settings, tmp_path, resume=True)
    assert (tmp_path / CHECKPOINT).read_bytes() == contents[:-1]
    save_checkpoint(tmp_path / CHECKPOINT, {"a": np.ones(1)}, {"a": 1})
    with pytest.raises(TrainError, match="not of a training"):
        run_training(settings, tmp_path, resume=True)
    assert {name: (tmp_path / name).read_bytes() for name in (METRICS, CURVES)} == {
        name: before[name] for name in (METRICS, CURVES)
    }


def test_an_option_may_be_given_or_left_at_its_default(settings: TrainSettings, tmp_path: Path) -> None:
    given = dataclasses.replace(settings, options={"channels": 4, "blocks": 2})
    default = dataclasses.replace(settings, options={"channels": 4})
    first = run_training(dataclasses.replace(default, recipe=Recipe(epochs=0)), tmp_path)
    assert first.settings["blocks"] == 2
    arrays, meta = load_checkpoint(tmp_path / CHECKPOINT)
    del meta["config"]["blocks"]  # as in older checkpoints
    save_checkpoint(tmp_path / CHECKPOINT, arrays, meta)
    for settings in (given, default):
        run_training(dataclasses.replace(settings, recipe=Recipe(epochs=0)), tmp_path, resume=True)


def test_a_checkpoint_of_something_else_is_refused(settings: TrainSettings, tmp_path: Path) -> None:
    run_training(settings, tmp_path)
    arrays, meta = load_checkpoint(tmp_path / CHECKPOINT)
    bad: list[tuple[str, dict[str, Any]]] = [
        ("not of a training", {"config": [1]}),
        ("not of a training", {"training": None}),
        ("not of a training", {"epochs": {}}),
        ("its entries differ", {"training": meta["training"] | {"rate": 3}}),  # of another version
        ("generators must contain", {"training": meta["training"] | {"generators": 3}}),
    ]
    for message, changes in bad:
        save_checkpoint(tmp_path / CHECKPOINT, arrays, meta | changes)
        before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
        with pytest.raises(TrainError, match=message):
            run_training(settings, tmp_path, resume=True)
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_other_images_are_noticed(settings: TrainSettings, tmp_path: Path) -> None:
    run_training(settings, tmp_path)
    file = Path(settings.data.removeprefix("cifar10:")) / "data_batch_3.bin"
    contents = file.read_bytes()
    try:
        file.write_bytes(contents[:100] + bytes([contents[100] ^ 1]) + contents[101:])
        with pytest.raises(TrainError, match=r"a training with other images; resume with its own settings$"):
            run_training(settings, tmp_path, resume=True)
    finally:
        file.write_bytes(contents)


# --- Shifts ---


@pytest.mark.parametrize("shape", [(9, 2, 5, 4), (6, 1, 7)])
def test_images_are_moved_and_their_border_repeated(backend: Backend, shape: tuple[int, ...]) -> None:
    images = np.arange(float(np.prod(shape))).reshape(shape)
    steps = rng(3).integers(0, 7, (shape[0], len(shape) - 2)) - 3
    assert len({tuple(step) for step in steps.tolist()}) >= 3
    expected = np.zeros(shape)
    for index in np.ndindex(shape):
        n, c, *where = index
        read = [min(max(i + s, 0), d - 1) for i, s, d in zip(where, steps[n], shape[2:], strict=True)]
        expected[index] = images[(n, c, *read)]
    given = backend.asarray(images)
    backend.assert_equal(shifted(given, 3, rng(3)), expected)
    np.testing.assert_array_equal(backend.to_numpy(given), images)


def test_shifts_are_part_of_the_training(settings: TrainSettings, tmp_path: Path) -> None:
    moving = dataclasses.replace(settings, recipe=dataclasses.replace(settings.recipe, shift=2))
    results = [run_training(given, tmp_path / str(i)) for i, given in enumerate((settings, moving))]
    assert results[0].epochs[-1]["train_loss"] != results[1].epochs[-1]["train_loss"]


def test_only_images_can_be_moved() -> None:
    model = Sequential(Linear(2, 2, rng=rng(0), dtype="float64"))
    with pytest.raises(ValueError, match=r"shift=1 needs images with spatial axes.*\(4, 2\)"):
        Recipe(shift=1).trainer(model, np.zeros((4, 2)), np.zeros(4, int), rng=rng(0))
