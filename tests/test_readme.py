"""The README's tree is the real one, its links lead somewhere, its Python runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text()


def test_the_tree_is_the_real_one():
    (tree,) = re.findall(r"^src/optstudy/\n(.*?)```", README, re.DOTALL | re.MULTILINE)
    printed = [line.split()[0].rstrip("/") for line in tree.splitlines() if line.strip()]
    hidden = {"__init__.py", "__main__.py", "py.typed", "__pycache__"}
    real = {path.name for path in (ROOT / "src" / "optstudy").iterdir()} - hidden
    assert len(printed) == len(set(printed)) and set(printed) == real


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" not in link and not link.startswith("#"):
            assert (page.parent / link.partition("#")[0]).exists(), link


def test_the_python_in_the_readme_runs():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_version_is_that_of_the_changelog_and_the_citation():
    import optstudy

    assert f"## [{optstudy.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {optstudy.__version__}\n" in (ROOT / "CITATION.cff").read_text()
