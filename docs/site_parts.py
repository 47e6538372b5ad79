"""A Sphinx extension for the parts of the site that Markdown does not have.

* Films: an animated picture of a notebook is split into its steps, for `_static/films.js`.
* Alternative texts: a figure's is the entry `alt` of its cell's metadata, else it names the figure's section.
* Cards: the directive `{notebook-cards}` lists the notebooks, with what their first cells say.
* Links: a code span that names a public object or a command leads to its description.
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docutils import nodes
from PIL import Image
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from refconv.cli.run import cli
from refconv.notebooks import TITLES

ROOT = Path(__file__).resolve().parent.parent
LINKED = {"function", "class", "exception", "data", "method", "property", "module"}
"""Kinds of Python objects that code spans link to."""


# --- Figures and films --------------------------------------------------------------------------------------------


class film(nodes.image):  # noqa: N801  (Sphinx calls nodes by their lower-case names)
    """An animated picture."""


def steps(picture: Image.Image) -> list[tuple[Image.Image, int]]:
    """Return the pictures of an animation, and how many milliseconds each is shown."""
    found = []
    for index in range(getattr(picture, "n_frames", 1)):
        picture.seek(index)
        found.append((picture.copy(), int(picture.info.get("duration", 0))))
    return found


def describe_figures(app: Sphinx, doctree: nodes.document) -> None:
    """Give each figure of a notebook an alternative text, and make a film of each animated one."""
    for cell in doctree.findall(lambda node: isinstance(node, nodes.container) and "cell_metadata" in node):
        heading = "the beginning"
        section: Any = cell
        while not isinstance(section, nodes.section) and section.parent:
            section = section.parent
        if isinstance(section, nodes.section):
            heading = f"section “{section.next_node(nodes.title).astext()}”"
        for image in list(cell.findall(nodes.image)):
            with Image.open(app.env.relfn2path(image["uri"])[1]) as picture:
                count = getattr(picture, "n_frames", 1)
            kind = "Figure" if count == 1 else f"Film in {count} steps"
            image["alt"] = cell["cell_metadata"].get("alt", f"{kind} of {heading}")
            if count > 1:
                image.replace_self(film(**image.attributes))


def visit_film(translator: Any, node: film) -> None:
    """Write the steps as files, and the animation for readers without JavaScript: still if they want no motion."""
    builder = translator.builder
    folder = Path(builder.outdir, builder.imagedir, "films")
    folder.mkdir(parents=True, exist_ok=True)
    name = builder.images[node["uri"]]
    files, durations = [], []
    with Image.open(Path(builder.srcdir, node["uri"])) as picture:
        width, height = picture.size
        for index, (step, duration) in enumerate(steps(picture)):
            file = f"{Path(name).stem[:16]}-{index}.png"
            step.save(folder / file, optimize=True)
            files.append(f"{builder.imgpath}/films/{file}")
            durations.append(duration)
    translator.body.append(
        f'<div class="film" data-steps="{" ".join(files)}" data-milliseconds="{" ".join(map(str, durations))}">'
        f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="{files[0]}">'
        f'<img src="{builder.imgpath}/{name}" alt="{html.escape(node["alt"])}" width="{width}" height="{height}">'
        "</picture></div>\n"
    )


def leave_film(translator: Any, node: film) -> None:  # noqa: D103
    pass


# --- Notebooks ----------------------------------------------------------------------------------------------------


def first_cell(notebook: dict[str, Any]) -> dict[str, Any]:
    r"""Return what the first cell of a notebook says: title, goals, and what the reader needs.

    Examples
    --------
    >>> text = "# 3. Backward\n\nYou can\n\n* derive\n  it;\n* check.\n\nYou need notebooks 1\nand 2, and time. Run it."
    >>> first_cell({"cells": [{"source": text}]})
    {'title': '3. Backward', 'goals': ['derive it', 'check'], 'needs': 'notebooks 1 and 2, and time'}
    """
    text = "".join(notebook["cells"][0]["source"])
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    goals = re.findall(r"^\* ((?:.+\n?)(?:^  .+\n?)*)", text, re.MULTILINE)
    needs = re.search(r"^(?:You need|Prerequisites:) (.+?)(?:[.;:]\s|[.;:]?\Z|, or:)", text, re.M | re.S)
    return {
        "title": title[1] if title else "",
        "goals": [" ".join(goal.split()).rstrip(".;") for goal in goals],
        "needs": " ".join(needs[1].split()) if needs else "",
    }


def minutes_in_class(guide: str, number: int) -> int:
    r"""Return how many minutes the teacher's guide plans for a notebook: the sum of the lesson's table, 0 if none.

    Examples
    --------
    >>> guide = "### Notebook 1: a\n\n| 15 | b |\n| 10 | c |\n\n### Notebook 11: d\n\n| 90 | e |\n"
    >>> minutes_in_class(guide, 1), minutes_in_class(guide, 11), minutes_in_class(guide, 2)
    (25, 90, 0)
    """
    lesson = re.search(rf"^### Notebook {number}\b.*?(?=^##|\Z)", guide, re.MULTILINE | re.DOTALL)
    return sum(map(int, re.findall(r"^\| *(\d+) *\|", lesson[0] if lesson else "", re.MULTILINE)))


def first_picture(notebook: dict[str, Any]) -> bytes:
    """Return the first figure that a notebook draws, as PNG; of a film its last step."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                return base64.b64decode(output["data"]["image/png"])
    raise ValueError("the notebook draws no figure")


class NotebookCards(SphinxDirective):
    """A card for each of these notebooks, such as "1-4": picture, title, first goal, prerequisites, time, and file."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Read the notebooks."""
        guide = (ROOT / "docs" / "teaching.md").read_text("utf-8")
        cards = nodes.container(classes=["cards"])
        first, last = map(int, self.arguments[0].split("-"))
        for name in list(TITLES)[first - 1 : last]:
            file = ROOT / "notebooks" / f"{name}.ipynb"
            self.env.note_dependency(str(file))
            cards += self.card(name, json.loads(file.read_text("utf-8")), guide)
        return [cards]

    def card(self, name: str, notebook: dict[str, Any], guide: str) -> nodes.Node:
        """Make one card."""
        said = first_cell(notebook)
        pictures = Path(self.env.doctreedir) / "cards"
        pictures.mkdir(parents=True, exist_ok=True)
        with Image.open(io.BytesIO(first_picture(notebook))) as picture:
            steps(picture)[-1][0].save(pictures / f"{name}.png", optimize=True)
        page = self.env.docname
        here = Path(self.env.doc2path(page)).parent
        card = nodes.container(classes=["card"])
        uri = Path(os.path.relpath(pictures / f"{name}.png", here)).as_posix()
        card += nodes.image(uri=uri, alt="")
        title = addnodes.pending_xref(
            "",
            refdomain="std",
            reftype="doc",
            reftarget=f"/notebooks/{name}",
            refexplicit=True,
            refdoc=self.env.docname,
        )
        title += nodes.inline("", said["title"])
        card += nodes.paragraph("", "", nodes.strong("", "", title))
        if said["goals"]:
            goal, messages = self.parse_inline(said["goals"][0])
            card += nodes.paragraph("", "You learn to ", *goal, nodes.Text("."), *messages)
        facts = nodes.paragraph(classes=["facts"])
        if said["needs"]:
            facts += [nodes.strong("", "Needs: "), *self.parse_inline(said["needs"])[0], nodes.Text(". ")]
        minutes = minutes_in_class(guide, int(name[:2]))
        if minutes:
            facts += [nodes.strong("", "In class: "), nodes.Text(f"{minutes} minutes. ")]
        facts += download(f"/notebooks/{name}.ipynb", "Download (.ipynb)")
        card += facts
        return card


def download(target: str, text: str) -> nodes.Node:
    """Return a link that downloads a file of the repository."""
    link = addnodes.download_reference("", "", reftarget=target, refexplicit=True)
    link += nodes.inline("", text)
    return link


def offer_download(app: Sphinx, doctree: nodes.document) -> None:
    """Begin a notebook's page with a link to its file."""
    folder, _, name = app.env.docname.rpartition("/")
    title = doctree.next_node(nodes.title)
    if folder == "notebooks" and name in TITLES and title is not None:
        line = nodes.paragraph(classes=["facts"])
        line += [download(f"/notebooks/{name}.ipynb", "Download this notebook"), nodes.Text(", or run "),
                 nodes.literal("", "refconv notebooks --to DIR"), nodes.Text(" to get them all.")]  # fmt: skip
        title.parent.insert(title.parent.index(title) + 1, line)


# --- Links --------------------------------------------------------------------------------------------------------


def by_name(objects: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the full name of each short name, without ambiguous ones.

    A lower-case word alone means only an object of `refconv` or `refconv.testing`: `summary` may be any summary.

    Parameters
    ----------
    objects : iterable of (str, str)
        Full names and kinds.

    Examples
    --------
    >>> found = by_name([
    ...     ("refconv.conv", "function"), ("refconv.nn.Conv", "class"), ("refconv.nn.Conv.forward", "method")])
    >>> found["conv"], found["Conv"], found["Conv.forward"], "forward" in found
    ('refconv.conv', 'refconv.nn.Conv', 'refconv.nn.Conv.forward', False)
    >>> sorted(by_name([("refconv.nn.summary", "function")]))
    ['nn.summary', 'refconv.nn.summary']
    """
    meant: dict[str, set[str]] = {}
    for name, kind in objects:
        if kind not in LINKED or not name.startswith("refconv"):
            continue
        parts = name.split(".")
        fewest = {"method": 2, "property": 2, "module": len(parts)}.get(kind, 1)
        if re.fullmatch("[a-z0-9]+", parts[-1]) and parts[:-1] not in (["refconv"], ["refconv", "testing"]):
            fewest = max(fewest, 2)
        for count in range(fewest, len(parts) + 1):
            meant.setdefault(".".join(parts[-count:]), set()).add(name)
    return {short: min(names) for short, names in meant.items() if len(names) == 1}


def link_code(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Link code spans that name a public object or a command."""
    domain: Any = app.env.get_domain("py")
    names = by_name((name, entry.objtype) for name, entry in domain.objects.items())
    for span in list(doctree.findall(nodes.literal)):
        ancestor: Any = span.parent
        while ancestor and not isinstance(ancestor, (nodes.reference, nodes.title, addnodes.desc_signature)):
            ancestor = ancestor.parent
        if ancestor:
            continue
        text = span.astext()
        command = re.match(r"refconv ([a-z]+)\b", text)
        target = None
        if command and command[1] in cli.commands and page != "docs/commands":
            target = ("docs/commands", f"refconv-{command[1]}")
        elif text.removesuffix("()") in names:
            entry = domain.objects[names[text.removesuffix("()")]]
            target = (entry.docname, entry.node_id)
        if target:
            span.replace_self(make_refnode(app.builder, page, *target, span.deepcopy()))


def setup(app: Sphinx) -> dict[str, Any]:  # noqa: D103
    app.add_node(film, html=(visit_film, leave_film))
    app.add_directive("notebook-cards", NotebookCards)
    app.connect("doctree-read", describe_figures, priority=400)  # before Sphinx collects pictures and downloads
    app.connect("doctree-read", offer_download, priority=400)
    app.connect("doctree-resolved", link_code)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
