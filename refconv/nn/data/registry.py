"""Data sets by name, as on the command line."""

from __future__ import annotations

import os
from pathlib import Path

from refconv.integers import as_int, shown
from refconv.nn.data.cifar import load_cifar10
from refconv.nn.data.digits import DIGIT_SIDES, load_digits_split
from refconv.nn.data.folder import load_folder
from refconv.nn.data.patches import load_photographs_split, load_textures_split
from refconv.nn.data.resize import LARGEST_SIDE, resized
from refconv.nn.data.split import Split

DATASETS = {
    "digits": "1,797 handwritten digits, 8×8 grey, ten classes (scikit-learn)",
    "textures": "grey patches of brick, grass and gravel, three classes; 16×16 or another size (scikit-image)",
    "photographs": "colour patches of seven photographs, seven classes; 32×32 or another size (scikit-learn, -image)",
    "cifar10:FOLDER": "CIFAR-10, 60,000 colour images, 32×32, ten classes, from a folder with its binary version",
    "folder:FOLDER": "your own images from a folder with one subfolder per class; scaled to 32×32 or another size",
}
"""The names that :func:`load_dataset` accepts, each with one line of description."""


def load_dataset(spec: str, *, seed: int = 0, side: int | None = None) -> Split:
    """Return a data set by its name.

    Parameters
    ----------
    spec : str
        A key of ``DATASETS``, with a path in place of FOLDER; a path may begin with ``~``.
    seed : int
        Determines the split. CIFAR-10 is already split.
    side : int, optional
        Height and width of the images; by default the data set's own. Patches are cut to any size, and a folder's
        images are scaled to it. Digits and CIFAR-10 have their own sizes (8, 16, 24, 32; 32). For other sizes they are
        interpolated, which makes their standard deviation a little less than 1.

    Returns
    -------
    Split
        The result of the data set's own function.

    Raises
    ------
    ValueError, TypeError
        If there is no such data set, or an argument is wrong.
    DataError, ImportError
        See the data set's own function.

    Examples
    --------
    >>> from refconv.nn import load_dataset
    >>> load_dataset("digits", side=32).train_images.shape     # doctest: +SKIP
    (1347, 1, 32, 32)
    >>> load_dataset("mnist")
    Traceback (most recent call last):
        ...
    ValueError: dataset must be one of digits, textures, photographs, cifar10:FOLDER, folder:FOLDER; got 'mnist'
    """
    if not isinstance(spec, str):
        raise TypeError(f"dataset must be a string; got {shown(spec)}")
    seed, side = as_int(seed, "seed", 0), None if side is None else as_int(side, "side", 1, LARGEST_SIDE)
    name, colon, path = spec.partition(":")
    if (f"{name}:FOLDER" if colon else name) not in DATASETS or (colon and not path):
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}; got {shown(spec)}")
    folder = Path(os.path.expanduser(path))  # noqa: PTH111  (Path.expanduser raises for an unknown user)
    if name == "cifar10":
        return _of_side(load_cifar10(folder), side)
    if name == "digits":
        own = side if side in DIGIT_SIDES else None
        return _of_side(load_digits_split(seed) if own is None else load_digits_split(seed, side=own), side)
    if name in {"textures", "photographs"}:
        load = load_textures_split if name == "textures" else load_photographs_split
        if side is None:
            return load(seed)
        try:
            return load(seed, patch=side)
        except ValueError as error:
            raise ValueError(f"side={side} does not suit {name}: {error}") from error
    return load_folder(folder, seed=seed) if side is None else load_folder(folder, seed=seed, side=side)


def _of_side(split: Split, side: int | None) -> Split:
    """Resize the images of a data set if `side` is given."""
    if side is None:
        return split
    return split._replace(train_images=resized(split.train_images, side), test_images=resized(split.test_images, side))
