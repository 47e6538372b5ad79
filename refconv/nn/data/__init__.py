"""Images to train on: some are part of ordinary packages, others are in a folder that the user names.

Everything uses NumPy, nothing is downloaded, and no file is ever unpickled.

>>> from refconv.nn.data import DATASETS
>>> for name in DATASETS:
...     print(name)
digits
textures
photographs
cifar10:FOLDER
folder:FOLDER
"""

from refconv.nn.data.augmentation import PhotographCrops, augment, color_components, ten_crops
from refconv.nn.data.bundled import bundled_photographs, bundled_textures
from refconv.nn.data.cifar import load_cifar10
from refconv.nn.data.digits import load_digits_split
from refconv.nn.data.folder import load_folder
from refconv.nn.data.patches import cut_patches, load_photographs_split, load_textures_split
from refconv.nn.data.registry import DATASETS, load_dataset
from refconv.nn.data.resize import resized
from refconv.nn.data.split import DataError, Split

__all__ = [
    "DATASETS",
    "DataError",
    "PhotographCrops",
    "Split",
    "augment",
    "bundled_photographs",
    "bundled_textures",
    "color_components",
    "cut_patches",
    "load_cifar10",
    "load_dataset",
    "load_digits_split",
    "load_folder",
    "load_photographs_split",
    "load_textures_split",
    "resized",
    "ten_crops",
]
