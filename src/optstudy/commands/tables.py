"""Tables on a terminal, fitted to its width; elsewhere a line per row, which nothing wraps."""

import sys
from collections.abc import Collection, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from optstudy.report.terminal import aligned


def show_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = (), least: int = 0
) -> None:
    """Print a table; a cell may have several lines, which are one where no terminal shows them.

    Args:
        headings: of the columns.
        rows: cells, plain text.
        right: numbers of the columns that are aligned to the right.
        least: characters that a narrower terminal is taken to have.
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
