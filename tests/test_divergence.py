"""Runs are stopped when they have certainly diverged: the rule against runs that nobody stopped."""

import math
import re

import pytest
import torch

from optstudy.config import Watch
from optstudy.record import read_metrics
from optstudy.training import progress
from optstudy.training.progress import DivergenceRule
from optstudy.training.run import Run
from optstudy.training.train import train
from tests.configs import folder_of, tiny_on


def diverged_at(losses, steps, warmup):
    """The step (from 0) at which the rule stops a run with these losses, or None."""
    rule = DivergenceRule(steps, warmup=warmup)
    return next((step for step, loss in enumerate(losses) if rule.update(loss) is not None), None)


@pytest.mark.parametrize(
    ("losses", "step"),
    [
        ([8.0] * 100, None),
        ([8.0, 8.0, math.nan], 2),
        ([8.0, math.inf], 1),
        ([8.0] * 50 + [30.0] * 50, 59),
        ([8.0] * 50 + [30.0] * 9 + [8.0] * 41, None),
        ([8.0] + [30.0] * 15 + [8.0] * 84, None),  # the warm-up and five steps
    ],
)
def test_the_rule_waits_for_a_tenth_of_the_steps_after_the_warm_up(losses, step):
    assert diverged_at(losses, steps=100, warmup=0.1) == step


@pytest.mark.long
def test_no_run_that_the_rule_stops_would_have_come_back(corpus_slice, tmp_path, monkeypatch):
    """Every run it stops, let go on to its end, is no better there than before its first step."""
    seen: list[float] = []

    class Unstopped(DivergenceRule):
        def update(self, loss: float) -> str | None:
            seen.append(loss)
            return None if math.isfinite(loss) else "not finite"

    monkeypatch.setattr(progress, "DivergenceRule", Unstopped)
    stopped, went_on = 0, 0
    for name in ("sgdw", "lion", "adam", "signum"):
        for lr in (1e-2, 1.0, 30.0, 1e3):
            seen.clear()
            changes = {"optimizer.name": name, "optimizer.lr": lr, "training.steps": 100}
            config = tiny_on(corpus_slice, **changes, **{"model.qk_norm": False, "training.clip_norm": None})
            result = train(folder_of(config, tmp_path))
            at = diverged_at(seen, config.training.steps, warmup=config.schedule.warmup)
            if at is None:
                went_on += 1
            else:
                stopped += 1
                came_back = result["state"] == "done" and result["val_loss"] < result["initial_val_loss"]
                assert not came_back, (name, lr, at, result["val_loss"])
    assert stopped >= 3 and went_on >= 3


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer.name": "lion", "optimizer.lr": 1e18, "watch.norms": True},
        {"optimizer.name": "adam", "optimizer.lr": 1e30, "training.effective_lr": True},
        {"optimizer.name": "adam", "optimizer.options": {"eps": 0.0}, "training.effective_lr": True},
        {"optimizer.name": "adam", "optimizer.lr": 1e39, "watch.norms": True, "training.effective_lr": True},
        {"optimizer.name": "torch.optim.SGD", "optimizer.lr": 1e39, "watch.norms": True},
    ],
)
def test_measured_numbers_that_are_not_finite_are_null_and_change_no_end(corpus_slice, tmp_path, changes):
    watched = tiny_on(corpus_slice, **changes)
    plain = watched.model_copy(update={"watch": Watch()})
    result = train(folder := folder_of(watched, tmp_path / "watched"))
    assert result["state"] == "diverged"
    assert train(folder_of(plain, tmp_path / "plain"))["reason"] == result["reason"]
    for name in ("metrics.jsonl", "result.json"):
        for line in (folder / name).read_text().splitlines():
            assert not {"NaN", "Infinity", "-Infinity"} & set(re.findall(r"-?[A-Za-z]+", line))


def test_a_null_is_in_the_row_of_a_run_that_goes_on(corpus_slice, tmp_path, monkeypatch):
    """Weights near 1e19 in a part that the loss does not see, so that only their norm overflows."""
    config = tiny_on(corpus_slice, **{"watch.norms": True, "watch.tensorboard": True})
    original = Run.__init__

    def huge(self, *arguments):
        original(self, *arguments)
        with torch.no_grad():
            self.model.embedding.weight[2047] = 1e30

    monkeypatch.setattr(Run, "__init__", huge)
    shown = []
    result = train(folder := folder_of(config, tmp_path), on_progress=shown.append)
    assert result["state"] == "done"
    rows = [row for row in read_metrics(folder) if "loss" in row]
    assert {row["norms"]["embedding"]["weight"] for row in rows} == {None}
    assert all(row["norms"]["embedding"]["update"] > 0 for row in rows)
    assert shown == read_metrics(folder)


def test_an_optimizer_whose_eval_fails_before_its_first_step_is_not_asked_then(corpus_slice, tmp_path):
    config = tiny_on(corpus_slice, **{"optimizer.name": "tests.foreign.Switching"})
    assert train(folder_of(config, tmp_path))["state"] == "done"
