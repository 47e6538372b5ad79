"""Resizing images."""

from __future__ import annotations

from typing import Any

import numpy as np

from refconv.integers import as_int

LARGEST_SIDE = 4096
"""The largest height and width to which images are resized."""


def resized(images: np.ndarray[Any, Any], side: int) -> np.ndarray[Any, Any]:
    r"""Resize square images by linear interpolation.

    .. math:: y = A\, x\, A^{\mathsf T}, \qquad A_{ij} \propto \max\left(0,\; 1 - \frac{|j - c_i|}{\max(r, 1)}\right),
              \quad c_i = (i + \tfrac12)\, r - \tfrac12, \quad r = n / \mathrm{side}

    where each row of A sums to 1. Enlarging interpolates between pixels. Shrinking averages over all pixels that an
    output covers, so that none is skipped (as in Pillow's bilinear filter).

    Parameters
    ----------
    images : array (N, C, n, n)
        A NumPy array; the result has the same data type.
    side : int
        The new height and width, at most 4096.

    Returns
    -------
    array (N, C, side, side)
        The same array if it already has this size.

    Raises
    ------
    ValueError
        If the images are not square, or `side` is not from 1 to 4096.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn.data import resized
    >>> resized(np.array([[[[0.0, 4.0], [8.0, 12.0]]]]), 4)[0, 0]
    array([[ 0.,  1.,  3.,  4.],
           [ 2.,  3.,  5.,  6.],
           [ 6.,  7.,  9., 10.],
           [ 8.,  9., 11., 12.]])
    """
    side = as_int(side, "side", 1, LARGEST_SIDE)
    if images.ndim != 4 or images.shape[2] != images.shape[3]:
        raise ValueError(f"images must have shape (N, C, n, n); got {images.shape}")
    n = images.shape[3]
    if side == n:
        return images
    r = n / side
    centres = (np.arange(side) + 0.5) * r - 0.5
    A = np.maximum(0, 1 - np.abs(np.arange(n) - centres[:, None]) / max(r, 1))
    A = (A / A.sum(axis=1, keepdims=True)).astype(images.dtype)
    y: np.ndarray[Any, Any] = A @ images @ A.T
    return y
