"""Reports: a study's runs as a page that opens anywhere, as figures for a paper, as a table. No torch."""

from collections.abc import Iterable
from pathlib import Path

from optstudy.errors import UserError, nearest
from optstudy.record import write_atomically
from optstudy.report import figures
from optstudy.report.page import page
from optstudy.report.sweep import Sweep
from optstudy.report.terminal import lines, plain, show, table

__all__ = ["FORMATS", "Sweep", "lines", "plain", "show", "table", "write"]

FORMATS = ("html", "png", "svg", "pdf")
DEFAULT_FORMATS = ("html", "png", "svg")


def write(sweep: Sweep, out: Path, formats: Iterable[str] = DEFAULT_FORMATS) -> list[Path]:
    """Write a study's report into the folder ``out``, which is made.

    Returns:
        The files: ``index.html``, ``figure.png|svg|pdf``. Without finished runs only the page.

    Raises:
        UserError: an unknown format.
    """
    wanted = list(dict.fromkeys(formats))
    for name in wanted:
        if name not in FORMATS:
            raise UserError(f"unknown report format {name!r}{nearest(name, FORMATS)}")
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name in wanted:
        if name == "html":
            path, content = out / "index.html", page(sweep).encode()
        elif not sweep.rows:
            continue
        else:
            path, content = out / f"figure.{name}", figures.draw(sweep, name)
        write_atomically(path, content)
        written.append(path)
    return written
