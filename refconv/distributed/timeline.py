"""A figure of one step: when each tower computes, waits and receives."""

from __future__ import annotations

import io
from typing import Any

from refconv.distributed.report import TowersResult

STYLES: dict[str, dict[str, Any]] = {
    "forward": {"facecolor": "#56b4e9"},
    "backward": {"facecolor": "#20456b"},
    "step": {"facecolor": "white", "hatch": "////"},
    "receives": {"facecolor": "#e69f00"},
}
"""How each kind of work is drawn; lightness and hatching distinguish them without colour."""


def timeline(result: TowersResult, title: str) -> bytes:
    """Draw the last step: a bar for each piece of work, gaps for waits, and thin bars for arriving messages.

    Parameters
    ----------
    result : TowersResult
    title : str
        Title of the figure.

    Returns
    -------
    bytes
        A PNG image.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    towers, transfers = result.worked[-1], result.transfers[-1]
    begin = min(work.start for tower in towers for work in tower)
    figure = Figure(figsize=(9, 1.6 + 0.7 * len(towers)), layout="constrained")
    axis = figure.subplots()
    for t, (tower, worker) in enumerate(zip(towers, result.workers, strict=True)):
        for work in tower:
            style = STYLES[work.what]
            axis.barh(t, work.stop - work.start, 0.5, work.start - begin, edgecolor="black", linewidth=0.6, **style)
        for transfer in transfers[worker]:
            seconds = max(transfer.stop - transfer.start, 0.0)
            axis.barh(
                t - 0.36, seconds, 0.14, transfer.start - begin, edgecolor="black", linewidth=0.6, color="#e69f00"
            )
    axis.set_yticks(range(len(towers)), [f"tower {t}" for t in range(len(towers))])
    axis.invert_yaxis()
    axis.set_xlabel("seconds since the step began; a gap is a wait")
    patches = [Patch(edgecolor="black", linewidth=0.6, label=name, **style) for name, style in STYLES.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches))
    figure.suptitle(title)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    return file.getvalue()
