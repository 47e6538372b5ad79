"""Pictures for the notebooks, readable in grey and by the colour-blind, because marks also differ in lightness.

Grids are numbered like arrays: rows downwards from 0, columns to the right.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image as Pictures

from refconv.groups import ChannelGroups

Array = Any
DARK, LIGHT, PALE = "#20456b", "#e69f00", "#f4f4f4"
"""Blue and orange of Okabe and Ito's palette for the colour-blind, and the background."""

_STYLE: Any = {
    "axes.titlesize": 11,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.dpi": 80,
    "figure.max_open_warning": 0,
    "font.size": 10.5,
}


def panels(
    count: int, *, width: float, height: float, ratios: Sequence[float] | None = None, rows: int = 1
) -> tuple[Figure, Any]:
    """Return a figure with `count` axes in `rows` rows, and the axes in reading order (a single one if count is 1)."""
    plt.rcParams.update(_STYLE)
    figure, axes = plt.subplots(rows, count // rows, figsize=(width, height), width_ratios=ratios)
    return figure, axes if rows == 1 else axes.ravel()


def grid(
    axes: Axes,
    values: Array,
    title: str = "",
    *,
    marked: Any = None,
    hatched: Any = None,
    box: tuple[float, float, float, float] | None = None,
    labels: tuple[str, str] | None = ("row", "column"),
    names: tuple[Sequence[Any] | None, Sequence[Any] | None] = (None, None),
    size: float = 11,
) -> None:
    """Draw a matrix as a grid of numbers.

    Parameters
    ----------
    axes : Axes
        Where to draw.
    values : array (rows, columns)
        NaN leaves a cell empty. Strings are written unchanged, numbers with at most six digits.
    title : str
        The title.
    marked, hatched : array of bool, optional
        Cells with an orange background, and hatched cells (padding).
    box : (top, left, height, width), optional
        A thick frame, in cells.
    labels : (str, str) or None
        Labels of the two axes.
    names : pair of sequences
        Names of the rows and columns, in place of their numbers.
    size : float
        Font size of the values; 0 omits them.
    """
    table = np.asarray(values)
    rows, columns = table.shape
    marked = np.zeros(table.shape, bool) if marked is None else np.broadcast_to(marked, table.shape)
    hatched = np.zeros(table.shape, bool) if hatched is None else np.broadcast_to(hatched, table.shape)
    for i, j in np.ndindex(rows, columns):
        ground = LIGHT if marked[i, j] else PALE if hatched[i, j] else "white"
        pattern = "////" if hatched[i, j] else None
        edge = "#404040" if pattern and marked[i, j] else "#9a9a9a"  # a pattern has the colour of the edge
        axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=ground, edgecolor=edge, hatch=pattern, lw=0.8))
        text = _text(table[i, j])
        if size and text:
            back = {"facecolor": ground, "edgecolor": "none", "pad": 1.0} if pattern else None
            axes.text(j, i, text, ha="center", va="center", fontsize=size, bbox=back)
    if box is not None:
        top, left, height, width = box
        frame = Rectangle((left - 0.5, top - 0.5), width, height, fill=False, edgecolor=DARK, lw=3.2, zorder=5)
        axes.add_patch(frame)
    axes.set(xlim=(-0.6, columns - 0.4), ylim=(rows - 0.4, -0.6), aspect="equal")
    axes.set_title(title)
    for axis, count, named in ((axes.yaxis, rows, names[0]), (axes.xaxis, columns, names[1])):
        axis.set_ticks(range(count), [str(n) for n in (range(count) if named is None else named)])
        axis.set_tick_params(length=0)
    if labels is not None:
        axes.set(ylabel=labels[0], xlabel=labels[1])
    for side in axes.spines.values():
        side.set_visible(False)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if np.isnan(value) else f"{value:g}".replace("-", "−")


def deck(
    axes: Axes,
    shape: tuple[int, int, int],
    title: str = "",
    *,
    at: tuple[float, float] = (0, 0),
    box: tuple[int, int, int, int],
) -> list[tuple[float, float]]:
    """Draw the channels of an array as grids behind one another, the first in front.

    Parameters
    ----------
    axes : Axes
        Where to draw; :func:`blank` sets its limits.
    shape : (channels, rows, columns)
        Shape of the array.
    title : str
        Written below the front grid.
    at : (left, top)
        Position of the front grid, in cells.
    box : (top, left, height, width)
        A window through all channels, framed, with an orange background. At the right edge it is visible in every
        channel.

    Returns
    -------
    list of (x, y)
        The middle of the window's right edge in each channel.
    """
    channels, rows, columns = shape
    ends = []
    for channel in reversed(range(channels)):
        x, y = at[0] + 2.4 * channel, at[1] - 1.2 * channel
        for i, j in np.ndindex(rows, columns):
            inside = box[0] <= i < box[0] + box[2] and box[1] <= j < box[1] + box[3]
            ground = LIGHT if inside else "white"
            axes.add_patch(Rectangle((x + j, y + i), 1, 1, facecolor=ground, edgecolor="#9a9a9a", lw=0.8))
        frame = Rectangle((x + box[1], y + box[0]), box[3], box[2], fill=False, edgecolor=DARK, lw=2.2)
        axes.add_patch(frame)
        ends.append((x + box[1] + box[3], y + box[0] + box[2] / 2))
    axes.text(at[0], at[1] + rows + 0.3, title, fontsize=11, va="top")
    return ends[::-1]


def blank(axes: Axes, width: float, height: float, top: float = 0) -> None:
    """Set the limits of axes in cells, rows downwards from `top`, and hide frame and ticks."""
    axes.set(xlim=(-0.3, width), ylim=(height, top), aspect="equal")
    axes.axis("off")


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], *, bold: bool = False) -> None:
    """Draw an arrow: dark and thick, or thin and grey."""
    style = {"color": DARK if bold else "#777777", "lw": 1.8 if bold else 0.9, "shrinkA": 1, "shrinkB": 2}
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", **style})


def spread(
    axes: Axes,
    values: Sequence[Any],
    links: Sequence[tuple[int, int, Any]],
    sums: Sequence[Any],
    *,
    now: int | None = None,
    names: tuple[str, str] = ("", ""),
) -> None:
    """Draw values above, sums below, and an arrow with its weight for each link (value, sum, weight).

    Sums that receive several arrows have an orange background. With `now`, the arrows of that value are bold.
    """
    high, low = 0.0, 3.6  # where the two rows begin
    shift = (len(sums) - len(values)) / 2
    hits = [sum(target == i for _, target, _ in links) for i in range(len(sums))]
    for i, value in enumerate(values):
        _cell(axes, shift + i, high, value, PALE if i == now else "white")
    for i, value in enumerate(sums):
        _cell(axes, i, low, value, LIGHT if hits[i] > 1 else "white")
    for name, top in zip(names, (high, low), strict=True):
        axes.text(-0.2, top + 0.5, name, ha="right", va="center", fontsize=11)
    for source, target, weight in links:
        x1, x2 = shift + source + 0.5, target + 0.5
        arrow(axes, (x1, high + 1), (x2, low), bold=source == now)
        place = x1 + 0.62 * (x2 - x1), high + 1 + 0.62 * (low - high - 1)
        back = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        axes.text(place[0], place[1], _text(weight), ha="center", va="center", fontsize=9, bbox=back)
    blank(axes, len(sums) + 0.3, low + 1.2, -0.2)
    axes.set_xlim(-0.2 - 0.16 * max(map(len, names)), len(sums) + 0.3)


def _cell(axes: Axes, left: float, top: float, value: Any, ground: str) -> None:
    axes.add_patch(Rectangle((left, top), 1, 1, facecolor=ground, edgecolor="#9a9a9a", lw=0.8))
    axes.text(left + 0.5, top + 0.5, _text(value), ha="center", va="center", fontsize=11)


def shades(axes: Axes, matrix: Array, title: str = "", labels: tuple[str, str] = ("row", "column")) -> None:
    """Draw a matrix in shades of grey, 0 white and the largest dark."""
    table = np.asarray(matrix)
    axes.imshow(table, cmap="Greys", vmin=0, vmax=1.25 * max(1e-12, float(table.max())), interpolation="nearest")
    axes.set(title=title, ylabel=labels[0], xlabel=labels[1])
    _whole_ticks(axes)


def picture(axes: Axes, image: Array, title: str = "") -> None:
    """Draw an image by its brightness, 0 black and the largest number white."""
    axes.imshow(np.asarray(image), cmap="Greys_r", vmin=0, interpolation="nearest")
    axes.set(title=title, ylabel="row", xlabel="column")
    _whole_ticks(axes)


def signed(axes: Axes, image: Array, title: str = "") -> None:
    """Draw an image with 0 as middle grey, so that signs are visible without colour."""
    table = np.asarray(image)
    most = max(1e-12, float(np.abs(table).max()))
    axes.imshow(table, cmap="Greys_r", vmin=-most, vmax=most, interpolation="nearest")
    axes.set(title=title, ylabel="row", xlabel="column")
    _whole_ticks(axes)


def _whole_ticks(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))


def connections(axes: Axes, groups: ChannelGroups, title: str = "") -> None:
    """Draw which output channel reads which input channel: dark where there is a connection."""
    shades(axes, groups.connectivity(), title, ("output channel", "input channel"))
    for axis, count in ((axes.xaxis, groups.c_in), (axes.yaxis, groups.c_out)):
        axis.set_ticks(range(0, count, max(1, count // 4)))


def bars(axes: Axes, names: Sequence[str], pairs: Sequence[tuple[str, Sequence[float]]], label: str) -> None:
    """Draw one or two series of horizontal bars, the second one hatched, with a value at each bar."""
    height = 0.8 / len(pairs)
    for index, (name, values) in enumerate(pairs):
        places = [i + (index - (len(pairs) - 1) / 2) * height for i in range(len(names))]
        style: dict[str, Any] = {"color": DARK} if index == 0 else {"color": LIGHT, "hatch": "//", "edgecolor": "white"}
        drawn = axes.barh(places, list(values), height * 0.92, label=name, **style)
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # also over a line
        axes.bar_label(drawn, [f"{value:.3g}" for value in values], padding=3, fontsize=9, bbox=ground)
    axes.set_yticks(range(len(names)), list(names))
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.margins(x=0.14)
    axes.spines[["top", "right"]].set_visible(False)
    if len(pairs) > 1:
        axes.legend(frameon=False)


def film(draw: Callable[[int], Figure], count: int, *, milliseconds: int = 900) -> Image:
    """Return figures ``draw(0)``, …, ``draw(count − 1)`` as an animated PNG, which needs no kernel.

    Viewers without animation show the first figure.
    """
    shots = []
    for index in range(count):
        figure = draw(index)
        with io.BytesIO() as file:
            figure.savefig(file, format="png")
            plt.close(figure)
            shots.append(np.asarray(Pictures.open(file).convert("RGB")))
    # One palette of few colours for all frames makes the file several times smaller.
    palette = Pictures.fromarray(np.concatenate(shots)).quantize(48)
    palette.putpalette([255 if level > 246 else level for level in palette.getpalette() or []])
    none = Pictures.Dither.NONE
    frames = [Pictures.fromarray(shot).quantize(palette=palette, dither=none) for shot in shots]
    with io.BytesIO() as file:
        durations = [milliseconds] * (count - 1) + [3 * milliseconds]
        frames[0].save(file, "PNG", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True)
        return Image(file.getvalue(), format="png")
