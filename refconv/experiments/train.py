"""One training, from the beginning or from a checkpoint: checkpoints, metrics, learning curves."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import refconv
from refconv.arrays import elements
from refconv.experiments.probabilities import confusion_matrix, probabilities
from refconv.experiments.trainable import build_model, find_model
from refconv.files import alone_in, replacing
from refconv.integers import as_int
from refconv.nn import CheckpointError, Layer, Recipe, Split, Trainer, accuracy, load_checkpoint, save_checkpoint
from refconv.nn.checkpoint import Checkpoint
from refconv.nn.data import load_dataset
from refconv.nn.optim import Optimiser
from refconv.nn.training import to_model
from refconv.packages import check_packages
from refconv.progress import Observer

if TYPE_CHECKING:
    from distributed import Client

CHECKPOINT, METRICS, CURVES = "checkpoint.safetensors", "metrics.jsonl", "curves.png"
_PACKAGES = {"safetensors": "safetensors", "matplotlib": "Matplotlib"}
"""Modules that every training needs, for its checkpoints and curves, and their packages."""


class TrainError(Exception):
    """A training cannot start or resume; the message says what to do."""


class DivergedError(TrainError):
    """The loss or a weight is not finite; the last checkpoint is from before.

    Attributes
    ----------
    saved : int
        The step of the last checkpoint.
    """

    def __init__(self, what: str, saved: int) -> None:
        super().__init__(f"{what}: the training diverged")
        self.saved = saved


class InterruptedTrainingError(Exception):
    """A training was asked to stop; its state is saved."""

    def __init__(self, step: int, step_count: int) -> None:
        super().__init__(f"interrupted after step {step} of {step_count}, which is saved")


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a training. Two trainings with equal settings end with the same bits.

    Attributes
    ----------
    model : str
        A name of :data:`refconv.experiments.trainable.TRAINABLE`.
    data : str
        See :func:`refconv.nn.data.load_dataset`.
    groups : str or None
        See :func:`refconv.cost.parse_groups`; None means the model's default.
    options : dict
        The model's other options.
    side : int or None
        Height and width to which images are resized; None means the model's default, or else the data set's size.
    backend : str
        Array module.
    seed : int
        Draws the initial weights, the order of the images, and the dropped elements, but not the split of the data.
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


@dataclass(frozen=True)
class TrainResult:
    """The result of a training.

    Attributes
    ----------
    settings : dict
        Settings of the training.
    parameters : int
        Number of parameters of the model.
    epochs : list of dict
        The metrics, one row per epoch.
    classes : tuple of str
        Names of the classes.
    confusion : list of list of int, or None
        How many test images of each class (row) were taken for each class (column); None if there was no epoch.
    folder : Path
        Folder with the checkpoint, metrics and curves.
    """

    settings: dict[str, Any]
    parameters: int
    epochs: list[dict[str, Any]]
    classes: tuple[str, ...]
    confusion: list[list[int]] | None
    folder: Path

    @property
    def test_accuracy(self) -> float | None:
        """Fraction of correctly classified test images after the last epoch; None if there was no epoch."""
        return self.epochs[-1]["test_accuracy"] if self.epochs else None

    def to_dict(self) -> dict[str, Any]:
        """Return the result as one object that `json.dumps` can write."""
        return {
            "settings": self.settings,
            "parameters": self.parameters,
            "test_accuracy": self.test_accuracy,
            "classes": list(self.classes),
            "confusion": self.confusion,
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
    cluster: contextlib.AbstractContextManager[Client] | None = None,
) -> TrainResult:
    """Train a network, with checkpoints: a training that is interrupted and resumed gives the same result.

    The state is saved at the beginning, after each epoch, every `checkpoint_every` steps and when `stopping` is true.

    Parameters
    ----------
    settings : TrainSettings
        Settings of the training.
    out : path
        Folder for ``checkpoint.safetensors``, ``metrics.jsonl`` (one object per line and epoch) and ``curves.png``.
        Created if necessary.
    resume : bool
        Resume from the checkpoint in `out`. The settings must be the same (:func:`saved_settings` returns them), but
        there may be more epochs, and another learning rate from then on. A schedule spans all epochs, so more of them
        stretch it.
    checkpoint_every : int, optional
        Steps between checkpoints, in addition to the checkpoint after each epoch.
    observer : Observer, optional
        Called for every step.
    stopping : callable () -> bool, optional
        Called after each step; if it returns true, the training saves its state and stops.
    cluster : context manager of distributed.Client, optional
        Train AlexNet's towers, one per group, on the workers of this Dask cluster, which
        :func:`refconv.distributed.open_cluster` returns: see :class:`refconv.distributed.RemoteTowers`. It is opened
        after the settings have been checked. The checkpoints are the same as in one process.

    Raises
    ------
    TrainError
        If there is a checkpoint and `resume` is false, or no checkpoint and it is true; if another process trains in
        `out`; if the checkpoint is damaged or belongs to a training with other settings. Nothing is written then.
    DivergedError
        If the loss or a weight is not finite; earlier files remain.
    InterruptedTrainingError
        If `stopping` returned true; the training can be resumed.
    refconv.distributed.TowerLostError
        If a worker of `cluster` ended; the training can be resumed from its last checkpoint.
    ValueError, TypeError, ImportError, refconv.BackendError
        If a setting is wrong, or a package is missing.
    OSError
        If a file cannot be written; earlier files remain.
    """
    folder, observer = Path(out), Observer() if observer is None else observer
    every = None if checkpoint_every is None else as_int(checkpoint_every, "checkpoint_every", 1)
    check_packages("training needs", _PACKAGES)
    _check_out(folder, resume)
    with contextlib.ExitStack() as stack:
        prepared = _prepare(settings, cluster, stack)
        if not resume:
            folder.mkdir(parents=True, exist_ok=True)
        if not stack.enter_context(alone_in(folder)):
            raise TrainError(f"{folder} is in use by another training or comparison; choose another --out, or wait")
        _check_out(folder, resume)  # again, now that no other process can change it
        return _run(prepared, settings.recipe.batch_size, folder, resume, every, observer, stopping)


def saved_settings(out: str | os.PathLike[str]) -> TrainSettings:
    """Return the settings of the training that an earlier :func:`run_training` saved.

    Parameters
    ----------
    out : path
        Its folder.

    Raises
    ------
    TrainError
        If there is no checkpoint, or it is damaged or not of a training.
    """
    folder = Path(out)
    _check_out(folder, resume=True)
    config = _checked(_load(folder).meta, folder)["config"]
    try:
        return TrainSettings(
            options={name: config[name] for name in find_model(config["model"]).options if name in config},
            recipe=Recipe(**{setting.name: config[setting.name] for setting in fields(Recipe)}),
            **{name: config[name] for name in ("model", "data", "groups", "side", "backend", "seed")},
        )
    except (KeyError, ValueError) as error:
        raise TrainError(f"{folder / CHECKPOINT}: a checkpoint, but not of a training") from error


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
        _compare(_checked(saved.meta, folder), config, folder)
        try:
            trainer.load_state(saved.arrays, saved.meta["training"])
        except (ValueError, TypeError, KeyError) as error:
            raise TrainError(f"{folder / CHECKPOINT}: {error}") from error
        rows = saved.meta["epochs"]

    saved_step = trainer.step

    def save() -> None:
        nonlocal saved_step
        arrays, training = trainer.state()
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise DivergedError(f"a weight is not finite after step {trainer.step}", saved_step)
        meta = {
            "config": config,
            "classes": data.classes,
            "scale": data.scale,
            "training": training,
            "epochs": rows,
            "version": refconv.__version__,
        }
        save_checkpoint(folder / CHECKPOINT, arrays, meta)
        saved_step = trainer.step

    if not resume:
        save()
    _write_metrics(folder, rows)  # removes an extra or incomplete line of an earlier run
    observer.begin(trainer.step, trainer.step_count, trainer.steps_per_epoch)
    test = to_model(model, data.test_images, data.test_labels)
    started, images = time.perf_counter(), 0
    for step in trainer:
        images += step.images
        if not math.isfinite(step.loss):
            raise DivergedError(f"the loss is {step.loss} at step {step.number}", saved_step)
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
    confusion = None
    if rows:
        predicted = probabilities(model, data.test_images, batch_size=batch_size).argmax(axis=1)
        confusion = confusion_matrix(data.test_labels, predicted, len(data.classes))
    return TrainResult(config, parameters, rows, data.classes, confusion, folder)


def _check_out(folder: Path, resume: bool) -> None:
    """Refuse a folder with a checkpoint, or, to resume, a folder without one."""
    for path in (folder / METRICS, folder / CURVES):
        if path.exists() and not path.is_file():  # writing to a pipe might never end
            raise TrainError(f"{path} is not a file; choose another --out")
    path = folder / CHECKPOINT
    if resume and not path.exists():
        raise TrainError(f"cannot resume: {path}: there is no checkpoint")
    if path.exists() and not resume:
        raise TrainError(f"{path} already exists: --resume continues from it, another --out starts afresh")


def _load(folder: Path) -> Checkpoint:
    try:
        return load_checkpoint(folder / CHECKPOINT)
    except CheckpointError as error:
        raise TrainError(f"cannot resume: {error}") from error


def _prepare(
    settings: TrainSettings, cluster: contextlib.AbstractContextManager[Client] | None, stack: contextlib.ExitStack
) -> tuple[dict[str, Any], Layer, Split, Trainer]:
    """Return the full settings, the model, the data, and the trainer at its first step.

    The end of `stack` removes towers from the workers of `cluster`, and closes it.
    """
    xp = refconv.load_backend(settings.backend)
    entry, seed = find_model(settings.model), as_int(settings.seed, "seed", 0)
    data = load_dataset(settings.data, side=entry.side if settings.side is None else settings.side)
    groups = entry.groups if settings.groups is None else settings.groups
    rng, order, dropout = np.random.default_rng(seed).spawn(3)
    shape = {
        "c_in": data.train_images.shape[1],
        "classes": len(data.classes),
        "side": data.train_images.shape[2],
    }
    generators: dict[str, Any] = {"rng": rng, "dropout_rng": dropout}
    optimiser: Callable[[float, float, float], Optimiser] | None = None
    model: Layer
    if cluster is None:
        model = build_model(settings.model, groups, settings.options, **shape, **generators, xp=xp)
    else:
        batch = min(settings.recipe.batch_size, len(data.train_labels))
        model, optimiser = _towers(settings, groups, cluster, batch, shape, generators, stack)
    trainer = settings.recipe.trainer(
        model,
        data.train_images,
        data.train_labels,
        rng=order,
        generators={"dropout": dropout},
        optimiser=optimiser,
    )
    config = {
        "model": settings.model,
        "groups": groups,
        **entry.options,
        **settings.options,
        "data": settings.data,
        "data_sha256": fingerprint(data),
        "side": data.train_images.shape[2],
        "backend": settings.backend,
        "seed": seed,
        **asdict(settings.recipe),
    }
    return config, model, data, trainer


def _towers(
    settings: TrainSettings,
    groups: str,
    cluster: contextlib.AbstractContextManager[Client],
    batch: int,
    shape: dict[str, Any],
    generators: dict[str, Any],
    stack: contextlib.ExitStack,
) -> tuple[Layer, Callable[[float, float, float], Optimiser]]:
    """Return AlexNet's towers on a cluster, and what makes their optimiser."""
    from refconv.distributed import RemoteTowers
    from refconv.distributed.report import TowersSettings, predicted_bytes
    from refconv.distributed.towers import RemoteSGD

    if settings.model != "alexnet":
        raise TrainError(f"towers need the model alexnet; got {settings.model}")
    predicted = predicted_bytes(TowersSettings(groups, batch, **shape, **settings.options))
    options = shape | settings.options | generators
    client = stack.enter_context(cluster)
    model = stack.enter_context(RemoteTowers(client, groups, backend=settings.backend, predicted=predicted, **options))
    return model, lambda lr, momentum, weight_decay: RemoteSGD(model, lr, momentum, weight_decay)


def fingerprint(data: Split) -> str:
    """Return the SHA-256 of a data set, as hexadecimal digits."""
    digest = hashlib.sha256("\n".join(data.classes).encode())
    for array in data[:4]:
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _checked(meta: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the values of a checkpoint, which must be a training's."""
    kinds = {"config": dict, "training": dict, "epochs": list}
    if not all(isinstance(meta.get(key), kind) for key, kind in kinds.items()):
        raise TrainError(f"{folder / CHECKPOINT}: a checkpoint, but not of a training")
    return meta


def _compare(meta: dict[str, Any], config: dict[str, Any], folder: Path) -> None:
    """Refuse a checkpoint of a training with other settings."""
    path = folder / CHECKPOINT
    before = find_model(config["model"]).options | meta["config"]  # older checkpoints have no defaults of options
    if config["epochs"] < before.get("epochs", 0):
        raise TrainError(f"epochs must be at least {before['epochs']} to resume {path}; got {config['epochs']}")
    pairs = {key: (before.get(key), config.get(key)) for key in [*config, *before] if key not in ("epochs", "lr")}
    if differing := {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}:
        key, (was, now) = next(iter(differing.items()))
        what = "other images" if key == "data_sha256" else f"{key}={was}, not {key}={now}"
        own = shlex.join(word for key, (was, _) in differing.items() for word in _argument(key, was))
        raise TrainError(f"{path} belongs to a training with {what}; resume with its own settings{own and ': '}{own}")


def _argument(setting: str, value: Any) -> list[str]:
    """Return the words of ``refconv train`` that choose a setting."""
    if setting == "data_sha256" or value is None:
        return []
    return [str(value)] if setting == "model" else [f"--{setting.replace('_', '-')}", str(value)]


def _write_metrics(folder: Path, rows: list[dict[str, Any]]) -> None:
    with replacing(folder / METRICS) as partial:
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _draw(folder: Path, config: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    from refconv.experiments.figures import learning_curves

    data = config["data"].partition(":")[0]
    title = f"{config['model']}, groups={config['groups']}, on {data}, seed {config['seed']}"
    with replacing(folder / CURVES) as partial:
        partial.write_bytes(learning_curves(rows, title))
