"""The user's own images, in one subfolder per class."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from refconv.integers import as_float, as_int
from refconv.nn.data.resize import LARGEST_SIDE
from refconv.nn.data.split import DataError, Images, Split, make_split, needing, reading

if TYPE_CHECKING:
    from PIL import Image

_ENDINGS = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
"""Pillow's names of pixel formats with at most 8 bits per channel."""


def load_folder(folder: str | os.PathLike[str], *, side: int = 32, test_fraction: float = 0.2, seed: int = 0) -> Split:
    """Return images from a folder with one subfolder per class, split by image within each class.

    Classes are the subfolders in the order of their names. Images are the files directly in a subfolder with an image's
    ending (.png, .jpg, …). Everything else is ignored: other files, hidden files, deeper folders. Each image
    is rotated according to its EXIF data, converted to RGB (transparency is dropped), cropped to its central square and
    resized to `side`; an animation counts with its first frame. All are kept in memory: 12·side² bytes per image.

    Parameters
    ----------
    folder : path
        For example ``pets``, with ``pets/cat/1.jpg`` and ``pets/dog/a.png``.
    side : int
        Height and width of the result.
    test_fraction : float
        Fraction of each class for testing, between 0 and 1; at least one image is for testing and one for training.
    seed : int
        Chooses the split; the same seed gives the same split of the same files.

    Returns
    -------
    Split
        Images float32 (N, 3, side, side), labels int64 (N,), classes the names of the subfolders.

    Raises
    ------
    ImportError
        If Pillow is not installed.
    DataError
        If there are fewer than two classes, a class has fewer than two images, or an image cannot be read, has more
        than 8 bits per channel, or is so large that Pillow suspects a decompression bomb.
    ValueError, TypeError
        If another argument is wrong.

    Examples
    --------
    >>> from refconv.nn.data import load_folder
    >>> load_folder("pets", side=64).classes                   # doctest: +SKIP
    ('cat', 'dog')
    """
    side, seed = as_int(side, "side", 1, LARGEST_SIDE), as_int(seed, "seed", 0)
    test_fraction = as_float(test_fraction, "test_fraction", above=0, below=1)
    folder = Path(folder)
    with reading(folder):
        files = _classes(folder)
    rng = np.random.default_rng(seed)
    train, test = [], []  # (path, label)
    for label, paths in enumerate(files.values()):
        order = [(paths[index], label) for index in rng.permutation(len(paths))]
        tests = min(max(round(len(paths) * test_fraction), 1), len(paths) - 1)
        test += order[:tests]
        train += order[tests:]
    return make_split(*_read_all(train, side, rng), *_read_all(test, side, rng), list(files))


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Return the image files of each class, all in the order of their names."""
    expected = "expected one subfolder per class, at least two, with at least two images in each"
    if not folder.is_dir():
        raise DataError(f"{folder} is {'not a folder' if folder.exists() else 'missing'}; {expected}")
    subfolders = [path for path in _entries(folder) if path.is_dir()]
    if len(subfolders) < 2:
        raise DataError(f"{folder} has {len(subfolders)} subfolders; {expected}")
    files = {path.name: [entry for entry in _entries(path) if entry.suffix.lower() in _ENDINGS] for path in subfolders}
    for name, images in files.items():
        if len(images) < 2:
            raise DataError(f"{folder / name} has {len(images)} images; {expected}")
    return files


def _entries(folder: Path) -> list[Path]:
    """Return the entries of a folder that are not hidden, in the order of their names."""
    with reading(folder):
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in entries:
        if path.is_symlink() and not path.exists():
            raise DataError(f"{path} is a symbolic link that leads nowhere, or to itself; remove it")
    return entries


def _read_all(part: list[tuple[Path, int]], side: int, rng: np.random.Generator) -> tuple[Images, Images]:
    """Return images uint8 (N, 3, side, side) and their labels, in random order."""
    mixed = [part[index] for index in rng.permutation(len(part))]
    images = np.empty((len(mixed), 3, side, side), "uint8")
    for index, (path, _) in enumerate(mixed):
        images[index] = read_image(path, side).transpose(2, 0, 1)  # HWC -> CHW
    return images, np.array([label for _, label in mixed])


def read_image(path: Path, side: int) -> Images:
    """Return an image file as uint8 (side, side, 3)."""
    with needing("images", "Pillow"):
        from PIL import Image, ImageOps, UnidentifiedImageError
    if not path.is_file():  # a folder, or a pipe, whose reading would block
        raise DataError(f"{path} is not a file; expected an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged metadata of intact images
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.mode not in _MODES:
                    raise DataError(f"{path} has Pillow's mode {image.mode}; expected at most 8 bits per channel")
                return centre_square(ImageOps.exif_transpose(image), side)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image in a format that Pillow knows; it may be damaged") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path} has more pixels than Pillow considers safe: {_one_line(error)}") from error
    except Exception as error:  # Pillow's decoders raise nearly any exception for damaged files
        raise DataError(f"{path} cannot be read as an image: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def centre_square(image: Image.Image, side: int) -> Images:
    """Return the centre square of a Pillow image, resized bilinearly (averaged if it shrinks): (side, side, 3)."""
    from PIL import Image

    length = min(image.size)
    left, top = (image.width - length) // 2, (image.height - length) // 2
    box = (left, top, left + length, top + length)
    return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR, box=box))
