"""Studies: reads YAML files and lists their runs in order. Imports no torch.

:mod:`optstudy.study.file` defines the file, :mod:`optstudy.study.expansion` expands it into runs, and
:mod:`optstudy.study.plan` chooses the points of adaptive axes. The list depends only on the file, the scale,
the overrides and the results so far, so all launchers get the same list.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from optstudy.claims import grammar
from optstudy.claims.measures import Wrong
from optstudy.claims.verdict import Claim
from optstudy.config import RunConfig, merge
from optstudy.errors import UserError, explain, nearest
from optstudy.folders import settle
from optstudy.scales import check_scale, for_any_model
from optstudy.study import yamlfile
from optstudy.study.checks import check
from optstudy.study.expansion import Expansion, Plans
from optstudy.study.file import Layer, StudyFile, axes_of, parse
from optstudy.study.naming import Naming
from optstudy.study.plan import Pending, Plan, PlannedRun, Results
from optstudy.study.trainer import scale_of
from optstudy.study.yamlfile import located

__all__ = [
    "Pending",
    "Plan",
    "PlannedRun",
    "Study",
    "load",
    "names",
    "overrides",
    "parse",
    "single",
]


@dataclass(frozen=True)
class Study:
    """A checked study file."""

    name: str
    file: StudyFile
    path: str = ""
    """The path it was read from, as given; empty for a study in the package."""
    axes: Mapping[str, list[Any]] = field(default_factory=dict)
    """Axes from the command line, which replace the file's."""
    folder: Path = Path()
    """Folder in which a program starts; relative paths start there."""

    def scale(self, given: str | None) -> str:
        """Return the scale to run: the one given, or the study's default.

        Raises:
            UserError: the study has no such scale.
        """
        return scale_of(self.file, given, self.path or self.name)

    def over(self, axes: Sequence[str]) -> "Study":
        """Return the study with further axes, each given as ``key=value,value``.

        Raises:
            UserError: an argument is not of this form, or an axis has no values.
        """
        return replace(self, axes={**self.axes, **_axes(axes)}) if axes else self

    def __post_init__(self) -> None:
        check(self.file, self.path or self.name)

    @cached_property
    def claims(self) -> tuple[Claim, ...]:
        """Its claims, with parsed and checked tests.

        Raises:
            UserError: a test is not allowed; with file and line.
        """
        found: list[Claim] = []
        if not self.file.claims and self.file.noise is None:
            return ()
        curves = Naming(self.name, self.file, lambda name: _read(name, self.folder).file)
        key, noise = "noise.study", self.file.noise
        try:
            if noise is not None:
                _read(noise.study, self.folder)
                for mine, other in noise.curves.items():
                    key = f"noise.curves.{mine}"
                    curves(mine, None)
                    curves(f"{noise.study}: {other}", None)
            for name, one in self.file.claims.items():
                key, test = f"claims.{name}.test", " ".join(one.test.split())
                relations = grammar.parse(test, curves)
                curves.check_tokens(relations)
                found.append(Claim(name, one.says, self.name, test, relations))
        except (Wrong, UserError) as error:
            line = yamlfile.place(self.file.places, key, None) or 1
            raise UserError(f"{self.path or f'{self.name}.yaml'}:{line}: {key}: {error}") from None
        return tuple(found)

    def points(
        self, scale: str, overrides: Mapping[str, Any] | None = None, seeds: int | None = None
    ) -> list[PlannedRun]:
        """List the runs at a scale that need no results: without extended axes and seeds near a best."""
        return self.plan(scale, overrides, seeds).points

    def plan(
        self,
        scale: str,
        overrides: Mapping[str, Any] | None = None,
        seeds: int | None = None,
        results: Results = lambda run_id: None,
        adaptive: bool = True,
        others: Plans | None = None,
    ) -> Plan:
        """List the study's runs at a scale, once for each curve they are on.

        Args:
            scale: one of :meth:`scale`; ``paper``: each panel at its own.
            overrides: config values by dotted key that override the study's; an axis of that key collapses.
            seeds: number of seeds, 0 and up, instead of the file's.
            results: the known results of finished runs.
            adaptive: extend axes and add seeds as the file says.
            others: plans of other studies that are known already; new ones are added.

        Raises:
            UserError: an unknown scale, or an invalid config; names the key.
        """
        chosen = dict(overrides or {})
        return Expansion(
            self.path or self.name,
            self.file,
            scale,
            chosen=chosen,
            axes=self.axes,
            folder=self.folder,
            seeds=seeds,
            results=results,
            adaptive=adaptive,
            others=lambda name: _read(name, self.folder).file,
            plans={} if others is None else others,
        ).plan()


@cache
def names() -> list[str]:
    """Names of the studies in the package."""
    root = resources.files("optstudy") / "studies"
    return sorted(_files(root, ""), key=lambda name: (name != "demo", _natural(name)))


def load(name: str, folder: Path = Path()) -> Study:
    """Read a study from the package, or the user's own file (``./mine.yaml``).

    Args:
        name: the study's name, or a path.
        folder: what a relative path is relative to.

    Raises:
        UserError: no such study, or a mistake in the file or a claim, with its line.
    """
    found = _read(name, folder)
    _ = found.claims  # parses their tests
    return found


def _read(name: str, folder: Path = Path()) -> Study:
    """Read a study without checking its claims, which may refer to other studies."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        try:
            content = yamlfile.read(folder / path)
        except UserError as error:
            raise UserError(str(error), "study", name) from None
        return Study(path.stem, parse(content, name), name)
    if name not in (known := names()):
        hint = nearest(name, known)
        raise UserError(f"unknown study {name!r}{hint} (a file of your own ends in .yaml)", "study", name)
    return _packaged(name)


@cache
def _packaged(name: str) -> Study:
    content = (resources.files("optstudy") / "studies" / f"{name}.yaml").read_text(encoding="utf-8")
    return Study(name, parse(content, f"{name}.yaml"))


def overrides(
    assignments: Sequence[str], option: str = "--set", example: str = "optimizer.lr=3e-3"
) -> dict[str, Any]:
    """Read ``key=value`` arguments, see :func:`optstudy.study.yamlfile.assigned`.

    Args:
        assignments: the arguments.
        option: the option they belong to, for errors.
        example: a correct argument, for errors.

    Raises:
        UserError: an argument is not an assignment, or its value is missing or wrong.
    """
    found = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not (key and equals):
            raise UserError(f"{option}: {assignment!r} is not key=value, such as {example}")
        if not value:
            raise UserError(f"{option}: {assignment!r} has no value; {key}=null means none")
        try:
            found[key] = yamlfile.assigned(value)
        except UserError as error:
            raise UserError(f"{option}: {key}: {error}") from None
    return found


def _axes(assignments: Sequence[str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for assignment in assignments:
        key, equals, values = assignment.partition("=")
        said = f"--axis: {assignment!r} is not key=value,value, such as optimizer.lr=1e-3,1e-2"
        if not (key and equals and values.strip(", ")):
            raise UserError(said)
        read = yamlfile.assigned(f"[{values}]")
        if not isinstance(read, list):
            raise UserError(said)
        try:
            found[key] = list(axes_of([Layer(axes={key: read})])[key])
        except ValidationError as error:
            raise UserError(f"--axis: {key}: {explain(error.errors()[0], (), ())}") from None
    return found


def single(
    file: Path, chosen: Mapping[str, Any], automatic: Callable[[RunConfig], str] | None = None
) -> RunConfig:
    """Read one run's config from a YAML or JSON file: ``scale`` and the values that differ from it.

    Args:
        file: the config.
        chosen: config values by dotted key that override the file's.
        automatic: returns the precision for ``training.precision: auto``; without it, ``auto`` is refused.

    Raises:
        UserError: no such file, or a mistake in it.
    """
    written = yamlfile.parse(yamlfile.read(file), str(file))
    tree = yamlfile.plain(written, str(file))
    if not isinstance(tree, Mapping):
        raise UserError(f"{file}: a config is a mapping of keys to values, such as scale: pico")
    try:
        tree = merge(tree, chosen)
        scale = check_scale(tree.setdefault("scale", "pico"))
        tree = merge(for_any_model(scale), tree)
        training = tree["training"]
        if automatic is not None and isinstance(training, Mapping) and training.get("precision") == "auto":
            precision = automatic(settle(merge(tree, {"training.precision": "float32"})))
            tree = merge(tree, {"training.precision": precision})
        return settle(tree)
    except UserError as error:
        raise located(error, str(file), tuple(yamlfile.places(written)), chosen) from None


def _files(folder: Any, prefix: str) -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            yield prefix + entry.name.removesuffix(".yaml")


def _natural(name: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
