"""Class probabilities of images, and how the predicted classes compare with the right ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from refconv.arrays import array_namespace, device, dtype_of, to_numpy
from refconv.integers import cut
from refconv.nn import Layer


def probabilities(model: Layer, images: np.ndarray[Any, Any], *, batch_size: int = 256) -> np.ndarray[Any, Any]:
    r"""Return the softmax of a model's logits z, with the model set to testing.

    .. math:: p[n, k] = \frac{e^{z[n, k]}}{\sum_j e^{z[n, j]}}

    Parameters
    ----------
    model : Layer
        Returns logits (N, K).
    images : array (N, …)
        A NumPy array, which is moved to the model's module and device.
    batch_size : int
        Images per forward pass.

    Returns
    -------
    array (N, K)
        float64; every row sums to 1.

    Examples
    --------
    >>> from refconv.nn import Linear
    >>> model = Linear(2, 2, rng=np.random.default_rng(0))
    >>> model.parameters()[0].value = np.zeros((2, 2), "float32")
    >>> probabilities(model, np.ones((1, 2)))
    array([[0.5, 0.5]])
    """
    weight = model.parameters()[0].value
    xp, training, found = array_namespace(weight), model.training, []
    model.eval()
    for part in cut(len(images), batch_size):
        batch = xp.asarray(images[part].astype(dtype_of(weight)), device=device(weight))
        logits = to_numpy(model.forward(batch)).astype("float64")
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        found.append(powers / powers.sum(axis=1, keepdims=True))
    model.forget()
    if training:
        model.train()
    return np.concatenate(found)


def confusion_matrix(labels: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any], classes: int) -> list[list[int]]:
    """Return the number of images of each class (row) that were classified as each class (column).

    Examples
    --------
    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    [[1, 1], [0, 1]]
    """
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    found: list[list[int]] = counts.reshape(classes, classes).tolist()
    return found
