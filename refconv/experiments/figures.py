"""The figures of the experiments, as PNG images. They are legible in grey and to colour-blind readers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from refconv.experiments.tables import short_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DARK, LIGHT = "#20456b", "#e69f00"
"""Blue and orange of Okabe and Ito's colour-blind palette; they also differ clearly in lightness."""


def learning_curves(rows: Sequence[dict[str, Any]], title: str) -> bytes:
    """Draw loss and accuracy against epochs.

    Parameters
    ----------
    rows : sequence of dict
        The metrics of each epoch: "epoch", "train_loss", "train_accuracy" and "test_accuracy".
    title : str
        Title of the figure, such as the model and its data.

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
        if values:  # the last value as text
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
    return _png(figure)


STYLES = (
    {"color": "#000000", "marker": "o", "linestyle": "-"},
    {"color": "#e69f00", "marker": "s", "linestyle": "--"},
    {"color": "#0072b2", "marker": "^", "linestyle": "-."},
    {"color": "#cc79a7", "marker": "D", "linestyle": ":"},
    {"color": "#009e73", "marker": "v", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    {"color": "#56b4e9", "marker": "P", "linestyle": (0, (8, 2))},
    {"color": "#d55e00", "marker": "X", "linestyle": (0, (1, 3))},
)
"""Okabe and Ito's palette; markers and lines distinguish the groupings without colour."""


def accuracy_by_budget(result: dict[str, Any]) -> bytes:
    """Draw the accuracy of a comparison's networks, side by side for each budget, with one panel per data set.

    Parameters
    ----------
    result : dict
        The result of :func:`refconv.experiments.tables.evaluation`.

    Returns
    -------
    bytes
        A PNG image.
    """
    from matplotlib.figure import Figure

    config = result["settings"]
    names, groupings, budgets = config["data"], config["groups"], sorted(config["budgets"])
    figure = Figure(figsize=(5.2 * len(names), 4.4), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for name, axis in zip(names, axes, strict=True):
        for place, groups in enumerate(groupings):
            found = [e for e in result["networks"] if (e["data"], e["groups"]) == (name, groups)]
            aside = 0.6 * ((place + 0.5) / len(groupings) - 0.5)
            axis.errorbar(
                [budgets.index(entry["budget"]) + aside for entry in found],
                [100 * entry["mean"] for entry in found],
                yerr=[100 * entry["deviation"] for entry in found],
                label=groups,
                capsize=3,
                linewidth=1.3,
                elinewidth=1,
                markersize=6,
                markeredgecolor="black",
                markeredgewidth=0.6,
                **{**STYLES[place], "linestyle": "none"},
            )
        tested = result["data"][name]["test_images"]
        axis.set_title(f"{short_name(name)}, {tested:,} test images")
        axis.set_xticks(range(len(budgets)), [f"{budget:,}" for budget in budgets])
        axis.set_xlim(-0.5, len(budgets) - 0.5)
        axis.set_xlabel("parameters, about")
        axis.set_ylabel("test accuracy (%)")
        axis.grid(axis="y", alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 6), frameon=False)
    figure.supxlabel(f"Mean ± standard deviation over {config['seeds']} seeds.", fontsize="small")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    with io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
        return file.getvalue()
