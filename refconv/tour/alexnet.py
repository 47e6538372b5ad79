"""AlexNet's five convolutions on a photograph, with its two groups and with one.

Krizhevsky, Sutskever, Hinton, *ImageNet Classification with Deep Convolutional Neural Networks*, NIPS 2012. The
weights are random, as at the start of training: shapes, parameters, multiply-adds and time do not depend on them.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

import refconv
from refconv.arrays import Array, Namespace, to_numpy
from refconv.bench.workloads import WORKLOADS
from refconv.cost import alexnet
from refconv.nn import MaxPool, ReLU
from refconv.progress import Advance

SIDE = 227
"""Side of the image; the paper says 224, which does not give its 55×55 outputs."""

PATIENCE = 6.0
"""Seconds after which no further repetition starts."""


LAYERS = {2: WORKLOADS["alexnet"], 1: WORKLOADS["alexnet-dense"]}
"""The convolutions with two groups and with one, as `refconv bench` times them."""


@dataclass(frozen=True)
class LayerResult:
    """One convolution with two groups and with one; each pair is (groups=2, groups=1)."""

    name: str
    grouped: bool
    output_shape: tuple[int, ...]
    parameters: tuple[int, int]
    macs: tuple[int, int]
    seconds: tuple[float, float]
    """Medians of the repetitions."""


@dataclass(frozen=True)
class AlexNetResult:
    """All five convolutions, and the data for the figures."""

    layers: tuple[LayerResult, ...]
    repetitions: int
    seconds: tuple[float, float]
    """Medians of all five together, with two groups and with one."""
    photograph: Array
    """NumPy, (227, 227, 3), from 0 to 1."""
    feature_maps: Array
    """NumPy, (96, 55, 55): conv 1 after ReLU."""

    def total(self, what: str) -> tuple[int, int]:
        """Return the sum of "parameters" or "macs" over the layers."""
        pairs = [getattr(layer, what) for layer in self.layers]
        return sum(two for two, _ in pairs), sum(one for _, one in pairs)

    @property
    def mac_ratio(self) -> float:
        """Multiply-adds with one group over those with two."""
        two, one = self.total("macs")
        return one / two

    @property
    def time_ratio(self) -> float:
        """Time with one group over time with two; it would equal `mac_ratio` if only multiply-adds took time."""
        return self.seconds[1] / self.seconds[0]


def load_photograph() -> Array:
    """Return the portrait of the astronaut Eileen Collins (NASA, public domain) as (227, 227, 3), from 0 to 1.

    It is part of scikit-image; nothing is downloaded. The centre square is cropped and resized.

    Raises
    ------
    ImportError
        If scikit-image is not installed.
    """
    from skimage import data, transform

    load: Any = data.astronaut  # neither function has types
    resize: Any = transform.resize
    photograph = load()
    rows, columns, _ = photograph.shape
    side = min(rows, columns)
    top, left = (rows - side) // 2, (columns - side) // 2
    square = photograph[top : top + side, left : left + side]
    return resize(square, (SIDE, SIDE), anti_aliasing=True).astype("float32")


def run_alexnet(xp: Namespace, *, seed: int = 0, repetitions: int = 9, advance: Advance | None = None) -> AlexNetResult:
    """Run the convolutions with two groups and with one, alternately, and time them.

    ReLU and 3×3 max pooling with stride 2 come between, as in the paper, and are not timed. Local response
    normalisation is left out: it changes neither shapes nor costs.

    Parameters
    ----------
    xp : module
        The array module.
    seed : int
        Draws the weights.
    repetitions : int
        Number of timed runs, after one that is not timed; a slow machine may stop after three.
    advance : Advance, optional
        Called for each repetition.
    """
    photograph = load_photograph()
    image = (photograph - photograph.mean()) / photograph.std()
    x = xp.asarray(np.ascontiguousarray(image.transpose(2, 0, 1))[None])
    weights = {groups: _draw_weights(xp, groups, np.random.default_rng(seed)) for groups in (2, 1)}
    times: dict[int, list[list[float]]] = {2: [], 1: []}
    outputs: dict[int, list[Array]] = {}
    started = time.perf_counter()
    for repetition in range(repetitions + 1):
        if repetition > 3 and time.perf_counter() - started > PATIENCE:
            break
        # Alternately, and each first in turn, so that a busy machine affects both.
        for groups in (2, 1) if repetition % 2 else (1, 2):
            outputs[groups], seconds = _forward(xp, x, weights[groups], groups)
            if repetition:
                times[groups].append(seconds)
        if advance is not None:
            advance(1, "groups=2 and groups=1 alternately")
    costs = {groups: {layer.name: layer for layer in alexnet(groups).layers} for groups in (2, 1)}
    layers = []
    for i, layer in enumerate(LAYERS[2]):
        two, one = costs[2][layer.name], costs[1][layer.name]
        shape = tuple(outputs[2][i].shape[1:])
        if shape != two.output_shape or tuple(outputs[1][i].shape[1:]) != shape:
            raise RuntimeError(f"{layer.name} gave the shape {shape}, but its cost was counted for {two.output_shape}")
        medians = [statistics.median(run[i] for run in times[groups]) for groups in (2, 1)]
        layers.append(
            LayerResult(
                name=layer.name,
                grouped=layer.groups.n > 1,
                output_shape=shape,
                parameters=(two.parameters, one.parameters),
                macs=(two.macs, one.macs),
                seconds=(medians[0], medians[1]),
            )
        )
    totals = [statistics.median(sum(run) for run in times[groups]) for groups in (2, 1)]
    feature_maps = np.maximum(to_numpy(outputs[2][0])[0], 0)
    return AlexNetResult(tuple(layers), len(times[2]), (totals[0], totals[1]), photograph, feature_maps)


def _draw_weights(xp: Namespace, groups: int, rng: np.random.Generator) -> list[Array]:
    """Draw He-normal weights, so that activations keep their size through the layers."""
    weights = []
    for layer in LAYERS[groups]:
        c_in = layer.c_in // layer.groups.n
        shape = (layer.c_out, c_in, layer.kernel, layer.kernel)
        scale = (2 / (c_in * layer.kernel**2)) ** 0.5
        weights.append(xp.asarray((rng.standard_normal(shape) * scale).astype("float32")))
    return weights


def _forward(xp: Namespace, x: Array, weights: list[Array], groups: int) -> tuple[list[Array], list[float]]:
    """Return each convolution's output, and its seconds."""
    outputs, seconds = [], []
    for layer, weight in zip(LAYERS[groups], weights, strict=True):
        if x.shape[2] > layer.size:
            x = MaxPool(3, 2).forward(x)
        options: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "groups": layer.groups.n}
        _wait(x)
        started = time.perf_counter()
        y = refconv.conv(x, weight, **options)
        _wait(y)
        seconds.append(time.perf_counter() - started)
        outputs.append(y)
        x = ReLU().forward(y)
    return outputs, seconds


def _wait(array: Array) -> None:
    """Wait until a device that works in the background has computed `array`, by reading an element."""
    float(array[(0,) * array.ndim])
