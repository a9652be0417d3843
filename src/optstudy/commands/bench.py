"""``optstudy bench optim``."""

import json
import sys
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from optstudy import bench_optim
from optstudy.cli import DONE


def optim(
    *,
    rounds: int = bench_optim.ROUNDS,
    peers: bool = True,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Time a step of every optimizer, and of other libraries' where they are installed, in one run.

    On the shapes of a transformer of 59 million weights. Peers: `make bench` installs them.

    Args:
        rounds: steps of each; the fastest counts.
        peers: time other libraries' too.
        json_: for programs: a list of objects.
    """
    rows = bench_optim.bench(peers, rounds, say=lambda line: _say(f"preparing {line}"))
    if json_:
        sys.stdout.write(json.dumps(bench_optim.as_json(rows), indent=1) + "\n")
        return DONE
    header, *lines = bench_optim.as_table(rows)
    table = Table(*header, box=None)
    for line in lines:
        table.add_row(*line)
    Console(file=sys.stdout).print(table)
    return DONE


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
