"""Studies: a YAML file in, an ordered list of runs out. Imports no torch.

A study file holds a base config over the scale's, axes whose product are its runs, what differs per
optimizer and per scale, seeds, and the figure that it draws. Layers, later ones winning: scale, ``base``,
the scale's entry, the optimizer's entry, the scale's entry for the optimizer, the point on the axes,
``--set``.
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from optstudy import text
from optstudy.config import Count, Positive, RunConfig, Strict, explain, merge, resolve
from optstudy.errors import UserError, nearest
from optstudy.scales import SCALES

NAME = "optimizer.name"


class HalfDecades(Strict):
    """Values spaced evenly in the logarithm, rounded to three digits: 1e-3, 3.16e-3, 1e-2 ..."""

    start: Annotated[Positive, Field(alias="from")]
    stop: Annotated[Positive, Field(alias="to")]
    per_decade: Count = 2

    def values(self) -> list[float]:
        """All values, both ends included."""
        decades = math.log10(self.stop / self.start)
        count = round(decades * self.per_decade)
        return [float(f"{self.start * 10 ** (i / self.per_decade):.3g}") for i in range(count + 1)]


Axis = HalfDecades | Annotated[list[Any], Field(min_length=1)]


class Layer(Strict):
    """Settings and axes over those of the layers before."""

    base: dict[str, Any] = {}
    """Config values by dotted key."""
    axes: dict[str, Axis] = {}
    """Values to run, by dotted key; the product of all axes is run."""


class ScaleLayer(Layer):
    """What differs at one scale."""

    optimizers: dict[str, Layer] = {}


class Figure(Strict):
    """What the study draws."""

    kind: Literal["sweep"] = "sweep"
    x: str = "optimizer.lr"
    """Key on the horizontal axis."""
    curve: str = NAME
    """Key whose values are the curves."""


class StudyFile(ScaleLayer):
    """The whole file."""

    title: str
    asks: str
    notes: str = ""
    scales: dict[str, ScaleLayer] = {}
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    figure: Figure = Figure()


@dataclass(frozen=True)
class Point:
    """One run of a study."""

    config: RunConfig
    curve: str
    """The curve of the figure that it lies on."""


@dataclass(frozen=True)
class Study:
    """A checked study file."""

    name: str
    file: StudyFile

    def points(
        self, scale: str, overrides: Mapping[str, Any] | None = None, seeds: int | None = None
    ) -> list[Point]:
        """List the study's runs at a scale, each once.

        Args:
            scale: a name of :data:`optstudy.scales.SCALES`.
            overrides: config values by dotted key that win over the study's; an axis so named collapses.
            seeds: number of seeds, 0 and up, instead of the file's.

        Raises:
            UserError: an unknown scale, or a config that does not validate, named by its key.
        """
        if scale not in SCALES:
            raise UserError(f"unknown scale {scale!r}{nearest(scale, SCALES)}")
        chosen = dict(overrides or {})
        seed_axis = self.file.seeds if seeds is None else list(range(seeds))
        found: dict[str, Point] = {}
        for layers in self._combinations(scale, chosen):
            for seed in seed_axis:
                tree = merge(SCALES[scale], {"scale": scale, "seed": seed}, *layers, chosen)
                config = settle(tree, self.name)
                label = _value(config, self.file.figure.curve)
                found.setdefault(config.id, Point(config, str(label)))
        return list(found.values())

    def _combinations(self, scale: str, chosen: Mapping[str, Any]) -> Iterator[list[dict[str, Any]]]:
        """Yield the config layers of every point on the axes."""
        here = self.file.scales.get(scale, ScaleLayer())
        common: list[Layer] = [self.file, here]
        axes = _axes(common)
        names = [chosen[NAME]] if NAME in chosen else axes.pop(NAME, [None])
        axes.pop(NAME, None)
        for name in names:
            own = [where.optimizers[name] for where in (self.file, here) if name in where.optimizers]
            mine = {**axes, **_axes(own)}
            for key in chosen.keys() & mine.keys():
                mine[key] = [chosen[key]]
            bases = [layer.base for layer in (*common, *own)]
            named = {} if name is None else {NAME: name}
            for values in itertools.product(*mine.values()):
                yield [named, *bases, dict(zip(mine, values, strict=True))]


def names() -> list[str]:
    """Names of the studies that come with the package."""
    root = resources.files("optstudy") / "studies"
    return sorted(_files(root, ""), key=lambda name: (name != "demo", _natural(name)))


def load(name: str) -> Study:
    """Read a study that comes with the package, or a file of one's own (``./mine.yaml``).

    Raises:
        UserError: no such study, or a mistake in the file, with its line.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        try:
            return Study(path.stem, parse(path.read_text(encoding="utf-8"), name))
        except UnicodeDecodeError as error:
            raise UserError(f"{name}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    if name not in (known := names()):
        hint = nearest(name, known)
        raise UserError(f"unknown study {name!r}{hint} (a file of your own ends in .yaml)")
    content = (resources.files("optstudy") / "studies" / f"{name}.yaml").read_text(encoding="utf-8")
    return Study(name, parse(content, f"{name}.yaml"))


def parse(content: str, where: str) -> StudyFile:
    """Check a study file's text; errors name file, line, key and the nearest valid name."""
    try:
        tree = YAML().load(content)
    except (YAMLError, ValueError) as error:
        raise UserError(f"{where}: {_one_line(error)}") from None
    try:
        return StudyFile.model_validate(_plain(tree))
    except ValidationError as error:
        first = error.errors()[0]
        line = _line(tree, first["loc"])
        raise UserError(f"{where}:{line}: {explain(StudyFile, first)}") from None


def scalar(value: str) -> Any:
    """Read a value as YAML 1.2 does: ``3e-3`` is a number, ``no`` a string, ``[0.9, 0.95]`` a list."""
    try:
        return _plain(YAML().load(value))
    except YAMLError as error:
        raise UserError(f"{value!r} is no YAML value: {_one_line(error)}") from None


def overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """Read ``key=value`` arguments; values are YAML scalars or lists.

    Raises:
        UserError: an argument that is no assignment.
    """
    found = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not (key and equals):
            raise UserError(f"--set: {assignment!r} is not key=value, such as optimizer.lr=3e-3")
        found[key] = scalar(value)
    return found


def single(file: Path, chosen: Mapping[str, Any]) -> RunConfig:
    """Read one run's config from a YAML or JSON file: ``scale`` and what differs from it.

    Raises:
        UserError: no such file, or a mistake in it.
    """
    try:
        tree = _plain(YAML().load(file.read_text(encoding="utf-8")))
    except (YAMLError, ValueError) as error:
        raise UserError(f"{file}: {_one_line(error)}") from None
    if not isinstance(tree, Mapping):
        raise UserError(f"{file}: a config is a mapping of keys to values, such as scale: pico")
    tree = merge(tree, chosen)
    scale = tree.setdefault("scale", "pico")
    if scale not in SCALES:
        raise UserError(f"{file}: unknown scale {scale!r}{nearest(str(scale), SCALES)}")
    return settle(merge(SCALES[scale], tree), str(file))


def settle(tree: dict[str, Any], where: str) -> RunConfig:
    """Fill in the fingerprint of the corpus and validate."""
    data = tree.get("data")
    corpus = data.get("corpus") if isinstance(data, Mapping) else None
    if isinstance(corpus, str):
        tree = merge(tree, {"data.fingerprint": text.fingerprint(corpus)})
    try:
        return resolve(tree)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _axes(layers: Sequence[Layer]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for layer in layers:
        for key, axis in layer.axes.items():
            found[key] = axis.values() if isinstance(axis, HalfDecades) else axis
    return found


def _value(config: RunConfig, key: str) -> Any:
    node: Any = config.model_dump(mode="json")
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            raise UserError(f"figure: the config has no key {key!r}")
        node = node[part]
    return node


def _plain(node: Any) -> Any:
    """Turn ruamel's containers and numbers into Python's own."""
    if isinstance(node, Mapping):
        return {str(_plain(key)): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _line(tree: Any, loc: Sequence[Any]) -> int:
    """Line (from 1) of the deepest part of ``loc`` that the file has."""
    line = 1
    for part in loc:
        if isinstance(tree, Mapping) and part in tree:
            line = tree.lc.key(part)[0] + 1  # type: ignore[attr-defined]
            tree = tree[part]
        elif isinstance(tree, list) and isinstance(part, int) and part < len(tree):
            line = tree.lc.item(part)[0] + 1  # type: ignore[attr-defined]
            tree = tree[part]
    return line


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _files(folder: Any, prefix: str) -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            yield prefix + entry.name.removesuffix(".yaml")


def _natural(name: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
