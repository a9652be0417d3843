"""``optstudy claims``."""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from optstudy.claims.verdict import Verdict
from optstudy.commands.options import RUNS, Assignments, Json, Scale, existing
from optstudy.commands.reports import names_in
from optstudy.ending import DONE
from optstudy.outcomes import verdicts
from optstudy.record import write_atomically
from optstudy.report import claims_page, style
from optstudy.study.library import overrides


def claims(
    *names: str,
    scale: Scale = None,
    set_: Assignments = (),
    runs: Path = RUNS,
    fresh: bool = False,
    out: Path | None = None,
    json_: Json = False,
) -> int:
    """Judge the claims of studies from the finished runs: holds, does not hold, or not decided.

    Estimates are in nats per token (learning rates: decades), with a 95 % interval over seeds. A claim with
    several parts is decided at that level as a whole; the table shows the deciding part.

    Examples:
        optstudy claims

        optstudy claims paper/fig1 ./mine.yaml

        optstudy claims --scale nano --runs runs --json

        optstudy claims paper --set training.steps=600

        optstudy claims --out report/claims.html

    Args:
        names: names from `optstudy studies`, a folder of them (`paper`), or your own files; by default all
            studies in the package: the paper's statements and further claims.
        scale: the scale of the runs; by default `pico`, or the study's first.
        runs: folder of the run folders; the package's own record is read as well.
        fresh: ignore the package's record.
        out: also write an HTML page of all claims.
        json_: write JSON.
    """
    existing(runs)
    inside = [one for name in names for one in names_in(name)]
    found = verdicts(scale, runs, fresh, inside, overrides(set_))
    at = " and ".join(dict.fromkeys(verdict.scale for verdict in found if verdict.scale)) or scale
    where = f" at {at}" if at else ""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, claims_page([one.tree() for one in found], f"Claims{where}", {}))
    if json_:
        sys.stdout.write(json.dumps({"claims": [v.tree() for v in found]}, indent=1) + "\n")
        return DONE
    console = Console(file=sys.stdout)
    if console.is_terminal:
        console.print(_table(found))
    else:
        for verdict in found:
            sys.stdout.write(
                style.printable(f"{verdict.claim.figure}: {style.verdict(verdict.tree())}") + "\n"
            )
    said = ", ".join(f"{count} {word}" for word, count in Counter(v.word for v in found).items())
    sys.stdout.write(f"{len(found)} claim{'s' * (len(found) != 1)}{where}: {said or 'none'}\n")
    sys.stdout.write(f"wrote {out}\n" if out else "")
    return DONE


def _table(found: Iterable[Verdict]) -> Table:
    table = Table(
        "figure", "claim", "verdict", "estimate", "interval", "seeds", box=None, header_style="bold"
    )
    for verdict in found:
        tree = verdict.tree()
        value, interval = style.measured(tree, "+")
        table.add_row(
            tree["figure"].rpartition("/")[2],
            f"{tree['statement']}\n({tree['test']})",
            "\n".join(filter(None, (verdict.word, style.looked(tree), tree["why"], tree["changed"]))),
            value,
            interval,
            str(tree["seeds"]),
        )
    return table
