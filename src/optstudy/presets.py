"""Optimizers of others by name, with their settings, as data: ``presets.yaml``. Imports no torch."""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from optstudy.errors import Strict, UserError, first_line, validate
from optstudy.grids import HalfDecades

FILE = "presets.yaml"


class Preset(Strict):
    """An optimizer of the field."""

    about: Annotated[str, Field(min_length=1)]
    """What it is, in a line."""
    target: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")]
    """Import path of the class."""
    package: str
    """The package on the index that has it."""
    extra: Literal["field"] | None = None
    """The extra of optstudy that installs the package; null: it is there with optstudy."""
    tried: str
    """The package's version that the settings were tried with."""
    source: Annotated[str, Field(min_length=1)]
    """Who published it, and where the settings are from."""
    published: str = ""
    """Settings that others used for language models, for comparison."""
    options: dict[str, Any]
    """Every argument of the constructor but parameters, ``lr`` and weight decay, and keys of its groups."""
    roles: dict[str, dict[str, Any]] = {}
    """What differs for the parameters of one role; where it does not take them, Adam at a rate of its own."""
    schedule: dict[str, Any] = {}
    """Keys of the config's ``schedule`` that the method asks for; others are the run's."""
    lr: HalfDecades
    """Learning rates to begin a sweep with."""
    state_bytes_per_param: Annotated[float, Field(ge=0)]
    """Bytes of state after a step, measured on the shapes of the 150m model in float32."""
    faults: list[str] = []
    """What one must know of the package's class."""


class Presets(Strict):
    """The file."""

    benchmarks: dict[str, dict[str, str]]
    """What benchmarks of optimizers for language models call theirs: our names, or those of presets."""
    presets: Annotated[dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Preset], Field(min_length=1)]
    """By the name that ``optimizer.name`` has in a config."""


@cache
def read() -> Presets:
    """Read the file.

    Raises:
        UserError: it is damaged, with the line or the key.
    """
    text = (resources.files("optstudy") / FILE).read_text(encoding="utf-8")
    try:
        tree = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{FILE}:{line}: {first_line(Exception(error.problem))}") from None
    return validate(Presets, tree, FILE)


def load() -> Mapping[str, Preset]:
    """Return every preset by name, in the file's order."""
    return read().presets


def that_brings(module: str) -> str | None:
    """Return the extra of optstudy that installs a top-level module; None where none does."""
    return next((p.extra for p in load().values() if p.extra and p.target.partition(".")[0] == module), None)
