"""A study's table for the terminal: with boxes on a terminal, else as aligned plain lines."""

from collections.abc import Collection, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from optstudy.report import style
from optstudy.report.answer import answer
from optstudy.report.columns import Column, columns
from optstudy.results.figure import Figure


def show(figure: Figure, console: Console | None = None) -> None:
    """Print the table, the answer, its warnings and the claims."""
    out = console or Console()
    if figure.rows:
        out.print(
            table(figure, out.width) if out.is_terminal else plain(figure), soft_wrap=not out.is_terminal
        )
    for line in (*lines(figure), *claims(figure)):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def lines(figure: Figure) -> list[str]:
    """The answer and its warnings, one or two sentences per line."""
    if not figure.rows:
        return [style.printable(f"{figure.name}: no finished runs")]
    found = answer(figure)
    return [style.printable(line) for line in (found.sentence, *found.rest, *found.warnings)]


def claims(figure: Figure) -> list[str]:
    """Each claim of the study on one line: verdict, statement, test, deciding number."""
    return [style.printable(style.verdict(claim)) for claim in figure.claims]


def table(figure: Figure, width: int = 200) -> Table:
    """One line per curve, best first; optional columns are left out if ``width`` is too small."""
    cells = columns(figure)
    while _width(cells) > width and any(column.extra for column in cells):
        cells.remove(next(column for column in reversed(cells) if column.extra))
    result = Table(title=_shown(f"{figure.name}  {figure.scale}"), title_justify="left", box=box.SIMPLE_HEAD)
    for column in cells:
        result.add_column(_shown(column.short), justify="left" if column.text else "right", overflow="fold")
    for row in zip(*(column.cells for column in cells), strict=True):
        result.add_row(*map(_shown, row))
    return result


def plain(figure: Figure) -> str:
    """The whole table as aligned lines, without colour or boxes."""
    cells = columns(figure)
    rows: list[Sequence[str]] = [
        [column.short for column in cells],
        *zip(*(column.cells for column in cells), strict=True),
    ]
    return "\n".join(aligned(rows, {k for k, column in enumerate(cells) if column.text}))


def aligned(rows: Sequence[Sequence[str]], left: Collection[int]) -> list[str]:
    """Rows as lines with aligned columns; columns in ``left`` are left-aligned."""
    shown = [[style.printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if k in left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in shown
    ]


def _shown(text: str) -> str:
    return escape(style.printable(text))


def _width(cells: list[Column]) -> int:
    return sum(max(map(len, (column.short, *column.cells))) + 3 for column in cells)
