"""``optstudy optimizers``."""

import json
import sys
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from optstudy.commands.options import Json
from optstudy.ending import DONE
from optstudy.listing import listing

WIDTH = 160
"""Least width of the table, in characters: sources are long."""


def optimizers(*, json_: Json = False) -> int:
    """List every optimizer and recipe: its second moment by role, its state at 150m, its source.

    Args:
        json_: for programs.
    """
    found = listing()
    if json_:
        sys.stdout.write(json.dumps([asdict(one) for one in found], indent=1) + "\n")
        return DONE
    table = Table("optimizer", "second moment", "B/param", "source", box=None, pad_edge=False)
    for one in found:
        table.add_row(one.name, one.moments, f"{one.state_bytes_per_param:.2f}", one.source)
    console = Console(file=sys.stdout)
    console.width = max(console.width, WIDTH)
    console.print(table, highlight=False)
    return DONE
