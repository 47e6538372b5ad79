"""Losses: one number that measures the errors of a batch of answers, and its gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from refconv.arrays import (
    Array,
    Namespace,
    array_namespace,
    check_dtype,
    converted,
    device,
    dtype_kind,
    dtype_of,
    elements,
    moved,
    namespace_of,
    on_device,
    on_their_device,
    to_numpy,
)
from refconv.nn.base import widened
from refconv.shapes import check_shape


class Loss(ABC):
    """A loss of a network's outputs z and the right answers: the base class of all losses.

    NumPy's answers are moved to the array module and device of z.
    """

    _saved: tuple[Any, ...] | None = None

    def __call__(self, outputs: Array, answers: Array) -> float:
        """Return ``forward(outputs, answers)``."""
        return self.forward(outputs, answers)

    def __repr__(self) -> str:
        """Return the name with empty brackets: a loss has no arguments."""
        return f"{type(self).__name__}()"

    @abstractmethod
    def forward(self, outputs: Array, answers: Array, /) -> float:
        """Return the mean loss of a batch."""

    @abstractmethod
    def backward(self) -> Array:
        """Return the gradient of the latest :meth:`forward` with respect to the outputs: a new array.

        Raises
        ------
        RuntimeError
            If no ``forward`` precedes it.
        """

    def _recall(self) -> tuple[Any, ...]:
        """Return the values that `forward` kept, discarding them."""
        if self._saved is None:
            name = type(self).__name__
            raise RuntimeError(f"{name}.backward needs a forward before it; each forward serves one backward")
        saved, self._saved = self._saved, None
        return saved


class SoftmaxCrossEntropy(Loss):
    r"""Mean negative log-probability of the correct class; the probabilities are the softmax of the logits.

    .. math:: p[n, k] = \frac{e^{z[n, k]}}{\sum_j e^{z[n, j]}}, \qquad
              \mathrm{loss} = -\frac{1}{N} \sum_n \log p[n, \mathrm{label}[n]]

    .. math:: \bar z[n, k] = \frac{p[n, k] - [k = \mathrm{label}[n]]}{N}

    The largest logit of each row is subtracted first. This changes no probability, and no exponential overflows.

    Examples
    --------
    Four equal logits: the loss is log 4.

    >>> import numpy as np
    >>> from refconv.nn import SoftmaxCrossEntropy
    >>> loss = SoftmaxCrossEntropy()
    >>> round(loss(np.zeros((2, 4)), np.array([0, 3])), 6)
    1.386294
    >>> loss.backward()
    array([[-0.375,  0.125,  0.125,  0.125],
           [ 0.125,  0.125,  0.125, -0.375]])
    """

    def forward(self, logits: Array, labels: Array) -> float:
        """Return the mean loss of a batch.

        Parameters
        ----------
        logits : array (N, K)
            One real score per sample and class, N ≥ 1.
        labels : integer array (N,)
            The correct class of each sample, 0 … K−1, of the same array module or of NumPy.

        Returns
        -------
        float
            The mean over the batch, in nats.

        Raises
        ------
        ValueError
            If a shape is wrong, or a label is not in 0 … K−1.
        TypeError
            If the logits are not real floating point, the labels are not integers, or they belong to two modules.
        """
        return self.graded(logits, labels)[0]

    @on_their_device
    def graded(self, logits: Array, labels: Array) -> tuple[float, int]:
        """Return the mean loss, and the number of samples whose largest logit is that of the correct class.

        It takes the arguments of :meth:`forward`, raises the same errors, and waits for a GPU only once.
        """
        xp = namespace_of({"logits": logits})
        labels = moved(labels, logits)
        namespace_of({"logits": logits, "labels": labels})
        _check(logits, labels)
        classes = xp.arange(logits.shape[1], dtype=xp.int64, device=device(logits))
        labels = xp.astype(labels, xp.int64, copy=False)
        right = labels[:, None] == classes[None, :]  # (N, K), one True in each row
        shifted = widened(xp, logits)  # half precision would overflow in sums over many classes or samples
        shifted = shifted - xp.max(shifted, axis=1, keepdims=True)
        log_p = shifted - xp.log(xp.sum(xp.exp(shifted), axis=1, keepdims=True))  # (N, K)
        total, count, wrong = _fetched(
            xp,
            xp.where(right, log_p, xp.zeros_like(log_p)),
            xp.argmax(logits, axis=1) == labels,
            (labels < 0) | (labels >= logits.shape[1]),
        )
        if wrong:
            low, high = int(xp.min(labels)), int(xp.max(labels))
            raise ValueError(
                f"labels must be 0 … K−1 = {logits.shape[1] - 1} (logits have shape {tuple(logits.shape)}); got labels "
                f"from {low} to {high}"
            )
        self._saved = (log_p, right, logits.dtype)
        return -total / logits.shape[0], int(count)

    def backward(self) -> Array:
        """Return the gradient with respect to the logits, (p − one-hot) / N: a new array (N, K)."""
        log_p, right, dtype = self._recall()
        xp = array_namespace(log_p)
        with on_device(log_p):
            return xp.astype((xp.exp(log_p) - xp.astype(right, log_p.dtype)) / log_p.shape[0], dtype, copy=False)


class MeanSquaredError(Loss):
    r"""Mean of the squared differences of all M elements, for regression.

    .. math:: \mathrm{loss} = \frac{1}{M} \sum_i (z[i] - t[i])^2, \qquad \bar z[i] = \frac{2}{M} (z[i] - t[i])

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import MeanSquaredError
    >>> loss = MeanSquaredError()
    >>> loss(np.array([[1., 5.]]), np.array([[1., 3.]]))
    2.0
    >>> loss.backward()
    array([[0., 2.]])
    """

    @on_their_device
    def forward(self, predictions: Array, targets: Array) -> float:
        """Return the mean squared error.

        Parameters
        ----------
        predictions : array
            Real outputs z, of any shape with at least one axis and element.
        targets : array
            The right values t, of the same shape and data type; of the same array module or of NumPy.

        Returns
        -------
        float
            The mean over all elements.

        Raises
        ------
        ValueError, TypeError
            If shapes, data types or modules differ, or the predictions are not real floating point.
        """
        z, t = _pair("predictions", predictions, targets)
        xp = array_namespace(z)
        difference = z - t
        self._saved = (difference, predictions.dtype)
        return float(xp.sum(difference * difference)) / elements(z.shape)

    def backward(self) -> Array:
        """Return the gradient with respect to the predictions, 2·(z − t) / M: a new array."""
        difference, dtype = self._recall()
        xp = array_namespace(difference)
        with on_device(difference):
            return xp.astype(2 * difference / elements(difference.shape), dtype, copy=False)


class BinaryCrossEntropy(Loss):
    r"""Mean negative log-probability of M answers yes (t = 1) or no (t = 0), where σ(z) is the probability of yes.

    .. math:: \mathrm{loss} = -\frac{1}{M} \sum_i
              \bigl(t[i] \log \sigma(z[i]) + (1 - t[i]) \log(1 - \sigma(z[i]))\bigr), \qquad
              \sigma(z) = \frac{1}{1 + e^{-z}}, \qquad \bar z[i] = \frac{\sigma(z[i]) - t[i]}{M}

    It is computed as max(z, 0) − z·t + log(1 + e^−|z|), in which no exponential overflows.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import BinaryCrossEntropy
    >>> loss = BinaryCrossEntropy()
    >>> loss(np.array([1000., -1000.]), np.array([1., 1.]))   # right, and wrong by far
    500.0
    >>> loss.backward()
    array([ 0. , -0.5])
    """

    @on_their_device
    def forward(self, logits: Array, targets: Array) -> float:
        """Return the mean binary cross-entropy.

        Parameters
        ----------
        logits : array
            Real outputs z, of any shape with at least one axis and element: the probability of yes is σ(z).
        targets : array
            The right answers t, from 0 to 1, of the same shape and data type; of the same array module or of NumPy.

        Returns
        -------
        float
            The mean over all elements, in nats.

        Raises
        ------
        ValueError, TypeError
            If shapes, data types or modules differ, the logits are not real floating point, or a target is not from 0
            to 1.
        """
        z, t = _pair("logits", logits, targets)
        xp = array_namespace(z)
        e = xp.exp(-xp.abs(z))
        sigmoid = xp.where(z > 0, xp.ones_like(e), e) / (1 + e)
        losses = xp.where(z > 0, z, xp.zeros_like(z)) - z * t + xp.log1p(e)
        total, wrong = _fetched(xp, losses, xp.logical_not((t >= 0) & (t <= 1)))
        if wrong:
            raise ValueError(f"targets must be from 0 to 1; got numbers from {float(xp.min(t))} to {float(xp.max(t))}")
        self._saved = (sigmoid - t, logits.dtype)
        return total / elements(z.shape)

    def backward(self) -> Array:
        """Return the gradient with respect to the logits, (σ(z) − t) / M: a new array."""
        difference, dtype = self._recall()
        xp = array_namespace(difference)
        with on_device(difference):
            return xp.astype(difference / elements(difference.shape), dtype, copy=False)


def _fetched(xp: Namespace, losses: Array, *conditions: Array) -> list[float]:
    """Return the sum of the losses and how often each condition is true, waiting for a GPU only once."""
    total = xp.sum(losses)
    counts = xp.stack([xp.sum(xp.astype(condition, xp.int64)) for condition in conditions])
    return to_numpy(xp.concat([xp.stack([total]), xp.astype(counts, total.dtype)])).tolist()  # type: ignore[no-any-return]


def _pair(name: str, z: Array, targets: Array) -> tuple[Array, Array]:
    """Check outputs, called `name`, and targets; return both in the data type to compute in."""
    namespace_of({name: z})
    given, targets = targets, moved(targets, z)
    xp = namespace_of({name: z, "targets": targets})
    dtype = check_dtype(name, z)
    if dtype_kind(dtype) != "real":
        raise TypeError(f"{name} must be real floating point; got {dtype}")
    if dtype_of(targets) != dtype:
        raise TypeError(
            f"targets must have the data type of the {name}, {dtype}; got {dtype_of(targets)}: write "
            f"{converted('targets', given, dtype)}"
        )
    check_shape("targets", tuple(targets.shape), tuple(z.shape), f"the shape of the {name}")
    if z.ndim == 0 or 0 in z.shape:
        raise ValueError(f"{name} must have at least one axis and one element; got shape {tuple(z.shape)}")
    return widened(xp, z), widened(xp, targets)


def _check(logits: Array, labels: Array) -> None:
    if dtype_kind(check_dtype("logits", logits)) != "real":
        raise TypeError(f"logits must be real floating point; got {dtype_of(logits)}")
    if dtype_kind(check_dtype("labels", labels)) != "integer":
        raise TypeError(f"labels must be integers, one class number per sample; got {dtype_of(labels)}")
    if logits.ndim != 2 or 0 in logits.shape:
        raise ValueError(f"logits must have shape (N, K) with N, K ≥ 1; got {tuple(logits.shape)}")
    check_shape("labels", tuple(labels.shape), (logits.shape[0],), "one class number per row of logits")
