"""Sphinx settings of the documentation. `make docs` builds it; warnings are errors there."""

import logging
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent / "src")]

from exgra_med import __version__  # noqa: E402

# As in cli/main.py: torchao, where it is installed, warns of each kernel that it cannot load.
for name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(name).setLevel(logging.ERROR)

project = "ExGra-Med Open"
author = "The ExGra-Med Open contributors"
release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "generated_pages",
    "mathml_equations",
]
exclude_patterns = ["_build", "_ext", "generated"]
html_theme = "furo"
html_math_renderer = "mathml"
# Two hyphens are the beginning of an option, not a dash.
smartquotes = False
html_title = "ExGra-Med Open"
html_theme_options = {
    "announcement": "Research use only: nothing this software prints is clinical advice."
}
templates_path: list[str] = []

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 4
# A copied example is what is typed: no prompt, no output.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Docstrings are written for a reader of the source: single backticks are code.
default_role = "code"
# What an example may use without an import.
doctest_global_setup = """
import numpy as np
import torch

from exgra_med.alignment import MultiGraphAlignment, solve_matching
"""
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
autodoc_mock_imports: list[str] = []
# Types of other projects cannot be looked up without the internet.
nitpick_ignore_regex = [(r"py:.*", r".*")]
# External links are looked up only where there is an internet (`make docs-links`).
linkcheck_timeout = 20
# Figures for light and dark pages alike are drawn on white.
html_static_path = ["_static"]
html_css_files = ["figures.css"]


def _make_accessible(app, page, template, context, doctree):
    """What screen readers and keyboards need, and the theme leaves out.

    The headings of its navigation get a level; code and tables that are wider than the page can be
    reached, to scroll them.
    """
    for name in ("furo_navigation_tree", "toctree"):
        if isinstance(context.get(name), str):
            level = 'role="heading" aria-level="2"'
            context[name] = context[name].replace('role="heading"', level)
    body = context.get("body", "").replace("<pre>", '<pre tabindex="0">')
    table = '<div class="table-wrapper'
    context["body"] = body.replace(table, table.replace("<div", '<div tabindex="0"'))


def setup(app):
    """Called by Sphinx."""
    # Behind the theme, which makes the navigation at the same event.
    app.connect("html-page-context", _make_accessible, priority=900)
