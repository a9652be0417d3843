"""``optstudy run --decide``: adds seeds to decide open claims, at fixed looks."""

import math
import sys
import time
from collections.abc import Callable, Sequence

from optstudy.claims import looks
from optstudy.claims.looks import FUTILE, Need
from optstudy.claims.verdict import LOOKS
from optstudy.commands.watch import duration
from optstudy.errors import UserError
from optstudy.folders import validated
from optstudy.outcomes import evidence_of
from optstudy.study.cost import Speed
from optstudy.study.plan import PlannedRun
from optstudy.study.session import Session


def check(session: Session, asked: bool, most: int | None, hours: float | None) -> None:
    """Refuse options that do not fit.

    Raises:
        UserError: there are no claims, or the options make no sense together.
    """
    if not asked:
        if most is not None or hours is not None:
            raise UserError("--most-seeds and --hours say how --decide goes on: give it too")
        return
    if not session.study.claims:
        raise UserError(f"--decide: {session.study.name} has no claims to decide; write some under claims:")
    if session.seeds is not None:
        raise UserError("--decide: it chooses the seeds itself; leave out --seeds")
    if most is not None and most not in LOOKS:
        raise UserError(f"--most-seeds: input should be one of {', '.join(map(str, LOOKS))}, not {most}")
    if hours is not None and not 0 < hours < math.inf:
        raise UserError(f"--hours: input should be above 0, not {hours:g}")


def decide(
    session: Session,
    launch: Callable[[], object],
    slots: int,
    most: int | None = None,
    hours: float | None = None,
) -> None:
    """Add seeds until every claim that seeds can decide is decided, most informative runs first.

    Args:
        session: the study, whose own runs have ended.
        launch: starts the runs that the session requests.
        slots: runs at a time.
        most: the last look; None: the one with the most seeds.
        hours: no runs are started that would end later than this.
    """
    until = None if hours is None else time.monotonic() + 3600 * hours
    say, last = sys.stdout.write, most or max(LOOKS)
    for look in [n for n in LOOKS if n <= last]:
        needs = [one for one in _open(session, look) if one.seeds is not None and one.seeds <= FUTILE * last]
        batches = [wanted for one in needs if (wanted := _wanted(session, one, look))]
        if batches and until is None:
            batches = [[point for wanted in batches for point in wanted]]
        beyond = 0.0
        for wanted in batches:
            runs = list({point.id: point for point in wanted if session.row(point.id) is None}.values())
            speed = Speed(session.rows())
            seconds = sum(speed.seconds(point.config)[0] or 0.0 for point in runs) / slots
            if until is not None and time.monotonic() + seconds > until:
                beyond += seconds
            elif runs:
                say(f"{len(runs)} runs for the look at {look} seeds\n")
                session.want(runs)
                launch()
        if beyond:
            say(f"the look at {look} seeds would take {duration(beyond)} more: beyond --hours\n")
    session.want(())
    for one in _open(session):
        say(f"open: {one.claim.name}: it would take {one.why}\n")


def _open(session: Session, look: int | None = None) -> list[Need]:
    """What the open claims need, according to the previous or latest look, smallest need first."""
    evidence = evidence_of([session])
    found = []
    for claim in session.study.claims:
        if evidence.judge(claim, session.scale, decide=True).word != "not decided":
            continue
        first = min(LOOKS)
        if look == first and evidence.had(claim, first):
            continue
        before = [n for n in LOOKS if n < (look or math.inf) and evidence.had(claim, n)]
        basis = evidence.at(max(before, default=first))
        found.append(looks.need(basis.now(claim, session.scale), basis))
    return sorted(found, key=lambda one: math.inf if one.seeds is None else one.seeds)


def _wanted(session: Session, need: Need, look: int) -> Sequence[PlannedRun]:
    """The runs that are missing for a claim's look."""
    found = []
    for label, point in need.points:
        row = point.rows[0]
        own = PlannedRun(validated(row.config), label, point.x, row.id)
        found += [session.seeded(own, seed) for seed in range(look)]
    return [point for point in found if session.row(point.id) is None]
