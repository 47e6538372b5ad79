"""One training, from beginning to end or from where it stopped: checkpoints, metrics, learning curves."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import refconv
from refconv.arrays import elements
from refconv.experiments.catalogue import build_model, find_model
from refconv.integers import as_int
from refconv.nn import CheckpointError, Layer, Recipe, Split, Step, Trainer, accuracy, load_checkpoint, save_checkpoint
from refconv.nn.checkpoint import Checkpoint, alone_in, replacing
from refconv.nn.data import load_dataset
from refconv.nn.training import to_model

CHECKPOINT, METRICS, CURVES = "checkpoint.safetensors", "metrics.jsonl", "curves.png"
_ROW = {
    "epoch",
    "step",
    "lr",
    "train_loss",
    "train_accuracy",
    "test_accuracy",
    "seconds",
    "images_per_second",
}
"""The metrics of an epoch."""


class TrainError(Exception):
    """A training cannot begin or go on; the message says what to do."""


class InterruptedTrainingError(Exception):
    """A training was asked to stop, and saved where it stands."""

    def __init__(self, step: int, step_count: int) -> None:
        super().__init__(f"interrupted after step {step} of {step_count}, which is saved")


@dataclass(frozen=True)
class TrainSettings:
    """What is trained on what, and how. Two trainings of equal settings end with the same bits.

    Attributes
    ----------
    model : str
        A name of :data:`refconv.experiments.catalogue.MODELS`.
    data : str
        As of :func:`refconv.nn.data.load_dataset`.
    groups : str or None
        As of :func:`refconv.cost.parse_groups`; None is the model's own.
    options : dict
        The model's other options.
    side : int or None
        Height and width that the images are brought to; None is the model's own, or else the data set's.
    backend : str
        Array module.
    seed : int
        Draws the initial weights, the order of the images, and what is dropped. The split of the data stays the same.
    recipe : Recipe
        Epochs, batch size, learning rate and its schedule, momentum, weight decay.
    """

    model: str = "residual"
    data: str = "digits"
    groups: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    side: int | None = None
    backend: str = "numpy"
    seed: int = 0
    recipe: Recipe = field(default_factory=Recipe)


class Observer:
    """Is told how a training proceeds. This one keeps silent; subclasses print."""

    def begin(self, step: int, step_count: int, steps_per_epoch: int) -> None:
        """Take note of where the training begins (not at 0 if it goes on) and how long it will be."""

    def after(self, step: Step) -> None:
        """Take note of one step."""

    def epoch(self, row: dict[str, Any]) -> None:
        """Take note of an epoch: a line of the metrics."""


@dataclass(frozen=True)
class TrainResult:
    """What a training reached.

    Attributes
    ----------
    settings : dict
        What was trained, and how.
    parameters : int
        Of the model.
    epochs : list of dict
        The metrics, a row for each epoch.
    folder : Path
        Where checkpoint, metrics and curves are.
    """

    settings: dict[str, Any]
    parameters: int
    epochs: list[dict[str, Any]]
    folder: Path

    @property
    def test_accuracy(self) -> float | None:
        """Fraction of the test images told right after the last epoch; None if there was no epoch."""
        return self.epochs[-1]["test_accuracy"] if self.epochs else None

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as one object that `json.dumps` can write."""
        return {
            "settings": self.settings,
            "parameters": self.parameters,
            "test_accuracy": self.test_accuracy,
            "epochs": self.epochs,
            "checkpoint": str(self.folder / CHECKPOINT),
            "metrics": str(self.folder / METRICS),
            "curves": str(self.folder / CURVES),
        }


def run_training(
    settings: TrainSettings,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    checkpoint_every: int | None = None,
    observer: Observer | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train a network, with checkpoints from which a training that was cut off goes on as if it had not been.

    The state is saved at the beginning, after each epoch, every `checkpoint_every` steps and when it is asked to stop.

    Parameters
    ----------
    settings : TrainSettings
        What is trained, and how.
    out : path
        Folder for ``checkpoint.safetensors``, ``metrics.jsonl`` (an object a line, one for each epoch) and
        ``curves.png``. It is made if need be.
    resume : bool
        Go on from the checkpoint in `out`.
    checkpoint_every : int, optional
        Steps between checkpoints, beside those after each epoch.
    observer : Observer, optional
        Is told of every step.
    stopping : callable () -> bool, optional
        Asked after each step whether to save and stop.

    Raises
    ------
    TrainError
        If there is a checkpoint and `resume` is false, or none and it is true; if another process trains in `out`; if
        the checkpoint is damaged or of a training with other settings. Nothing is written then. Also if the loss is no
        longer a finite number; what was saved before stays.
    InterruptedTrainingError
        If `stopping` asked for it; the training can be resumed.
    ValueError, TypeError, ImportError, refconv.BackendError
        If a setting is wrong, or a package is missing.
    OSError
        If a file cannot be written; what was saved before stays.
    """
    folder, observer = Path(out), Observer() if observer is None else observer
    every = None if checkpoint_every is None else as_int(checkpoint_every, "checkpoint_every", 1)
    _check_out(folder, resume)
    prepared = _prepare(settings)
    if not resume:
        folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder) as alone:
        if not alone:
            raise TrainError(f"{folder} is in use by another training or comparison; choose another --out, or wait")
        _check_out(folder, resume)  # again, now that nobody else changes it
        return _run(prepared, settings.recipe.batch_size, folder, resume, every, observer, stopping)


def _run(
    prepared: tuple[dict[str, Any], Layer, Split, Trainer],
    batch_size: int,
    folder: Path,
    resume: bool,
    every: int | None,
    observer: Observer,
    stopping: Callable[[], bool],
) -> TrainResult:
    config, model, data, trainer = prepared
    rows: list[dict[str, Any]] = []
    if resume:
        saved = _load(folder)
        _compare(saved.meta, config, folder)
        try:
            trainer.load_state(saved.arrays, saved.meta["training"])
        except (ValueError, TypeError, KeyError) as error:
            raise TrainError(f"{folder / CHECKPOINT}: {error}") from error
        rows = saved.meta["epochs"]
        if not _are_rows(rows, trainer.step // trainer.steps_per_epoch):
            raise TrainError(f"{folder / CHECKPOINT}: its metrics are not those of the epochs that it has done")

    def save() -> None:
        arrays, training = trainer.state()
        meta = {"config": config, "training": training, "epochs": rows, "version": refconv.__version__}
        save_checkpoint(folder / CHECKPOINT, arrays, meta)

    if not resume:
        save()
    _write_metrics(folder, rows)  # a line too many, or half a line, may stand there from before
    observer.begin(trainer.step, trainer.step_count, trainer.steps_per_epoch)
    test = to_model(model, data.test_images, data.test_labels)
    started, images = time.perf_counter(), 0
    for step in trainer.steps():
        images += step.images
        if not math.isfinite(step.loss):
            raise TrainError(
                f"the loss is {step.loss} at step {step.number}: the training diverged; begin anew with a smaller --lr"
            )
        observer.after(step)
        if step.ends_epoch:
            seconds = time.perf_counter() - started
            rows.append(
                {
                    "epoch": step.epoch,
                    "step": step.number,
                    "lr": trainer.optimiser.lr,
                    "train_loss": step.loss,
                    "train_accuracy": step.accuracy,
                    "test_accuracy": accuracy(model, *test, batch_size=batch_size),
                    "seconds": round(seconds, 3),
                    "images_per_second": round(images / seconds, 1),
                }
            )
        stop = stopping() and step.number < trainer.step_count
        if step.ends_epoch or stop or (every is not None and step.number % every == 0):
            save()
        if step.ends_epoch:
            with (folder / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            observer.epoch(rows[-1])
            started, images = time.perf_counter(), 0
        if stop:
            raise InterruptedTrainingError(trainer.step, trainer.step_count)
    _draw(folder, config, rows)
    parameters = sum(elements(parameter.value.shape) for parameter in model.parameters())
    return TrainResult(config, parameters, rows, folder)


def _check_out(folder: Path, resume: bool) -> None:
    """Refuse a folder that holds a checkpoint, or one that holds none if it is to go on from one."""
    path = folder / CHECKPOINT
    if resume and not path.exists():
        raise TrainError(f"cannot resume: {path}: there is no checkpoint")
    if path.exists() and not resume:
        raise TrainError(f"{path} is there already: --resume goes on from it, another --out begins anew")


def _load(folder: Path) -> Checkpoint:
    try:
        return load_checkpoint(folder / CHECKPOINT)
    except CheckpointError as error:
        raise TrainError(f"cannot resume: {error}") from error


def _prepare(settings: TrainSettings) -> tuple[dict[str, Any], Layer, Split, Trainer]:
    """Return the settings in full, the model, the data, and the training about to begin."""
    xp = refconv.load_backend(settings.backend)
    entry, seed = find_model(settings.model), as_int(settings.seed, "seed", 0)
    data = load_dataset(settings.data, side=entry.side if settings.side is None else settings.side)
    groups = entry.groups if settings.groups is None else settings.groups
    rng, order, dropout = np.random.default_rng(seed).spawn(3)
    model = build_model(
        settings.model,
        groups,
        settings.options,
        c_in=data.train_images.shape[1],
        classes=len(data.classes),
        side=data.train_images.shape[2],
        rng=rng,
        dropout_rng=dropout,
        xp=xp,
    )
    trainer = settings.recipe.trainer(
        model, data.train_images, data.train_labels, rng=order, generators={"dropout": dropout}
    )
    config = {
        "model": settings.model,
        "groups": groups,
        **settings.options,
        "data": settings.data,
        "data_sha256": fingerprint(data),
        "side": data.train_images.shape[2],
        "backend": settings.backend,
        "seed": seed,
        **asdict(settings.recipe),
    }
    return config, model, data, trainer


def fingerprint(data: Split) -> str:
    """Return the SHA-256 of a data set, as hexadecimal digits."""
    digest = hashlib.sha256("\n".join(data.classes).encode())
    for array in data[:4]:
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _compare(meta: dict[str, Any], config: dict[str, Any], folder: Path) -> None:
    """Refuse a checkpoint of a training with other settings."""
    before = meta.get("config")
    if not isinstance(before, dict) or not isinstance(meta.get("training"), dict) or "epochs" not in meta:
        raise TrainError(f"{folder / CHECKPOINT}: a checkpoint, but not of a training")
    for key in [*config, *before]:
        if before.get(key) != config.get(key):
            was, now = before.get(key), config.get(key)
            what = "other images" if key == "data_sha256" else f"{key}={was}, not {key}={now}"
            raise TrainError(f"{folder / CHECKPOINT} is of a training with {what}: it can go on only as it began")


def _are_rows(rows: Any, epochs: int) -> bool:
    """Tell whether these are the metrics of so many epochs, finite numbers all."""
    return (
        isinstance(rows, list)
        and len(rows) == epochs
        and all(isinstance(row, dict) and row.keys() == _ROW for row in rows)
        and all(isinstance(value, int | float) and math.isfinite(value) for row in rows for value in row.values())
    )


def _write_metrics(folder: Path, rows: list[dict[str, Any]]) -> None:
    with replacing(folder / METRICS) as partial:
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _draw(folder: Path, config: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    from refconv.experiments.figures import learning_curves

    data = config["data"].partition(":")[0]
    title = f"{config['model']}, groups={config['groups']}, on {data}, seed {config['seed']}"
    with replacing(folder / CURVES) as partial:
        partial.write_bytes(learning_curves(rows, title))
