"""The loss: one number for the errors of a batch of answers, and its gradient."""

from __future__ import annotations

from refconv.arrays import (
    Array,
    DType,
    accumulating_dtype,
    array_namespace,
    check_dtype,
    device,
    dtype_kind,
    dtype_of,
    get_dtype,
)
from refconv.shapes import check_shape


class SoftmaxCrossEntropy:
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
    >>> round(loss.forward(np.zeros((2, 4)), np.array([0, 3])), 6)
    1.386294
    >>> loss.backward()
    array([[-0.375,  0.125,  0.125,  0.125],
           [ 0.125,  0.125,  0.125, -0.375]])
    """

    def __init__(self) -> None:
        self._saved: tuple[Array, Array, DType] | None = None

    def forward(self, logits: Array, labels: Array) -> float:
        """Return the mean loss of a batch.

        Parameters
        ----------
        logits : array (N, K)
            One real score per sample and class, N ≥ 1.
        labels : integer array (N,)
            The correct class of each sample, 0 … K−1, of the same array module.

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
        xp = array_namespace(logits, labels)
        _check(logits, labels)
        classes = xp.arange(logits.shape[1], dtype=xp.int64, device=device(logits))
        labels = xp.astype(labels, xp.int64, copy=False)
        if bool(xp.any((labels < 0) | (labels >= logits.shape[1]))):
            low, high = int(xp.min(labels)), int(xp.max(labels))
            raise ValueError(
                f"labels must be 0 … K−1 = {logits.shape[1] - 1} (logits have shape {tuple(logits.shape)}); got labels "
                f"from {low} to {high}"
            )
        right = labels[:, None] == classes[None, :]  # (N, K), one True in each row
        # Half precision would overflow in sums over many classes or samples.
        work = get_dtype(xp, accumulating_dtype(xp, dtype_of(logits)))
        shifted = xp.astype(logits, work, copy=False)
        shifted = shifted - xp.max(shifted, axis=1, keepdims=True)
        log_p = shifted - xp.log(xp.sum(xp.exp(shifted), axis=1, keepdims=True))  # (N, K)
        self._saved = (log_p, right, logits.dtype)
        total = float(xp.sum(xp.where(right, log_p, xp.zeros_like(log_p))))
        return -total / int(logits.shape[0])

    def backward(self) -> Array:
        """Return the gradient with respect to the logits, (p − one-hot) / N.

        Returns
        -------
        grad_logits : array (N, K)
            A new array.

        Raises
        ------
        RuntimeError
            If no ``forward`` precedes it.
        """
        if self._saved is None:
            raise RuntimeError(
                "SoftmaxCrossEntropy.backward needs a forward before it; each forward serves one backward"
            )
        log_p, right, dtype = self._saved
        self._saved = None
        xp = array_namespace(log_p)
        return xp.astype((xp.exp(log_p) - xp.astype(right, log_p.dtype)) / log_p.shape[0], dtype, copy=False)


def _check(logits: Array, labels: Array) -> None:
    if dtype_kind(check_dtype("logits", logits)) != "real":
        raise TypeError(f"logits must be real floating point; got {dtype_of(logits)}")
    if dtype_kind(check_dtype("labels", labels)) != "integer":
        raise TypeError(f"labels must be integers, one class number per sample; got {dtype_of(labels)}")
    if logits.ndim != 2 or 0 in logits.shape:
        raise ValueError(f"logits must have shape (N, K) with N, K ≥ 1; got {tuple(logits.shape)}")
    check_shape("labels", tuple(labels.shape), (logits.shape[0],), "one class number per row of logits")
