"""Data that ships inside ordinary packages and loads with no network."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from refconv.integers import as_int


class Split(NamedTuple):
    """Images and labels to train on, and others to test with; NumPy arrays."""

    train_images: np.ndarray[Any, Any]
    train_labels: np.ndarray[Any, Any]
    test_images: np.ndarray[Any, Any]
    test_labels: np.ndarray[Any, Any]


def load_digits_split(seed: int = 0, *, test_size: int = 450) -> Split:
    """Return scikit-learn's 1,797 handwritten 8×8 digits, split into 1,347 to train on and 450 to test with.

    Grey values are shifted and scaled by the mean and the standard deviation of the training images.

    Parameters
    ----------
    seed : int
        Chooses the split; the same seed gives the same split.
    test_size : int
        Digits to test with.

    Returns
    -------
    Split
        ``(train_images, train_labels, test_images, test_labels)``: images float32 (N, 1, 8, 8), labels int64 (N,).

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    ValueError
        If `test_size` leaves nothing to train on or to test with.

    References
    ----------
    E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998: the test
    set of these, which scikit-learn includes.

    Examples
    --------
    >>> from refconv.nn import load_digits_split
    >>> split = load_digits_split()                            # doctest: +SKIP
    >>> split.train_images.shape, split.test_labels.shape      # doctest: +SKIP
    ((1347, 1, 8, 8), (450,))
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits need scikit-learn: pip install 'refconv[tour]'") from error
    images, labels = load_digits(return_X_y=True)
    seed, test_size = as_int(seed, "seed", 0), as_int(test_size, "test_size", 1, len(labels) - 1)
    order = np.random.default_rng(seed).permutation(len(labels))
    images = images[order].astype("float32").reshape(-1, 1, 8, 8)
    labels = labels[order].astype("int64")
    train = images[test_size:]
    images = (images - train.mean()) / train.std()
    return Split(images[test_size:], labels[test_size:], images[:test_size], labels[:test_size])
