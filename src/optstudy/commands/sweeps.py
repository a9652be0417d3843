"""What reports and claims are made from: a study's runs so far, and the record in the package."""

import json
import shlex

from optstudy import archive, study
from optstudy import report as reports
from optstudy.labels import cut, joined
from optstudy.session import Session

RECORDED = ("paper/", "beyond/")
"""Studies that the package's record holds; any other runs everything itself."""


def recorded(name: str, scale: str) -> archive.Archive:
    """Return the runs of the package's record that count as done in a study: one that the record is of."""
    return archive.load(scale) if name.startswith(RECORDED) else {}


def sweep_of(session: Session) -> reports.Sweep:
    """What a report of a session's study is made from, read again."""
    session.replan()
    file, points = session.study.file, session.plan.points
    rows = session.rows()
    titles = _titles(session)

    def label(curve: str) -> str:
        title, own = cut(curve)
        return joined(titles.get(title, title), own)

    places = {(point.id, label(point.curve)): point.x for point in points}
    return reports.Sweep(
        name=session.study.name,
        title=file.title,
        asks=file.asks,
        scale=session.scale,
        rows=rows,
        places=[reports.Place(run_id, curve, x) for (run_id, curve), x in places.items()],
        kind="effective" if all(p.config.training.effective_lr for p in points) else file.figure.kind,
        x=file.figure.x,
        axes={titles[title]: panel.x for title, panel in file.panels.items() if panel.x},
        baselines=frozenset(map(label, _included(session.study))),
        missing=len({point.id for point in points}) - len(rows) + len(session.plan.pending),
        runs=session.runs,
        recorded={row.id: session.kept[row.id].metrics for row in rows if row.id in session.kept},
        command=_command(session),
    )


def _titles(session: Session) -> dict[str, str]:
    """Titles of the panels without the paper's scale, which did not run; plain "150m" is "pico" at pico."""
    panels = session.study.file.panels
    if session.scale == "paper":
        return {title: title for title in panels}
    titles = {}
    for title, panel in panels.items():
        titles[title] = session.scale if title == panel.scale else title.removeprefix(f"{panel.scale}, ")
    drawn = {titles.get(cut(p.curve)[0], "") for p in session.plan.points}
    return dict.fromkeys(panels, "") if drawn <= {session.scale, ""} else titles


def _included(chosen: study.Study) -> list[str]:
    """Labels that the curves of other studies may have on this one's figure."""
    file = chosen.file
    found = [curve for curves in file.include.values() for curve in curves]
    for title, panel in file.panels.items():
        some = [
            curve
            for include in (file.include, panel.include)
            for curves in include.values()
            for curve in curves
        ]
        found += [*some, *(joined(title, curve) for curve in some)]
    return found


def _command(session: Session) -> str:
    """What runs the study as it was run."""
    words = ["optstudy", "run", session.study.path or session.study.name, "--scale", session.scale]
    for key, value in session.overrides.items():
        words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    if session.seeds is not None:
        words += ["--seeds", str(session.seeds)]
    return shlex.join(words)
