"""``optstudy claims``."""

import json
import sys
from collections import Counter
from pathlib import Path

from optstudy.claims import Verdict
from optstudy.commands.options import RUNS, Json, existing
from optstudy.commands.tables import show_table
from optstudy.ending import DONE
from optstudy.findings import verdicts
from optstudy.record import write_atomically
from optstudy.report import claims_page


def claims(
    *,
    scale: str = "pico",
    runs: Path = RUNS,
    fresh: bool = False,
    out: Path | None = None,
    json_: Json = False,
) -> int:
    """Judge every statement of the paper by what has been run: holds, does not hold, or not decided.

    Estimates are in nats per token (decades, for learning rates), with a 95 % interval over seeds. A
    statement of several parts is decided at that level as a whole; the part that decides it is shown.

    Examples:
        optstudy claims

        optstudy claims --scale nano --runs runs --json

        optstudy claims --out report/claims.html

    Args:
        scale: the scale of the runs.
        runs: where run folders are; the package's own record is read besides.
        fresh: leave out the package's record.
        out: also write a page of all of them, an HTML file.
        json_: for programs.
    """
    existing(runs)
    found = verdicts(scale, runs, fresh)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, claims_page([one.tree() for one in found], f"Claims at {scale}", {}))
    if json_:
        sys.stdout.write(json.dumps({"claims": [v.tree() for v in found]}, indent=1) + "\n")
        return DONE
    show_table(HEADINGS, [_cells(one) for one in found], right=(3, 5))
    said = ", ".join(f"{count} {word}" for word, count in Counter(v.word for v in found).items())
    sys.stdout.write(f"{len(found)} claims at {scale}: {said}\n" + (f"wrote {out}\n" if out else ""))
    return DONE


HEADINGS = ("figure", "claim", "verdict", "estimate", "interval", "seeds")


def _cells(verdict: Verdict) -> list[str]:
    tree = verdict.tree()
    interval = tree["interval"]
    return [
        tree["figure"].rpartition("/")[2],
        f"{tree['statement']}\n({verdict.claim.test})",
        f"{verdict.word}\n{verdict.why_not}".rstrip(),
        "" if tree["estimate"] is None else f"{tree['estimate']:+.3f}",
        "" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}",
        str(tree["seeds"]),
    ]
