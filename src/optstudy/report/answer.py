"""The answer in sentences: what to use, at what setting, and what a wrong setting costs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from optstudy.report import deciles, distances, style
from optstudy.report.effective import Spread, spreads
from optstudy.report.maps import Move, heats, moves
from optstudy.results.curves import axis
from optstudy.results.equivalents import LENGTHS
from optstudy.results.estimate import LEVEL, Estimate
from optstudy.results.figure import Figure, Metric, Panel
from optstudy.results.gaps import Gap, Series, gaps
from optstudy.results.stats import Summary, difference

NAMED = 7
"""Number of curves that a sentence names before it only counts the others."""


SENTENCES: Mapping[str, Callable[[Figure], list[str]]] = {
    "deciles": deciles.sentences,
    "distances": distances.sentences,
}
"""What figures of a kind say, if their runs recorded it."""


@dataclass(frozen=True)
class Answer:
    """What a reader needs first, as plain unescaped text."""

    sentence: str
    facts: tuple[tuple[str, str, str], ...]
    """Heading, value and remark: what to use, at what setting, what a wrong setting costs."""
    rest: tuple[str, ...]
    """Which curves cannot be distinguished from the best, and which can."""
    warnings: tuple[str, ...]


def answer(figure: Figure) -> Answer:
    """Say which curve is best, with details for the first panel. At least one run must be finished.

    Nothing is recommended before half of the runs have ended, or while a curve of the first panel has none.
    """
    if (said := too_early(figure)) is not None:
        return Answer(said, (), (), tuple(warnings(figure)[1:]))
    if figure.kind == "effective" and (found := spreads(figure)):
        return _of_spreads(figure, found)
    if figure.kind == "map" and (
        moved := [(heat.title, some) for heat in heats(figure) if (some := moves(heat))]
    ):
        return _of_map(figure, moved)
    if figure.kind == "gaps" and (found_gaps := gaps(figure)):
        return _of_gaps(figure, found_gaps)
    if figure.kind in SENTENCES and (told := SENTENCES[figure.kind](figure)):
        return Answer(told[0], (), tuple(told[1:]), tuple(warnings(figure)))
    first, *others = figure.panels
    best = first.summaries[0]
    if best.best is None:
        text = f"{_untrained(figure, '')}, so there is nothing to recommend."
        return Answer(text, (), (), tuple(warnings(figure)))
    sentence = f"{claim(figure, first, best)}."
    if best.curve.log and len(best.curve.points) > 1:
        axis = _short(first)
        low, high = (cost(figure.metric, one) for one in (best.lower, best.higher))
        sentence += f" A {axis} 3× too low costs {low}, 3× too high {high}."
    rest = [
        *compare(first, figure.metric),
        *(f"{claim(figure, panel, panel.summaries[0])}." for panel in others if panel.summaries[0].best),
    ]
    return Answer(sentence, tuple(_facts(figure, first, best)), tuple(rest), tuple(warnings(figure)))


def _of_gaps(figure: Figure, found: Sequence[Series]) -> Answer:
    """How far each optimizer is from the reference at the first setting and at the last."""
    against = style.known(figure.against)
    rest = []
    for series in found:
        told = [gap for gap in series.gaps if gap.nats is not None]
        if told and series.curve.name != figure.against:
            ends = told if len(told) < 2 else (told[0], told[-1])
            rest.append(f"{style.series(series)} {_and([_gap(figure, gap, against) for gap in ends])}.")
    compared = [(g.x, g.nats.value, series) for series in found for g in series.gaps if g.nats is not None]
    if not compared:
        sentence = f"No curve can be compared with {against} yet."
    else:
        last = max(x for x, _, _ in compared)
        value, name = min((value, style.series(series)) for x, value, series in compared if x == last)
        below = f"{-value:.3f} nats below {against}" if value < 0 else f"no other is below {against}"
        sentence = f"{_placed(figure, last).replace('at', 'At', 1)} {name} has the lowest loss: {below}."
    return Answer(sentence, (), tuple(rest), tuple(warnings(figure)))


def _gap(figure: Figure, gap: Gap, against: str) -> str:
    assert gap.nats is not None
    needs = f" ({against} needs {style.ratio(gap.tokens)} of its tokens)" if gap.tokens is not None else ""
    return f"{style.value(figure.metric, gap.nats, '+')}{figure.metric.units} {_placed(figure, gap.x)}{needs}"


def _placed(figure: Figure, x: float) -> str:
    if figure.over in LENGTHS:
        return f"at {style.count(x)} tokens"
    return f"at {axis(figure.over).partition(',')[0]} {style.number(x)}"


def too_early(figure: Figure) -> str | None:
    """List the runs that are missing before anything can be recommended; None if enough have ended."""
    total = figure.missing + len(figure.rows)
    panel = figure.panels[0]
    bare = [] if figure.kind == "map" else list(map(style.known, figure.bare(panel)))
    if not figure.missing or (2 * len(figure.rows) >= total and not bare):
        return None
    said = (
        f"{len(figure.rows)} of {total} runs have ended, {figure.missing} are missing: too early to recommend"
    )
    return f"{said} anything{f'; nothing yet of {_and(bare)}' if bare else ''}."


def claim(figure: Figure, panel: Panel, best: Summary) -> str:
    """Which curve has the lowest loss, where, and with what uncertainty."""
    assert best.best is not None
    where = f"{style.name_in(figure, best.curve)} at {_short(panel)} {style.setting(best)}"
    if title := panel.title:
        where = f"In “{title}”, {where}"
    metric = figure.metric
    run = f"; run: {style.tried(metric, best)}" if best.fitted else ""
    found = f"{style.value(metric, best.best)}{metric.units}"
    return f"{where} has the {metric.best} {metric.name}: {found} ({uncertainty(best)}{run})"


def compare(panel: Panel, metric: Metric) -> list[str]:
    """Sentences that compare the other curves of a panel with its best."""
    best, *others = [s for s in panel.summaries if s.best is not None]
    said: dict[str, list[str]] = {"equal": [], "tied": [], "open": [], "worse": []}
    for other in others:
        gap = difference(other.curve, best.curve)
        assert gap is not None
        text = f"{style.name(other.curve)} ({style.value(metric, gap, '+')})"
        said[_stands(gap)].append(style.name(other.curve) if _stands(gap) == "equal" else text)
    sentences = []
    if said["equal"]:
        sentences.append(f"Equal to it in every {'loss' if metric.unit else 'run'}: {_and(said['equal'])}.")
    if said["tied"]:
        sentences.append(f"Not distinguishable from it with these seeds: {_and(said['tied'])}{metric.units}.")
    if said["open"]:
        sentences.append(f"Not decided with one seed: {_and(said['open'])}{metric.units}.")
    if said["worse"]:
        sentences.append(f"Behind it: {_and(said['worse'])}{metric.units}.")
    measured = [(s.sensitivity.value, s) for s in (best, *others) if s.sensitivity is not None]
    if len(measured) > 1:
        value, calm = min(measured, key=lambda pair: pair[0])
        name, within = style.name(calm.curve), style.window(calm.window)
        lost = f"{metric.size(value)}{metric.units}"
        sentences.append(f"Least sensitive: {name}, {lost} lost on average {within}.")
    return sentences


def _stands(gap: Estimate) -> str:
    """How a curve compares with the best: ``equal``, ``tied``, ``worse``, or ``open`` if undecided."""
    if gap.value == 0 and not gap.error and not gap.slack:
        return "equal"
    if gap.half_width is None:
        return "open"
    return "tied" if gap.value <= gap.half_width else "worse"


def uncertainty(summary: Summary) -> str:
    """The source of the interval of the best loss."""
    if summary.best is None or summary.best.half_width is None:
        return "one seed: no interval"
    if summary.best.seeds == 1:
        return f"{LEVEL:.0%} interval from the seeds of nearby settings, one seed here"
    return f"{LEVEL:.0%} interval, {summary.best.seeds} seeds"


def cost(metric: Metric, estimate: Estimate | None) -> str:
    """The cost of a setting that is not the best, as text."""
    if estimate is None:
        return "an unknown amount (not tried)"
    return f"{style.distance(metric, estimate)}{metric.units}"


def warnings(figure: Figure) -> list[str]:
    """Warnings to read before the table."""
    found = []
    if figure.missing:
        total = figure.missing + len(figure.rows)
        found.append(f"{figure.missing} of {total} runs have no result yet; this is a preview.")
    for side in ("lowest", "highest"):
        at_edge = [s for s in figure.summaries if s.curve.edge == side and not figure.unfinished(s.curve)]
        names = [_located(figure, s) for s in at_edge]
        if names:
            found.append(
                f"Optimum at the edge of the grid: {side} {figure.axis} tried for {_and(names)}. "
                "The true best may lie beyond; widen the grid."
            )
    never = [_located(figure, s) for s in figure.summaries if s.best is None]
    if never:
        found.append(f"{_untrained(figure, f' of {_and(never)}')}.")
    if why := figure.no_horizon:
        found.append(f"No token-equivalents: {why}.")
    if figure.one_seed:
        found.append("One seed everywhere: no interval, and no difference is decided.")
    found += [f"{_located(figure, s)}: {note}." for s in figure.summaries for note in s.curve.notes]
    return found


def _facts(figure: Figure, panel: Panel, best: Summary) -> Iterator[tuple[str, str, str]]:
    assert best.best is not None
    heading = f"Use, in “{panel.title}”" if panel.title else "Use"
    metric = figure.metric
    found = (
        f"{metric.name} {style.value(metric, best.best)}"
        if figure.foreign
        else f"{style.value(metric, best.best)} nats"
    )
    yield heading, style.name(best.curve), f"{found}, {uncertainty(best)}"
    so_far = " so far" if figure.unfinished(best.curve) else ""
    if best.curve.edge:
        remark = f"the {best.curve.edge} tried{so_far}"
    elif best.fitted:
        remark = "; ".join(filter(None, (style.around(best), f"run: {style.tried(metric, best)}")))
    else:
        remark = _settings(len(best.curve.points))
    yield f"At {panel.axis}", style.setting(best), remark
    if not best.curve.log or len(best.curve.points) == 1:
        return
    for heading, estimate in (("If 3× too low", best.lower), ("If 3× too high", best.higher)):
        if estimate is None:
            yield heading, "not tried", "the grid ends before"
        else:
            doubt = "" if estimate.half_width is None else f"± {metric.size(estimate.half_width)}"
            side = "below" if metric.maximise else "above"
            said = f"{doubt}{metric.units} {side} its best".strip()
            yield heading, metric.text(estimate.value, "+"), said


def _of_map(figure: Figure, moved: Sequence[tuple[str, Sequence[Move]]]) -> Answer:
    """Which row of a map matters most and which least, for each panel; details for the first panel."""
    said = []

    name = figure.metric.name if figure.foreign else "loss"

    def size(value: float) -> str:
        return f"{figure.metric.size(value)}{figure.metric.units}"

    for title, rows in moved:
        most, least = rows[0], rows[-1]
        text = f"the choice for {most.row} moves the {name} most: "
        text += (
            f"{most.best} is {size(most.nats)} {'above' if figure.metric.maximise else 'below'} {most.worst}"
        )
        if least is not most:
            text += f"; for {least.row} least, by {figure.metric.size(least.nats)}"
        said.append(f"In “{title}”, {text}." if title else f"{text[:1].upper()}{text[1:]}.")
    facts = [(m.row, size(m.nats), f"from {m.best} to {m.worst}") for m in moved[0][1]]
    best = f"{claim(figure, figure.panels[0], figure.summaries[0])}."
    return Answer(said[0], tuple(facts), (*said[1:], best), tuple(warnings(figure)))


def _of_spreads(figure: Figure, found: Mapping[str, Spread]) -> Answer:
    """How widely an optimizer's effective learning rates differ, by role."""
    best = figure.summaries[0]
    widest = max(found, key=lambda role: found[role].decades)
    calmest = min(found, key=lambda role: found[role].decades)
    name = f"{style.name(best.curve)} at {figure.panels[0].axis} {style.number(best.tried.x)}"
    span = f"{name} spreads its effective learning rates over {found[widest].decades:.1f} decades in {widest}"
    if widest != calmest:
        span += f", over {found[calmest].decades:.1f} in {calmest}"
    facts = [
        (role, f"{one.decades:.1f} decades", f"from the {one.low} to the {one.high} quantile")
        for role, one in found.items()
    ]
    about = "Decades between the outer quantiles over a role's parameters or blocks, median over the run."
    return Answer(f"{span}.", tuple(facts), (about,), tuple(warnings(figure)[: bool(figure.missing)]))


def _untrained(figure: Figure, whose: str) -> str:
    if figure.foreign:
        return f"Every run{whose} diverged"
    return f"No run{whose} got below the loss before training"


def _short(panel: Panel) -> str:
    return panel.axis.partition(",")[0]


def _located(figure: Figure, summary: Summary) -> str:
    title = figure.title_of(summary.curve.panel)
    return style.name(summary.curve) + (f" ({title})" if title else "")


def _settings(number: int) -> str:
    return "the only one tried" if number == 1 else f"of {number} settings tried"


def _and(items: Sequence[str]) -> str:
    if len(items) > NAMED + 1:
        items = [*items[:NAMED], f"{len(items) - NAMED} more"]
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
