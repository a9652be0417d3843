"""Sphinx configuration: `make docs`. pages.py writes the pages derived from the package at every build."""

import sys
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

import optstudy

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project = "optstudy"
author = "The optstudy developers"
version = release = optstudy.__version__
copyright = f"2026, {author}"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "mathml"]
copybutton_exclude = ".linenos, .gp, .go"
exclude_patterns = ["_build", "generated/parts"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_typehints = "none"
napoleon_google_docstring = True

html_math_renderer = "mathml"
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["math.css", "pages.css"]
html_title = f"optstudy {release}"
project_table = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
repository = project_table.get("urls", {}).get("Repository", "")
"""URL of the source: `[project.urls]` of pyproject.toml; without it, no page links to the source."""
html_theme_options = (
    {
        "source_repository": repository,
        "source_branch": "main",
        "source_directory": "docs/",
        "footer_icons": [{"name": "Repository", "url": repository, "html": "Repository", "class": ""}],
    }
    if repository
    else {}
)


def setup(app: Sphinx) -> None:
    """Write the generated pages before sphinx looks for pages."""
    import pages

    pages.write(HERE / "generated")
