"""A trained network from its checkpoint, and images as it expects them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refconv.arrays import device, load_backend
from refconv.experiments.train import CHECKPOINT, fingerprint
from refconv.experiments.trainable import build_model, find_model
from refconv.nn import CheckpointError, Layer, Split, load_checkpoint
from refconv.nn.data import load_dataset
from refconv.nn.data.folder import read_image

_LUMINANCE = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in grey (ITU-R BT.601, as in Pillow)."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A network from the checkpoint of a training.

    Attributes
    ----------
    model : Layer
        The network, set to testing.
    config : dict
        Settings of its training.
    classes : tuple of str
        Names of the classes.
    scale : tuple of (float, float)
        Mean and standard deviation of each channel of the training images: see :class:`refconv.nn.Split`.
    """

    model: Layer
    config: dict[str, Any]
    classes: tuple[str, ...]
    scale: tuple[tuple[float, float], ...]


def load_network(path: str | os.PathLike[str], backend: str | None = None) -> TrainedNetwork:
    """Read a trained network.

    Parameters
    ----------
    path : path
        A checkpoint of ``refconv train``, or the folder that contains it.
    backend : str, optional
        Array module to compute with: see :func:`refconv.load_backend`.

    Raises
    ------
    refconv.nn.CheckpointError
        If it cannot be read, or is not a checkpoint of a training.
    ImportError, refconv.BackendError
        If a package is missing, or there is no such array module.
    """
    path = Path(path)
    file = path / CHECKPOINT if path.is_dir() else path
    xp, (arrays, meta) = load_backend(backend), load_checkpoint(file)
    try:
        config, classes = meta["config"], tuple(meta["classes"])
        scale = tuple((float(mean), float(deviation)) for mean, deviation in meta["scale"])
        entry, rng = find_model(config["model"]), np.random.default_rng(0)
        model = build_model(
            config["model"],
            config["groups"],
            {option: config[option] for option in entry.options if option in config},
            c_in=len(scale),
            classes=len(classes),
            side=config["side"],
            rng=rng,
            dropout_rng=rng,
            xp=xp,
        )
        state = {
            name: xp.asarray(arrays[f"model.{name}"], device=device(current)) for name, current in model.state().items()
        }
        model.load_state(state)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: a checkpoint, but not one of refconv train ({error})") from error
    return TrainedNetwork(model.eval(), config, classes, scale)


def read_images(network: TrainedNetwork, paths: Sequence[Path], *, invert: bool = False) -> np.ndarray[Any, Any]:
    """Read image files as a network expects them.

    Each image is cropped to its central square, resized, converted to grey if the network was trained on grey images,
    and standardised as the training images were.

    Parameters
    ----------
    network : TrainedNetwork
        It determines size, channels and scale.
    paths : sequence of Path
        Image files in any format that Pillow knows.
    invert : bool
        Whether to exchange black and white, as for dark ink on light paper if the network was trained on light strokes.

    Returns
    -------
    array (N, C, side, side)
        float32.

    Raises
    ------
    refconv.nn.data.DataError
        If a file is not an image.
    ImportError
        If Pillow is not installed.
    """
    side, channels = network.config["side"], len(network.scale)
    result = np.empty((len(paths), channels, side, side), "float32")
    mean, deviation = np.array(network.scale).T
    for index, path in enumerate(paths):
        levels = read_image(path, side) / 255  # (side, side, 3)
        if invert:
            levels = 1 - levels
        if channels == 1:
            levels = (levels @ _LUMINANCE)[..., None]
        result[index] = ((levels - mean) / deviation).transpose(2, 0, 1)  # HWC -> CHW
    return result


def load_test_images(network: TrainedNetwork) -> Split:
    """Return the data set on which a network was trained.

    Raises
    ------
    ValueError
        If the data set has other images now.
    refconv.nn.data.DataError, ImportError
        See :func:`refconv.nn.data.load_dataset`.
    """
    config = network.config
    data = load_dataset(config["data"], side=config["side"])
    if fingerprint(data) != config.get("data_sha256"):
        raise ValueError(f"the images of {config['data']} are not the ones that the network was trained on")
    return data
