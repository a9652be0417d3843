"""Trainers carry out a study's runs: optstudy's own trainer, or any program, behind one interface.

A trainer defines scales, turns the merged settings of a point into the config of a run, and checks a whole
plan. Everything else is done through the run's config, see :mod:`optstudy.program`. Imports no torch.
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
from optstudy.scales import SCALES, for_any_model
from optstudy.study import fidelity
from optstudy.study.file import StudyFile


class Trainer(Protocol):
    """The interface of a trainer that a study uses."""

    scales: Mapping[str, Mapping[str, Any]]
    """Settings of each scale, which a study overrides. The first one is the default."""
    keys: Collection[str] | None
    """Top-level keys of a config; None: any."""

    def settle(self, tree: dict[str, Any]) -> AnyConfig:
        """Return the config of a run from merged settings, or raise UserError with the wrong key."""

    def printed(self, config: AnyConfig, chosen: Mapping[str, Any]) -> AnyConfig:
        """Return a run according to the paper's text, for ``fidelity: printed``."""

    def check(
        self, configs: Iterable[AnyConfig], axes: Iterable[str], chosen: Mapping[str, Any], seeds: int
    ) -> None:
        """Refuse a plan in which something varies that the runs would ignore.

        Args:
            configs: one config per group of runs that differ only in the seed.
            axes: keys of the study's axes.
            chosen: overriding config values, by dotted key.
            seeds: maximum number of seeds per point.
        """


class Own:
    """optstudy's trainer, see :mod:`optstudy.training`."""

    scales: Mapping[str, Mapping[str, Any]] = {name: for_any_model(name) for name in SCALES}
    keys: Collection[str] | None = RunConfig.model_fields.keys()

    def settle(self, tree: dict[str, Any]) -> AnyConfig:
        """Fill in the hashes of text, tokenizer and code, and validate."""
        return settle(tree)

    def printed(self, config: AnyConfig, chosen: Mapping[str, Any]) -> AnyConfig:
        """Apply the paper's text where the released code differs."""
        return settle(fidelity.printed(config.model_dump(mode="json"), chosen))

    def check(
        self, configs: Iterable[AnyConfig], axes: Iterable[str], chosen: Mapping[str, Any], seeds: int
    ) -> None:
        """Do nothing: this trainer knows every key of its config."""


class Foreign:
    """A program that the study file names under ``trainer``.

    Args:
        said: the file's ``trainer`` section.
        scales: names of the file's own scales.
        folder: the folder in which the program starts.

    Raises:
        UserError: the program or a file does not exist.
    """

    keys: Collection[str] | None = None

    def __init__(self, said: program.TrainerSpec, scales: Iterable[str], folder: Path) -> None:
        self.scales: Mapping[str, Mapping[str, Any]] = {name: {} for name in scales} or {"": {}}
        self._said, self._placed = said, program.placed(said, folder).model_dump(mode="json")

    def settle(self, tree: dict[str, Any]) -> AnyConfig:
        """Add the trainer section, and check that its placeholders are config keys."""
        if "trainer" in tree:
            key, came = next(leaves({"trainer": tree["trainer"]}))
            raise UserError(
                f"{key}: the trainer is not part of the config: put it at the top of the file", key, came
            )
        config = validate(Program, {**tree, "trainer": self._placed})
        program.check(config)
        return config

    def printed(self, config: AnyConfig, chosen: Mapping[str, Any]) -> AnyConfig:
        """Refuse: the paper's text does not cover other programs."""
        raise UserError("fidelity: only for optstudy's own trainer", "fidelity", "printed")

    def check(
        self, configs: Iterable[AnyConfig], axes: Iterable[str], chosen: Mapping[str, Any], seeds: int
    ) -> None:
        """Refuse a varying key, axis or override that the command does not use."""
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
                    f"{key}: no word of trainer.command has {{{key}}}, so the program would not see it; "
                    "add it, or say 'reads: config' under trainer if the program reads config.json",
                    key,
                )


def of(file: StudyFile, folder: Path) -> Trainer:
    """Return a study's trainer.

    Args:
        file: the study's file.
        folder: the folder in which a program starts; relative paths start there.
    """
    if file.trainer is None:
        return Own()
    return Foreign(file.trainer, scales_of(file), folder)


def keys_of(file: StudyFile) -> Collection[str] | None:
    """Top-level keys of the configs of a study; None: any."""
    return Own.keys if file.trainer is None else Foreign.keys


def scales_of(file: StudyFile) -> list[str]:
    """Names of a study's scales, default first; if it has none, a single empty name."""
    if file.trainer is None:
        return [*SCALES, "paper"]
    named = [*file.scales, *(name for panel in file.panels.values() for name in panel.scales)]
    return list(dict.fromkeys(named)) or [""]


def scale_of(file: StudyFile, given: str | None, where: str) -> str:
    """Return the scale to run: the one given, or the default.

    Raises:
        UserError: the study has no such scale.
    """
    known = scales_of(file)
    if given is None:
        return known[0]
    if given not in known:
        if known == [""]:
            raise UserError(f"{where}: --scale {given}: the file has no scales of its own", "scale", given)
        raise UserError(f"{where}: unknown scale {given!r}{nearest(given, known)}", "scale", given)
    return given
