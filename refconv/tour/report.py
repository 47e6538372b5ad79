"""The report: one self-contained page and one JSON file, both or neither."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refconv.files import check_destination, replaced_folder

PAGE, RESULTS = "index.html", "results.json"
GENERATOR = "refconv tour"
"""Marks a page as a report of the tour, which a new report may replace."""


class ReportError(Exception):
    """The report cannot be written to the given directory."""


def render(results: Mapping[str, Any], figures: Mapping[str, bytes]) -> str:
    """Return the page. It loads no other file: styles and figures are inside it.

    Parameters
    ----------
    results : mapping
        Contents of ``results.json``.
    figures : mapping of str to bytes
        PNG images by name.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("refconv.tour", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["integer"] = lambda value: f"{value:,}"
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    environment.filters["points"] = lambda value: f"{100 * value:.1f}"
    environment.filters["milliseconds"] = lambda value: f"{1000 * value:.1f} ms"
    environment.filters["ratio"] = lambda value: f"{value:.2f}"
    environment.filters["small"] = lambda value: f"{value:.2g}"
    environment.filters["shape"] = lambda value: "×".join(str(n) for n in value)
    images = {name: f"data:image/png;base64,{base64.b64encode(png).decode()}" for name, png in figures.items()}
    return environment.get_template("report.html.j2").render(**results, figures=images, generator=GENERATOR)


def check_target(out: Path) -> None:
    """Raise a ReportError if no report can be written to the directory `out`."""
    try:
        check_destination(out, folder=True)
        for file in (out / PAGE, out / RESULTS):
            if file.exists() and not _is_ours(file):
                raise ReportError(
                    f"{file} does not belong to a report of refconv tour and would be overwritten; choose another --out"
                )
    except OSError as error:
        raise ReportError(f"cannot write to {out}: {error.strerror or error}") from error


def _is_ours(file: Path) -> bool:
    if not file.is_file():
        return False
    start = file.read_text(encoding="utf-8", errors="replace")[:500]
    return (GENERATOR if file.name == PAGE else f'"generator": "{GENERATOR}"') in start


def write(out: Path, results: Mapping[str, Any], page: str) -> Path:
    """Write both files of a report, or neither, and return the path of the page.

    An existing report stays complete until then; other files in its directory are not changed.

    Raises
    ------
    ReportError
        If the files cannot be written.
    """
    text = json.dumps({"generator": GENERATOR} | dict(results), indent=2, ensure_ascii=False) + "\n"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replaced_folder(out, (RESULTS, PAGE)) as built:
            (built / RESULTS).write_text(text, encoding="utf-8")
            (built / PAGE).write_text(page, encoding="utf-8")
    except OSError as error:
        raise ReportError(f"cannot write the report to {out}: {error.strerror or error}") from error
    return out / PAGE
