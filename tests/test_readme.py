"""The README's tree is the real one, the version is in one place; its examples and links: test_docs.py."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_tree_is_the_real_one():
    (tree,) = re.findall(r"^src/optstudy/\n(.*?)```", README, re.DOTALL | re.MULTILINE)
    printed, folder = [], ""
    for line in filter(None, tree.splitlines()):
        name, *said = line.split()
        assert said, f"no phrase for {name}"
        folder = "" if line[2] != " " else folder
        printed.append(folder + name.rstrip("/"))
        folder = name if name.endswith("/") and not folder else folder
    source = ROOT / "src" / "optstudy"
    found = list(source.glob("*.py")) + [path for path in source.glob("*/") if path.is_dir()]
    found += [*source.glob("*/*.py"), source / "report" / "templates", source / "commands" / "starters"]
    hidden = {"__init__.py", "__main__.py", "__pycache__"}
    real = sorted(str(path.relative_to(source)) for path in found if path.name not in hidden)
    assert sorted(printed) == real


def test_the_version_is_that_of_the_changelog_and_the_citation():
    import optstudy

    assert f"## [{optstudy.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {optstudy.__version__}\n" in (ROOT / "CITATION.cff").read_text()
