"""The studies of the package at every scale: the runs, curves and places on the axis that they had."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from optstudy.identity import DEFAULTS
from optstudy.record import leaves
from optstudy.scales import SCALES
from optstudy.study import library as study

PINNED = json.loads(Path(__file__).with_name("study_ids.json").read_text())
"""A hash of all runs by study and scale."""
FEW = ("pico", "paper")


def as_pinned(settings: dict[str, Any]) -> dict[str, Any]:
    """What a config says beside the defaults that ids leave out: a new key changes no pin."""
    told = {key: value for key, value in leaves(settings) if not key.startswith("watch.")}
    return {key: value for key, value in told.items() if value != DEFAULTS.get(key)}


def runs_of(name: str, scale: str) -> list[Any]:
    """Id, curve and place on the axis of every run, in order; settings of those that wait for others."""
    plan = study.load(name).plan(scale, adaptive=False)
    known = [[point.id, point.curve, point.x] for point in plan.points]
    waiting = [[as_pinned(wait.settings), wait.curve, wait.depends_on] for wait in plan.pending]
    return [known, waiting, [point.id for point in plan.first]]


def hashed(name: str, scale: str) -> str:
    return hashlib.sha256(json.dumps(runs_of(name, scale), sort_keys=True).encode()).hexdigest()[:12]


@pytest.mark.parametrize("name", PINNED)
def test_a_study_is_the_runs_and_curves_that_it_was(name: str) -> None:
    """A change here makes recorded runs strangers; new studies are added to ``study_ids.json``."""
    assert {scale: hashed(name, scale) for scale in FEW} == {scale: PINNED[name][scale] for scale in FEW}


@pytest.mark.long
@pytest.mark.parametrize("scale", [scale for scale in SCALES if scale not in FEW])
def test_it_is_so_at_every_scale(scale: str) -> None:
    assert {name: hashed(name, scale) for name in PINNED} == {n: of[scale] for n, of in PINNED.items()}


def test_every_study_is_pinned() -> None:
    assert sorted(PINNED) == sorted(study.names())
