"""Augmentation as in the AlexNet paper: random crops, mirror images, and colour shifts along principal components.

Letters: H×W the size of an image, N the size of a batch. Channels are red, green and blue.
"""

from __future__ import annotations

import numpy as np

from refconv.integers import as_float, as_int, cut
from refconv.nn.base import check_rng
from refconv.nn.data.bundled import bundled_photographs
from refconv.nn.data.folder import centre_square
from refconv.nn.data.split import Images, needing

Components = tuple[Images, Images]
"""Eigenvalues (3,), and eigenvectors (3, 3) in the columns."""
_AT_A_TIME = 256


def color_components(images: Images) -> Components:
    """Return the principal components of the colours of a set of images.

    They are the eigenvalues λ and the eigenvectors p of the covariance of all pixel values (R, G, B) of the set,
    (1/n)·Σ (v − v̄)(v − v̄)ᵀ over its n = N·H·W pixels v.

    Parameters
    ----------
    images : array (N, 3, H, W)
        Real numbers in any unit; eigenvalues are in the squared unit.

    Returns
    -------
    eigenvalues : float64 array (3,)
        Variances along the components, largest first.
    eigenvectors : float64 array (3, 3)
        Unit vectors, in the columns: ``eigenvectors[:, i]`` belongs to ``eigenvalues[i]``. The largest entry of each
        is positive, which fixes its sign.

    Raises
    ------
    ValueError
        If `images` has another shape, or no pixels.

    References
    ----------
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", 2012,
    section 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn.data import color_components
    >>> images = np.zeros((1, 3, 1, 2))
    >>> images[0, 1] = [[-2, 2]]                               # only green varies
    >>> eigenvalues, eigenvectors = color_components(images)
    >>> eigenvalues.tolist(), eigenvectors[:, 0].tolist()
    ([4.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    """
    _check_shape(images, "images", ("N", "3", "H", "W"))
    mean = images.mean(axis=(0, 2, 3), dtype="float64")
    covariance = np.zeros((3, 3))
    for part in cut(images.shape[0], _AT_A_TIME):
        pixels = images[part].swapaxes(0, 1).reshape(3, -1) - mean[:, None]  # (n, 3, H, W) -> (3, n·H·W)
        covariance += pixels @ pixels.T
    eigenvalues, vectors = np.linalg.eigh(covariance / (images.size // 3))
    eigenvalues, vectors = np.maximum(eigenvalues[::-1], 0), vectors[:, ::-1]
    largest = vectors[np.abs(vectors).argmax(axis=0), range(3)]
    return eigenvalues, vectors * np.sign(largest)


def augment(
    images: Images, rng: np.random.Generator, *, crop: int, components: Components | None = None, sigma: float = 0.1
) -> Images:
    """Return a random crop of each image, randomly mirrored, with its colours shifted.

    Every place of the crop is equally likely, and it is mirrored (left to right) with probability 1/2. With
    `components` λ and p, the paper's section 4.1 adds one shift to every pixel (R, G, B) of an image:

        [p₁, p₂, p₃] · [α₁λ₁, α₂λ₂, α₃λ₃]ᵀ,   αᵢ normal with mean 0 and standard deviation `sigma`,

    where each αᵢ is drawn once for all pixels of an image, and again the next time the image is used. As λ is a
    variance, the size of the shift depends on the unit: for pixels from 0 to 1 it is gentle; for 0 to 255 it would be
    255 times as large, relative to the pixels. The paper does not state its unit.

    Parameters
    ----------
    images : array (N, 3, H, W)
        Real numbers, in the unit of `components`. Without `components`, any number of channels is allowed.
    rng : numpy.random.Generator
        Draws, in this order and each for all images: tops, lefts, mirrors, and α if there are `components`.
    crop : int
        Height and width of the result, at most H and W.
    components : (eigenvalues, eigenvectors), optional
        From :func:`color_components`; by default colours stay.
    sigma : float
        The paper's is 0.1.

    Returns
    -------
    float32 array (N, 3, crop, crop)
        A new array.

    References
    ----------
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", 2012,
    section 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn.data import augment, color_components
    >>> images = np.random.default_rng(0).random((2, 3, 8, 9))
    >>> augment(images, np.random.default_rng(1), crop=6, components=color_components(images)).shape
    (2, 3, 6, 6)
    """
    _check_shape(images, "images", ("N", "C" if components is None else "3", "H", "W"))
    check_rng(rng)
    count, channels, height, width = images.shape
    crop, sigma = as_int(crop, "crop", 1, min(height, width)), as_float(sigma, "sigma", 0)
    tops = rng.integers(0, height - crop + 1, count)
    lefts = rng.integers(0, width - crop + 1, count)
    mirrors = rng.random(count) < 0.5
    result = np.empty((count, channels, crop, crop), "float32")
    for n in range(count):
        found = images[n, :, tops[n] : tops[n] + crop, lefts[n] : lefts[n] + crop]
        result[n] = found[:, :, ::-1] if mirrors[n] else found
    if components is not None:
        eigenvalues, eigenvectors = components
        alpha = rng.normal(0, sigma, (count, 3))
        shifts = (alpha * eigenvalues) @ eigenvectors.T  # (N, 3) · (3, 3): row n is p·(α ∘ λ) of image n
        result += shifts[:, :, None, None].astype("float32")
    return result


def ten_crops(image: Images, crop: int) -> Images:
    """Return the ten patches over which AlexNet averages its answer in testing.

    They are the four corners (top left, top right, bottom left, bottom right) and the centre, then the mirror images
    of these five (section 4.1 of the paper). If the margin is odd, the centre is half a pixel up or left.

    Parameters
    ----------
    image : array (3, H, W)
        Any number of channels is allowed.
    crop : int
        Height and width of the patches, at most H and W.

    Returns
    -------
    array (10, 3, crop, crop)
        A new array, of the dtype of `image`.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn.data import ten_crops
    >>> ten_crops(np.arange(9).reshape(1, 3, 3), 1).ravel().tolist()
    [0, 2, 6, 8, 4, 0, 2, 6, 8, 4]
    """
    _check_shape(image, "image", ("C", "H", "W"))
    _, height, width = image.shape
    crop = as_int(crop, "crop", 1, min(height, width))
    down, right = height - crop, width - crop
    places = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    five = np.stack([image[:, top : top + crop, left : left + crop] for top, left in places])
    return np.concatenate([five, five[..., ::-1]])


class PhotographCrops:
    """The AlexNet paper's image pipeline, on the seven bundled photographs.

    The set is tiny. It is meant for running and timing real steps of a network for large images, not for learning
    anything that generalises to other images.

    As in section 2 of the paper, each photograph is rescaled so that its shorter side is `side`, its central side×side
    patch is cut out, and the mean of the set is subtracted from each pixel. Here pixels are from 0 to 1 before the
    subtraction. A batch draws photographs with replacement; :func:`augment` crops and mirrors each and shifts its
    colours.

    Parameters
    ----------
    seed : int
        Seed of the generator for batches without a generator of their own.
    side, crop : int
        Height and width of the photographs, and of the crops in a batch; the paper's are 256 and 224.

    Attributes
    ----------
    classes : tuple of str
        The names of the photographs.
    images : float32 array (7, 3, side, side)
        The photographs, less `mean`.
    mean : float32 array (3, side, side)
        The mean over the photographs, from 0 to 1.
    components : (eigenvalues, eigenvectors)
        The result of :func:`color_components` for the photographs, with pixels from 0 to 1.

    Raises
    ------
    ImportError
        If scikit-learn, scikit-image or Pillow is not installed.

    References
    ----------
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", 2012,
    sections 2 and 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn.data import PhotographCrops
    >>> crops = PhotographCrops(0)                                          # doctest: +SKIP
    >>> images, labels = crops.batch(128, np.random.default_rng(0))         # doctest: +SKIP
    >>> images.shape, images.dtype, labels.shape                            # doctest: +SKIP
    ((128, 3, 224, 224), dtype('float32'), (128,))
    """

    def __init__(self, seed: int = 0, *, side: int = 256, crop: int = 224) -> None:
        seed, side = as_int(seed, "seed", 0), as_int(side, "side", 1, 4096)
        self.crop = as_int(crop, "crop", 1, side)
        photographs = bundled_photographs()
        with needing("the photographs", "Pillow"):
            from PIL import Image
        squares = [centre_square(Image.fromarray(photograph), side) for photograph in photographs.values()]
        images = np.stack(squares).transpose(0, 3, 1, 2).astype("float32") / 255  # NHWC -> NCHW
        self.classes = tuple(photographs)
        self.components = color_components(images)
        self.mean = images.mean(axis=0)
        self.images = images - self.mean
        self._rng = np.random.default_rng(seed)

    def batch(self, size: int, rng: np.random.Generator | None = None) -> tuple[Images, Images]:
        """Return `size` augmented crops, and the index of each crop's photograph.

        Parameters
        ----------
        size : int
            Images in the batch.
        rng : numpy.random.Generator, optional
            Draws photographs and crops. Default: the generator made from the seed, at its current state.

        Returns
        -------
        images : float32 array (size, 3, crop, crop)
        labels : int64 array (size,)
        """
        size, rng = as_int(size, "size", 1), self._rng if rng is None else check_rng(rng)
        labels = rng.integers(0, len(self.classes), size)
        return augment(self.images[labels], rng, crop=self.crop, components=self.components), labels


def _check_shape(images: Images, name: str, wanted: tuple[str, ...]) -> None:
    """Check that an array has the axes in `wanted`, none of them empty, and the lengths given there as digits."""
    shape = images.shape
    if (
        len(shape) != len(wanted)
        or 0 in shape
        or any(w.isdigit() and int(w) != n for w, n in zip(wanted, shape, strict=True))
    ):
        raise ValueError(f"{name} must have shape ({', '.join(wanted)}) without empty axes; got {shape}")
