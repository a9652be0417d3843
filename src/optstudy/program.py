"""Data of a run of any training program: a free-form config, and the trainer that runs it. No torch.

``config.json`` of such a run contains the study's own keys, ``seed``, and under ``trainer`` everything that
is needed to run it. The id is the hash of the config, the seed, the command (or function) and the source
files. How the result is read, the timeout and the folder are not part of it.
"""

import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, model_validator

from optstudy import identity, provenance
from optstudy.config import RunConfig
from optstudy.errors import Count, Strict, UserError, nearest, unit
from optstudy.record import leaves

UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
"""Seconds per unit in which a time may be written."""
OURS = ("folder", "config")
"""Placeholders in addition to config keys: the run's folder and its ``config.json``, as absolute paths."""
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)")
_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def written(value: Any) -> str:
    """Return a config value as a word of a command: text unchanged, anything else as JSON.

    Integers have no decimal point, however they were written: 1000 for 1e3, as a program's ``int()`` needs.
    """
    return value if isinstance(value, str) else identity.encoded(identity.plain(value))


def _seconds(value: Any) -> Any:
    """Convert ``2h`` or ``90 s`` to seconds; the check for a positive number handles anything else."""
    if isinstance(value, str) and (found := _TIME.fullmatch(value.strip())) and found[2] in UNITS:
        return float(found[1]) * UNITS[found[2]]
    if isinstance(value, str):
        raise ValueError(f"must be a number of seconds, or a number with one of {', '.join(UNITS)}")
    return value


def _word(value: Any) -> Any:
    if isinstance(value, Mapping):
        name = next(iter(value), "")
        raise ValueError(f"braces without quotes are a mapping in YAML: write '{{{name}}}' in quotes")
    return written(value)


Word = Annotated[str, BeforeValidator(_word)]


class MetricSpec(Strict):
    """How the metric is found in a program's output."""

    name: str = ""
    """A key of ``result.json``, or of the last line of output that is a JSON object with this key."""
    pattern: str | None = None
    """A regular expression with one group, searched in every line of output; the last match counts."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, told: Any) -> Any:
        """Accept a plain name; a pattern without a name uses the name of its group."""
        if isinstance(told, str):
            return {"name": told}
        if isinstance(told, Mapping) and told.get("name") is None and isinstance(told.get("pattern"), str):
            groups: Mapping[str, int] = {}
            with suppress(re.error):  # reported below
                groups = re.compile(told["pattern"]).groupindex
            return {**told, "name": next(iter(groups), "metric")}
        return told

    @model_validator(mode="after")
    def _one_number(self) -> Self:
        if not self.name:
            raise ValueError("must have a 'name' or a 'pattern'")
        if self.pattern is None:
            return self
        try:
            found = re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"'pattern' is not a regular expression: {error}") from None
        if found.groups != 1:
            raise ValueError(f"'pattern' must have one group, such as '([0-9.]+)', not {found.groups}")
        return self


class TrainerSpec(Strict):
    """A training program: the ``trainer`` section of a study file.

    With neither a command nor a function, runs are requested from Python, see
    :meth:`optstudy.findings.Findings.ask`.
    """

    command: Annotated[list[Word], Field(min_length=1)] | None = None
    """Words of the command, started without a shell. ``{optimizer.lr}`` is replaced by a config value;
    ``{seed}``, ``{folder}`` and ``{config}`` by those of the run. ``{{`` and ``}}`` are braces."""
    function: str | None = None
    """Import path of a Python function to call instead, in a separate process, with an
    :class:`optstudy.trials.Trial`."""
    code: list[str] | None = None
    """Files that, with the local modules they import, make new runs when they change; null: the script."""
    metric: MetricSpec = MetricSpec(name="val_loss")
    """The metric: its name, or ``{pattern: ...}``."""
    maximise: bool = False
    """Larger is better."""
    timeout: Annotated[PositiveFloat, BeforeValidator(_seconds), unit("seconds")] | None = None
    """Time limit for one attempt at a run, in seconds or as ``2h``; null: no limit."""
    reads: Literal["config"] | None = None
    """``config``: the program reads its config from ``config.json``, so the command need not name keys."""
    threads: Annotated[Count, unit("threads")] = 1
    """CPU threads per run."""
    gpus: Annotated[Count, unit("GPUs")] = 1
    """GPUs per run, if there are any."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.command is not None and self.function is not None:
            raise ValueError("give a 'command' or a 'function', not both")
        for word in self.command or ():
            for _ in placeholders(word):
                pass
            if "\0" in word:
                raise ValueError(f"a word of 'command' has a NUL character: {word!r}")
        if self.function is not None and not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", self.function):
            raise ValueError("'function' must be an import path, such as mytrain.train")
        return self

    @property
    def names(self) -> list[str]:
        """All placeholders of the command."""
        return [name for word in self.command or () for name in placeholders(word)]

    @property
    def sees_all(self) -> bool:
        """Whether the program gets the whole config, not only what its command names."""
        return self.command is None or self.reads == "config" or "config" in self.names


class PlacedTrainer(TrainerSpec):
    """A trainer with the values that are filled in for a run."""

    folder: str
    """Folder in which the program starts; relative paths start there."""
    fingerprint: str | None = None
    """Hash of the code; null: no code can be read."""


class Program(BaseModel):
    """One run of a training program. Its other keys, of any name and depth, come from the study."""

    model_config = ConfigDict(extra="allow", frozen=True)

    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    trainer: PlacedTrainer

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, tree: Any) -> Any:
        """Normalise every number, so that equal configs have the same id and command."""
        if not isinstance(tree, Mapping):
            return tree
        for key, value in leaves(tree):
            if any(isinstance(one, float) and not math.isfinite(one) for one in _scalars(value)):
                raise ValueError(f"{key}: must be finite, not {value}")
        return {key: part if key == "trainer" else identity.plain(part) for key, part in tree.items()}

    @property
    def id(self) -> str:
        """The hash of everything that decides the result: twelve hexadecimal digits."""
        return identity.run_id(self.model_dump(mode="json"))

    def command(self, folder: Path) -> list[str]:
        """Return the words of the run's command.

        Args:
            folder: the run's folder.
        """
        place = folder.resolve()
        values = {**self.values(), "folder": str(place), "config": str(place / "config.json")}
        return [filled(word, values) for word in self.trainer.command or ()]

    def values(self) -> dict[str, Any]:
        """Return config values by dotted key, including mappings and their contents."""
        tree = self.model_dump(mode="json")
        del tree["trainer"]
        return dict(_nodes(tree))


AnyConfig = RunConfig | Program
"""A run of optstudy's own trainer, or of any program. The study engine uses ``id``, ``seed``, ``model_dump``
and ``model_copy`` of either; :func:`threads_of`, :func:`gpus_of` and :func:`code_of` return values that the
two keep under different keys."""


def threads_of(config: AnyConfig) -> int:
    """CPU threads per run."""
    return config.trainer.threads if isinstance(config, Program) else config.training.threads


def gpus_of(config: AnyConfig) -> int:
    """GPUs per run, if there are any."""
    return config.trainer.gpus if isinstance(config, Program) else 1


def code_of(config: AnyConfig) -> str | None:
    """Hash of the user's own source that a run depends on; None if there is none."""
    if isinstance(config, Program):
        return config.trainer.fingerprint
    return config.optimizer.code or config.model.code


def placeholders(word: str) -> Iterator[str]:
    """Yield the names in braces in a word of a command.

    Raises:
        ValueError: a brace that neither encloses a name nor is doubled.
    """
    for found in _BRACES.finditer(word):
        if found[0] in ("{", "}") or found[1] == "":
            raise ValueError(f"{found[0]!r} in {word!r}: write {{{{ and }}}} for braces")
        if found[1] is not None:
            yield found[1]


def filled(word: str, values: Mapping[str, Any]) -> str:
    """Replace names in braces by their values."""
    return _BRACES.sub(lambda found: found[0][0] if found[1] is None else written(values[found[1]]), word)


def check(config: Program) -> None:
    """Check that the command's placeholders are config keys, and that the config has no reserved names.

    Raises:
        UserError: one is not; gives the nearest key.
    """
    known = config.values()
    for name in config.trainer.names:
        if name in OURS and name in known:
            raise UserError(
                f"{{{name}}} is the run's {name}: give the config key {name!r} another name", name
            )
        if name not in known and name not in OURS:
            hint = nearest(name, [key for key, value in known.items() if not isinstance(value, Mapping)])
            raise UserError(
                f"trainer.command: the config has no key for {{{name}}}{hint}", "trainer.command", name
            )


def placed(trainer: TrainerSpec, folder: Path) -> PlacedTrainer:
    """Return a trainer with its folder filled in and its files checked and hashed.

    Raises:
        UserError: a program, function or file does not exist.
    """
    home = folder.resolve()
    code = provenance.of_files(_code(trainer, home), home)
    if code is None and trainer.function is not None:
        code = provenance.fingerprint([trainer.function])  # the user's own module elsewhere on the path
    return PlacedTrainer.model_validate({**dict(trainer), "folder": str(home), "fingerprint": code})


def require(trainer: TrainerSpec, folder: Path) -> None:
    """Check that there is a program to start, and that this machine can start it.

    Raises:
        UserError: there is neither a command nor a function, or no program of that name.
    """
    if trainer.command is None and trainer.function is None:
        raise UserError(
            "trainer: give it a command or a function; without, request runs from Python: "
            "optstudy.open_study(...).ask()",
            "trainer",
        )
    if trainer.command is None or "{" in trainer.command[0]:
        return
    first = trainer.command[0]
    path = folder.resolve() / first if "/" in first else None
    if shutil.which(path or first) is not None:
        return
    if path is None:
        why = f"there is no program {first!r} in the folders of PATH"
    elif path.is_file():
        why = f"{first!r} may not be executed: chmod +x it, or put what runs it before it, such as python"
    else:
        why = f"there is no program {first!r} in {folder.resolve()}"
    raise UserError(f"trainer.command: {why}", "trainer.command", trainer.command)


def fingerprint(trainer: PlacedTrainer) -> str | None:
    """Return the current hash of a trainer's code.

    Raises:
        UserError: a file no longer exists.
    """
    return placed(trainer, Path(trainer.folder)).fingerprint


def _code(trainer: TrainerSpec, home: Path) -> list[Path]:
    """Return the files whose changes make new runs: those listed, or the script or module."""
    if trainer.command is not None:
        script = _script(trainer.command, home)
    elif trainer.function is not None:
        script = _function(trainer.function, home)
    else:
        script = None
    if trainer.code is None:
        return [] if script is None else [script]
    for name in trainer.code:
        if not (home / name).is_file():
            raise UserError(f"trainer.code: there is no file {name!r} in {home}", "trainer.code", name)
    return [home / name for name in trainer.code]


def _script(command: Sequence[str], home: Path) -> Path | None:
    """Return the file that a command runs: ``train.py``, ``-m train``, or the user's own program."""
    for k, word in enumerate(command):
        if command[k - 1 : k] == ["-m"]:
            if (module := provenance.module_file(word, [home])) is not None:
                return module
        elif word.endswith(".py") and "{" not in word:
            if not (home / word).is_file():
                key = "trainer.command"
                raise UserError(f"{key}: there is no file {word!r} in {home}", key, list(command))
            return home / word
    for k, word in enumerate(command):
        own = not Path(word).is_absolute() and (k > 0 or "/" in word)
        if own and (home / word).is_file():
            return home / word
    return None


def _function(path: str, home: Path) -> Path | None:
    """Return the file of a function's module; None if it is installed."""
    key, (module, _, name) = "trainer.function", path.rpartition(".")
    file = provenance.module_file(module, [home])
    if file is None:
        if not provenance.installed(module):
            raise UserError(f"{key}: there is no module {module!r} in {home}", key, path)
        return None
    known = provenance.top_names(file)
    if known is not None and name not in known:
        raise UserError(f"{key}: {file} has no {name!r}{nearest(name, known)}", key, path)
    return file


def _nodes(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        yield f"{above}{key}", value
        if isinstance(value, Mapping):
            yield from _nodes(value, f"{above}{key}.")


def _scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from _scalars(one)
    elif isinstance(value, Mapping):
        yield from _scalars(list(value.values()))
    else:
        yield value
