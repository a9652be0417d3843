"""A study's report as files, in the formats asked for."""

from collections.abc import Iterable
from pathlib import Path

from optstudy.errors import UserError, nearest
from optstudy.record import write_atomically
from optstudy.report import figures, tables
from optstudy.report.page import caption, page
from optstudy.report.sweep import Sweep

FORMATS = ("html", "pdf", "svg", "png", "md", "tex")
DEFAULT_FORMATS = ("html", "png", "svg")


def write(sweep: Sweep, out: Path, formats: Iterable[str] = DEFAULT_FORMATS, home: str = "") -> list[Path]:
    """Write a study's report into the folder ``out``, which is made.

    Returns:
        ``index.html``, ``figure.pdf|svg|png``, ``table.md|tex``; without finished runs only the page.

    Raises:
        UserError: an unknown format.
    """
    wanted = check(formats)
    out.mkdir(parents=True, exist_ok=True)
    pictures = [name for name in wanted if name in figures.METADATA] if sweep.rows else []
    if sweep.rows and "html" in wanted and "svg" not in pictures:
        pictures.append("svg")
    drawn = figures.draw_all(sweep, pictures) if pictures else {}
    written = []
    for name in wanted:
        if name == "html":
            path, content = out / "index.html", page(sweep, home, figure=drawn.get("svg")).encode()
        elif not sweep.rows:
            continue
        elif name in drawn:
            path, content = out / f"figure.{name}", drawn[name]
        else:
            text = (tables.markdown if name == "md" else tables.latex)(sweep, caption(sweep))
            path, content = out / f"table.{name}", text.encode()
        write_atomically(path, content)
        written.append(path)
    return written


def check(formats: Iterable[str]) -> list[str]:
    """The formats without repetition.

    Raises:
        UserError: an unknown one.
    """
    wanted = list(dict.fromkeys(formats))
    for name in wanted:
        if name not in FORMATS:
            raise UserError(f"unknown report format {name!r}{nearest(name, FORMATS)}")
    return wanted
