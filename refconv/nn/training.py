"""Training: the loop over batches, the accuracy of a model, and `Recipe`, the settings of a training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from refconv.arrays import (
    Array,
    array_namespace,
    device,
    dtype_of,
    index_dtype,
    moved,
    namespace_of,
    on_device,
    on_their_device,
    to_numpy,
)
from refconv.integers import as_int, cut, shown
from refconv.nn.base import Layer, adopted, check_rng, checked_state
from refconv.nn.loss import SoftmaxCrossEntropy
from refconv.nn.optim import SGD, Optimiser
from refconv.nn.schedule import Schedule, parse_schedule
from refconv.padding import pad, runs


class Step(NamedTuple):
    """The figures that a :class:`Trainer` yields after each step."""

    number: int
    """Number of steps done, from 1."""
    epoch: int
    """The epoch of the step, from 1."""
    images: int
    """Images in the batch."""
    loss: float
    """Mean over the epoch's images so far, each computed before its step."""
    accuracy: float
    """Fraction of the epoch's images so far that were classified correctly, each before its step."""
    ends_epoch: bool
    """Whether the step is the last of its epoch."""


class Trainer:
    """Training as ``for step in trainer``; it can stop after any step and resume from its state, with the same result.

    Each step is forward, loss, backward, and the optimiser's step.

    Parameters
    ----------
    model : Layer
        Returns logits (N, K). It is set to training.
    images : array (N, …)
        Inputs of the model.
    labels : integer array (N,)
        Classes 0 … K−1, of the same array module. NumPy images and labels are moved to the model's module and device.
    optimiser : SGD or Adam
        The optimiser of the model's parameters.
    epochs : int
        Number of passes through all images, each in a new order.
    batch_size : int
        Images per step; the last batch of an epoch may be smaller.
    rng : numpy.random.Generator
        Draws the order of the images and the shifts; a state gives the same draws on every array module.
    schedule : callable (float) -> float, optional
        Maps the completed part of the steps to a factor of the optimiser's initial learning rate, as from
        :func:`parse_schedule`; see the optimiser's ``change_lr``. By default the optimiser's rate is not changed.
    shift : int
        Maximum number of pixels by which each image is shifted along each spatial axis, drawn again for every use. The
        border is repeated to fill the gap.
    generators : mapping of str to numpy.random.Generator, optional
        Other generators whose states are part of the training state, such as the generators of :class:`Dropout` layers.

    Attributes
    ----------
    step : int
        Number of steps done.
    step_count, steps_per_epoch : int
        Total number of steps, and steps per epoch.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import SGD, Linear, Trainer
    >>> rng = np.random.default_rng(0)
    >>> images, labels = np.eye(4), np.array([0, 1, 1, 0])
    >>> model = Linear(4, 2, rng=rng, dtype="float64")
    >>> optimiser = SGD(model.parameters(), lr=0.5)
    >>> trainer = Trainer(model, images, labels, optimiser=optimiser, epochs=3, batch_size=3, rng=rng)
    >>> [(step.number, step.epoch, step.images) for step in trainer]
    [(1, 1, 3), (2, 1, 1), (3, 2, 3), (4, 2, 1), (5, 3, 3), (6, 3, 1)]
    """

    def __init__(
        self,
        model: Layer,
        images: Array,
        labels: Array,
        *,
        optimiser: Optimiser,
        epochs: int,
        batch_size: int,
        rng: np.random.Generator,
        schedule: Schedule | None = None,
        shift: int = 0,
        generators: Mapping[str, np.random.Generator] | None = None,
    ) -> None:
        images, labels = adopted(model, images), adopted(model, labels)
        self._xp = namespace_of({"images": images, "labels": labels})
        self._count = _check_data(images, labels)
        epochs, self._batch_size = as_int(epochs, "epochs", 0), as_int(batch_size, "batch_size", 1)
        if not isinstance(optimiser, Optimiser):
            raise TypeError(f"optimiser must be an SGD or Adam; got {shown(optimiser)}")
        self._shift = as_int(shift, "shift", 0)
        if self._shift and images.ndim < 3:
            raise ValueError(f"shift={shift} needs images with spatial axes, (N, C, D1, …); got {tuple(images.shape)}")
        if self._shift and self._shift > min(images.shape[2:]):
            raise ValueError(f"shift must be at most the size of the images, {tuple(images.shape[2:])}; got {shift}")
        self.model, self.optimiser = model.train(), optimiser
        self._images, self._labels, self._schedule, self._lr = images, labels, schedule, optimiser.lr
        self._generators = {"order": check_rng(rng), **(generators or {})}
        self._loss = SoftmaxCrossEntropy()
        self._batches = cut(self._count, self._batch_size)
        self.steps_per_epoch = len(self._batches)
        self.step, self.step_count = 0, epochs * self.steps_per_epoch
        self._order = np.zeros(0, "int64")  # the order in the current epoch, drawn at its first step
        self._epoch_loss, self._epoch_right = 0.0, 0  # sums over the epoch's images so far

    def __iter__(self) -> Iterator[Step]:
        """Take the remaining steps, and yield after each."""
        while self.step < self.step_count:
            with on_device(self._images):
                step = self._take()
            yield step

    def _take(self) -> Step:
        xp = self._xp
        epoch, index = divmod(self.step, self.steps_per_epoch)
        if index == 0:
            self._order = self._generators["order"].permutation(self._count).astype("int64")
            self._epoch_loss, self._epoch_right = 0.0, 0
        if self._schedule is not None:
            self.optimiser.change_lr(self._lr * self._schedule(self.step / self.step_count))
        part = self._batches[index]
        batch = xp.asarray(self._order[part], dtype=index_dtype(xp), device=device(self._images))
        labels = xp.take(self._labels, batch, axis=0)
        images = xp.take(self._images, batch, axis=0)
        if self._shift:
            images = shifted(images, self._shift, self._generators["order"])
        logits = self.model.forward(images)
        loss, right = self._loss.graded(logits, labels)
        self._epoch_loss += loss * (part.stop - part.start)
        self._epoch_right += right
        self.model.backward(self._loss.backward())
        self.optimiser.step()
        self.step += 1
        return Step(
            number=self.step,
            epoch=epoch + 1,
            images=part.stop - part.start,
            loss=self._epoch_loss / part.stop,
            accuracy=self._epoch_right / part.stop,
            ends_epoch=index + 1 == self.steps_per_epoch,
        )

    def state(self) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
        """Return the state on which the rest of the training depends, as arrays and as values that `json` can write.

        It consists of the model's state, the optimiser's state and learning rate, the number of steps, the order
        and the sums of the current epoch, and the state of every random generator.
        """
        arrays = {f"model.{path}": to_numpy(array) for path, array in self.model.state().items()}
        arrays |= {name: to_numpy(array) for name, array in self.optimiser.state().items()}
        arrays["order"] = self._order
        return arrays, {
            "step": self.step,
            "lr": self.optimiser.lr,
            "epoch_loss": self._epoch_loss,
            "epoch_right": self._epoch_right,
            "generators": {name: rng.bit_generator.state for name, rng in self._generators.items()},
        }

    def load_state(self, arrays: Mapping[str, np.ndarray[Any, Any]], meta: Mapping[str, Any]) -> None:
        """Restore a state returned by :meth:`state` of a trainer with the same arguments.

        A state of another training is refused. The numbers in a state are trusted, because a checkpoint has a checksum.

        Parameters
        ----------
        arrays, meta : mapping
            The two parts of the state.

        Raises
        ------
        ValueError, TypeError
            If the state belongs to another model or another training. Nothing is changed then.
        """
        own, optimiser = self.model.state(), self.optimiser.state()
        wanted = {"order", *(f"model.{path}" for path in own), *optimiser}
        if wanted != arrays.keys() or meta.keys() != _META:
            raise ValueError("the state belongs to another model or another training: its entries differ")
        step, order = as_int(meta["step"], "step", 0, self.step_count), arrays["order"]
        if step and len(order) != self._count:
            raise ValueError(f"the state must come from training on {self._count} images; got {len(order)}")
        own = checked_state("model", own, {path: arrays[f"model.{path}"] for path in own})
        optimiser = checked_state("optimiser", optimiser, {name: arrays[name] for name in optimiser})
        _set_generators(copy.deepcopy(self._generators), meta["generators"])  # on copies first: it may fail halfway
        self.model.load_state(own)
        self.optimiser.load_state(optimiser)
        self.optimiser.lr = meta["lr"]
        self.step, self._order = step, order
        self._epoch_loss, self._epoch_right = meta["epoch_loss"], meta["epoch_right"]
        _set_generators(self._generators, meta["generators"])


def accuracy(model: Layer, images: Array, labels: Array, *, batch_size: int = 256) -> float:
    """Return the fraction of images whose largest logit is that of the correct class, with the model set to testing.

    Parameters
    ----------
    model, images, labels
        As for :class:`Trainer`.
    batch_size : int
        Images per forward pass. It changes the result by rounding at most.

    Returns
    -------
    float
        From 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import Flatten, accuracy
    >>> accuracy(Flatten(), np.array([[1., 0.], [2., 3.]]), np.array([0, 0]))
    0.5
    """
    images, labels = adopted(model, images), adopted(model, labels)
    namespace_of({"images": images, "labels": labels})
    count = _check_data(images, labels)
    batch_size = as_int(batch_size, "batch_size", 1)
    right, training = 0, model.training
    model.eval()
    for part in cut(count, batch_size):
        right += _count_right(model.forward(images[part, ...]), labels[part])
    model.forget()
    if training:
        model.train()
    return right / count


@dataclass(frozen=True)
class Recipe:
    """Settings for training a classifier by stochastic gradient descent.

    Parameters
    ----------
    epochs, batch_size : int
        As for :class:`Trainer`.
    lr, momentum, weight_decay : float
        As for :class:`SGD`.
    schedule : str
        As for :func:`parse_schedule`.
    shift : int
        As for :class:`Trainer`.
    """

    epochs: int = 8
    batch_size: int = 32
    lr: float = 0.02
    schedule: str = "steps:0.75"
    momentum: float = 0.9
    weight_decay: float = 0.0005
    shift: int = 0

    def trainer(
        self,
        model: Layer,
        images: Array,
        labels: Array,
        *,
        rng: np.random.Generator,
        generators: Mapping[str, np.random.Generator] | None = None,
        optimiser: Callable[[float, float, float], Optimiser] | None = None,
    ) -> Trainer:
        """Return a trainer for a model; NumPy images and labels are moved to the model's device.

        `optimiser` makes the model's optimiser from lr, momentum and weight_decay; by default it is :class:`SGD`.
        """
        rates = (self.lr, self.momentum, self.weight_decay)
        return Trainer(
            model,
            *to_model(model, images, labels),
            optimiser=SGD(model.parameters(), *rates) if optimiser is None else optimiser(*rates),
            epochs=self.epochs,
            batch_size=self.batch_size,
            rng=rng,
            schedule=parse_schedule(self.schedule),
            shift=self.shift,
            generators=generators,
        )


@on_their_device
def shifted(images: Array, most: int, rng: np.random.Generator) -> Array:
    r"""Return images, each shifted at random; the border is repeated to fill the gap.

    .. math:: y[n, c, i] = x[n,\, c,\, \min(\max(i + s[n], 0),\, D - 1)], \qquad
              s[n] \in \{-\mathrm{most}, \dots, \mathrm{most}\} \text{ on each axis}

    Parameters
    ----------
    images : array (N, C, D1, …, Dd)
        An array of any module.
    most : int
        The largest shift along each axis.
    rng : numpy.random.Generator
        Draws the shifts, all equally likely.

    Returns
    -------
    array (N, C, D1, …, Dd)
        A new array.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn.training import shifted
    >>> shifted(np.arange(4.0).reshape(1, 1, 4), 2, np.random.default_rng(0))   # s = 2
    array([[[2., 3., 3., 3.]]])
    """
    xp, size = array_namespace(images), images.shape[2:]
    axes = [runs(n, most, most, "replicate") for n in size]
    padded = pad(xp, images, axes, [n + 2 * most for n in size], images.dtype)
    starts = rng.integers(0, 2 * most + 1, (images.shape[0], len(size))).tolist()
    moved = [
        padded[(n, slice(None), *(slice(start, start + d) for start, d in zip(image, size, strict=True)))]
        for n, image in enumerate(starts)
    ]
    return xp.stack(moved) if moved else images


def to_model(model: Layer, images: Array, labels: Array) -> tuple[Array, Array]:
    """Return NumPy images and labels as arrays of the model's module and device, and images in its data type."""
    weight = model.parameters()[0].value
    return moved(images.astype(dtype_of(weight)), weight), moved(labels, weight)


_META = {"step", "lr", "epoch_loss", "epoch_right", "generators"}
"""The entries of a state other than arrays."""


def _set_generators(generators: Mapping[str, np.random.Generator], states: Any) -> None:
    """Set each random generator to the state of its name."""
    if not isinstance(states, Mapping) or generators.keys() != states.keys():
        raise ValueError(f"generators must contain the states of {', '.join(generators)}; got {shown(states)}")
    for name, rng in generators.items():
        try:
            rng.bit_generator.state = states[name]
        except (ValueError, TypeError, KeyError, OverflowError, AttributeError) as error:
            kind = type(rng.bit_generator).__name__
            raise ValueError(
                f"generators[{name!r}] must be the state of a {kind}; got {shown(states[name])}"
            ) from error


@on_their_device
def _count_right(logits: Array, labels: Array) -> int:
    xp = array_namespace(logits, labels)
    answers = xp.astype(xp.argmax(logits, axis=1), labels.dtype, copy=False)
    return int(xp.sum(xp.astype(answers == labels, xp.int64)))


def _check_data(images: Array, labels: Array) -> int:
    """Check that there is one label per image, and return their number."""
    if images.ndim < 1 or labels.ndim != 1 or images.shape[0] != labels.shape[0] or not labels.shape[0]:
        raise ValueError(
            "images and labels must have shapes (N, …) and (N,) with one N ≥ 1; got "
            f"{tuple(images.shape)} and {tuple(labels.shape)}"
        )
    return int(labels.shape[0])
