"""Images with a clear licence that are part of scikit-learn and scikit-image; nothing is downloaded."""

from __future__ import annotations

from typing import Any

from refconv.nn.data.split import Images, needing

_TEXTURES = ("brick", "grass", "gravel")


def bundled_textures() -> dict[str, Images]:
    """Return scikit-image's photographs of brick, grass and gravel (CC0), as uint8 (512, 512).

    Returns
    -------
    dict of str to uint8 array (512, 512)
        Grey values by name.

    Raises
    ------
    ImportError
        If scikit-image is not installed.

    Examples
    --------
    >>> from refconv.nn.data import bundled_textures
    >>> sorted(bundled_textures())                             # doctest: +SKIP
    ['brick', 'grass', 'gravel']
    """
    with needing("the textures", "scikit-image"):
        from skimage import data
    bundled: Any = data  # its functions have no types
    return {name: getattr(bundled, name)() for name in _TEXTURES}


def bundled_photographs() -> dict[str, Images]:
    """Return the colour photographs with a clear licence, as uint8 (H, W, 3), in the order of their names.

    ============ ================= ============================================== =====
    name         from              licence                                        H × W
    ============ ================= ============================================== =====
    astronaut    scikit-image      public domain (NASA)                           512 × 512
    chelsea      scikit-image      CC0 (Stéfan van der Walt)                      300 × 451
    china        scikit-learn      CC BY 2.0 (danielbuechele)                     427 × 640
    coffee       scikit-image      CC0 (Rachel Michetti)                          400 × 600
    flower       scikit-learn      CC BY 2.0 (vultilion)                          427 × 640
    retina       scikit-image      CC0 (Häggström)                                1411 × 1411
    rocket       scikit-image      public domain (SpaceX)                         427 × 640
    ============ ================= ============================================== =====

    Returns
    -------
    dict of str to uint8 array (H, W, 3)
        Red, green and blue by name.

    Raises
    ------
    ImportError
        If scikit-learn or scikit-image is not installed.

    Examples
    --------
    >>> from refconv.nn.data import bundled_photographs
    >>> bundled_photographs()["chelsea"].shape                 # doctest: +SKIP
    (300, 451, 3)
    """
    with needing("the photographs", "scikit-learn", "scikit-image"):
        from skimage import data
        from sklearn.datasets import load_sample_image
    bundled: Any = data  # its functions have no types
    found = {name: getattr(bundled, name)() for name in ("astronaut", "chelsea", "coffee", "retina", "rocket")}
    found |= {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    return dict(sorted(found.items()))
