"""The documentation site: built with warnings as errors, complete without a network, without broken links.

Pages are opened in Chromium too, if there is one: they fit wide and narrow windows, without an error.
`make check` builds the site, and `make site` too.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

import refconv
import refconv.nn
import refconv.nn.data
import refconv.testing
from refconv.notebooks import TITLES
from refconv.testing import adapters
from tests.browser import CHROMIUM, Browser

ROOT = Path(__file__).resolve().parent.parent
PUBLIC = (refconv, refconv.nn, refconv.nn.data, refconv.testing, adapters)


@dataclass
class Page(HTMLParser):
    """The anchors, links and assets of a page."""

    text: str
    anchors: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    assets: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.anchors |= {values["id"]} if "id" in values else set()
        if tag == "a":
            self.links |= {values["href"]} if "href" in values else set()
        else:
            self.assets |= {values[name] for name in ("src", "href", "data", "poster") if name in values}
            self.assets |= {part.split()[0] for part in values.get("srcset", "").split(",") if part.strip()}
            self.assets |= set(styled(values.get("style", "")))


def styled(text: str) -> list[str]:
    """Return the assets that a style sheet loads."""
    found = re.findall(r"""url\(\s*['"]?([^'")]+)|@import\s+['"]([^'"]+)""", text)
    return [url or imported for url, imported in found]


def is_foreign(address: str) -> bool:
    return bool(urlsplit(address).netloc)


@functools.cache
def parsed(path: Path) -> Page:
    return Page(path.read_text("utf-8"))


def foreign_assets(site: Path) -> list[str]:
    """Return the assets that pages and style sheets load from other sites."""
    loaded = [(path, parsed(path).assets) for path in sorted(site.rglob("*.html"))]
    loaded += [(path, set(styled(path.read_text("utf-8")))) for path in sorted(site.rglob("*.css"))]
    return [f"{path.relative_to(site)}: {asset}" for path, assets in loaded for asset in assets if is_foreign(asset)]


def broken_links(site: Path) -> list[str]:
    """Return the links and assets within the site whose file or anchor does not exist."""
    pages = {path: parsed(path) for path in site.resolve().rglob("*.html")}
    broken = []
    for path, links in pages.items():
        for address in links.links | links.assets:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                broken.append(f"{path.relative_to(site.resolve())}: {address}")
    return sorted(broken)


def undescribed(site: Path) -> list[str]:
    """Return the public names that no page describes, under the module that exports them or its parent."""
    described = set().union(*(parsed(path).anchors for path in site.rglob("*.html")))
    public = [(module.__name__, name) for module in PUBLIC for name in module.__all__]
    return [f"{m}.{n}" for m, n in public if not {f"{m}.{n}", f"{m.rpartition('.')[0]}.{n}"} & described]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The site, built once for all worker processes."""
    for package in ("filelock", "furo", "myst_nb", "numpydoc", "sphinx_copybutton"):
        pytest.importorskip(package, reason="the extra docs is not installed")
    from filelock import FileLock

    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    site = shared / "site"
    with FileLock(shared / "site.lock"):
        if not site.is_dir():
            options = ("-q", "-W", "--keep-going", "-b", "html", "-c", ROOT / "docs", "-d", shared / "trees")
            command = [sys.executable, "-m", "sphinx", *map(str, options), str(ROOT), str(shared / "unchecked")]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stdout + result.stderr
            (shared / "unchecked").rename(site)
    return site


@pytest.mark.long
def test_site_is_whole(site):
    assert foreign_assets(site) == []
    assert broken_links(site) == []
    assert undescribed(site) == []
    sources = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("notebooks/*.ipynb")]
    index = (site / "searchindex.js").read_text("utf-8")
    for page in (path.relative_to(ROOT).with_suffix("") for path in sources):
        assert (site / page).with_suffix(".html").is_file()
        assert f'"{page.as_posix()}"' in index


@pytest.mark.long
def test_cards_have_everything(site):
    """A new notebook needs a goal and "You need …" in its first cell, a figure, and a plan in the teacher's guide."""
    text = (site / "docs" / "tutorials.html").read_text("utf-8")
    cards = text.split('<div class="card docutils container">')[1:]
    assert len(cards) == len(TITLES)
    for name, card in zip(TITLES, cards, strict=True):
        assert f'href="../notebooks/{name}.html">' in card
        assert f'src="../_images/{name}.png"' in card
        assert re.search(rf'href="\.\./_downloads/\w+/{name}\.ipynb"', card)
        assert "You learn to " in card, name
        assert "Needs: </strong>" in card, name
        assert re.search(r"In class: </strong>\d+ minutes", card), name


@pytest.mark.long
def test_names_of_the_library_are_links(site):
    """A code span that names a public function or a command leads to its description."""
    conventions = (site / "docs" / "conventions.html").read_text("utf-8")
    assert 'href="api/convolution.html#refconv.conv_input_grad"><code' in conventions
    assert 'href="commands.html#refconv-train"><code' in (site / "docs" / "compare.html").read_text("utf-8")


def films(site: Path) -> dict[str, list[str]]:
    """Return the pages with films, and the files of each film's steps."""
    found = {}
    for path in sorted(site.glob("notebooks/*.html")):
        steps = re.findall(r'<div class="film" data-steps="([^"]+)"', path.read_text("utf-8"))
        if steps:
            found[path.stem] = steps
    return found


@pytest.mark.long
def test_films_are_whole(site):
    """Each animated picture of a notebook is a film, and all its steps are files of the site."""
    shown = films(site)
    for name in TITLES:
        drawn = (ROOT / "notebooks" / f"{name}.md").read_text("utf-8").count("draw.film(")
        assert len(shown.get(name, [])) == drawn, name
        for steps in shown.get(name, []):
            assert len(steps.split()) > 1
            assert all((site / "notebooks" / step).is_file() for step in steps.split())


def lacking(notebook: dict[str, Any]) -> list[str]:
    """Return the cells that draw a figure and have no alternative text."""
    cells = [cell for cell in notebook["cells"] if not str(cell["metadata"].get("alt", "")).strip()]
    return [
        cell["id"] for cell in cells
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
    ]  # fmt: skip


@pytest.mark.long
def test_figures_have_alternative_texts(site):
    found = [
        f"{name} {cell}"
        for name in TITLES
        for cell in lacking(json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8")))
    ]
    assert found == []
    for path in site.glob("notebooks/*.html"):
        for image in re.findall(r"<img [^>]*>", path.read_text("utf-8")):
            alternative = re.search(r'alt="([^"]*)"', image)
            assert alternative, image
            assert not alternative[1].endswith(".png"), image


def test_a_figure_without_alternative_text_is_seen():
    figure = {"outputs": [{"data": {"image/png": ""}}], "id": "a", "metadata": {}}
    assert lacking({"cells": [figure, {"metadata": {}, "id": "b"}]}) == ["a"]
    assert lacking({"cells": [figure | {"metadata": {"alt": "A window."}}]}) == []


@pytest.mark.parametrize(
    "page",
    [
        '<script src="https://example.invalid/a.js"></script>',
        '<link rel="stylesheet" href="//example.invalid/a.css">',
        '<img src="http://example.invalid/a.png">',
        '<img srcset="a.png 1x, https://example.invalid/b.png 2x">',
        '<p style="background: url(https://example.invalid/a.png)">',
    ],
)
def test_what_is_loaded_from_elsewhere_is_seen(page, tmp_path):
    (tmp_path / "page.html").write_text(page, "utf-8")
    assert len(foreign_assets(tmp_path)) == 1


def test_style_sheet_that_loads_from_elsewhere_is_seen(tmp_path):
    (tmp_path / "a.css").write_text("@import 'https://example.invalid/a.css'; p { background: url(b.png) }", "utf-8")
    assert foreign_assets(tmp_path) == ["a.css: https://example.invalid/a.css"]


def test_names_without_a_description_are_seen(tmp_path):
    (tmp_path / "a.html").write_text('<dt id="refconv.conv"></dt>', "utf-8")
    assert "refconv.conv" not in undescribed(tmp_path)
    assert "refconv.im2col" in undescribed(tmp_path)


def test_links_that_lead_nowhere_are_seen(tmp_path):
    links = "".join(f'<a href="{to}">to</a>' for to in ("b.html#here", "b.html#there", "c.html", "#x"))
    (tmp_path / "a.html").write_text(links + '<img src="d.png">', "utf-8")
    (tmp_path / "b.html").write_text('<p id="here"><a href="https://example.invalid">away</a></p>', "utf-8")
    assert broken_links(tmp_path) == ["a.html: #x", "a.html: b.html#there", "a.html: c.html", "a.html: d.png"]


# --- In a browser -------------------------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


FILM = """(() => {
  const film = document.querySelector(".film");
  const [back, toggle, next] = film.querySelectorAll("button");
  const slider = film.querySelector("input");
  return { film, back, toggle, next, slider, at: () => Number(slider.value), steps: film.dataset.steps.split(" "),
           shown: () => film.querySelector("img").getAttribute("src") };
})()"""


def ask(browser: Browser, question: str) -> Any:
    return browser.run(f"(({{ film, back, toggle, next, slider, at, steps, shown }}) => {question})({FILM})")


# A wide table or line of code scrolls in its own box; anything else that leaves the window is too wide.
TOO_WIDE = """(() => {
  const scrolls = (one) => one && (one.matches("article") ? false : /auto|scroll/.test(getComputedStyle(one).overflowX)
    || scrolls(one.parentElement));
  const out = [...document.querySelectorAll("article *")].filter((one) =>
    one.checkVisibility() && one.getBoundingClientRect().right > innerWidth + 1 && !scrolls(one.parentElement));
  return document.documentElement.scrollWidth > innerWidth ? "the page" : out[0]?.outerHTML.slice(0, 200) ?? "";
})()"""
PARTS = 6
"""Tests that share the pages, so that several workers can open them."""


@pytest.mark.long
@needs_browser
@pytest.mark.parametrize("part", range(PARTS))
def test_every_page_fits_and_complains_of_nothing(site, browser, part):
    names = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    pages = [name for name in names if name != "index.html" and not name.startswith("_modules/")]
    browser.requests.clear()
    browser.complaints.clear()
    failures = []
    try:
        for page in pages[part::PARTS]:
            browser.size(1400, 900)
            browser.open((site / page).as_uri())
            for mode in ("light", "dark"):
                browser.media(prefers_color_scheme=mode)
                for width in (1400, 390):
                    browser.size(width, 900)
                    if wide := browser.run(TOO_WIDE):
                        failures.append(f"{page}: wider than {width} px, {mode}: {wide}")
            failures += [f"{page}: {complaint}" for complaint in browser.complaints]
            browser.complaints.clear()
        failures += [url for url in browser.requests if not url.startswith(("file:", "about:", "data:", "blob:"))]
    finally:
        browser.media(prefers_color_scheme="light")
    assert failures == []


@pytest.mark.long
@needs_browser
def test_films_stop_step_and_slide(site, browser):
    for name in films(site):
        browser.size(1400, 900)
        browser.media(prefers_reduced_motion="no-preference")
        browser.open((site / "notebooks" / f"{name}.html").as_uri())
        assert ask(browser, "[toggle.textContent, at(), shown() === steps[0]]") == ["Pause", 1, True]
        ask(browser, "toggle.click()")
        assert ask(browser, "toggle.textContent") == "Play"
        ask(browser, "(next.click(), next.click())")
        assert ask(browser, "[at(), shown() === steps[2], slider.getAttribute('aria-valuetext')]") == [
            3, True, f"Step 3 of {ask(browser, 'steps.length')}"]  # fmt: skip
        ask(browser, "back.click()")
        assert ask(browser, "[at(), shown() === steps[1]]") == [2, True]
        ask(browser, "slider.focus()")
        browser.key("End")
        assert ask(browser, "[at() === steps.length, shown() === steps.at(-1)]") == [True, True]
        ask(browser, "next.click()")
        assert ask(browser, "at()") == 1  # begins again
        assert ask(browser, "film.querySelector('img').decode().then(() => 'shown')") == "shown"


@pytest.mark.long
@needs_browser
def test_film_plays_and_pauses(site, browser):
    browser.media(prefers_reduced_motion="no-preference")
    browser.open((site / "notebooks" / "01_sliding_window.html").as_uri())
    moved = "new Promise((done) => setTimeout(() => done(at()), 1500))"
    assert ask(browser, moved) > 1
    ask(browser, "toggle.click()")
    before = ask(browser, "at()")
    assert ask(browser, moved) == before


@pytest.mark.long
@needs_browser
def test_film_stays_still_for_readers_who_want_no_motion(site, browser):
    try:
        browser.media(prefers_reduced_motion="reduce")
        browser.open((site / "notebooks" / "01_sliding_window.html").as_uri())
        still = "new Promise((done) => setTimeout(() => done([toggle.textContent, at()]), 1500))"
        assert ask(browser, still) == ["Play", 1]
        ask(browser, "toggle.click()")  # they may start it
        assert ask(browser, "toggle.textContent") == "Pause"
    finally:
        browser.media(prefers_reduced_motion="no-preference")


@pytest.mark.long
@needs_browser
def test_film_without_scripts_is_a_picture(site, browser, tmp_path):
    source = site / "notebooks" / "01_sliding_window.html"
    text = re.sub(r"<script.*?</script>", "", source.read_text("utf-8"), flags=re.DOTALL)
    page = tmp_path / "page.html"
    page.write_text(text.replace("<head>", f'<head><base href="{source.as_uri()}">', 1), "utf-8")
    browser.open(page.as_uri())
    assert browser.run("document.querySelector('.film img').naturalWidth") > 0
    assert browser.run("document.querySelectorAll('.film button').length") == 0


@pytest.mark.long
@needs_browser
def test_controls_of_films_have_names_and_room_for_a_finger(site, browser):
    browser.size(390, 900)
    browser.open((site / "notebooks" / "01_sliding_window.html").as_uri())
    found = ask(browser, """[back, toggle, next, slider].map((one) => {
        const { width, height } = one.getBoundingClientRect();
        return [one.getAttribute("aria-label"), Math.min(width, height)];
    })""")  # fmt: skip
    assert [name for name, _ in found] == ["Previous step", "Pause the film", "Next step", "Step of the film"]
    assert min(room for _, room in found) >= 44
