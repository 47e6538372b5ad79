"""The pictures of the report, as PNG images. They are legible in grey and to colour-blind readers.

They are narrow, with panels below each other, so that they fit a phone with legible text.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from refconv.arrays import Array
from refconv.groups import ChannelGroups
from refconv.tour.alexnet import AlexNetResult
from refconv.tour.digits import DigitsResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DARK, LIGHT = "#20456b", "#e69f00"
"""Blue and orange of Okabe and Ito's colour-blind palette; they also differ clearly in lightness."""
_TEXT_SIZE = 11
_WIDTH = 5.6
"""Width of every picture of the report, in inches."""


def connectivity_figure(named: Sequence[tuple[str, ChannelGroups]], columns: int = 2) -> bytes:
    """Draw the input channels that each output channel reads, one panel per kind of groups.

    Parameters
    ----------
    named : sequence of (str, ChannelGroups)
        Titles and groups.
    columns : int
        Number of panels side by side.

    Returns
    -------
    bytes
        A PNG image.
    """
    rows = -(-len(named) // columns)
    figure, axes = _figure(rows, columns, width=columns * _WIDTH / 2, height=3.4 * rows)
    for (name, groups), axis in zip(named, axes, strict=True):
        matrix = groups.connectivity()
        axis.imshow(matrix, cmap="Greys", vmin=0, vmax=1.35, interpolation="nearest")
        share = int(matrix.sum()) / matrix.size
        axis.set_title(f"{name}\n{share:.1%} of the weights", fontsize=_TEXT_SIZE)
        axis.set_xlabel("input channel")
        axis.set_xticks(_channel_ticks(groups.c_in))
        axis.set_yticks(_channel_ticks(groups.c_out))
    for axis in axes[::columns]:
        axis.set_ylabel("output channel")
    return _png(figure)


def _channel_ticks(channels: int) -> list[int]:
    return [*range(0, channels, max(1, channels // 4)), channels - 1]


def photograph_figure(result: AlexNetResult) -> bytes:
    """Draw the photograph, and the seven feature maps of conv 1 that vary most over it, as a PNG image."""
    figure, axes = _figure(2, 4, width=_WIDTH, height=3.4)
    axes[0].imshow(result.photograph)
    axes[0].set_title("photograph", fontsize=_TEXT_SIZE)
    deviations = result.feature_maps.std(axis=(1, 2))
    strongest = sorted(int(channel) for channel in np.argsort(-deviations)[:7])
    for channel, axis in zip(strongest, axes[1:], strict=True):
        axis.imshow(result.feature_maps[channel], cmap="gray")
        axis.set_title(f"map {channel}", fontsize=_TEXT_SIZE)
    for axis in axes:
        axis.set_axis_off()
    return _png(figure)


def alexnet_figure(result: AlexNetResult) -> bytes:
    """Draw multiply-adds and measured time of every convolution with two groups and with one, as a PNG image."""
    figure, (macs, seconds) = _figure(2, 1, width=_WIDTH, height=6)
    names = [layer.name for layer in result.layers]
    _paired_bars(macs, names, [layer.macs for layer in result.layers], 1e-6)
    macs.set_ylabel("multiply-adds (millions)")
    _paired_bars(seconds, names, [layer.seconds for layer in result.layers], 1e3)
    seconds.set_ylabel("measured time (ms)")
    macs.legend(frameon=False)
    return _png(figure)


def _paired_bars(axis: Axes, names: list[str], pairs: Sequence[tuple[float, float]], scale: float) -> None:
    places = np.arange(len(names))
    for side, (label, colour, hatch) in enumerate((("groups=2", DARK, ""), ("groups=1", LIGHT, "//"))):
        heights = [pair[side] * scale for pair in pairs]
        axis.bar(
            places + 0.4 * (side - 0.5),
            heights,
            0.38,
            label=label,
            color=colour,
            hatch=hatch,
            edgecolor="black",
        )
    axis.set_xticks(places, names)
    _open(axis)


def accuracy_figure(result: DigitsResult) -> bytes:
    """Draw the accuracy of every seed as a dot, next to mean ± standard deviation, as a PNG image."""
    figure, (axis,) = _figure(1, 1, width=_WIDTH, height=4.2)
    for place, network in enumerate(result.networks):
        values = 100 * np.asarray(network.accuracies)
        offsets = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(1)
        axis.plot(
            values, place - 0.16 + offsets, "o", color=LIGHT, markeredgecolor="black", markersize=8,
            label="one seed" if place == 0 else None,
        )  # fmt: skip
        axis.errorbar(
            100 * network.mean, place + 0.2, xerr=100 * network.spread, fmt="D", color=DARK, capsize=6, markersize=7,
            label="mean ± standard deviation" if place == 0 else None,
        )  # fmt: skip
    names = [f"{network.name}\n{network.parameters:,} parameters" for network in result.networks]
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel("test accuracy (%)")
    axis.grid(axis="x", alpha=0.3)
    figure.legend(frameon=False, loc="outside upper center", ncols=2)
    _open(axis)
    return _png(figure)


def _figure(rows: int, columns: int, *, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure without a window, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes: Array = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def _open(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    # Without the program's name, so that equal figures give equal files.
    figure.savefig(stream, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return stream.getvalue()
