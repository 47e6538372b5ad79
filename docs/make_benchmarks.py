"""Write the tables and figures of docs/benchmarks.md from benchmarks/results: ``python docs/make_benchmarks.py``.

``refconv bench … --out benchmarks/results/bench_NAME.json`` makes a record of times, and ``python benchmarks/memory.py
--json benchmarks/results/memory.json`` that of memory, as ``threads.py`` that of threads. Figures stand in
docs/benchmarks; those no longer named go.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from statistics import geometric_mean
from typing import TYPE_CHECKING, Any

from refconv.bench.peers import PEERS
from refconv.bench.peers import peers as peers_on
from refconv.bench.run import Settings, summary
from refconv.experiments.figures import STYLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
FIGURES = ROOT / "docs" / "benchmarks"
SWEEPS = {
    "batch": "images in the batch",
    "channels": "input and output channels",
    "groups": "groups of 128 channels",
    "kernel": "height and width of the kernel",
    "threads": "threads, AlexNet's conv2",
}
"""Workloads whose layers are named by a number, and the thing counted."""


def table(record: Record) -> str:
    """Return one record as a heading, how it was made, and a table of ratios."""
    settings, results, means = record["settings"], record["results"], summary(record)
    workloads = list(dict.fromkeys(result["workload"] for result in results))
    peers = [peer for peer in dict.fromkeys(r["peer"] for r in results) if peer != "refconv"]
    command = (
        f"refconv bench {' '.join(workloads)} --peers {','.join(peers)} --dtype {settings['dtype']} "
        f"--pass {settings['pass']} --rounds {settings['rounds']} --seconds {settings['seconds']}"
    )
    backend, packages = settings.get("backend", "numpy"), ("numpy", *peers)
    if backend != "numpy":
        command, packages = f"{command} --backend {backend}", ("cupy-cuda12x", "cupy-cuda13x", "torch")
    if settings.get("patience", Settings.patience) != Settings.patience:
        command += f" --patience {settings['patience']:g}"
    versions = ", ".join(f"{name} {v}" for name, v in record["versions"].items() if name in packages)
    heads = [f"/ {peer}" for peer in peers]
    if "torch" in peers and "roofs" in record:
        heads.append("at the roof / torch")
    lines = [
        f"### {settings['dtype']}, {settings['pass']}\n",
        f"{record['date']}, {processor(record)}; {versions}. `{command}`\n",
        f"| workload | layer | refconv, ms | {' | '.join(heads)} |",
        f"|---|---|--:|{'--:|' * len(heads)}",
    ]
    for workload in workloads:
        mine = [result for result in results if result["workload"] == workload]
        layers = list(dict.fromkeys(result["layer"] for result in mine))
        for layer in layers:
            of = {result["peer"]: result for result in mine if result["layer"] == layer}
            if "median" not in of["refconv"]:  # more threads than there are cores
                continue
            ratios = [f"{of[peer]['ratio']:.2f}" if "ratio" in of[peer] else "" for peer in peers]
            if len(heads) > len(peers):
                ratios.append(f"{at_the_roof(record, of['torch']):.2f}" if "median" in of["torch"] else "")
            lines.append(f"| {workload} | {layer} | {1e3 * of['refconv']['median']:.2f} | {' | '.join(ratios)} |")
        if len(layers) > 1 and workload in means:
            mean = [f"{means[workload][peer]:.2f}" if peer in means[workload] else "" for peer in peers]
            if len(heads) > len(peers):
                mean.append(f"{geometric_mean(at_the_roof(record, r) for r in mine if is_torch(r)):.2f}")
            lines.append(f"| {workload} | geometric mean | | {' | '.join(mean)} |")
    return "\n".join(lines) + "\n"


def processor(record: Record) -> str:
    """Return the name of the GPU, or else of the processor, with its cores."""
    machine = record["machine"]
    return str(record["gpu"]["name"]) if "gpu" in record else f"{machine['processor']}, {machine['cores']} cores"


def is_torch(result: Record) -> bool:
    """Return whether a result is a time of PyTorch."""
    return result["peer"] == "torch" and "median" in result


def at_the_roof(record: Record, result: Record) -> float:
    """Return the ratio to a peer's time of one in which all multiply-adds run at the highest rate that was measured."""
    passes = {"forward": 1, "backward": 2, "training": 3}[record["settings"]["pass"]]
    return float(2e-9 * passes * result["macs"] / record["roofs"]["gflops"] / result["median"])


def two_groups(record: Record) -> str:
    """Return one line: AlexNet's time with two groups as a ratio to that with one; nothing without both."""
    times, macs = {}, {}
    for workload in ("alexnet", "alexnet-dense"):
        mine = [r for r in record["results"] if (r["workload"], r["peer"]) == (workload, "refconv")]
        times[workload] = sum(result["median"] for result in mine)
        macs[workload] = sum(result["macs"] for result in mine)
    if not all(times.values()):
        return ""
    ratio, work = (of["alexnet"] / of["alexnet-dense"] for of in (times, macs))
    return f"AlexNet with two groups: {ratio:.2f} of the time without groups, {work:.2f} of the multiply-adds.\n"


def memory(record: Record) -> str:
    """Return the record of memory as how it was made, a table, and the comparison."""
    columns, limit = record["columns_bytes"], record["limit_bytes"]
    lines = [
        f"`{record['command']}`, {record['date']}, {record['machine']['cores']} cores, NumPy "
        f"{record['versions']['numpy']}. The columns of the whole batch would take {columns / 1e6:.0f} MB; the mark is "
        f"{limit / 1e6:.0f} MB.\n",
        "| pass | allocated, MB | resident, MB | columns / resident |",
        "|---|--:|--:|--:|",
    ]
    for what, extra in record["extra_bytes"].items():
        allocated, resident = extra["allocated"], extra["resident"]
        lines.append(f"| {what} | {allocated / 1e6:.1f} | {resident / 1e6:.1f} | {columns / resident:.0f} |")
    return "\n".join(lines) + "\n"


def threads(record: Record) -> str:
    """Return the record of threads as how it was made, and a table of ratios to one worker."""
    lines = [
        f"`{record['command']}`, {record['date']}, {record['machine']['cores']} cores, NumPy "
        f"{record['versions']['numpy']}; float32, forward and all gradients.\n",
        "| layer | one worker, ms | two processes, each | two workers | their processor time | their waits a call |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for layer in record["layers"]:
        one, processes, workers = (layer[name] for name in ("one worker", "two processes", "two workers"))
        cells = [
            f"{1e3 * one['seconds']:.1f}",
            f"{processes['seconds'] / one['seconds']:.2f}",
            f"{workers['seconds'] / one['seconds']:.2f}",
            f"{workers['processor_seconds'] / one['processor_seconds']:.2f}",
            f"{workers['waits']:.0f}",
        ]
        lines.append(f"| {layer['workload']}, {layer['layer']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def timed(record: Record, peer: str) -> list[Record]:
    """Return a peer's results that have a time."""
    return [result for result in record["results"] if result["peer"] == peer and "median" in result]


def peers_of(record: Record) -> list[str]:
    """Return the peers that have a time, in one order."""
    return [peer for peer in peers_on(record["settings"].get("backend", "numpy")) if timed(record, peer)]


def style(peer: str) -> Record:
    """Return colour, marker and line of a peer, the same in every figure of its backend."""
    names = list(PEERS) if peer in PEERS else list(peers_on("cupy"))
    return {"label": peer, "markersize": 5, "linewidth": 1.3, **STYLES[names.index(peer)]}


def title(record: Record) -> str:
    """Return the data type, the pass and the machine in words."""
    settings = record["settings"]
    return f"{settings['dtype']}, {settings['pass']}; {processor(record)}"


def sweeps_of(record: Record) -> list[str]:
    """Return the workloads of SWEEPS that were timed."""
    return [name for name in SWEEPS if name in {result["workload"] for result in record["results"]}]


def plain_numbers(*axes: Any) -> None:
    """Write 100 and 0.1 at the ticks of logarithmic axes, not powers of ten."""
    from matplotlib.ticker import LogFormatter

    for axis in axes:
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(LogFormatter())  # labels ticks between powers of ten only where these are few


def time_figure(record: Record) -> Figure:
    """Draw the time of every layer against its multiply-adds, for refconv and each peer."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axis = figure.subplots()
    for peer in peers_of(record):
        found = [result for result in timed(record, peer) if result["workload"] != "threads"]
        axis.plot(
            [result["macs"] for result in found],
            [1e3 * result["median"] for result in found],
            **{**style(peer), "linestyle": "none"},
            markerfacecolor="none",
            markeredgewidth=1.3,
        )
    axis.set(xscale="log", yscale="log", xlabel="multiply-adds of one forward pass", ylabel="median time (ms)")
    plain_numbers(axis.yaxis)
    axis.set_title(title(record), fontsize="medium")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def roofline_figure(record: Record) -> Figure:
    """Draw the rate of refconv's forward pass on every layer against its intensity, under the machine's roofs."""
    from matplotlib.figure import Figure

    roofs = record["roofs"]
    figure = Figure(figsize=(7.6, 4.8), layout="constrained")
    axis = figure.subplots()
    workloads = [
        workload for workload in dict.fromkeys(r["workload"] for r in record["results"]) if workload != "threads"
    ]
    intensities: list[float] = []
    for place, workload in enumerate(workloads):
        found = [result for result in timed(record, "refconv") if result["workload"] == workload]
        x = [2 * result["macs"] / result["bytes"] for result in found]
        y = [2e-9 * result["macs"] / result["median"] for result in found]
        intensities += x
        axis.plot(x, y, linestyle="none", label=workload, markersize=7, markeredgecolor="black", **MARKS[place])
    peak, bandwidth = roofs["gflops"], roofs["gigabytes_per_second"]
    ridge = peak / bandwidth
    low, high = min([*intensities, ridge]) / 1.5, max([*intensities, ridge]) * 1.5
    line: Record = {"color": "black", "linewidth": 1.5, "zorder": 0}
    axis.plot([ridge, high], [peak, peak], label=f"matrix product,\n{peak:.0f} GFLOP/s", **line)
    axis.plot([low, ridge], [bandwidth * low, peak], "--", label=f"copying,\n{bandwidth:.0f} GB/s", **line)
    axis.set(xscale="log", yscale="log", ylabel="refconv's rate (GFLOP/s)")
    axis.set_xlabel("intensity (FLOP per byte of input, weights and output)")
    plain_numbers(axis.xaxis, axis.yaxis)
    axis.set_title(title(record), fontsize="medium")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right center", frameon=False)
    return figure


MARKS: tuple[Record, ...] = tuple(
    {"color": colour, "marker": marker}
    for marker, colour in zip(
        "osv^D<P>X*hd", ("black", "#e69f00", "#0072b2", "#cc79a7", "#009e73", "white") * 2, strict=True
    )
)
"""Workloads in a roofline: no two have the same marker."""


def scaling_figure(record: Record) -> Figure:
    """Draw time against what each sweep counts, a panel for each sweep that was timed."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    sweeps = sweeps_of(record)
    columns = min(3, len(sweeps))
    rows = -(-len(sweeps) // columns)
    figure = Figure(figsize=(max(6.0, 3.6 * columns), 3 * rows + 0.8), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes[len(sweeps) :]:
        axis.remove()
    for axis, workload in zip(axes, sweeps, strict=False):
        counts: set[int] = set()
        for peer in peers_of(record):
            found = [result for result in timed(record, peer) if result["workload"] == workload]
            x = [int(result["layer"]) for result in found]
            counts.update(x)
            axis.plot(x, [1e3 * result["median"] for result in found], **style(peer))
        axis.set(xscale="log", yscale="log", title=workload, xlabel=SWEEPS[workload], ylabel="median time (ms)")
        axis.set_xticks(sorted(counts), list(map(str, sorted(counts))))
        axis.xaxis.set_minor_locator(NullLocator())
        plain_numbers(axis.yaxis)
        axis.grid(alpha=0.3, which="both")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(3, 2 * columns), frameon=False)
    figure.suptitle(title(record), fontsize="medium")
    return figure


KINDS: dict[str, tuple[Callable[[Record], Figure], str]] = {
    "time": (time_figure, "Time against multiply-adds, of every layer and peer"),
    "roofline": (roofline_figure, "Rate against intensity of every layer, under the roofs that were measured"),
    "scaling": (scaling_figure, "Time against the swept parameter"),
}
"""Every kind of figure: the function that draws it, and its description."""


def kinds(record: Record) -> list[str]:
    """Return the kinds of figures that a record has enough for."""
    wanted = {
        "time": True,
        "roofline": "roofs" in record and record["settings"]["pass"] == "forward",
        "scaling": bool(sweeps_of(record)),
    }
    return [kind for kind in KINDS if wanted[kind]]


def records() -> dict[str, Record]:
    """Return every record of times by name."""
    paths = sorted(RESULTS.glob("bench_*.json"))
    return {path.stem.removeprefix("bench_"): json.loads(path.read_text("utf-8")) for path in paths}


def section(name: str, record: Record) -> str:
    """Return the part of the page about one record."""
    images = [f"![{KINDS[kind][1]}](benchmarks/{kind}_{name}.png)\n" for kind in kinds(record)]
    return "\n".join(part for part in (table(record), two_groups(record), *images) if part)


def page() -> str:
    """Return the page with what today's records say, between its markers."""
    text = PAGE.read_text("utf-8")
    parts = {
        "tables": "\n".join(section(name, record) for name, record in records().items()),
        "threads": threads(json.loads((RESULTS / "threads.json").read_text("utf-8"))),
        "memory": memory(json.loads((RESULTS / "memory.json").read_text("utf-8"))),
    }
    for name, part in parts.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        before, _, rest = text.partition(begin)
        text = before + begin + "\n" + part + "\n" + end + rest.partition(end)[2]
    return text


def draw_all() -> dict[str, bytes]:
    """Return the PNG images that the page names, by file name."""
    images: dict[str, bytes] = {}
    for name, record in records().items():
        for kind in kinds(record):
            with io.BytesIO() as buffer:
                KINDS[kind][0](record).savefig(buffer, format="png", dpi=110, metadata={"Software": None})
                images[f"{kind}_{name}.png"] = buffer.getvalue()
    return images


if __name__ == "__main__":
    images = draw_all()
    FIGURES.mkdir(exist_ok=True)
    for stale in {path.name for path in FIGURES.glob("*.png")} - set(images):
        (FIGURES / stale).unlink()
    for file, image in images.items():
        (FIGURES / file).write_bytes(image)
    PAGE.write_text(page(), "utf-8")
