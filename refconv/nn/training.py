"""Training: the loop over batches, what it reaches, and the digits as a ready recipe."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from refconv.arrays import Array, Namespace, array_namespace, device, elements, load_backend
from refconv.integers import as_int, shown
from refconv.nn.base import Layer
from refconv.nn.data import Split, load_digits_split
from refconv.nn.loss import SoftmaxCrossEntropy
from refconv.nn.models import Grouping, digits_network
from refconv.nn.optim import SGD
from refconv.tiling import cut

Progress = Callable[[int, float], object]
"""Called after each epoch with its number, from 1, and its mean loss."""


def fit(
    model: Layer,
    images: Array,
    labels: Array,
    *,
    epochs: int,
    batch_size: int,
    optimiser: SGD,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> list[float]:
    """Train a classifier: forward, loss, backward, step, for each batch of each epoch.

    Parameters
    ----------
    model : Layer
        Gives logits (N, K).
    images : array (N, …)
        What the model takes.
    labels : integer array (N,)
        Classes 0 … K−1, of the same array module.
    epochs : int
        Times to go through all images, each time in a new order.
    batch_size : int
        Images per step; the last batch of an epoch may be smaller.
    optimiser : SGD
        Of the model's parameters.
    rng : numpy.random.Generator
        Shuffles: the same state gives the same order on every array module.
    progress : callable (epoch, loss), optional
        Called after each epoch with its number, from 1, and its mean loss. It may change ``optimiser.lr``.

    Returns
    -------
    list of float
        The mean loss of each epoch, as it was before each step.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import SGD, Linear, fit
    >>> rng = np.random.default_rng(0)
    >>> images = rng.normal(size=(64, 2))
    >>> labels = (images[:, 0] > images[:, 1]).astype("int64")
    >>> model = Linear(2, 2, rng=rng, dtype="float64")
    >>> losses = fit(model, images, labels, epochs=5, batch_size=16, optimiser=SGD(model.parameters(), 0.1), rng=rng)
    >>> losses[-1] < losses[0]
    True
    """
    xp = array_namespace(images, labels)
    count = _check_data(images, labels)
    epochs, batch_size = as_int(epochs, "epochs", 0), as_int(batch_size, "batch_size", 1)
    if not isinstance(optimiser, SGD):
        raise TypeError(f"optimiser must be an SGD; got {shown(optimiser)}")
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator; got {shown(rng)}")
    loss = SoftmaxCrossEntropy()
    losses = []
    for epoch in range(1, epochs + 1):
        order = xp.asarray(rng.permutation(count).astype("int64"), device=device(images))
        total = 0.0
        for part in cut(count, batch_size):
            batch = order[part]
            logits = model.forward(xp.take(images, batch, axis=0))
            total += loss.forward(logits, xp.take(labels, batch, axis=0)) * batch.shape[0]
            model.backward(loss.backward())
            optimiser.step()
        losses.append(total / count)
        if progress is not None:
            progress(epoch, losses[-1])
    return losses


def accuracy(model: Layer, images: Array, labels: Array, *, batch_size: int = 256) -> float:
    """Return the fraction of images for which the largest logit is the right class's.

    Parameters
    ----------
    model, images, labels
        As for :func:`fit`.
    batch_size : int
        Images at a time; it does not change the result beyond rounding.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import Flatten, accuracy
    >>> accuracy(Flatten(), np.array([[1., 0.], [2., 3.]]), np.array([0, 0]))
    0.5
    """
    xp = array_namespace(images, labels)
    count = _check_data(images, labels)
    batch_size = as_int(batch_size, "batch_size", 1)
    right = 0
    for part in cut(count, batch_size):
        logits = model.forward(images[part, ...])
        answers = xp.astype(xp.argmax(logits, axis=1), labels.dtype, copy=False)
        right += int(xp.sum(xp.astype(answers == labels[part], xp.int64)))
    return right / count


class TrainedDigits(NamedTuple):
    """What :func:`train_digits` reached."""

    model: Layer
    losses: list[float]
    """Mean training loss of each epoch."""
    test_accuracy: float
    """Fraction of the test digits told right, from 0 to 1."""
    parameter_count: int
    seconds: float
    """Wall time of the training, without loading and testing."""


def train_digits(
    groups: Grouping,
    *,
    seed: int = 0,
    epochs: int = 6,
    batch_size: int = 32,
    lr: float = 0.02,
    channels: int = 32,
    data: Split | None = None,
    xp: Namespace | None = None,
    dtype: str = "float32",
    device: Any = None,
    progress: Progress | None = None,
) -> TrainedDigits:
    """Train :func:`digits_network` on the digits, and test it.

    The learning rate is divided by 10 for the last quarter of the epochs; momentum 0.9, weight decay 0.0005.

    Parameters
    ----------
    groups : callable (c_in, c_out) -> int or ChannelGroups
        Chooses the groups of the residual blocks' convolutions.
    seed : int
        Draws the initial weights and the order of the training digits; the split stays the same.
    epochs, batch_size, lr, channels
        The recipe.
    data : Split, optional
        By default :func:`load_digits_split` of seed 0.
    xp, dtype, device
        As for :class:`refconv.nn.Conv`.
    progress : callable (epoch, loss), optional
        As for :func:`fit`.

    Returns
    -------
    TrainedDigits
        ``(model, losses, test_accuracy, parameter_count, seconds)``.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    ValueError, TypeError
        If an argument is wrong.

    Examples
    --------
    >>> from refconv.nn import train_digits
    >>> train_digits(lambda c_in, c_out: 4).test_accuracy > 0.95   # doctest: +SKIP
    True
    """
    xp = load_backend() if xp is None else xp
    rng = np.random.default_rng(seed)
    data = load_digits_split() if data is None else data
    model = digits_network(groups, channels=channels, rng=rng, xp=xp, dtype=dtype, device=device)
    optimiser = SGD(model.parameters(), lr, weight_decay=0.0005)

    def after(epoch: int, loss: float) -> None:
        optimiser.lr = lr / 10 if epoch >= epochs - epochs // 4 else lr
        if progress is not None:
            progress(epoch, loss)

    def moved(images: np.ndarray[Any, Any]) -> Array:
        return xp.asarray(images.astype(dtype), device=device)

    labels = [xp.asarray(part, device=device) for part in (data.train_labels, data.test_labels)]
    started = time.perf_counter()
    losses = fit(
        model,
        moved(data.train_images),
        labels[0],
        epochs=epochs,
        batch_size=batch_size,
        optimiser=optimiser,
        rng=rng,
        progress=after,
    )
    seconds = time.perf_counter() - started
    return TrainedDigits(
        model=model,
        losses=losses,
        test_accuracy=accuracy(model, moved(data.test_images), labels[1]),
        parameter_count=sum(elements(parameter.value.shape) for parameter in model.parameters()),
        seconds=seconds,
    )


def _check_data(images: Array, labels: Array) -> int:
    """Check that there is one label per image; return how many."""
    if images.ndim < 1 or labels.ndim != 1 or images.shape[0] != labels.shape[0] or not labels.shape[0]:
        raise ValueError(
            "images and labels must have shapes (N, …) and (N,) with one N ≥ 1; got "
            f"{tuple(images.shape)} and {tuple(labels.shape)}"
        )
    return int(labels.shape[0])
