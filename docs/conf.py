"""Sphinx settings of the documentation site (`make site`). Its pages are also read, and tested, in the repository.

The source folder is the root of the repository, so a link from one file to another leads to the same place on the site
and in the repository. Pages load only files from installed packages, so the site is complete without a network.
docs/textbook.md includes functions of refconv/textbook.py, which Sphinx reads when it builds the page.
"""

import sys
from importlib.metadata import version as installed_version
from importlib.resources import files
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for site_parts.py

project = "refconv"
author = "The refconv developers"
version = release = installed_version("refconv")

root_doc = "docs/index"
include_patterns = ["docs/**.md", "notebooks/*.ipynb", "notebooks/README.md", "*.md"]
exclude_patterns = [
    ".*",
    "README.md",
    "benchmarks",
    "build",
    "dist",
    "mutants",
    "refconv",
    "tests",
    "**/.ipynb_checkpoints",
]
extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_click",
    "sphinx_copybutton",
    "site_parts",
]
nitpicky = True
smartquotes_action = "qe"  # an option keeps both its dashes

# Pages, and notebooks with the outputs that they were saved with.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, object] = {}

# Docstrings.
autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False

# Appearance. MathJax in one file that draws with SVG needs no fonts.
templates_path = ["_templates", "explorer"]
html_theme = "furo"
html_title = f"refconv {version}"
html_static_path = ["_static", str(files("sphinx-mathjax-offline") / "static" / "mathjax" / "tex-svg.js")]
html_css_files = ["site.css"]
html_js_files = [("films.js", {"defer": "defer"})]
html_additional_pages = {
    "index": "redirect.html",  # the front page is docs/index.html
    "explorer": "explorer.html",  # joins the files of docs/explorer/
}
html_copy_source = False
html_show_search_summary = False  # a page opened from a file cannot read another
html_show_copyright = False
mathjax_path = "tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}
pygments_dark_style = "github-dark"
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True


def without_last_blank_line(app: Sphinx, page: str, source: list[str]) -> None:
    """Drop the empty line at the end of a doctest, below its output."""
    source[0] = source[0].replace("\n\n```\n", "\n```\n")


def setup(app: Sphinx) -> None:  # noqa: D103
    app.connect("source-read", without_last_blank_line)
