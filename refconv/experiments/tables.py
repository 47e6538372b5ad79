"""The results of a comparison, in figures and in words. A null result is reported as such."""

from __future__ import annotations

import importlib.metadata
import platform
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from refconv.experiments.paired import NO_DIFFERENCE, paired_interval, verdict
from refconv.experiments.widths import Network
from refconv.nn import Split

CONFIDENCE = 0.95
COLUMNS = (
    "budget",
    "groups",
    "channels",
    "parameters (off budget)",
    "MACs",
    "accuracy, %",
    "difference, points [95 % interval]",
    "verdict",
)


def evaluation(
    config: dict[str, Any],
    sets: Mapping[str, Split],
    networks: Sequence[Network],
    right: Mapping[tuple[str, int, str, int], int],
) -> dict[str, Any]:
    """Return the evaluation of the trainings as one object that `json.dumps` can write.

    Parameters
    ----------
    config : dict
        The settings of the comparison.
    sets : mapping of str to Split
        The data sets by name.
    networks : sequence of Network
        The trained networks. On each data set and at each budget, the others are compared with the first grouping.
    right : mapping
        Number of correctly classified test images, by ``network.key(seed)``.

    Returns
    -------
    dict
        "settings", "data", "networks" (with "accuracies" by seed, "mean", "deviation" and, except for the first
        grouping, "difference"), "comparisons" (their number), "conclusion" (sentences) and "versions". Accuracies are
        from 0 to 1. A "difference" has the "mean" over the seeds of the accuracy less that of the first grouping, the
        "interval" with 95 % confidence, the "corrected" interval with 95 % for all comparisons together (Bonferroni),
        and the "verdict".
    """
    baseline, seeds = config["groups"][0], range(config["seeds"])
    comparisons = sum(network.groups != baseline for network in networks)
    entries: list[dict[str, Any]] = []
    for network in networks:
        tested = len(sets[network.data].test_labels)
        mine = [right[network.key(seed)] for seed in seeds]
        others = [right[network.data, network.budget, baseline, seed] for seed in seeds]
        difference = None
        if network.groups != baseline:
            pairs = [a - b for a, b in zip(mine, others, strict=True)]  # counts: equal accuracies differ by exactly 0
            alone = paired_interval(pairs, CONFIDENCE)
            corrected = paired_interval(pairs, 1 - (1 - CONFIDENCE) / comparisons)
            difference = {
                "mean": alone.mean / tested,
                "interval": [alone.low / tested, alone.high / tested],
                "corrected": [corrected.low / tested, corrected.high / tested],
                "verdict": verdict(alone, corrected),
            }
        entries.append(
            {
                "data": network.data,
                "budget": network.budget,
                "groups": network.groups,
                "channels": network.channels,
                "parameters": network.parameters,
                "macs": network.macs,
                "accuracies": [count / tested for count in mine],
                "mean": statistics.fmean(mine) / tested,
                "deviation": statistics.stdev(mine) / tested,
                "difference": difference,
            }
        )
    data = {}
    for name, split in sets.items():
        tested = len(split.test_labels)
        p = statistics.fmean(entry["mean"] for entry in entries if entry["data"] == name)
        data[name] = {
            "train_images": len(split.train_labels),
            "test_images": tested,
            "classes": len(split.classes),
            "standard_error": (p * (1 - p) / tested) ** 0.5,
        }
    result = {"settings": config, "data": data, "networks": entries, "comparisons": comparisons}
    packages = {name: importlib.metadata.version(name) for name in ("numpy", "scipy")}
    return result | {"conclusion": _conclusion(result), "versions": {"python": platform.python_version(), **packages}}


def _conclusion(result: dict[str, Any]) -> list[str]:
    """Return sentences on the findings of the comparison and their limits."""
    config, comparisons = result["settings"], result["comparisons"]
    baseline = config["groups"][0]
    sentences = []
    for name in result["data"]:
        found = [e for e in result["networks"] if e["data"] == name and e["difference"] is not None]
        clear = [e for e in found if e["difference"]["verdict"] != NO_DIFFERENCE]
        for entry in clear:
            word, _, alone = entry["difference"]["verdict"].partition(", ")
            points, interval = _points(abs(entry["difference"]["mean"]), ""), _interval(entry["difference"])
            sentences.append(
                f"{short_name(name)}, {entry['budget']:,} parameters: {entry['groups']} is {word} than {baseline} by "
                f"{points} points {interval}{', ' * bool(alone)}{alone}."
            )
        rest = "" if not clear else " elsewhere" if len(clear) < len(found) else None
        if rest is not None:
            sentences.append(f"{short_name(name)}: {NO_DIFFERENCE} from {baseline}{rest or ' in any comparison'}.")
    verdicts = [e["difference"]["verdict"] for e in result["networks"] if e["difference"] is not None]
    clear_alone = sum(word != NO_DIFFERENCE for word in verdicts)
    clear_together = sum(word in ("better", "worse") for word in verdicts)
    sentences.append(
        f"{clear_alone} of {comparisons} intervals exclude 0, each with 95 % confidence; by chance alone about "
        f"{0.05 * comparisons:.2g} would, if nothing differed. Widened to 95 % for all together (Bonferroni), "
        f'{clear_together} still exclude{"s" * (clear_together == 1)} it; "taken alone" marks the others.'
    )
    sentences += [
        f"{short_name(name)}: {data['test_images']:,} test images alone leave a standard error of "
        f"{_points(data['standard_error'], '')} points on every accuracy."
        for name, data in result["data"].items()
    ]
    sentences.append(
        "The intervals are over initial weights and the order of the images. From one split of each data set and one "
        "recipe, no general ranking of groupings follows."
    )
    return sentences


def short_name(data: str) -> str:
    """Return the name of a data set without its folder."""
    return data.partition(":")[0]


def table_rows(result: dict[str, Any], data: str) -> list[tuple[str, ...]]:
    """Return the cells of a data set's table, under `COLUMNS`."""
    rows: list[tuple[str, ...]] = []
    for entry in result["networks"]:
        if entry["data"] != data:
            continue
        difference = entry["difference"]
        off = entry["parameters"] / entry["budget"] - 1
        rows.append(
            (
                f"{entry['budget']:,}",
                entry["groups"],
                str(entry["channels"]),
                f"{entry['parameters']:,} ({_points(off, '+', 1)} %)",
                f"{entry['macs']:,}",
                f"{_points(entry['mean'], '')} ± {_points(entry['deviation'], '')}",
                f"{_points(difference['mean'])} {_interval(difference)}" if difference else "",
                difference["verdict"] if difference else "baseline",
            )
        )
    return rows


def _interval(difference: dict[str, Any]) -> str:
    low, high = difference["interval"]
    return f"[{_points(low)}, {_points(high)}]"


def _points(share: float, sign: str = "+", digits: int = 2) -> str:
    """Return a share in hundredths, with a true minus sign."""
    return f"{100 * share:{sign}.{digits}f}".replace("-", "−")


def caption(result: dict[str, Any]) -> str:
    """Return one line about the training of the networks."""
    config = result["settings"]
    return (
        f"residual networks of {config['blocks']} modules a stage, {config['seeds']} seeds, epochs: "
        f"{config['epochs']}, batch size {config['batch_size']}, learning rate {config['lr']:g} ({config['schedule']})"
    )


def markdown(result: dict[str, Any]) -> str:
    """Return the tables and the conclusion as Markdown."""
    parts = []
    for name, data in result["data"].items():
        parts.append(
            f"**{short_name(name).capitalize()}**: {data['train_images']:,} images to train on, "
            f"{data['test_images']:,} to test with, {data['classes']} classes; {caption(result)}."
        )
        align = "|--:|:--|--:|--:|--:|--:|--:|:--|"
        rows = [COLUMNS, *table_rows(result, name)]
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        parts.append("\n".join([lines[0], align, *lines[1:]]))
    parts.append("\n".join(f"- {sentence}" for sentence in result["conclusion"]))
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    parts.append(f"Versions: {versions}.")
    return "\n\n".join(parts) + "\n"
