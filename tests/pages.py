"""The pages that people read, and the blocks in them: what the tests of examples and links go through."""

import importlib.util
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
SHELL = ("sh", "bash", "")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    number: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"

    @property
    def name(self) -> str:
        """The file that its first line says it is, or is a part of, or nothing."""
        found = re.match(r"# (\S+\.(?:py|yaml))(?: \(at its end\))?\n", self.text)
        return found[1] if found else ""

    @property
    def is_added(self) -> bool:
        """Whether it belongs at the end of a file that there is."""
        return "(at its end)" in self.text.partition("\n")[0]


def written() -> list[Path]:
    """The pages that are written by hand."""
    pages = [path for path in sorted(DOCS.rglob("*.md")) if not {"generated", "_build"} & set(path.parts)]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *pages]


def blocks(content: str, page: str) -> list[Block]:
    """Every fenced block of a page."""
    return [Block(page, n, m[2], m[3]) for n, m in enumerate(BLOCK.finditer(content), 1)]


@cache
def all_blocks() -> tuple[Block, ...]:
    """Every fenced block of the pages written by hand."""
    return tuple(
        block for page in written() for block in blocks(page.read_text(), page.relative_to(ROOT).as_posix())
    )


def of(page: str, kind: str) -> list[Block]:
    """The blocks of one kind on one page."""
    return [block for block in all_blocks() if block.page == page and block.kind == kind]


def commands(block: Block) -> list[str]:
    """The shell lines of a block, comments left out, continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", block.text)
    return [
        line for line in (re.split(r"(?:^|\s\s+)#", line)[0].strip() for line in text.splitlines()) if line
    ]


def spans(content: str) -> list[str]:
    """Code within lines."""
    return SPAN.findall(BLOCK.sub("", content))


@cache
def generator() -> ModuleType:
    """docs/pages.py, imported, with the modules beside it."""
    sys.path.insert(0, str(DOCS))
    spec = importlib.util.spec_from_file_location("docs_pages", DOCS / "pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
