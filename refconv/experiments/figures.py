"""The figures of the experiments, as PNG images. They read the same in grey and to the colour-blind."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

DARK, LIGHT = "#20456b", "#e69f00"
"""Blue and orange of Okabe and Ito's palette for the colour-blind; far apart in lightness too."""


def learning_curves(rows: Sequence[dict[str, Any]], title: str) -> bytes:
    """Draw loss and accuracy against epochs.

    Parameters
    ----------
    rows : sequence of dict
        The metrics: "epoch", "train_loss", "train_accuracy" and "test_accuracy" of each.
    title : str
        What was trained.

    Returns
    -------
    bytes
        A PNG image.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]

    def draw(axis: Any, key: str, scale: float, label: str, **style: Any) -> None:
        values = [scale * row[key] for row in rows]
        axis.plot(epochs, values, label=label, **style)
        if values:  # the last value, in words
            axis.annotate(
                f"{values[-1]:.3g}", (epochs[-1], values[-1]), xytext=(6, 0), textcoords="offset points", va="center"
            )

    draw(loss, "train_loss", 1, "training, before each step", color=LIGHT, marker="o", linestyle="--")
    draw(accuracy, "train_accuracy", 100, "training, before each step", color=LIGHT, marker="o", linestyle="--")
    draw(accuracy, "test_accuracy", 100, "test, after the epoch", color=DARK, marker="s")
    loss.set_ylabel("mean loss (nats)")
    accuracy.set_ylabel("accuracy (%)")
    for axis in (loss, accuracy):
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.margins(x=0.18)
        axis.grid(alpha=0.3)
        axis.legend(loc="best")
    loss.set_ylim(bottom=0)
    figure.suptitle(title)
    with io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
        return file.getvalue()
