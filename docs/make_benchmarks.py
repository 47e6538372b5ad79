"""Write the tables of docs/benchmarks.md from the records in benchmarks/results: ``python docs/make_benchmarks.py``.

``refconv bench … --out benchmarks/results/bench_NAME.json`` makes a record.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from refconv.bench.run import summary

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- tables -->\n", "<!-- end of tables -->\n"


def table(record: dict[str, Any]) -> str:
    """Return one record as a heading, how it was made, and a table of ratios."""
    settings, results, means = record["settings"], record["results"], summary(record)
    workloads = list(dict.fromkeys(result["workload"] for result in results))
    peers = [peer for peer in dict.fromkeys(r["peer"] for r in results) if peer != "refconv"]
    command = (
        f"refconv bench {' '.join(workloads)} --peers {','.join(peers)} --dtype {settings['dtype']} "
        f"--pass {settings['pass']} --rounds {settings['rounds']} --seconds {settings['seconds']}"
    )
    versions = ", ".join(f"{name} {v}" for name, v in record["versions"].items() if name in ("numpy", *peers))
    machine = record["machine"]
    lines = [
        f"### {settings['dtype']}, {settings['pass']}\n",
        f"{record['date']}, {machine['processor']}, {machine['cores']} cores; {versions}. `{command}`\n",
        f"| workload | layer | refconv, ms | {' | '.join(f'/ {peer}' for peer in peers)} |",
        f"|---|---|--:|{'--:|' * len(peers)}",
    ]
    for workload in workloads:
        mine = [result for result in results if result["workload"] == workload]
        layers = list(dict.fromkeys(result["layer"] for result in mine))
        for layer in layers:
            of = {result["peer"]: result for result in mine if result["layer"] == layer}
            ratios = [f"{of[peer]['ratio']:.2f}" if "ratio" in of[peer] else "" for peer in peers]
            lines.append(f"| {workload} | {layer} | {1e3 * of['refconv']['median']:.2f} | {' | '.join(ratios)} |")
        if len(layers) > 1:
            mean = [f"{means[workload][peer]:.2f}" if peer in means[workload] else "" for peer in peers]
            lines.append(f"| {workload} | geometric mean | | {' | '.join(mean)} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return the page with the tables of today's records."""
    records = sorted((ROOT / "benchmarks" / "results").glob("bench_*.json"))
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    return (
        before
        + BEGIN
        + "\n"
        + "\n".join(table(json.loads(path.read_text("utf-8"))) for path in records)
        + "\n"
        + END
        + after
    )


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
