"""Data sets by name, as the command line takes them."""

from __future__ import annotations

import os
from pathlib import Path

from refconv.integers import as_int, shown
from refconv.nn.data.cifar import load_cifar10
from refconv.nn.data.digits import DIGIT_SIDES, load_digits_split
from refconv.nn.data.folder import load_folder
from refconv.nn.data.patches import load_photographs_split, load_textures_split
from refconv.nn.data.resize import resized
from refconv.nn.data.split import Split

DATASETS = {
    "digits": "1,797 handwritten digits, 8×8 grey, ten classes (scikit-learn)",
    "textures": "grey patches of brick, grass and gravel, three classes; 16×16 or another size (scikit-image)",
    "photographs": "colour patches of seven photographs, which one is it; 32×32 or another size (scikit-learn, -image)",
    "cifar10:FOLDER": "CIFAR-10, 60,000 colour images, 32×32, ten classes, from a folder with its binary version",
    "folder:FOLDER": "images of yours from a folder with one subfolder a class; scaled to 32×32 or another size",
}
"""What :func:`load_dataset` takes, and one line on each."""


def load_dataset(spec: str, *, seed: int = 0, side: int | None = None) -> Split:
    """Return a data set by its name.

    Parameters
    ----------
    spec : str
        A key of ``DATASETS``, with a path in place of FOLDER; a path may begin with ``~``.
    seed : int
        Chooses the split. CIFAR-10 comes split.
    side : int, optional
        Height and width of the images; by default the data set's own. Patches are cut, and a folder's images scaled,
        to any size. Digits and CIFAR-10 come in their own sizes (8, 16, 24, 32; 32); to others they are interpolated,
        which makes their standard deviation a little less than 1.

    Returns
    -------
    Split
        What the data set's own function returns.

    Raises
    ------
    ValueError, TypeError
        If there is no such data set, or an argument is wrong.
    DataError, ImportError
        As the data set's own function raises them.

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
    seed = as_int(seed, "seed", 0)
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
        return load(seed) if side is None else load(seed, patch=side)
    return load_folder(folder, seed=seed) if side is None else load_folder(folder, seed=seed, side=side)


def _of_side(split: Split, side: int | None) -> Split:
    """Bring images that come in one size to another."""
    if side is None:
        return split
    return split._replace(train_images=resized(split.train_images, side), test_images=resized(split.test_images, side))
