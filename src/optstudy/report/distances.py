"""The figure of how far Adam's step is from Signum's and from Adalayer*'s over a run, by role."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from optstudy.report import style
from optstudy.report.parts import draw_note
from optstudy.results.figure import Figure

WIDTH, HEIGHT = 4.2, 2.4
"""Inches of a panel; panels are stacked, to be readable on a phone and in a column of print."""
RULES = {"from_signum": "from Signum's", "from_adalayer_star": "from Adalayer*'s"}
"""Distances that :func:`optstudy.training.probe.moments` records, and their names."""
ENDS = 0.1
"""Share of a run that the sentences call its start and its end."""

Recorded = Sequence[tuple[int, dict[str, dict[str, float]]]]
"""Tokens read, and by role what was recorded of second moments."""


def recorded(figure: Figure) -> Recorded:
    """What the best run of the best curve recorded; empty if no curve recorded any."""
    for summary in figure.summaries:
        for row in summary.curve.best.rows:
            rows = [one for one in figure.history(row.id) if isinstance(one.get("moments"), dict)]
            if rows:
                return [(one["tokens"], one["moments"]) for one in rows]
    return []


def draw_distances(made: Any, figure: Figure) -> None:
    """Draw a panel per other rule, a line per role."""
    rows = recorded(figure)
    roles = sorted({role for _, found in rows for role in found}, key=style.role)
    if not roles:
        draw_note(made, "No run recorded second moments.")
        return
    made.set_size_inches(WIDTH, HEIGHT * len(RULES) + 0.7)
    axes = made.subplots(len(RULES), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axis, (rule, name) in zip(axes, RULES.items(), strict=True):
        for slot, role in enumerate(roles):
            told = _of(rows, role, rule)
            look = style.look(slot, 2.0)
            axis.plot([x for x, _ in told], [y for _, y in told], markevery=max(1, len(told) // 8), **look)
        axis.set_title(style.drawn(f"Adam's step, {name}"), loc="left", fontsize=9)
        axis.set_ylabel("1 − cosine")
    axes[0].set_ylim(bottom=0.0)  # of both
    axes[-1].xaxis.set_major_formatter(lambda tokens, _: style.count(tokens))
    axes[-1].locator_params(axis="x", nbins=5)
    axes[-1].set_xlabel("tokens")
    made.legend(
        axes[0].get_lines(), [style.drawn(role) for role in roles], loc="outside lower center", ncols=4
    )


def _of(rows: Recorded, role: str, rule: str) -> list[tuple[int, float]]:
    return [
        (tokens, float(value))
        for tokens, found in rows
        if isinstance(value := found.get(role, {}).get(rule), (int, float))
    ]


def sentences(figure: Figure) -> list[str]:
    """By rule, the roles whose steps are farthest and nearest, and how far at the start and at the end."""
    rows, said = recorded(figure), []
    for rule, name in RULES.items():
        roles = sorted({role for _, found in rows for role in found})
        told = {role: some for role in roles if (some := _of(rows, role, rule))}
        if not told:
            continue
        middle = {role: median(value for _, value in some) for role, some in told.items()}
        far, near = max(middle, key=middle.__getitem__), min(middle, key=middle.__getitem__)
        said.append(
            f"Adam's step is farthest {name} in {far} ({_course(told[far])}), "
            f"nearest in {near} ({_course(told[near])})."
        )
    return said


def _course(some: Sequence[tuple[int, float]]) -> str:
    few = max(1, round(ENDS * len(some)))
    first, last = (median(value for _, value in part) for part in (some[:few], some[-few:]))
    return f"1 − cosine {first:.2f} at the start, {last:.2f} at the end"
