"""What carries out a study's runs: optstudy's own trainer, or any program. The engine asks both the same.

A trainer says which scales there are, turns the merged settings of a point into the config of a run, and
checks a whole plan. Everything else that is done with a run asks its config, see :mod:`optstudy.program`.
Imports no torch.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from optstudy import program
from optstudy.config import RunConfig, merge
from optstudy.errors import UserError, nearest, validate
from optstudy.folders import settle
from optstudy.program import AnyConfig, Program
from optstudy.record import leaves
from optstudy.scales import SCALES
from optstudy.study import fidelity
from optstudy.study.file import StudyFile


class Trainer(Protocol):
    """What a study needs of a trainer."""

    scales: Mapping[str, Mapping[str, Any]]
    """Settings of each scale, under everything that a study says. The first one is the default."""
    keys: Collection[str] | None
    """First parts of the keys of a config; None: any."""

    def settle(self, tree: dict[str, Any]) -> AnyConfig:
        """Make a run's config of merged settings, or raise UserError with the wrong key."""

    def printed(self, config: AnyConfig, chosen: Mapping[str, Any]) -> AnyConfig:
        """Return a run as the paper's text has it, for ``fidelity: printed``."""

    def check(
        self, configs: Iterable[AnyConfig], axes: Iterable[str], chosen: Mapping[str, Any], seeds: int
    ) -> None:
        """Refuse a plan in which something varies that no run would notice.

        Args:
            configs: of all runs, one of each that differ in the seed alone.
            axes: keys of the study's axes.
            chosen: config values over the study's, by dotted key.
            seeds: how many seeds a point may get.
        """


class Own:
    """optstudy's trainer: the paper's transformer, see :mod:`optstudy.training`."""

    scales = SCALES
    keys: Collection[str] | None = RunConfig.model_fields.keys()

    def settle(self, tree: dict[str, Any]) -> AnyConfig:
        """Fill in what text, tokenizer and code are, and validate."""
        return settle(tree)

    def printed(self, config: AnyConfig, chosen: Mapping[str, Any]) -> AnyConfig:
        """Apply what the text says where the code did something else."""
        return settle(fidelity.printed(config.model_dump(mode="json"), chosen))

    def check(
        self, configs: Iterable[AnyConfig], axes: Iterable[str], chosen: Mapping[str, Any], seeds: int
    ) -> None:
        """Do nothing: this trainer knows every key of its config."""


class Foreign:
    """A program that the study file names under ``trainer``.

    Args:
        said: what the file says of it.
        scales: names of the file's own scales.
        folder: where it is started.

    Raises:
        UserError: a program or file that is not there.
    """

    keys: Collection[str] | None = None

    def __init__(self, said: program.TrainerSpec, scales: Iterable[str], folder: Path) -> None:
        self.scales: Mapping[str, Mapping[str, Any]] = {name: {} for name in scales} or {"": {}}
        self._said, self._placed = said, program.placed(said, folder).model_dump(mode="json")

    def settle(self, tree: dict[str, Any]) -> AnyConfig:
        """Add the trainer, and check that its placeholders are keys."""
        if "trainer" in tree:
            key, came = next(leaves({"trainer": tree["trainer"]}))
            raise UserError(
                f"{key}: the trainer is no part of the config: it stands at the file's top", key, came
            )
        config = validate(Program, {**tree, "trainer": self._placed})
        program.check(config)
        return config

    def printed(self, config: AnyConfig, chosen: Mapping[str, Any]) -> AnyConfig:
        """Refuse: the paper's text says nothing of other programs."""
        raise UserError("fidelity: only for optstudy's own trainer", "fidelity", "printed")

    def check(
        self, configs: Iterable[AnyConfig], axes: Iterable[str], chosen: Mapping[str, Any], seeds: int
    ) -> None:
        """Refuse a key that varies, an axis or an override that the command does not name."""
        if self._said.sees_all:
            return
        trees = [config.model_dump(mode="json", exclude={"trainer", "seed"}) for config in configs]
        found = [{key: json.dumps(value) for key, value in leaves(tree)} for tree in trees]
        keys = sorted({key for one in found for key in one})
        varying = [key for key in keys if len({one.get(key) for one in found}) > 1] + ["seed"] * (seeds > 1)
        given = [key for key, _ in leaves(merge(chosen))]
        for key in dict.fromkeys(key for key in (*axes, *given, *varying) if not key.startswith("$")):
            if not any(key == name or key.startswith(f"{name}.") for name in self._said.names):
                raise UserError(
                    f"{key}: no word of trainer.command has {{{key}}}, so that the program would not notice; "
                    "add it, or say 'reads: config' under trainer if the program reads config.json",
                    key,
                )


def of(file: StudyFile, folder: Path) -> Trainer:
    """Return a study's trainer.

    Args:
        file: the study's.
        folder: where a program is started; what relative paths mean.
    """
    if file.trainer is None:
        return Own()
    return Foreign(file.trainer, scales_of(file), folder)


def keys_of(file: StudyFile) -> Collection[str] | None:
    """First parts of the keys of a study's configs; None: any."""
    return Own.keys if file.trainer is None else Foreign.keys


def scales_of(file: StudyFile) -> list[str]:
    """Names of the scales that a study can run at, the default first; of one without any, an empty name."""
    if file.trainer is None:
        return [*SCALES, "paper"]
    named = [*file.scales, *(name for panel in file.panels.values() for name in panel.scales)]
    return list(dict.fromkeys(named)) or [""]


def scale_of(file: StudyFile, given: str | None, where: str) -> str:
    """Return the scale to run at: the one given, or the default.

    Raises:
        UserError: the study has none of that name.
    """
    known = scales_of(file)
    if given is None:
        return known[0]
    if given not in known:
        if known == [""]:
            raise UserError(f"{where}: --scale {given}: the file has no scales of its own", "scale", given)
        raise UserError(f"{where}: unknown scale {given!r}{nearest(given, known)}", "scale", given)
    return given
