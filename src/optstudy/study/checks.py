"""Checks that every name in a study file matches something; others are refused. Imports no torch."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, get_origin

from pydantic import BaseModel

from optstudy.config import RunConfig, merge
from optstudy.errors import UserError, nearest, shortened
from optstudy.results.curves import SEPARATOR
from optstudy.study import plan, variables, yamlfile
from optstudy.study.families import FIDELITY, Combination, Families, Family
from optstudy.study.file import NAME, Layer, StudyFile
from optstudy.study.trainer import keys_of, scales_of

FILLED_IN = {
    "scale": "by --scale",
    "numerics": "by the version of the code",
    "data.fingerprint": "from the text of data.corpus",
    "data.tokenizer_fingerprint": "from the file of data.tokenizer",
    "model.code": "from the model's source",
    "optimizer.code": "from the optimizer's source",
}
"""Config keys that studies cannot set, and where their values come from."""
SEEDS = "seeds are not set one by one: seeds: [0, 1] in the study, or --seeds 2"


def check(file: StudyFile, where: str) -> None:
    """Refuse names in a study file that match nothing at any scale.

    Args:
        file: the parsed file.
        where: the file's path, or the study's name.

    Raises:
        UserError: names the line, what came, and the nearest allowed name.
    """
    try:
        _Check(file, where).all()
    except UserError as error:
        raise (yamlfile.located(error, where, file.places) if error.key else error) from None


def check_overrides(chosen: Mapping[str, Any], file: StudyFile, where: str, option: str = "--set") -> None:
    """Refuse overriding config values or axes that no run would use as intended.

    Raises:
        UserError: names the key, and what to do.
    """
    own = {key for found in _layers(file) for key in found.layer.axes if "." not in key}
    config = keys_of(file)
    for key, value in chosen.items():
        said = f"{where}: {option}: {key}={shortened(str(value), 40)}"
        if key == "seed":
            raise UserError(f"{said}: {SEEDS}")
        if config is None:
            continue
        if key == "scale":
            raise UserError(f"{said} would only rename the runs; give --scale {value}")
        if key in FILLED_IN:
            raise UserError(f"{said}: it is filled in {FILLED_IN[key]}")
        if key.partition(".")[0] not in {*config, *own, FIDELITY}:
            known = {*config, *own, FIDELITY} - {"seed", *FILLED_IN}
            raise UserError(f"{where}: {option}: unknown key {key!r}{nearest(key, known)}")


@dataclass(frozen=True)
class _Found:
    """A layer and its position in the file."""

    path: str
    """Dotted path with a trailing dot; empty for the file itself."""
    layer: Layer
    kind: str = ""
    """``optimizers``, ``curves``, ``panels``, ``scales`` or ``axes``."""
    name: str = ""
    above: Layer | None = None
    """The layer that contains it."""


def _layers(layer: Layer, found: _Found | None = None) -> Iterator[_Found]:
    here = found or _Found("", layer)
    yield here
    entries = [
        (kind, kind, getattr(layer, kind, {})) for kind in ("optimizers", "curves", "panels", "scales")
    ]
    entries += [("axes", f"axes.{key}", axis) for key, axis in layer.axes.items() if isinstance(axis, dict)]
    for kind, under, named in entries:
        for name, below in named.items():
            yield from _layers(below, _Found(f"{here.path}{under}.{name}.", below, kind, name, layer))


class _Check:
    """Checks one file; its methods raise UserError."""

    def __init__(self, file: StudyFile, where: str) -> None:
        self.file, self.where = file, where
        self.filled = ("$steps",) if file.trainer is None else ()
        self.keys, self.scales = keys_of(file), [scale for scale in scales_of(file) if scale != "paper"]
        self.layers = list(_layers(file))
        self.made: list[tuple[str, Combination, Family]] = []
        """Panel, combination and its first family; all families of a combination have the same axes."""

    def all(self) -> None:
        for found in self.layers:
            self._settings(found)
            self._labels(found)
        for title, panel in self.file.panels.items():
            if panel.scale is not None and panel.scale not in self.scales:
                self._unknown(f"panels.{title}.scale", "scale", panel.scale, self.scales)
        self._expand()
        self._entries()
        self._variables()
        self._rules()
        self._tokens()
        self._figure()
        if self.file.decide and not self.file.claims:
            self._refuse("decide", "there are no claims to decide; write some under claims:")

    def _settings(self, found: _Found) -> None:
        """Refuse an unknown scale, and settings that no run uses from that layer."""
        if found.kind == "scales" and found.name not in self.scales:
            self._unknown(found.path[:-1], "scale", found.name, self.scales)
        best = found.layer.best_of
        taken = {*best.taken, *best.taken.values()} if best else set()
        base = merge(found.layer.base)
        filled = FILLED_IN if self.keys is not None else {"trainer": "from the file's trainer"}
        for key in (*filled, "seed"):
            said = SEEDS if key == "seed" else f"it is filled in {filled[key]}"
            if _has(base, key):
                self._refuse(f"{found.path}base.{key}", said)
            if key in taken:
                self._refuse(f"{found.path}best_of.keys", f"{key}: {said}")
            if key in found.layer.axes and key != "seed":
                self._refuse(f"{found.path}axes.{key}", said)
        if "seed" in found.layer.axes and "seeds" in self.file.model_fields_set:
            self._refuse(f"{found.path}axes.seed", "the study has seeds already")

    def _labels(self, found: _Found) -> None:
        """Refuse names that an axis of named settings, or one of its values, cannot have."""
        for key, axis in found.layer.axes.items():
            path = f"{found.path}axes.{key}"
            if isinstance(axis, dict) and (
                {".", "$"} & set(key) or key in (*(self.keys or ("seed", "trainer")), FIDELITY)
            ):
                self._refuse(path, "an axis of named settings has a name of its own, without '.' or '$'")
            for label, layer in axis.items() if isinstance(axis, dict) else ():
                if not label.strip() or SEPARATOR in label:
                    self._refuse(f"{path}.{label}", f"a name must not be empty, nor contain {SEPARATOR!r}")
                if NAME in layer.axes:
                    self._refuse(f"{path}.{label}.axes.{NAME}", "must be a setting here, not an axis")

    def _expand(self) -> None:
        """Create the first family of each combination, panel and scale; scales without entries are equal."""
        told = {found.name for found in self.layers if found.kind == "scales"}
        seen = set()
        for scale in self.scales:
            families = Families(self.where, self.file, scale, {}, 1)
            for title, panel, _ in families.panels():
                alike = title, scale in told and scale
                if alike not in seen:
                    seen.add(alike)
                    for some in families.combinations(panel, scale):
                        made = families.products(some, scale, panel.x or self.file.figure.x)
                        self.made.append((title, some, next(made)))

    def _entries(self) -> None:
        """Refuse entries for optimizers, curves or scales that no run has."""
        common = {id(layer) for _, some, _ in self.made for layer in some.common}
        used = {id(layer) for _, some, _ in self.made for layer in (*some.own, *some.variants)}
        new = [curve for _, some, _ in self.made if not some.naming for curve in _new(some)]
        for found in self.layers:
            if found.kind == "scales" and id(found.layer) not in common:
                self._refuse(found.path[:-1], "its panel is not run at this scale")
            if found.kind not in ("optimizers", "curves"):
                continue
            here = [some for _, some, _ in self.made if any(found.above is one for one in some.common)]
            if id(found.layer) in new:
                known = {name for some in here for root in some.roots for name in root.curves}
                self._unknown(found.path[:-1], "curve", found.name, known)
            if id(found.layer) not in used:
                names = {some.optimizer if found.kind == "optimizers" else some.curve for some in here}
                self._unknown(found.path[:-1], found.kind[:-1], found.name, filter(None, names))

    def _variables(self) -> None:
        """Refuse ``$names`` without an axis, and axes ``$name`` that no setting uses."""
        used = {name for found in self.layers for name in variables.names(found.layer.base)}
        used |= {
            name for _, some, _ in self.made for layer in some.own for name in variables.names(layer.base)
        }
        for found in self.layers:
            for key, axis in found.layer.axes.items():
                settings = isinstance(axis, list) and any(isinstance(value, Mapping) for value in axis)
                if key.startswith("$") and key not in used and not settings:
                    self._refuse(f"{found.path}axes.{key}", f"sets nothing: no setting is {key}")
        paths = {id(found.layer): found.path for found in self.layers}
        for _, some, family in self.made:
            taken = () if family.best_of is None else family.best_of.taken.values()
            known = {key for key in (*family.axes, *taken, *self.filled) if key.startswith("$")}
            for layer in some.layers:
                for name in variables.names(layer.base) - known:
                    at = f"{paths[id(layer)]}base"
                    self._refuse(at, f"no axis {name!r}{nearest(name, known)}", name)

    def _rules(self) -> None:
        """Refuse to extend or refine an axis that is not numeric, or two axes of one sweep."""
        for name, rule in (("adaptive", self.file.adaptive), ("refine", self.file.refine)):
            if rule is None:
                continue
            at, key = f"{name}.axis", rule.axis
            having = [family for _, _, family in self.made if key in family.axes]
            if not having:
                self._unknown(at, "axis", key, {one for _, _, family in self.made for one in family.axes})
            along = [family for family in having if family.axis == key]
            if len(along) < len(having) and key not in (NAME, *having[0].labels):
                self._refuse(
                    at, f"{key} is not followed where adaptive follows another axis; give both one axis"
                )
            if key in (self.file.figure.rows, self.file.figure.columns):
                self._refuse(at, f"{key} makes the rows or columns of the map, which are not extended")
            if all(plan.numbers(family.values) is None for family in along):
                self._refuse(at, f"{key} has no positive numbers to extend or refine")

    def _tokens(self) -> None:
        """Refuse token-equivalents for another trainer, whose tokens are not known."""
        if self.file.trainer is None:
            return
        own = "only for optstudy's own trainer"
        if self.file.tokens is not None:
            self._refuse("tokens", f"{own}: the tokens of other programs are not known")
        if (kind := self.file.figure.kind) not in ("sweep", "map"):
            self._refuse("figure.kind", f"{kind}: {own}; sweep and map are for any")

    def _figure(self) -> None:
        """Refuse a figure whose axes are neither axes of the study nor config keys."""
        figure = self.file.figure
        if figure.kind == "gaps" and not _is_key(figure.over):
            self._unknown("figure.over", "config key", figure.over, _keys())
        for at, key, panel in [
            ("figure.curve", figure.curve, None),
            ("figure.x", figure.x, None),
            *((f"panels.{title}.x", one.x, title) for title, one in self.file.panels.items() if one.x),
        ]:
            here = [family for title, _, family in self.made if panel in (None, title) and key == family.x]
            here = here if at != "figure.curve" else [family for _, _, family in self.made]
            lacking = [f for f in here if key not in f.axes or _settings_of(f, key)]
            if (lacking or not here) and self.keys is not None and not _is_key(key):
                axes = {one for f in here for one in f.axes if not _settings_of(f, one)}
                self._unknown(at, "axis or config key", key, axes or {figure.x})
        cells = [("figure.rows", figure.rows), ("figure.columns", figure.columns)]
        for at, row in cells if any(some.naming for _, some, _ in self.made) else ():
            for title, some, family in self.made:
                if row is not None and row not in family.axes and some.named is None:
                    self._refuse(at, f"panel {title!r} has no axis {row!r}{nearest(row, family.axes)}")
        for at, row in cells:
            axes = {one for _, _, family in self.made for one in family.axes}
            if row is not None and row not in axes:
                self._unknown(at, "axis", row, axes)
        if figure.rows is not None and not any(some.naming for _, some, _ in self.made):
            self._refuse("figure.rows", "rows and columns must be axes of the file, or both of a panel")

    def _unknown(self, path: str, kind: str, name: str, allowed: Iterable[str]) -> NoReturn:
        self._refuse(path, f"no such {kind}: {name!r}{nearest(name, allowed)}")

    def _refuse(self, path: str, said: str, value: str | None = None) -> NoReturn:
        line = _line(self.file.places, path, value)
        raise UserError(f"{self.where}{f':{line}' if line else ''}: {path}: {said}")


def _line(places: yamlfile.Places, path: str, value: str | None) -> int | None:
    """The line of a path, or of its nearest ancestor; ``value``: of the entry below with this value."""
    short = path.replace(".base", "", 1)  # settings of a named value on an axis may omit ``base``
    while path:
        for key in (path, short):
            found = [at for where, at, came in places if where.startswith(f"{key}.") and _said(came, value)]
            found += [at for where, at, _ in places if where == key]
            if found:
                return found[0]
        path, short = path.rpartition(".")[0], short.rpartition(".")[0]
    return None


def _said(came: Any, value: str | None) -> bool:
    return value is not None and value in (came if isinstance(came, list) else [came])


def _has(tree: Any, key: str) -> bool:
    """Whether nested settings have a dotted key."""
    first, _, rest = key.partition(".")
    if not isinstance(tree, Mapping) or first not in tree:
        return False
    return not rest or _has(tree[first], rest)


def _new(some: Combination) -> list[int]:
    """Entries of curves, by ``id()``, that exist only under ``scales``, so they vary no other entry."""
    known = {name for root in some.roots for name in root.curves}
    return [id(one) for layer in some.common for name, one in layer.curves.items() if name not in known]


def _settings_of(family: Family, key: str) -> bool:
    """Whether the values of an axis are settings without names, which cannot be drawn."""
    values = family.values if key == family.axis else [family.layers[-1].get(key)]
    return key not in family.labels and any(isinstance(value, Mapping) for value in values)


def _keys() -> set[str]:
    """All dotted keys of a config but those below options and roles."""
    kinds = {name: field.annotation for name, field in RunConfig.model_fields.items()}
    return {f"{name}.{key}" for name, kind in kinds.items() for key in getattr(kind, "model_fields", ())}


def _is_key(key: str) -> bool:
    """Whether a config has this dotted key; below options and roles, any key is allowed here."""
    kind: Any = RunConfig
    for part in key.split("."):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if part not in kind.model_fields:
                return False
            kind = kind.model_fields[part].annotation
        elif get_origin(kind) is not dict:
            return False
    return True
