"""Sphinx: `make docs`. Pages that follow from the package are made anew by pages.py at every build."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

import optstudy

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project = "optstudy"
author = "The optstudy developers"
version = release = optstudy.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml"]
exclude_patterns = ["_build", "generated/parts"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_typehints = "none"
napoleon_google_docstring = True

html_math_renderer = "mathml"
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["math.css"]
html_title = f"optstudy {release}"


def setup(app: Sphinx) -> None:
    """Write the generated pages before sphinx looks for pages."""
    import pages

    pages.write(HERE / "generated")
