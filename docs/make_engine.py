"""Write the tables and figures of docs/engine.md from benchmarks/results: ``python docs/make_engine.py``.

``python benchmarks/engine_steps.py --json benchmarks/results/engine_steps.json`` records the four steps, and ``python
benchmarks/thresholds.py --json benchmarks/results/thresholds.json`` the constants. Figures are in docs/engine.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from statistics import geometric_mean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "engine.md"
FIGURES = ROOT / "docs" / "engine"
PASSES = {"forward": 1, "training": 3}
"""Every pass that was timed: how many times the multiply-adds of a forward pass it takes."""

TITLES = (
    "1. slices, on one thread",
    "2. threads",
    "3. scatter as a correlation",
    "4. layouts of columns",
)


def rate(record: Record, layer: Record, set_up: str) -> float:
    """Return the GFLOP/s of a layer's forward pass and gradients in a set-up."""
    return float(2e-9 * PASSES["training"] * layer["macs"] / layer["seconds"][set_up]["training"])


def roof(record: Record, step: int) -> float:
    """Return the rate of NumPy's own product, on as many threads as a step uses."""
    return float(record["gflops"]["one thread" if step == 0 else "all threads"])


def name(layer: Record) -> str:
    """Return what a layer is called."""
    return (
        layer["layer"] if layer["workload"] in ("depthwise", "logarithmic") else f"{layer['workload']} {layer['layer']}"
    )


def figure(record: Record, step: int) -> Figure:
    """Draw the rate of every layer before and after a step, and the roof."""
    from matplotlib.figure import Figure

    before, after = record["steps"][step]
    layers = record["layers"][::-1]
    drawn = Figure(figsize=(6.4, 3.9), layout="constrained")
    axis = drawn.subplots()
    for place, layer in enumerate(layers):
        rates = [rate(record, layer, set_up) for set_up in (before, after)]
        axis.plot(rates, [place, place], color="black", linewidth=1, zorder=1)
        ratio = rates[0] / rates[1]
        axis.annotate(
            f"{ratio:.2f}", (max(rates), place), (7, 0), textcoords="offset points", va="center", fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
    for set_up, colour in ((before, "white"), (after, "black")):
        rates = [rate(record, layer, set_up) for layer in layers]
        axis.scatter(rates, range(len(layers)), s=32, color=colour, edgecolor="black", zorder=2, label=set_up)
    peak = roof(record, step)
    threads = "one thread" if step == 0 else "all threads"
    axis.axvline(peak, color="black", linestyle="--", linewidth=1, label=f"roof, {threads}: {peak:.0f} GFLOP/s")
    axis.set_yticks(range(len(layers)), [name(layer) for layer in layers])
    axis.set(xscale="log", xlabel="GFLOP/s, forward and gradients (numbers: time after / time before)")
    axis.set_xlim(right=peak * 1.5)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_title(TITLES[step], fontsize="medium")
    axis.grid(alpha=0.3, axis="x")
    drawn.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return drawn


def how(record: Record) -> str:
    """Return when, where and by which command a record was made."""
    machine = record["machine"]
    return (
        f"`{record['command']}`, {record['date']}, {machine['processor']}, {machine['cores']} cores, NumPy "
        f"{record['versions']['numpy']}.\n"
    )


def steps(record: Record) -> str:
    """Return how the record of steps was made, and the ratio of times of each step for each layer and pass."""
    lines = [how(record), "| layer | pass | textbook, ms | " + " | ".join(TITLES) + " | engine, ms | all steps |"]
    lines.append("|---|---|--:|" + "--:|" * (len(TITLES) + 2))
    for what in PASSES:
        of_steps: list[list[float]] = [[] for _ in (*TITLES, "all")]
        for layer in record["layers"]:
            seconds = {set_up: found[what] for set_up, found in layer["seconds"].items()}
            ratios = [seconds[after] / seconds[before] for before, after in record["steps"]]
            ratios.append(seconds["layouts"] / seconds["textbook"])
            for found, ratio in zip(of_steps, ratios, strict=True):
                found.append(ratio)
            cells = [f"{ratio:.2f}" for ratio in ratios]
            ends = f"{1e3 * seconds['textbook']:.1f}", f"{1e3 * seconds['layouts']:.1f}"
            lines.append(f"| {name(layer)} | {what} | {ends[0]} | {' | '.join(cells[:-1])} | {ends[1]} | {cells[-1]} |")
        means = [f"{geometric_mean(found):.2f}" for found in of_steps]
        lines.append(f"| geometric mean | {what} | | {' | '.join(means[:-1])} | | {means[-1]} |")
    return "\n".join(lines) + "\n"


def costs(record: Record) -> str:
    """Return the table of costs."""
    lines = [how(record), "| constant | value | measured |", "|---|--:|--:|"]
    for constant, cost in record["costs"].items():
        measured = ", ".join(f"{value:.2g}" if value < 100 else f"{value:.0f}" for value in cost["measured"])
        lines.append(f"| `{constant}` | {cost['value']:,} | {measured} |")
    return "\n".join(lines) + "\n"


def thresholds(record: Record) -> str:
    """Return the table of thresholds: a row for each call."""
    lines = [
        "| constant | decides | call | engine's way, ms | gain over the other |",
        "|---|---|---|--:|--:|",
    ]
    for trial in record["trials"]:
        value = f" = {trial['value']}" if trial["value"] else ""
        what = f"`{trial['name']}`{value}, `{Path(trial['file']).name}`: **{trial['verdict']}**"
        decides = trial["decides"]
        for case in trial["cases"]:
            side = f"{case['side']}: " if case["side"] else ""
            gains = [
                f"{gain:.2f}" + (f" ({way})" if len(case["gains"]) > 1 else "") for way, gain in case["gains"].items()
            ]
            chosen = f"{case['chosen']}, {1e3 * case['seconds'][case['chosen']]:.2f}"
            lines.append(
                f"| {what} | {decides} | {side}{case['pass']}, {case['call']} | {chosen} | {', '.join(gains)} |"
            )
            what = decides = ""
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return the page with what today's records say, between its markers."""
    text = PAGE.read_text("utf-8")
    measured = json.loads((RESULTS / "thresholds.json").read_text("utf-8"))
    parts = {
        "steps": steps(json.loads((RESULTS / "engine_steps.json").read_text("utf-8"))),
        "costs": costs(measured),
        "thresholds": thresholds(measured),
    }
    for part, contents in parts.items():
        begin, end = f"<!-- {part} -->\n", f"<!-- end of {part} -->\n"
        before, _, rest = text.partition(begin)
        text = before + begin + "\n" + contents + "\n" + end + rest.partition(end)[2]
    return text


def draw_all() -> dict[str, bytes]:
    """Return the PNG images that the page names, by file name."""
    record = json.loads((RESULTS / "engine_steps.json").read_text("utf-8"))
    images: dict[str, bytes] = {}
    for step in range(len(TITLES)):
        with io.BytesIO() as buffer:
            figure(record, step).savefig(buffer, format="png", dpi=110, metadata={"Software": None})
            images[f"step_{step + 1}.png"] = buffer.getvalue()
    return images


if __name__ == "__main__":
    FIGURES.mkdir(exist_ok=True)
    for file, image in draw_all().items():
        (FIGURES / file).write_bytes(image)
    PAGE.write_text(page(), "utf-8")
