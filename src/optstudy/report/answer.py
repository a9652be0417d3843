"""The answer in sentences: what to use, at what setting, and what it costs to be off."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from optstudy import stats
from optstudy.report import style
from optstudy.report.effective import Spread, spreads
from optstudy.report.maps import Move, heats, moves
from optstudy.report.sweep import Sweep
from optstudy.stats import Estimate, Summary

NAMED = 7
"""Curves that a sentence names before it counts the others."""


@dataclass(frozen=True)
class Answer:
    """What a reader needs first. Every text is plain, unescaped."""

    sentence: str
    facts: tuple[tuple[str, str, str], ...]
    """Heading, value and remark: what to use, at what setting, what a wrong setting costs."""
    rest: tuple[str, ...]
    """Who cannot be told apart from the best, and who can."""
    warnings: tuple[str, ...]


def answer(sweep: Sweep) -> Answer:
    """Say which curve is best, in the first panel at length. There must be a finished run."""
    if sweep.kind == "effective" and (found := spreads(sweep)):
        return _of_spreads(sweep, found)
    if sweep.kind == "map" and (
        moved := [(heat.title, some) for heat in heats(sweep) if (some := moves(heat))]
    ):
        return _of_map(sweep, moved)
    first, *panels = sweep.groups
    best = first[0]
    if not best.curve.trained:
        text = "No run got below the loss before training, so there is nothing to recommend."
        return Answer(text, (), (), tuple(warnings(sweep)))
    sentence = f"{claim(sweep, best)}."
    if best.curve.log and len(best.curve.points) > 1:
        axis = sweep.axis(best.label).partition(",")[0]
        sentence += f" A {axis} 3× too low costs {cost(best.lower)}, 3× too high {cost(best.higher)}."
    rest = [
        *compare(sweep, first),
        *(f"{claim(sweep, group[0])}." for group in panels if group[0].curve.trained),
    ]
    return Answer(sentence, tuple(_facts(sweep, best)), tuple(rest), tuple(warnings(sweep)))


def claim(sweep: Sweep, best: Summary) -> str:
    """Which curve has the lowest loss, where, and how sure that is."""
    axis = sweep.axis(best.label).partition(",")[0]
    panel = sweep.panel(best.label)
    where = f"{sweep.name_of(best.label)} at {axis} {style.number(best.setting)}"
    if panel:
        where = f"In “{panel}”, {where}"
    loss = style.nats(best.best.value, best.best.half_width)
    return f"{where} has the lowest validation loss: {loss} nats ({uncertainty(best)})"


def compare(sweep: Sweep, group: list[Summary]) -> list[str]:
    """Sentences on how the other curves of a group stand to its best."""
    best, *others = [s for s in group if s.curve.trained]
    tied: list[str] = []
    worse: list[str] = []
    for other in others:
        gap = stats.difference(other.curve, best.curve)
        text = f"{sweep.name_of(other.label)} (+{style.nats(gap.value, gap.half_width)})"
        (tied if gap.half_width is not None and gap.value <= gap.half_width else worse).append(text)
    sentences = []
    if tied:
        sentences.append(f"Not distinguishable from it with these seeds: {_and(tied)} nats.")
    if worse:
        sentences.append(f"Behind it: {_and(worse)} nats.")
    measured = [(s.sensitivity.value, s) for s in (best, *others) if s.sensitivity is not None]
    if len(measured) > 1:
        value, calm = min(measured, key=lambda pair: pair[0])
        name, within = sweep.name_of(calm.label), style.window(calm.window)
        sentences.append(f"Least sensitive: {name}, {value:.3f} nats lost on average {within}.")
    return sentences


def uncertainty(summary: Summary) -> str:
    """Where the interval of the best loss comes from."""
    if summary.best.half_width is None:
        return "one seed: no interval"
    if summary.seeds == 1:
        return f"{stats.LEVEL:.0%} interval from the seeds of nearby settings, one seed here"
    return f"{stats.LEVEL:.0%} interval, {summary.seeds} seeds"


def cost(estimate: Estimate | None) -> str:
    """What a setting off the best costs, in words."""
    if estimate is None:
        return "an unknown amount (not tried)"
    return f"{style.nats(estimate.value, estimate.half_width)} nats"


def warnings(sweep: Sweep) -> list[str]:
    """What a reader must know before trusting the table."""
    found = []
    if sweep.missing:
        total = sweep.missing + len(sweep.rows)
        found.append(f"{sweep.missing} of {total} runs have no result yet; this is a preview.")
    for side in ("lowest", "highest"):
        at_edge = (s for s in sweep.summaries if s.curve.edge == side and s.label not in sweep.unfinished)
        names = [_located(sweep, s) for s in at_edge]
        if names:
            found.append(
                f"Optimum at the edge of the grid: {side} {sweep.axis_of_all} tried for {_and(names)}. "
                "The true best may lie beyond; widen the grid."
            )
    never = [_located(sweep, s) for s in sweep.summaries if not s.curve.trained]
    if never:
        found.append(f"No run of {_and(never)} got below the loss before training.")
    if sweep.one_seed:
        found.append("One seed everywhere: no interval. Small differences may be chance.")
    return found


def _facts(sweep: Sweep, best: Summary) -> Iterator[tuple[str, str, str]]:
    loss = style.nats(best.best.value, best.best.half_width)
    panel = sweep.panel(best.label)
    heading = f"Use, in “{panel}”" if panel else "Use"
    yield heading, sweep.name_of(best.label), f"{loss} nats, {uncertainty(best)}"
    so_far = " so far" if best.label in sweep.unfinished else ""
    edge = f"the {best.curve.edge} tried{so_far}" if best.curve.edge else _settings(len(best.curve.points))
    yield f"At {sweep.axis(best.label)}", style.number(best.setting), edge
    if not best.curve.log or len(best.curve.points) == 1:
        return
    for heading, estimate in (("If 3× too low", best.lower), ("If 3× too high", best.higher)):
        if estimate is None:
            yield heading, "not tried", "the grid ends before"
        else:
            doubt = "" if estimate.half_width is None else f"± {estimate.half_width:.3f} "
            yield heading, f"+{estimate.value:.3f}", f"{doubt}nats above its best"


def _of_map(sweep: Sweep, moved: Sequence[tuple[str, Sequence[Move]]]) -> Answer:
    """Which row of a map matters most and which least, panel by panel; the first panel's rows at length."""
    said = []
    for title, rows in moved:
        most, least = rows[0], rows[-1]
        text = f"the choice for {most.row} moves the loss most: "
        text += f"{most.best} is {most.nats:.3f} nats below {most.worst}"
        if least is not most:
            text += f"; for {least.row} least, by {least.nats:.3f}"
        said.append(f"In “{title}”, {text}." if title else f"{text[:1].upper()}{text[1:]}.")
    facts = [(m.row, f"{m.nats:.3f} nats", f"from {m.best} to {m.worst}") for m in moved[0][1]]
    best = f"{claim(sweep, sweep.summaries[0])}."
    return Answer(said[0], tuple(facts), (*said[1:], best), tuple(warnings(sweep)))


def _of_spreads(sweep: Sweep, found: Mapping[str, Spread]) -> Answer:
    """How unequal the effective learning rates are that an optimizer gives, role by role."""
    best = sweep.summaries[0]
    widest = max(found, key=lambda role: found[role].decades)
    calmest = min(found, key=lambda role: found[role].decades)
    name = f"{sweep.name_of(best.label)} at {sweep.axis(best.label)} {style.number(best.setting)}"
    span = f"{name} spreads its effective learning rates over {found[widest].decades:.1f} decades in {widest}"
    if widest != calmest:
        span += f", over {found[calmest].decades:.1f} in {calmest}"
    facts = [
        (role, f"{one.decades:.1f} decades", f"from the {one.low} to the {one.high} quantile")
        for role, one in found.items()
    ]
    about = "Decades between the outer quantiles over a role's parameters or blocks, median over the run."
    return Answer(f"{span}.", tuple(facts), (about,), tuple(warnings(sweep)[: bool(sweep.missing)]))


def _located(sweep: Sweep, summary: Summary) -> str:
    panel = sweep.panel(summary.label)
    return sweep.name_of(summary.label) + (f" ({panel})" if panel else "")


def _settings(number: int) -> str:
    return "the only one tried" if number == 1 else f"of {number} settings tried"


def _and(items: Sequence[str]) -> str:
    if len(items) > NAMED + 1:
        items = [*items[:NAMED], f"{len(items) - NAMED} more"]
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
