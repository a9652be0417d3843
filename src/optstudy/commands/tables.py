"""Tables fitted to the width of a terminal; without a terminal, one unwrapped line per row."""

import sys
from collections.abc import Collection, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from optstudy.report.terminal import aligned


def show_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = (), least: int = 0
) -> None:
    """Print a table; a cell may have several lines, which are joined if there is no terminal.

    Args:
        headings: headings of the columns.
        rows: rows of cells, plain text.
        right: numbers of the right-aligned columns.
        least: minimum width in characters, even on a narrower terminal.
    """
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        cells = [[" ".join(cell.split("\n")) for cell in row] for row in (headings, *rows)]
        left = set(range(len(headings))) - set(right)
        sys.stdout.write("".join(f"{line}\n" for line in aligned(cells, left)))
        return
    console.width = max(console.width, least)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table, highlight=False)
