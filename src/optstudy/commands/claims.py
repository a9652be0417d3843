"""``optstudy claims``."""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from optstudy.claims import Verdict
from optstudy.commands.options import RUNS, Assignments, Json
from optstudy.ending import DONE
from optstudy.findings import verdicts
from optstudy.study import library as study


def claims(
    *,
    scale: str = "pico",
    set_: Assignments = (),
    runs: Path = RUNS,
    fresh: bool = False,
    json_: Json = False,
) -> int:
    """Judge every statement of the paper by what has been run: holds, does not hold, or not decided.

    Estimates are in nats per token (decades, for learning rates), with a 95 % interval over seeds. A
    statement of several parts is decided at that level as a whole; the part that decides it is shown.

    Examples:
        optstudy claims

        optstudy claims --scale nano --runs runs --json

        optstudy claims --set training.steps=600

    Args:
        scale: the scale of the runs.
        set_: `training.steps=N`, for runs of another length than the scale's.
        runs: where run folders are; the package's own record is read besides.
        fresh: leave out the package's record.
        json_: for programs.
    """
    found = verdicts(scale, runs, fresh, study.overrides(set_))
    if json_:
        sys.stdout.write(json.dumps({"claims": [v.tree() for v in found]}, indent=1) + "\n")
        return DONE
    Console(file=sys.stdout).print(_table(found))
    said = ", ".join(f"{count} {word}" for word, count in Counter(v.word for v in found).items())
    sys.stdout.write(f"{len(found)} claims at {scale}: {said}\n")
    return DONE


def _table(found: Iterable[Verdict]) -> Table:
    table = Table(
        "figure", "claim", "verdict", "estimate", "interval", "seeds", box=None, header_style="bold"
    )
    for verdict in found:
        tree = verdict.tree()
        interval = tree["interval"]
        table.add_row(
            tree["figure"].rpartition("/")[2],
            f"{tree['statement']}\n({verdict.claim.test})",
            f"{verdict.word}\n{verdict.why_not}".rstrip(),
            "" if tree["estimate"] is None else f"{tree['estimate']:+.3f}",
            "" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}",
            str(tree["seeds"]),
        )
    return table
