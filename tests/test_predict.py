"""``refconv predict``: a trained network on its test images and on image files, and refused files."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refconv.experiments.predict import TrainedNetwork, load_network, read_images
from refconv.experiments.probabilities import probabilities
from refconv.experiments.train import CHECKPOINT, TrainResult, TrainSettings, run_training
from refconv.nn import Dropout, Flatten, Linear, Recipe, Sequential, load_checkpoint, load_dataset, save_checkpoint
from tests.helpers import Backend, run_command
from tests.nn_helpers import rng, write_cifar

pytest.importorskip("safetensors", reason="safetensors is not installed: no checkpoints")
Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A training on a few 32×32 colour images, which are neither cropped nor resized."""
    data = write_cifar(tmp_path_factory.mktemp("cifar"), 12, 20, brightness=15)
    recipe = Recipe(epochs=1, batch_size=16)
    settings = TrainSettings(data=data, options={"channels": 4, "blocks": 0}, recipe=recipe)
    return run_training(settings, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def files(trained: TrainResult, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The first test images as files."""
    folder, found = tmp_path_factory.mktemp("images"), []
    records = Path(trained.settings["data"].removeprefix("cifar10:"), "test_batch.bin").read_bytes()
    for index, record in enumerate(np.frombuffer(records, "uint8").reshape(-1, 3073)[:3]):
        found.append(folder / f"{index}.png")
        Image.fromarray(record[1:].reshape(3, 32, 32).transpose(1, 2, 0)).save(found[-1])
    return found


def test_test_images_are_classified_as_after_the_training(trained: TrainResult, capsys: Any) -> None:
    code, out, err = run_command(capsys, "predict", trained.folder, "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert report["confusion"] == trained.confusion
    assert report["test_accuracy"] == trained.test_accuracy
    right = load_dataset(trained.settings["data"]).test_labels
    assert [found["right"] for found in report["predictions"]] == ["abcdefghij"[label] for label in right]
    code, out, err = run_command(capsys, "predict", trained.folder / CHECKPOINT)
    assert (code, err) == (0, "")
    assert f"test accuracy {100 * trained.test_accuracy:.2f} %" in out
    for name, row in zip(trained.classes, trained.confusion, strict=True):
        assert " ".join([name, *map(str, row)]) in " ".join(out.split())


def test_image_files_are_classified_as_the_same_images_of_the_data_set(
    trained: TrainResult, files: list[Path], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_dataset(trained.settings["data"])
    network = load_network(trained.folder)
    np.testing.assert_allclose(read_images(network, files), data.test_images[:3], atol=1e-5)
    code, out, err = run_command(capsys, "predict", trained.folder, *files, "--json")
    assert (code, err) == (0, "")
    expected = probabilities(network.model, data.test_images[:3])
    for index, found in enumerate(json.loads(out)["predictions"]):
        assert found["image"] == str(files[index])
        np.testing.assert_allclose(found["probabilities"], expected[index], atol=1e-5)
        assert found["class"] == "abcdefghij"[np.argmax(expected[index])]
    code, out, err = run_command(capsys, "predict", trained.folder, *files)
    assert (code, err) == (0, "")
    first = np.sort(expected[0])[::-1]
    row = next(line for line in out.splitlines() if "0.png" in line)
    assert re.findall(r"\d+\.\d", row) == [f"{100 * probability:.1f}" for probability in first[:3]]
    monkeypatch.setenv("COLUMNS", "40")
    _, out, _ = run_command(capsys, "predict", trained.folder, *files)
    rows = [line.split()[-2:] for line in out.splitlines() if "0.png" in line]
    likely = zip(np.argsort(-expected[0]), first, strict=True)
    assert rows == [["abcdefghij"[index], f"{100 * probability:.1f}"] for index, probability in likely][:3]


def test_an_image_is_prepared_as_the_network_expects(tmp_path: Path) -> None:
    """Cropping, resizing, inversion, conversion to grey and standardisation agree with hand calculation."""
    pixels = np.zeros((2, 4, 3), "uint8")
    pixels[:, 1:3] = [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]]
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    network = TrainedNetwork(Flatten(), {"side": 2}, ("a", "b"), ((0.25, 0.5),))
    grey = np.array([[0.299, 0.587], [0.114, 1.0]])
    for invert in (False, True):
        (found,) = read_images(network, [tmp_path / "wide.png"], invert=invert)
        np.testing.assert_allclose(found, [((1 - grey if invert else grey) - 0.25) / 0.5], atol=1e-6)


def test_probabilities_are_the_softmax_without_dropout(backend: Backend) -> None:
    model = Sequential(Dropout(0.9, rng=rng(0)), Linear(3, 2, rng=rng(1), xp=backend.xp))
    images = rng(2).normal(size=(5, 3)).astype("float32")
    weight, bias = (backend.to_numpy(parameter.value).astype("float64") for parameter in model.parameters())
    powers = np.exp(images @ weight.reshape(2, 3).T + bias)
    for batch_size in (2, 256):
        found = probabilities(model, images, batch_size=batch_size)
        np.testing.assert_allclose(found, powers / powers.sum(axis=1, keepdims=True), rtol=1e-5)
    assert model.training
    large = probabilities(model, 1e30 * images)
    np.testing.assert_array_equal(large.sum(axis=1), 1)


def test_other_array_modules_say_the_same(trained: TrainResult, files: list[Path], other_backend: Backend) -> None:
    images = read_images(load_network(trained.folder), files)
    one, other = (load_network(trained.folder, name) for name in ("numpy", other_backend.name))
    np.testing.assert_allclose(probabilities(other.model, images), probabilities(one.model, images), atol=1e-6)


def test_a_network_can_be_untrained_but_not_another(trained: TrainResult, tmp_path: Path, capsys: Any) -> None:
    arrays, meta = load_checkpoint(trained.folder / CHECKPOINT)
    changes: list[tuple[str, dict[str, Any]]] = [
        ("not one of refconv train", {"config": 3}),
        ("not one of refconv train", {"scale": None}),
        ("not one of refconv train", {"classes": ["a"]}),
        ("not one of refconv train", {"config": meta["config"] | {"model": "vgg"}}),
        ("not one of refconv train", {"config": meta["config"] | {"channels": 8}}),
        ("are not the ones that the network was trained on", {"config": meta["config"] | {"data_sha256": "0"}}),
    ]
    for message, change in changes:
        save_checkpoint(tmp_path / CHECKPOINT, arrays, meta | change)
        code, out, err = run_command(capsys, "predict", tmp_path)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err


class Boom:
    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was loaded",)


def test_other_files_than_checkpoints_and_images_are_one_line(
    trained: TrainResult, files: list[Path], tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "model.pt").write_bytes(pickle.dumps(Boom()))
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no image")
    for arguments, message in (
        ([], "Missing argument 'CHECKPOINT'. See refconv predict --help."),
        ([tmp_path / "none"], "there is no checkpoint"),
        ([tmp_path / "empty"], "there is no checkpoint"),
        ([tmp_path / "model.pt"], "damaged, or not a safetensors file"),
        ([trained.folder, tmp_path / "text.png"], "text.png is not an image"),
        ([trained.folder, files[0], tmp_path], "is not a file; expected an image"),
        ([trained.folder, ""], "must not be empty"),
        ([trained.folder, "--invert"], "--invert is only for images"),
        ([trained.folder, "--backend", "jax"], "'jax' is not an array module"),
    ):
        code, out, err = run_command(capsys, "predict", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err
