"""Expands a study file into runs: merges layers, multiplies axes, inserts the bests of other studies."""

import itertools
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel

from optstudy.config import merge
from optstudy.errors import UserError, nearest
from optstudy.identity import ids_by_seed
from optstudy.program import AnyConfig
from optstudy.record import at_key, leaves
from optstudy.results.curves import SEPARATOR, in_panel, is_curve, joined, split_label
from optstudy.results.table import Row
from optstudy.study import fidelity, plan, trainer
from optstudy.study.checks import check_overrides
from optstudy.study.families import FIDELITY, Families, Family
from optstudy.study.file import NAME, BestOf, PanelSpec, StudyFile
from optstudy.study.plan import Pending, Plan, PlannedRun, Results
from optstudy.study.variables import stands_for, substituted
from optstudy.study.yamlfile import located

STEPS = "training.steps"

Answer: TypeAlias = tuple[float | None] | None
"""The loss of a finished run, None if it diverged; None while it has no result."""
Plans: TypeAlias = dict[Hashable, tuple[StudyFile, dict[str, Answer], Plan]]
"""Plans of studies that others take runs from: each with its file and the answers that it was made from."""


class Expansion:
    """The runs of one study file at one scale.

    Args:
        name: the study's name or file, as other studies and errors refer to it.
        file: the parsed file.
        scale: one of the trainer's scales, or ``paper``: each panel at its own.
        chosen: overrides by dotted key.
        axes: further axes, which replace the file's.
        folder: the folder in which the study's program starts; relative paths start there.
        seeds: number of seeds, instead of the file's.
        results: the known results of finished runs.
        adaptive: extend axes and add seeds as the file says.
        others: reads another study's file by name.
        plans: the plans of other studies that are known already; new ones are added.
        parents: studies for which this one is expanded.
    """

    def __init__(
        self,
        name: str,
        file: StudyFile,
        scale: str,
        *,
        chosen: dict[str, Any],
        axes: Mapping[str, list[Any]],
        folder: Path,
        seeds: int | None,
        results: Results,
        adaptive: bool,
        others: Callable[[str], StudyFile],
        plans: Plans,
        parents: tuple[str, ...] = (),
    ) -> None:
        if name in parents:
            raise UserError(f"{name}: depends on itself by way of {' -> '.join(parents)}")
        self.name, self.file, self.scale, self.chosen = name, file, scale, chosen
        fidelity.check(chosen.get(FIDELITY, "released"))
        if not parents:
            check_overrides(chosen, file, name)
            check_overrides(axes, file, name, "--axis")
        self.seeds = list(dict.fromkeys(file.seeds if seeds is None else range(seeds)))
        self._narrowed = not {NAME, file.figure.curve}.isdisjoint({*chosen, *axes})
        self.folder = folder
        try:
            self.trainer = trainer.of(file, folder)
        except UserError as error:
            raise located(error, name, file.places) from None
        self._families = Families(name, file, scale, chosen, len(self.seeds), axes)
        self._axes: set[str] = set()
        self._settings: dict[str, Any] = {}
        self._configs: list[AnyConfig] = []
        self.results, self.adaptive, self.others = results, adaptive, others
        self.parents = (*parents, name)
        self._plans = plans
        self._shared: tuple[Family, dict[str, Any], dict[str, Any]] | None = None
        self._alike: tuple[Family, Any, PlannedRun, Callable[[int], str]] | None = None

    @property
    def _stem(self) -> str:
        """The name of the only curve of a study."""
        return Path(self.name).stem

    def plan(self) -> Plan:
        """List the runs, once for each curve they are on."""
        trainer.scale_of(self.file, self.scale, self.name)
        parts: list[tuple[str, Plan]] = []
        seen: list[set[str]] = []
        panels = self._families.panels()
        for title, panel, scale in panels:
            part = Plan([], [], [])
            for family in self._of(panel, scale):
                self._expand(family, part)
            self._include({**self.file.include, **panel.include}, scale, part)
            signature = {p.id for p in part.points} | {repr(p) for p in part.pending}
            if signature not in seen:
                seen.append(signature)
                parts.append((title, part))
        whole = Plan([], [], [])
        for title, part in parts:
            shown = title if len(parts) > 1 or len(panels) == 1 else ""
            whole.points += [p.labelled(joined(shown, p.curve)) for p in part.points]
            whole.pending += [p.labelled(joined(shown, p.curve)) for p in part.pending]
            whole.first += part.first
        whole.points = list({(p.id, p.curve, str(p.x)): p for p in whole.points}.values())
        whole.first = list({p.id: p for p in whole.first}.values())
        more = self.file.refine.seeds if self.adaptive and self.file.refine is not None else 1
        try:
            seeds = max(len(self.seeds), more)
            self.trainer.check(self._configs, sorted(self._axes), self._settings, seeds)
        except UserError as error:
            raise located(error, self.name, self.file.places, self.chosen) from None
        self._check_reference(whole)
        return whole

    def _check_reference(self, whole: Plan) -> None:
        """Refuse a reference for token-equivalents that its study does not have."""
        wanted = self.file.tokens
        if wanted is None or self._narrowed or len(self.parents) > 1:
            return
        names = {label.rpartition(SEPARATOR)[2] for label in whole.curves}
        if wanted.source is not None:
            try:
                file = self.others(wanted.source)
            except UserError as error:
                raise self._at(f"tokens.from: {error}", "tokens.from", wanted.source) from None
            if file.trainer is not None:
                said = f"tokens.from: {wanted.source} has another trainer, whose tokens are not known"
                raise self._at(said, "tokens.from", wanted.source)
            other = Families(wanted.source, file, self.scale, {}, 1)
            families = (one for _, panel, scale in other.panels() for one in other.of(panel, scale))
            names = {one.curve for one in families if one.curve is not None}
        if wanted.reference not in names:
            where, hint = wanted.source or "this study", nearest(wanted.reference, names)
            said = f"tokens.reference: {where} has no curve {wanted.reference!r}{hint}"
            raise self._at(said, "tokens.reference", wanted.reference)

    def _of(self, panel: PanelSpec, scale: str) -> list[Family]:
        try:
            return list(self._families.of(panel, scale))
        except UserError as error:
            raise (located(error, self.name, self.file.places) if error.key else error) from None

    def _expand(self, family: Family, into: Plan) -> None:
        taken: Mapping[str, Any] = {}
        if family.best_of is not None:
            curve, found = self._best(family.best_of, family)
            if isinstance(found, list):
                self._postpone(family, curve, found, into)
                return
            taken = found
        made: dict[tuple[str, int], PlannedRun] = {}

        def point(value: Any, seed: int) -> PlannedRun:
            key = repr(value), seed
            if key not in made:
                made[key] = self._point(family, taken, value, seed)
            return made[key]

        def loss(value: float, seed: int) -> float | None:
            row = self.results(point(value, seed).id)
            return None if row is None else row.loss

        values, extra = family.values, list[tuple[float, int]]()
        measurable = plan.numbers(values) if self.adaptive and family.axis is not None else None
        if measurable is not None:
            values = measurable
            grow, more = self.file.adaptive, self.file.refine
            if grow is not None and grow.axis == family.axis:
                values = plan.extended(family.values, self.seeds, grow, loss)
                values = plan.with_runs_beyond(family.values, values, self.seeds, loss)
            if more is not None and more.axis == family.axis:
                extra = plan.refined(values, self.seeds, more, loss)
                extra += plan.seeds_that_ran(values, self.seeds, more, extra, loss)
        into.points += [point(value, seed) for value in values for seed in self.seeds]
        into.points += [point(value, seed) for value, seed in extra]

    def _point(self, family: Family, taken: Mapping[str, Any], value: Any, seed: int) -> PlannedRun:
        """Create one run; of runs that differ only in the seed, only the first is merged and checked."""
        if self._alike is not None and self._alike[0] is family and self._alike[1] is value:
            _, _, first, ids = self._alike
            return PlannedRun(first.config.model_copy(update={"seed": seed}), first.curve, first.x, ids(seed))
        point = self._made(family, taken, value, seed)
        ids = ids_by_seed(point.config.model_dump(mode="json"))
        point = PlannedRun(point.config, point.curve, point.x, ids(point.config.seed))
        axes = (family.axis, *family.layers[-1])
        if "seed" not in self.chosen and "seed" not in (family.x, self.file.figure.curve, *axes):
            self._alike = family, value, point, ids
        return point

    def _made(self, family: Family, taken: Mapping[str, Any], value: Any, seed: int) -> PlannedRun:
        axes = family.layers[-1] if family.axis is None else {**family.layers[-1], family.axis: value}
        variables = {key: one for key, one in (*taken.items(), *axes.items()) if key.startswith("$")}
        try:
            tree = self._merged(family, taken, axes, variables, seed)
            config = self.trainer.settle(tree)
            if family.printed:
                config = self.trainer.printed(config, self.chosen)
        except UserError as error:
            raise located(error, self.name, self.file.places, self.chosen) from None
        self._axes.update({**family.layers[0], **axes})
        self._configs.append(config)
        self._settings |= {k: v for k, v in self.chosen.items() if self._is_setting(k, family)}
        own = {**variables, **family.labels}
        curve, key = family.curve, self.file.figure.curve
        if curve is None:
            curve = self._shown(config, "figure.curve", key, {}) if key else self._stem
        return PlannedRun(config, f"{curve}{family.suffix}", self._shown(config, "x", family.x, own))

    def _shown(self, config: AnyConfig, key: str, wanted: str, own: Mapping[str, Any]) -> Any:
        """A run's value on an axis of the figure; ``own``: values on the study's own axes."""
        if wanted in own:
            return own[wanted]
        try:
            shown = value_at(config, wanted)
        except UserError as error:
            raise self._at(f"{key}: {error}", key, wanted) from None
        if isinstance(shown, Mapping):
            raise self._at(f"{key}: {wanted!r} is not a single value; name a key below it", key, wanted)
        return shown

    def _merged(
        self,
        family: Family,
        taken: Mapping[str, Any],
        axes: Mapping[str, Any],
        variables: Mapping[str, Any],
        seed: int,
    ) -> dict[str, Any]:
        """Merge the layers of one run; the part shared by a family's runs is merged once.

        If a layer sets the number of steps by ``$steps``, ``--set training.steps`` sets ``$steps``.
        """
        scale, known = self.trainer.scales[family.scale], variables
        if scale:
            known = {"$steps": at_key(merge(scale, self.chosen), STEPS), **variables}
        if not variables and self._shared is not None and self._shared[0] is family:
            _, written, shared = self._shared
        else:
            written = merge(scale, {"scale": family.scale} if scale else {}, *family.layers[:-1])
            shared = substituted(written, known)
            self._shared = None if variables else (family, written, shared)
        given = {key: one for key, one in taken.items() if not key.startswith("$")}, {"seed": seed}
        sets = [one for one in variables.values() if isinstance(one, Mapping)]
        own = {key: one for key, one in axes.items() if not key.startswith("$")}
        chosen = merge({key: one for key, one in self.chosen.items() if self._is_setting(key, family)})
        if scale and "$steps" not in variables and STEPS in dict(leaves(chosen)):
            steps = at_key(merge(written, *given, *sets, own), STEPS)
            if stands_for(steps, "$steps"):
                del chosen["training"]["steps"]
        return merge(shared, *given, *(substituted(one, known) for one in sets), own, chosen)

    def _is_setting(self, key: str, family: Family) -> bool:
        """Whether an override is a config value, not a name on an axis."""
        own = self.trainer.keys
        return key != FIDELITY and (
            key not in family.labels and not key.startswith("$")
            if own is None
            else key.partition(".")[0] in own
        )

    def _best(self, wanted: BestOf, family: Family) -> tuple[str, Mapping[str, Any] | list[PlannedRun]]:
        """Return another study's curve and its values at the best, or its runs while some are missing."""
        other, file = self._other(wanted.study, family.scale, "best_of.study")
        if wanted.panel is not None and wanted.panel not in file.panels:
            said = f"best_of.panel: {wanted.study} has no panel {wanted.panel!r}"
            raise self._at(f"{said}{nearest(wanted.panel, file.panels)}", "best_of.panel", wanted.panel)
        panel = wanted.panel if any(in_panel(label, wanted.panel) for label in other.curves) else None
        names = family.like if wanted.curve is None else [wanted.curve]
        curve = next((n for n in names if any(is_curve(label, n, panel) for label in other.curves)), None)
        if curve is None:
            said = f"best_of: {wanted.study} has no curve {names[-1]!r}{_nearest(names[-1], other, file)}"
            raise self._at(
                said, "best_of.curve" if wanted.curve else "best_of.study", wanted.curve or wanted.study
            )
        mine = [p for p in other.points if is_curve(p.curve, curve, panel)]
        waits = [p for p in other.pending if is_curve(p.curve, curve, panel)]
        first = mine[0].curve if mine else waits[0].curve
        mine = [p for p in mine if p.curve == first]
        rows = [self.results(p.id) for p in mine]
        if waits or any(row is None for row in rows):
            return curve, [*other.first, *mine]
        return curve, self._values(wanted, plan.best(mine, [row.loss for row in rows if row is not None]))

    def _values(self, wanted: BestOf, config: AnyConfig) -> dict[str, Any]:
        try:
            return {name: self._one(config, key) for key, name in wanted.taken.items()}
        except UserError as error:
            raise self._at(f"best_of.keys: {error}", "best_of.keys", error.came) from None

    def _one(self, config: AnyConfig, key: str) -> Any:
        """A single setting, or all options together."""
        value = value_at(config, key)
        if isinstance(value, Mapping) and "." not in key:
            raise UserError(f"{key!r} is not a setting; name one below it", came=key)
        return value

    def _postpone(self, family: Family, curve: str, first: list[PlannedRun], into: Plan) -> None:
        """Record the family's runs without the missing values; check them with sample values instead."""
        assert family.best_of is not None
        like = next((p for p in reversed(first) if is_curve(p.curve, curve)), None)
        stand_in = self._values(family.best_of, like.config) if like else {}
        wanted = family.best_of.taken.values()
        unknown = [name for name in wanted if not name.startswith("$")]
        unknown = [key for key in unknown if key != family.axis and key not in family.layers[-1]]
        written = leaves(merge(*family.layers))
        unknown += [key for key, one in written if any(stands_for(one, name) for name in wanted)]
        for value, seed in itertools.product(family.values, self.seeds):
            point = self._point(family, stand_in, value, seed)
            try:
                settings = merge(point.config.model_dump(mode="json"), dict.fromkeys(unknown))
            except UserError as error:
                raise located(error, self.name, self.file.places) from None
            into.pending.append(Pending(settings, point.curve, family.best_of.study, point.config))
        into.first += first

    def _include(self, wanted: Mapping[str, list[str]], scale: str, into: Plan) -> None:
        for name, curves in wanted.items():
            other, file = self._other(name, scale, f"include.{name}")
            for curve in curves:
                points = [p for p in other.points if is_curve(p.curve, curve)]
                pending = [p for p in other.pending if is_curve(p.curve, curve)]
                if not points and not pending:
                    said = f"include: {name} has no curve {curve!r}{_nearest(curve, other, file)}"
                    raise self._at(said, f"include.{name}", curve)
                into.points += [PlannedRun(p.config, curve, p.x) for p in points]
                into.pending += [p.labelled(curve) for p in pending]
                into.first += other.first if pending else []

    def _other(self, name: str, scale: str, key: str) -> tuple[Plan, StudyFile]:
        """Another study and its file; ``key``: where the file names it. Its optimizers are its own."""
        try:
            file = self.others(name)
        except UserError as error:
            raise (self._at(f"{key}: {error}", key, name) if error.key == "study" else error) from None
        chosen = {key: one for key, one in self.chosen.items() if key != NAME}
        place = (name, scale, self.folder, self.adaptive, repr(chosen))
        known, answers, found = self._plans.get(place, (None, {}, None))
        if (
            found is None
            or known is not file
            or any(_answer(self.results(i)) != one for i, one in answers.items())
        ):
            answers = {}

            def results(run_id: str) -> Row | None:
                row = self.results(run_id)
                answers[run_id] = _answer(row)
                return row

            found = Expansion(
                name,
                file,
                scale if scale in trainer.scales_of(file) else trainer.scale_of(file, None, name),
                chosen=chosen,
                axes={},
                folder=self.folder,
                seeds=None,
                results=results,
                adaptive=self.adaptive,
                others=self.others,
                plans=self._plans,
                parents=self.parents,
            ).plan()
            self._plans[place] = file, answers, found
        return found, file

    def _at(self, said: str, key: str, came: Any) -> UserError:
        """An error with the line in the file."""
        return located(UserError(said, key, came), self.name, self.file.places)


def _answer(row: Row | None) -> Answer:
    return None if row is None else (row.loss,)


def _nearest(curve: str, other: Plan, file: StudyFile) -> str:
    return nearest(curve, {split_label(label, file.panels)[2] for label in other.curves})


def value_at(config: AnyConfig, key: str) -> Any:
    """Return a config value by dotted key.

    Raises:
        UserError: the key does not exist.
    """
    node: Any = config
    for part in key.split("."):
        node = dict(node) if isinstance(node, BaseModel) else node
        if not isinstance(node, Mapping) or part not in node:
            hint = nearest(part, node) if isinstance(node, Mapping) else ""
            raise UserError(f"the config has no key {key!r}{hint}", came=key)
        node = node[part]
    return node.model_dump(mode="json") if isinstance(node, BaseModel) else node
