"""A study at a scale in a runs folder: its current plan, its run folders, and the runs' states."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optstudy.claims.verdict import LOOKS
from optstudy.errors import UserError, say_once, shown
from optstudy.folders import prepare
from optstudy.grids import MOST_VALUES
from optstudy.identity import ids_by_seed, without_code
from optstudy.launch import attempts, lease
from optstudy.program import code_of
from optstudy.record import put_away
from optstudy.results.archive import Archive
from optstudy.results.catalog import Catalog
from optstudy.results.table import Row, measured
from optstudy.study import registered
from optstudy.study.expansion import Plans
from optstudy.study.library import Plan, PlannedRun, Study
from optstudy.study.places import in_first_folder

FINISHED = ("done", "diverged")


class Shared:
    """What the sessions of one command share: sessions and plans of other studies, by name."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.plans: Plans = {}


class Session:
    """Reads the runs folder again at every request; finished runs are read once.

    Args:
        study: the study to run.
        scale: the scale to run; None: the study's default.
        runs: the folder that holds the run folders.
        overrides: config values by dotted key.
        seeds: number of seeds, instead of the file's.
        adaptive: extend axes and add seeds as the file says.
        kept: runs of a committed record, by id, which count as done without a folder.
        decides: seeds added until claims were decided count as the study's own.
        all_seeds: if ``seeds`` is not given, show runs in the folder with further seeds; claims ignore them.
        shared: what it shares with other sessions of the same scale, runs folder and overrides.

    Raises:
        UserError: a number of seeds below 1 or above :data:`MOST_VALUES`, a file for a folder, or a mistake
            in the study.
    """

    def __init__(
        self,
        study: Study,
        scale: str | None,
        runs: Path,
        overrides: Mapping[str, Any] | None = None,
        seeds: int | None = None,
        adaptive: bool = True,
        kept: Archive | None = None,
        decides: bool = False,
        all_seeds: bool = False,
        shared: Shared | None = None,
    ) -> None:
        if seeds is not None and type(seeds) is not int:
            raise UserError(f"seeds: must be a whole number, not {shown(seeds)}")
        if seeds is not None and not 0 < seeds <= MOST_VALUES:
            bound = "at least 1" if seeds < 1 else f"at most {MOST_VALUES:,}"
            raise UserError(f"seeds: input should be {bound}, not {shown(seeds)}")
        for key in sorted(study.axes.keys() & (overrides or {}).keys()):
            raise UserError(f"{key}: --axis gives its values and --set another; leave one of them out")
        if runs.is_file():
            raise UserError(f"--runs: {runs} is a file, where a folder is needed")
        self.kept = kept or {}
        self.study, self.scale, self.runs = in_first_folder(study, runs), study.scale(scale), runs
        self.overrides, self.seeds, self._adaptive = dict(overrides or {}), seeds, adaptive
        self._read = Catalog(runs)
        self._measured: dict[str, Row] = {}
        self._prepared: set[str] = set()
        self._ids: dict[str, Callable[[int], str]] = {}
        self._wanted: list[PlannedRun] = []
        self.further: frozenset[str] = frozenset()
        """Finished runs with seeds beyond the study's own, added by ``--decide``."""
        self.shown: list[PlannedRun] = []
        """Finished runs with seeds beyond the study's own, which are shown but not used for claims."""
        self._all_seeds = all_seeds and seeds is None
        self._planned = False
        self.shared = shared or Shared()
        self.decides = seeds is None and (decides or study.file.decide or registered.decides(self))
        self.plan = self.replan()

    def replan(self) -> Plan:
        """Update the plan from the current results; it stays the same until a result it needs has arrived."""
        if self._planned and all(self.row(run_id) is None for run_id in self._missed):
            return self.plan
        self._missed: set[str] = set()
        self.plan = self.study.plan(
            self.scale, self.overrides, self.seeds, self._asked, self._adaptive, self.shared.plans
        )
        found = self._further() if self.decides else []
        self.plan.points += found
        self.plan.first += self._wanted
        self.further = frozenset(point.id for point in found)
        self.shown = self._ran() if self._all_seeds else []
        self.plan.points += self.shown
        self._planned = True
        return self.plan

    def decide(self) -> None:
        """Include seeds that are added until claims are decided."""
        self.decides, self._planned = True, False
        self.replan()

    def want(self, points: Sequence[PlannedRun]) -> None:
        """Add runs that are not the study's own: the same settings with further seeds."""
        self._wanted = list(points)
        self._planned = False
        self.replan()

    def seeded(self, point: PlannedRun, seed: int) -> PlannedRun:
        """Return the same run with another seed."""
        if point.id not in self._ids:
            self._ids[point.id] = ids_by_seed(point.config.model_dump(mode="json"))
        config = point.config.model_copy(update={"seed": seed})
        return PlannedRun(config, point.curve, point.x, self._ids[point.id](seed))

    def _further(self) -> list[PlannedRun]:
        """The plan's points with the seeds of further looks that have results."""
        own = {point.id for point in self.plan.points}
        found = []
        for point in [point for point in self.plan.points if point.config.seed == 0]:
            for least, look in itertools.pairwise((1, *LOOKS)):
                more = [one for seed in range(least, look) if (one := self.seeded(point, seed)).id not in own]
                ended = [one for one in more if self._asked(one.id) is not None]
                found += ended
                if more and not ended:
                    break
        return found

    def _ran(self) -> list[PlannedRun]:
        """The plan's points with further seeds that have run; for each, up to the first seed that has not."""
        own = {point.id for point in self.plan.points}
        others = {path.name for path in self.runs.iterdir()} - own if self.runs.is_dir() else set()
        first = self.study.file.seeds[0]
        found: list[PlannedRun] = []
        for point in [one for one in self.plan.points if others and one.config.seed == first]:
            for seed in itertools.count():
                one = self.seeded(point, seed)
                if one.id in own:
                    continue
                if one.id not in others or self.row(one.id) is None:
                    break
                found.append(one)
        return found

    def without_shown(self) -> "Session":
        """Return the session of the runs that count for claims: without :attr:`shown`."""
        if not self.shown:
            return self
        return Session(
            self.study,
            self.scale,
            self.runs,
            self.overrides,
            self.seeds,
            self._adaptive,
            self.kept,
            self.decides,
            shared=self.shared,
        )

    def _asked(self, run_id: str) -> Row | None:
        row = self.row(run_id)
        if row is None:
            self._missed.add(run_id)
        return row

    def row(self, run_id: str) -> Row | None:
        """The run's row, or None while it has no result."""
        if run_id in self._measured:
            return self._measured[run_id]
        row = self._read.row(run_id)
        trainer = self.study.file.trainer
        if row is None or trainer is None:
            return self.kept[run_id].row if row is None and run_id in self.kept else row
        try:
            row = measured(row, trainer.metric.name, trainer.maximise)
        except UserError as error:
            said = f"{self.runs / run_id}/result.json: {error}"
            say_once(f"{said}; left out")
            self._read.damaged[run_id] = said
            return None
        self._measured[run_id] = row
        return row

    @property
    def runs_known(self) -> dict[str, PlannedRun]:
        """All runs known so far, including those of other studies that are needed first."""
        return {point.id: point for point in (*self.plan.first, *self.plan.points)}

    def todo(self) -> list[Path]:
        """Update the plan, create the folders of all known runs, and return them; kept runs need none."""
        self.replan()
        known = self.runs_known.items()
        return [self._folder(i, point) for i, point in known if i in self._read or i not in self.kept]

    def state(self, run_id: str) -> str:
        """``done``, ``diverged``, ``running``, ``failed`` (or damaged), ``begun`` or ``waiting``."""
        if (row := self.row(run_id)) is not None:
            return row.state
        folder = self.runs / run_id
        if run_id in self._read.damaged:
            return "failed"
        if lease.holder(folder) is not None:
            return "running"
        if attempts.set_aside(folder) is not None:
            return "failed"
        return "begun" if (folder / "attempts.jsonl").exists() else "waiting"

    def why(self, run_id: str) -> str | None:
        """Return why a run is ``failed``."""
        return self._read.damaged.get(run_id) or attempts.set_aside(self.runs / run_id)

    def states(self) -> dict[str, str]:
        """The states of all known runs."""
        states = {run_id: self.state(run_id) for run_id in self.runs_known}
        self._read.save()
        return states

    def rows(self) -> list[Row]:
        """Rows of the study's own finished runs, each once."""
        rows = [self.row(run_id) for run_id in dict.fromkeys(point.id for point in self.plan.points)]
        return [row for row in rows if row is not None]

    def older(self) -> list[Row]:
        """Rows in the folder that differ from this study's runs only in the code of their optimizer."""
        mine = {p.id: p.config for p in self.runs_known.values() if code_of(p.config) is not None}
        wanted = {without_code(config.model_dump(mode="json")) for config in mine.values()}
        if not wanted or not self.runs.is_dir():
            return []
        rows = self._read.rows(sorted(path.name for path in self.runs.iterdir()))
        return [r for r in rows if r.code and r.id not in mine and without_code(r.config) in wanted]

    def remember(self) -> None:
        """Save the runs folder's index if many runs were read, to speed up the next time."""
        self._read.save()

    def forgive(self) -> int:
        """Let runs that were set aside or are damaged be started again; return their number."""
        failed = [run_id for run_id, state in self.states().items() if state == "failed"]
        for run_id in failed:
            result = self.runs / run_id / "result.json"
            if result.exists():
                self._read.forget(run_id)
                put_away(result)
            attempts.forgive(self.runs / run_id)
        return len(failed)

    def _folder(self, run_id: str, point: PlannedRun) -> Path:
        if run_id not in self._read and run_id not in self._prepared:
            prepare(self.runs, point.config, lease.holder)
            self._prepared.add(run_id)
        return self.runs / run_id
