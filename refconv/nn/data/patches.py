"""Small patches of large images; training patches and test patches share no pixel.

Each image is cut into a grid of blocks that cover it, each at least twice as high and wide as a patch. The seed assigns
every block either to training or to testing, and each patch is entirely inside one block.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from refconv.integers import as_int
from refconv.nn.data.bundled import bundled_photographs, bundled_textures
from refconv.nn.data.split import Images, Split, make_split

_MOST = 1_000_000
"""Maximum number of patches per class, far more than there are different patches."""
_Block = tuple[slice, slice]
_Parts = tuple[Images, Images, Images, Images]


def load_textures_split(
    seed: int = 0, *, patch: int = 16, train_per_class: int = 400, test_per_class: int = 150
) -> Split:
    """Return grey patches of brick, grass and gravel: the task is to recognise which of the three a patch shows.

    The photographs are scikit-image's (512×512, CC0); :func:`cut_patches` describes how patches are drawn. Test patches
    come from other places of the same three photographs. So the task is to distinguish these surfaces, not brick from
    grass in general.

    Parameters
    ----------
    seed, patch, train_per_class, test_per_class : int
        As for :func:`cut_patches`.

    Returns
    -------
    Split
        Images float32 (N, 1, patch, patch), labels int64 (N,), classes "brick", "grass", "gravel".

    Raises
    ------
    ImportError
        If scikit-image is not installed.

    Examples
    --------
    >>> from refconv.nn.data import load_textures_split
    >>> load_textures_split().train_images.shape               # doctest: +SKIP
    (1200, 1, 16, 16)
    """
    return _load(bundled_textures(), seed, patch, train_per_class, test_per_class)


def load_photographs_split(
    seed: int = 0, *, patch: int = 32, train_per_class: int = 300, test_per_class: int = 100
) -> Split:
    """Return colour patches of seven photographs: the task is to recognise the photograph of each patch.

    The photographs come from :func:`bundled_photographs`; :func:`cut_patches` describes how patches are drawn. The task
    is to distinguish seven pictures, mostly by their colours. It shows that a network learns, not that it recognises
    objects. It cannot be solved perfectly, because nearly uniform patches (the black border of the retina, dark sky, a
    plain background) may come from more than one photograph.

    Parameters
    ----------
    seed, patch, train_per_class, test_per_class : int
        As for :func:`cut_patches`.

    Returns
    -------
    Split
        Images float32 (N, 3, patch, patch), labels int64 (N,), classes the names of the photographs.

    Raises
    ------
    ImportError
        If scikit-learn or scikit-image is not installed.

    Examples
    --------
    >>> from refconv.nn.data import load_photographs_split
    >>> load_photographs_split().train_images.shape            # doctest: +SKIP
    (2100, 3, 32, 32)
    """
    return _load(bundled_photographs(), seed, patch, train_per_class, test_per_class)


def _load(images: Mapping[str, Images], seed: int, patch: int, train_per_class: int, test_per_class: int) -> Split:
    parts = cut_patches(images, seed, patch=patch, train_per_class=train_per_class, test_per_class=test_per_class)
    return make_split(*parts, list(images))


def cut_patches(
    images: Mapping[str, Images], seed: int, *, patch: int, train_per_class: int, test_per_class: int
) -> _Parts:
    """Draw patches of each image for training and testing; the two sets share no pixel.

    An H×W image is cut into ⌊H/2p⌋ × ⌊W/2p⌋ blocks, where p is `patch`. Randomly drawn blocks are for testing, and the
    others for training, with at least one block for each; the fraction of test blocks is as near as possible to the
    fraction of test patches. Each set takes its patches from its blocks in turn, so that all blocks are used if there
    are enough patches. A patch may be anywhere inside its block, and may overlap other patches of its set. A training
    patch is mirrored left to right with probability 1/2, a test patch never.

    Parameters
    ----------
    images : mapping of str to array (H, W) or (H, W, C)
        One image per class, grey or with C channels, all with the same dtype and C.
    seed : int
        Determines blocks, places and mirror images; the same seed gives the same split.
    patch : int
        Height and width of the patches.
    train_per_class, test_per_class : int
        Number of patches per class for training and testing.

    Returns
    -------
    (train_images, train_labels, test_images, test_labels)
        Images (N, C, patch, patch) in the dtype of `images` and not standardised, labels int64 (N,), in random order.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, or `patch` is too large to leave two blocks in an image.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn.data import cut_patches
    >>> ids = np.arange(80).reshape(8, 10)                     # every pixel has a different value
    >>> train, _, test, labels = cut_patches({"ids": ids}, 0, patch=2, train_per_class=6, test_per_class=3)
    >>> train.shape, test.shape, set(train.ravel().tolist()) & set(test.ravel().tolist())
    ((6, 1, 2, 2), (3, 1, 2, 2), set())
    """
    rng = np.random.default_rng(as_int(seed, "seed", 0))
    patch = as_int(patch, "patch", 1)
    train_count = as_int(train_per_class, "train_per_class", 1, _MOST)
    test_count = as_int(test_per_class, "test_per_class", 1, _MOST)
    train, test = [], []
    for name, image in images.items():
        blocks = _blocks(name, image, patch)
        order = [blocks[index] for index in rng.permutation(len(blocks))]
        tests = round(len(blocks) * test_count / (train_count + test_count))
        tests = min(max(tests, 1), len(blocks) - 1)
        test.append(_patches(image, order[:tests], test_count, patch, rng, mirror=False))
        train.append(_patches(image, order[tests:], train_count, patch, rng, mirror=True))
    return (*_mixed(train, rng), *_mixed(test, rng))


def _blocks(name: str, image: Images, patch: int) -> list[_Block]:
    """Cut an image into blocks that cover it, none smaller than 2·patch in height or width."""
    height, width = image.shape[:2]
    rows, columns = height // (2 * patch), width // (2 * patch)
    if rows * columns < 2:
        raise ValueError(
            f"patch must leave two blocks of {2 * patch}×{2 * patch} in each image, one for training and one for "
            f"testing; {name} has {height}×{width}; got patch {patch}"
        )
    return [
        (slice(row * height // rows, (row + 1) * height // rows), slice(left, right))
        for row in range(rows)
        for left, right in ((c * width // columns, (c + 1) * width // columns) for c in range(columns))
    ]


def _patches(
    image: Images, blocks: list[_Block], count: int, patch: int, rng: np.random.Generator, *, mirror: bool
) -> Images:
    """Draw patches from the blocks in turn: (count, C, patch, patch)."""
    result = np.empty((count, *image.shape[2:], patch, patch), image.dtype)
    for index in range(count):
        block = image[blocks[index % len(blocks)]]
        top, left = rng.integers(0, np.array(block.shape[:2]) - patch + 1)
        found = block[top : top + patch, left : left + patch]
        if mirror and rng.random() < 0.5:
            found = found[:, ::-1]
        result[index] = np.moveaxis(found, -1, 0) if image.ndim == 3 else found
    return result if image.ndim == 3 else result[:, None]  # (count, p, p) -> (count, 1, p, p)


def _mixed(classes: list[Images], rng: np.random.Generator) -> tuple[Images, Images]:
    """Put the patches of all classes into one array in random order, and label them."""
    labels = np.repeat(np.arange(len(classes)), [len(patches) for patches in classes])
    order = rng.permutation(len(labels))
    return np.concatenate(classes)[order], labels[order]
