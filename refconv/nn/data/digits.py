"""Handwritten digits that are part of scikit-learn."""

from __future__ import annotations

import numpy as np

from refconv.integers import as_int
from refconv.nn.data.split import Split, make_split, needing

_SIDE, _LARGEST = 8, 32
_BLACK = 16
"""A pixel that is all ink."""
DIGIT_SIDES = range(_SIDE, _LARGEST + 1, _SIDE)
"""Heights and widths that are made by repeating pixels."""


def load_digits_split(seed: int = 0, *, test_size: int = 450, side: int = _SIDE) -> Split:
    """Return scikit-learn's 1,797 handwritten 8×8 digits, split into 1,347 for training and 450 for testing.

    Grey values are shifted and scaled by the mean and standard deviation of the training images.

    Each pixel of an 8×8 digit is the number, from 0 to 16, of black pixels in a 4×4 block of a 32×32 bitmap. A larger
    `side` repeats every pixel as a square block, so that a side of 32, LeNet-5's input, spreads each number over its
    original block. Repetition adds no new grey values, and averaging the blocks gives the 8×8 digits back.

    Parameters
    ----------
    seed : int
        Chooses the split; the same seed gives the same split.
    test_size : int
        Number of digits for testing.
    side : int
        Height and width of the images: 8, 16, 24 or 32.

    Returns
    -------
    Split
        Images float32 (N, 1, side, side), labels int64 (N,), classes "0" … "9".

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    ValueError
        If `test_size` leaves no digits for training or testing, or `side` is not one of these.

    References
    ----------
    E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998. Its test
    set is the one included in scikit-learn.

    Examples
    --------
    >>> from refconv.nn import load_digits_split
    >>> split = load_digits_split()                            # doctest: +SKIP
    >>> split.train_images.shape, split.test_labels.shape      # doctest: +SKIP
    ((1347, 1, 8, 8), (450,))
    """
    seed, side = as_int(seed, "seed", 0), as_int(side, "side", _SIDE, _LARGEST)
    if side not in DIGIT_SIDES:
        raise ValueError(f"side must be a multiple of {_SIDE} from {_SIDE} to {_LARGEST}; got {side}")
    with needing("the digits", "scikit-learn"):
        from sklearn.datasets import load_digits
    images, labels = load_digits(return_X_y=True)
    test_size = as_int(test_size, "test_size", 1, len(labels) - 1)
    order = np.random.default_rng(seed).permutation(len(labels))
    images = images[order].astype("uint8").reshape(-1, 1, _SIDE, _SIDE)  # whole numbers, 0 … 16
    images = images.repeat(side // _SIDE, axis=2).repeat(side // _SIDE, axis=3)
    labels = labels[order]
    return make_split(
        images[test_size:],
        labels[test_size:],
        images[:test_size],
        labels[:test_size],
        [str(d) for d in range(10)],
        largest=_BLACK,
    )
