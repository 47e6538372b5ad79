"""Pictures of AlexNet for the notebooks: its two towers as blocks, and the kernels of a first layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from refconv.notebooks.draw import DARK, LIGHT, PALE, panels

Array = Any


class Stage(NamedTuple):
    """The output of one layer on each device.

    Attributes
    ----------
    name : str
        Name of the layer.
    channels, side : int
        Channels on one device, and the height and width of each.
    crosses : bool
        Whether the layer also reads the other device's channels.
    """

    name: str
    channels: int
    side: int
    crosses: bool = False


SLANT = 0.35
"""Length of a receding edge on paper, as a share of its true length, along each axis."""


def block(axes: Axes, left: float, bottom: float, length: float, side: float, colour: str = PALE) -> None:
    """Draw a block of `length` channels to the right, with square maps that face left and recede.

    Its front bottom left corner is at (left, bottom). The drawing is `length` + SLANT·`side` wide and
    (1 + SLANT)·`side` high.
    """
    back = SLANT * side
    x, y = np.array([left, left + length]), np.array([bottom, bottom + side])
    faces = [
        ([(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])], 1.0),  # front: channels × height
        ([(x[0], y[1]), (x[1], y[1]), (x[1] + back, y[1] + back), (x[0] + back, y[1] + back)], 0.94),  # top
        ([(x[1], y[0]), (x[1] + back, y[0] + back), (x[1] + back, y[1] + back), (x[1], y[1])], 0.78),  # a map
    ]
    for corners, light in faces:
        face = tuple(light * part for part in to_rgb(colour))
        axes.add_patch(Polygon(corners, facecolor=face, edgecolor=DARK, lw=1.0, joinstyle="round", zorder=3))


def towers(
    image: int, stages: Sequence[Stage], *, per_channel: float = 0.11, gap: float = 46, inches: float = 5.6
) -> Figure:
    """Draw the image and, below it, the outputs of each layer on two devices, to scale.

    Parameters
    ----------
    image : int
        Height and width of the image, which both devices read.
    stages : sequence of Stage
        Layers in order, the first after the image first.
    per_channel : float
        Length of a channel, in pixels of the maps. The scale differs because a map has few pixels and a layer many
        channels.
    gap : float
        Height of the space between two layers, in pixels.
    inches : float
        Width of the figure.

    Returns
    -------
    Figure
        A tall figure, readable on a narrow screen.
    """
    longest = per_channel * max(stage.channels for stage in stages)
    lefts = 58.0, 58 + longest + 24
    width = lefts[1] + longest + 8
    heights = [(1 + SLANT) * stage.side for stage in stages]
    height = (1 + SLANT) * image + 24 + sum(heights) + gap * len(stages) + 8
    figure, axes = panels(1, width=inches, height=inches * height / width)
    axes.set(xlim=(0, width), ylim=(-height, 0), aspect="equal")
    axes.axis("off")

    bottom = -(1 + SLANT) * image - 24
    middle = (lefts[0] + lefts[1]) / 2
    block(axes, middle, bottom, 3 * per_channel, image)
    axes.text(6, bottom + image / 2, "image", va="center", fontweight="bold")
    axes.text(middle + SLANT * image + 10, bottom + image / 2, f"3 × {image} × {image}", va="center")

    starts = [(middle, bottom)] * 2
    for stage, tall in zip(stages, heights, strict=True):
        top = bottom - gap
        bottom = top - tall
        axes.text(6, bottom + stage.side / 2, stage.name, va="center", fontweight="bold")
        ends = []
        for device, left in enumerate(lefts):
            if stage is stages[0]:
                axes.text(left + longest, bottom, f"device {device}", ha="right", va="bottom", fontstyle="italic")
            length = per_channel * stage.channels
            block(axes, left, bottom, length, stage.side)
            size = f"{stage.channels:,}" + (f" × {stage.side} × {stage.side}" if stage.side > 1 else "")
            right = left + length + SLANT * stage.side
            if right + 100 < left + longest:
                axes.text(right + 8, bottom + tall / 2, size, va="center")
            else:
                ground = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}  # also over an arrow
                axes.text(left + longest - 6, bottom + tall + 6, size, ha="right", va="bottom", bbox=ground, zorder=5)
            ends.append((left + min(length, 20) / 2, bottom + stage.side))
        for device in (0, 1):
            _arrow(axes, starts[device], ends[device], crosses=False)
            if stage.crosses:
                _arrow(axes, starts[device], ends[1 - device], crosses=True)
        starts = [(left + min(per_channel * stage.channels, 20) / 2, bottom) for left in lefts]
    axes.plot([], [], color=DARK, lw=1.4, label="stays on its device")
    axes.plot([], [], color=LIGHT, lw=2.2, ls="--", label="crosses to the other")
    axes.legend(frameon=False, loc="upper left", borderpad=0)
    return figure


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], *, crosses: bool) -> None:
    style = {"color": LIGHT, "lw": 2.2, "ls": "--"} if crosses else {"color": DARK, "lw": 1.4}
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "shrinkA": 3, "shrinkB": 2, **style}, zorder=4)


def kernels(axes: Axes, weight: Array, notes: Sequence[str] = (), *, columns: int = 8, title: str = "") -> None:
    """Draw the kernels of a first layer, (K, 3, k, k), as colour pictures in rows, each with a note below.

    Zero is middle grey, and the largest magnitude of each kernel is full brightness or darkness.
    """
    step = 1.5 if notes else 1.15
    for index, kernel in enumerate(np.asarray(weight, dtype=float)):
        row, column = divmod(index, columns)
        left, bottom = 1.15 * column, -step * row
        shown = 0.5 + 0.5 * kernel.transpose(1, 2, 0) / max(1e-12, np.abs(kernel).max())
        axes.imshow(shown, extent=(left, left + 1, bottom, bottom + 1), interpolation="nearest")
        if notes:
            axes.text(left + 0.5, bottom - 0.06, notes[index], ha="center", va="top", fontsize=9.5)
    rows = -(-len(weight) // columns)
    axes.set(xlim=(-0.05, 1.15 * columns - 0.1), ylim=(-step * (rows - 1) - 0.5 * bool(notes) - 0.05, 1.05))
    axes.set(aspect="equal", title=title)
    axes.axis("off")
