"""``optstudy optimizers``."""

import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from optstudy.cli import DONE
from optstudy.listing import listing

WIDTH = 160
"""Least width of the table, in characters: sources are long."""


def optimizers(*, json_: Annotated[bool, Parameter(name="--json")] = False) -> int:
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
        table.add_row(one.name, _moments(one.second_moment), f"{one.state_bytes_per_param:.2f}", one.source)
    console = Console(file=sys.stdout)
    console.width = max(console.width, WIDTH)
    console.print(table, highlight=False)
    return DONE


def _moments(by_role: Mapping[str, str]) -> str:
    """Say the commonest granularity first, then which roles differ."""
    common, _ = Counter(by_role.values()).most_common(1)[0]
    others = [f"{role} {kind}" for role, kind in by_role.items() if kind != common]
    return ", ".join([common, *others])
