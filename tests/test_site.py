"""The documentation site: built with warnings as errors, complete without a network, without broken links."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import refconv
import refconv.nn
import refconv.nn.data
import refconv.testing
from refconv.testing import adapters

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


def foreign_assets(site: Path) -> list[str]:
    """Return the assets that pages and style sheets load from other sites."""
    loaded = [(path, Page(path.read_text("utf-8")).assets) for path in sorted(site.rglob("*.html"))]
    loaded += [(path, set(styled(path.read_text("utf-8")))) for path in sorted(site.rglob("*.css"))]
    return [f"{path.relative_to(site)}: {asset}" for path, assets in loaded for asset in assets if is_foreign(asset)]


def broken_links(site: Path) -> list[str]:
    """Return the links and assets within the site whose file or anchor does not exist."""
    pages = {path.resolve(): Page(path.read_text("utf-8")) for path in site.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for address in page.links | page.assets:
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
    described = set().union(*(Page(path.read_text("utf-8")).anchors for path in site.rglob("*.html")))
    public = [(module.__name__, name) for module in PUBLIC for name in module.__all__]
    return [f"{m}.{n}" for m, n in public if not {f"{m}.{n}", f"{m.rpartition('.')[0]}.{n}"} & described]


def test_site_is_whole(tmp_path):
    for package in ("furo", "myst_nb", "numpydoc", "sphinx_copybutton"):
        pytest.importorskip(package, reason="the extra docs is not installed")
    site = tmp_path / "site"
    options = ("-q", "-W", "--keep-going", "-b", "html", "-c", ROOT / "docs", "-d", tmp_path / "trees")
    command = [sys.executable, "-m", "sphinx", *map(str, options), str(ROOT), str(site)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr

    assert foreign_assets(site) == []
    assert broken_links(site) == []
    assert undescribed(site) == []
    sources = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("notebooks/*.ipynb")]
    index = (site / "searchindex.js").read_text("utf-8")
    for page in (path.relative_to(ROOT).with_suffix("") for path in sources):
        assert (site / page).with_suffix(".html").is_file()
        assert f'"{page.as_posix()}"' in index


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
