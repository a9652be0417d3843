"""Comparison of two runs folders, before and after a change: run by run, with paired intervals. No torch."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from rich.console import Console

from optstudy.errors import UserError
from optstudy.record import leaves, write_atomically
from optstudy.report import style
from optstudy.report.page import render
from optstudy.report.terminal import aligned
from optstudy.results.catalog import Catalog
from optstudy.results.curves import NO_SETTING, FinishedRun, Place, group, positive
from optstudy.results.estimate import Estimate, over_seeds
from optstudy.results.stats import difference
from optstudy.results.table import Row, with_worst

UNPAIRED = frozenset(
    {
        "scale",
        "numerics",
        "data.corpus",
        "optimizer.code",
        "model.code",
        "model.config",
        "trainer.fingerprint",
        "trainer.folder",
    }
)
"""Config keys that may differ between the two runs of a pair."""
SHOWN = 20
"""Number of pairs listed, largest change first."""


@dataclass(frozen=True)
class Change:
    """One run before and after the change."""

    before: Row
    after: Row

    @property
    def change(self) -> float:
        """Loss after minus before, nats; for another program, its metric."""
        change = self.after.loss - self.before.loss
        return -change if self.after.maximise else change


@dataclass(frozen=True)
class Group:
    """The pairs of one optimizer; runs of another program without an optimizer's name form one group."""

    name: str
    pairs: Sequence[Change]
    loss: Estimate
    """Mean change of the loss with a paired t interval."""
    best: Estimate | None
    """Change of the best loss (:func:`optstudy.results.stats.difference`); None if a side never trained."""
    step: float
    """Median ratio of step times, after over before."""
    memory: float
    """Median ratio of peak memory."""

    @property
    def turned(self) -> tuple[int, int]:
        """Number of runs that diverge only after the change, and only before it."""
        pairs = [(p.before.state == "diverged", p.after.state == "diverged") for p in self.pairs]
        return pairs.count((False, True)), pairs.count((True, False))


@dataclass(frozen=True)
class Comparison:
    """The pairs of two sets of runs, and the runs without a partner."""

    before: str
    after: str
    groups: Sequence[Group]
    only_before: Sequence[Row]
    only_after: Sequence[Row]
    same_ids: int
    """Pairs with the same id; the configs of the others agree in all keys that both have."""

    @property
    def pairs(self) -> list[Change]:
        """All pairs, the largest change of loss first."""
        every = [pair for one in self.groups for pair in one.pairs]
        return sorted(every, key=lambda pair: -abs(pair.change))

    @property
    def sentence(self) -> str:
        """What changed, as a sentence."""
        pairs = self.pairs
        if not pairs:
            return f"No run of {self.after} has the config of one of {self.before}."
        change = over_seeds([pair.change for pair in pairs])
        equal = sum(pair.change == 0 for pair in pairs)
        what = "loss" if self.unit else "metric"
        interval = " (95% interval)" * (change.half_width is not None)
        said = f"{len(pairs)} pairs: the {what} changed by {_change(change)}{interval}"
        said += f"{self.unit and f' {self.unit}'} on average, "
        ratio = _ratio(pairs, "step_ms")
        if math.isnan(ratio):
            return f"{said}and is equal in {equal}."
        return f"{said}is equal in {equal}, and a step takes {ratio:.2f} times as long."

    @property
    def unit(self) -> str:
        """Unit of the losses; empty for another program's metric."""
        return "" if any(pair.before.reported is not None for pair in self.pairs) else "nats"


def compare(before: Path, after: Path) -> Comparison:
    """Compare the finished runs of two runs folders.

    Raises:
        UserError: a folder is missing or has no finished run.
    """
    return compare_rows(_rows(before), _rows(after), str(before), str(after))


def compare_rows(before: Sequence[Row], after: Sequence[Row], one: str, other: str) -> Comparison:
    """Pair runs by id; then pair the rest by config, over the keys that both sides have."""
    known = {
        id(row): whole for row, whole in zip([*before, *after], with_worst([*before, *after]), strict=True)
    }
    before, after = ([known[id(row)] for row in rows] for rows in (before, after))
    by_id = {row.id: row for row in after}
    pairs = [Change(row, by_id.pop(row.id)) for row in before if row.id in by_id]
    same = len(pairs)
    paired_ids = {pair.before.id for pair in pairs}
    left = [row for row in before if row.id not in paired_ids]
    keys = (_keys(left) & _keys(by_id.values())) - UNPAIRED
    by_config = _unique(by_id.values(), lambda row: _config(row, keys))
    for config, row in _unique(left, lambda row: _config(row, keys)).items():
        if config in by_config:
            pairs.append(Change(row, by_config[config]))
    used = {id(row) for pair in pairs for row in (pair.before, pair.after)}
    names = dict.fromkeys(pair.before.optimizer for pair in pairs)
    return Comparison(
        before=one,
        after=other,
        groups=[_group(name, [p for p in pairs if p.before.optimizer == name]) for name in names],
        only_before=[row for row in before if id(row) not in used],
        only_after=[row for row in after if id(row) not in used],
        same_ids=same,
    )


def cells(comparison: Comparison) -> list[list[str]]:
    """The table per optimizer, headings first."""
    head = ["optimizer", "pairs", "mean change", "best changed", "now diverge", "no longer", "step", "memory"]
    return [head, *map(_cells, comparison.groups)]


def show_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print the sentence, the table and the runs without a partner."""
    out = console or Console()
    rows = cells(comparison) if comparison.groups else []
    for line in (style.printable(comparison.sentence), *aligned(rows, {0}), *leftovers(comparison)):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def leftovers(comparison: Comparison) -> list[str]:
    """The number of runs without a partner, for each folder."""
    found = ((comparison.before, comparison.only_before), (comparison.after, comparison.only_after))
    return [f"Only in {name}: {len(rows)} runs." for name, rows in found if rows]


def write_comparison(comparison: Comparison, out: Path) -> list[Path]:
    """Write ``out/index.html``: one self-contained page."""
    out.mkdir(parents=True, exist_ok=True)
    head, *rows = cells(comparison)
    text = render(
        "comparison.html",
        (),
        refresh=None,
        title="Before and after",
        before=comparison.before,
        after=comparison.after,
        sentence=comparison.sentence,
        unit=comparison.unit,
        same=comparison.same_ids,
        leftovers=leftovers(comparison),
        head=head,
        rows=rows,
        pairs=[_pair(pair) for pair in comparison.pairs[:SHOWN]],
        count=len(comparison.pairs),
    )
    write_atomically(out / "index.html", text)
    return [out / "index.html"]


def _rows(runs: Path) -> list[Row]:
    names = sorted(path.name for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else []
    if not (rows := Catalog(runs).rows(names)):
        raise UserError(f"{runs}: no finished runs there; give a runs folder, as in --runs")
    return rows


def _keys(rows: Iterable[Row]) -> frozenset[str]:
    return frozenset(key for row in rows for key, _ in leaves(row.config))


def _config(row: Row, keys: frozenset[str]) -> str:
    return json.dumps(sorted((key, value) for key, value in leaves(row.config) if key in keys))


def _unique(rows: Iterable[Row], key: Callable[[Row], str]) -> dict[str, Row]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return {name: found[0] for name, found in groups.items() if len(found) == 1}


def _group(name: str, pairs: Sequence[Change]) -> Group:
    loss = over_seeds([pair.change for pair in pairs])
    return Group(name, pairs, loss, _best(pairs), _ratio(pairs, "step_ms"), _ratio(pairs, "peak_memory_mb"))


def _best(pairs: Sequence[Change]) -> Estimate | None:
    """The best loss of the runs after, minus that of the runs before."""
    after = {pair.before.id: FinishedRun(pair.after) for pair in pairs}
    settings = [pair.before.lr if _has_lr(pairs) else _setting(pair.before) for pair in pairs]
    placed = [
        (FinishedRun(pair.before), Place(pair.before.id, "", x))
        for pair, x in zip(pairs, settings, strict=True)
    ]
    before = group(placed, positive(settings))
    changed = [
        replace(
            one, points=tuple(replace(p, runs=tuple(after[row.id] for row in p.rows)) for p in one.points)
        )
        for one in before
    ]
    one, other = (min(curves, key=lambda curve: curve.best.loss) for curves in (changed, before))
    found = difference(one, other)
    return replace(found, value=-found.value) if found and pairs[0].after.maximise else found


def _has_lr(pairs: Sequence[Change]) -> bool:
    return all(pair.before.lr is not None for pair in pairs)


def _setting(row: Row) -> str:
    """The settings of another program's run, without the seed."""
    own = [(key, value) for key, value in leaves(row.config) if key.partition(".")[0] not in NO_SETTING]
    return ", ".join(f"{key} {style.number(value)}" for key, value in own)


def _change(estimate: Estimate) -> str:
    half = estimate.half_width
    return f"{estimate.value:+.4f}" + ("" if half is None else f" ± {half:.4f}")


def _ratio(pairs: Sequence[Change], field: str) -> float:
    found = [(getattr(pair.before, field), getattr(pair.after, field)) for pair in pairs]
    ratios = [after / before for before, after in found if before and after is not None and before > 0]
    return median(ratios) if ratios else math.nan


def _cells(one: Group) -> list[str]:
    now, before = one.turned
    return [
        style.known(one.name) or "all",
        str(len(one.pairs)),
        _change(one.loss),
        "–" if one.best is None else _change(one.best),
        str(now),
        str(before),
        *("–" if math.isnan(ratio) else f"{ratio:.2f}×" for ratio in (one.step, one.memory)),
    ]


def _pair(pair: Change) -> list[str]:
    after = pair.after
    own = f"{style.known(after.optimizer)}, lr {style.number(after.lr)}"
    return [
        f"{own if after.reported is None else _setting(after)}, seed {after.seed}",
        pair.after.id,
        _loss(pair.before),
        _loss(pair.after),
        f"{pair.change:+.4f}",
    ]


def _loss(row: Row) -> str:
    return "diverged" if row.state == "diverged" else f"{-row.loss if row.maximise else row.loss:.4f}"
