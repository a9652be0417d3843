"""The README's tree is the real one, the version is in one place; its examples and links: test_docs.py."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_tree_is_the_real_one():
    (tree,) = re.findall(r"^src/optstudy/\n(.*?)```", README, re.DOTALL | re.MULTILINE)
    printed = [line.split()[0].rstrip("/") for line in tree.splitlines() if line.strip()]
    hidden = {"__init__.py", "__main__.py", "py.typed", "__pycache__"}
    real = {path.name for path in (ROOT / "src" / "optstudy").iterdir()} - hidden
    assert len(printed) == len(set(printed)) and set(printed) == real


def test_the_version_is_that_of_the_changelog_and_the_citation():
    import optstudy

    assert f"## [{optstudy.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {optstudy.__version__}\n" in (ROOT / "CITATION.cff").read_text()
