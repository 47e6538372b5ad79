"""The documentation site: `make site` builds it from README-like pages that are also read, and tested, where they lie.

The source folder is the root of the repository, so that a link from one file to another leads to the same place here
and in the repository. Everything a page loads is copied from installed packages: the site is complete without a network.
"""

from importlib.metadata import version as installed_version
from importlib.resources import files

project = "refconv"
author = "The refconv developers"
copyright = author  # noqa: A001
version = release = installed_version("refconv")

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
root_doc = "docs/index"
include_patterns = ["docs/**.md", "notebooks/*.ipynb", "CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = [".*", "build", "dist", "mutants", "refconv", "tests", "benchmarks", "**/.ipynb_checkpoints"]
nitpicky = True

# Pages and notebooks. Outputs are those that the notebooks were saved with.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"
nb_ipywidgets_js = {}
suppress_warnings = ["toc.empty_glob"]  # the notebooks, where there are none

# Docstrings. The types of other packages have no page here.
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autoclass_content = "class"
numpydoc_show_class_members = False

html_theme = "furo"
html_title = "refconv"
html_static_path = ["_static", str(files("sphinx-mathjax-offline") / "static" / "mathjax" / "tex-svg.js")]
html_css_files = ["site.css"]
html_additional_pages = {"index": "redirect.html"}
templates_path = ["_templates"]
html_copy_source = False
html_show_sphinx = False
mathjax_path = "tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
pygments_style = "default"
pygments_dark_style = "github-dark"
