"""The answer in sentences: what to use, at what setting, and what it costs to be off."""

from collections.abc import Sequence
from dataclasses import dataclass

from optstudy import stats
from optstudy.report import style
from optstudy.report.sweep import Sweep
from optstudy.stats import Estimate, Summary


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
    """Say which curve is best. There must be a finished run."""
    best = sweep.summaries[0]
    if not best.curve.trained:
        text = "No run got below the loss before training, so there is nothing to recommend."
        return Answer(text, (), (), tuple(warnings(sweep)))
    use, setting = style.full_name(best.label), style.number(best.setting)
    loss, doubt = style.nats(best.best.value, best.best.half_width), uncertainty(best)
    sentence = f"{use} at {sweep.axis} {setting} has the lowest validation loss: {loss} nats ({doubt})."
    edge = f"the {best.curve.edge} tried" if best.curve.edge else "inside the grid"
    facts = [("Use", use, f"{loss} nats, {doubt}"), (f"At {sweep.axis}", setting, edge)]
    if best.curve.log:
        low, high = off(best, "lower"), off(best, "higher")
        sentence += f" A {sweep.axis} 3× too low costs {low} nats, 3× too high {high}."
        facts.append(("If it is 3× off", f"{low} / {high}", "nats, too low / too high"))
    return Answer(sentence, tuple(facts), tuple(_rest(sweep)), tuple(warnings(sweep)))


def uncertainty(summary: Summary) -> str:
    """Where the interval of the best loss comes from."""
    if summary.best.half_width is None:
        return "one seed: no interval"
    return f"{stats.LEVEL:.0%} interval, {summary.seeds} seed{'s' * (summary.seeds != 1)}"


def off(summary: Summary, side: str) -> str:
    """Cost of a setting a third of the best (``lower``) or three times it (``higher``)."""
    estimate: Estimate | None = getattr(summary, side)
    if estimate is None:
        return "not tried"
    return f"{estimate.value:+.3f}" + ("" if estimate.half_width is None else f" ± {estimate.half_width:.3f}")


def warnings(sweep: Sweep) -> list[str]:
    """What a reader must know before trusting the table."""
    found = []
    if sweep.missing:
        total = sweep.missing + len(sweep.rows)
        found.append(f"{sweep.missing} of {total} runs have no result yet; this is a preview.")
    for side in ("lowest", "highest"):
        names = [style.full_name(s.label) for s in sweep.summaries if s.curve.edge == side]
        if names:
            found.append(
                f"Optimum at the edge of the grid: {_and(names)} {'are' if len(names) > 1 else 'is'} best at the "
                f"{side} {sweep.axis} tried, so the true best may lie beyond. Widen the grid."
            )
    never = [style.full_name(s.label) for s in sweep.summaries if not s.curve.trained]
    if never:
        found.append(f"No run of {_and(never)} got below the loss before training.")
    if sweep.one_seed:
        found.append("One seed everywhere: no interval. Small differences may be chance.")
    return found


def _rest(sweep: Sweep) -> list[str]:
    best, *others = [s for s in sweep.summaries if s.curve.trained]
    tied, worse = [], []
    for other in others:
        gap = stats.difference(other.curve, best.curve)
        text = f"{style.full_name(other.label)} ({style.nats(gap.value, gap.half_width)})"
        (tied if gap.half_width is not None and gap.value <= gap.half_width else worse).append(text)
    sentences = []
    if tied:
        sentences.append(f"Not distinguishable from it with these seeds: {_and(tied)}.")
    if worse:
        sentences.append(f"Behind it, nats: {_and(worse)}.")
    return sentences


def _and(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
