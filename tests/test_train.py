"""A run: a config in, a folder out. On a slice of the real corpus."""

import json
import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from optstudy.errors import UserError
from optstudy.record import read_metrics
from optstudy.training.run import Run, bytes_held
from optstudy.training.train import train
from tests.configs import folder_of, losses, tiny_on


@pytest.fixture
def config(corpus_slice):
    return partial(tiny_on, corpus_slice)


def test_a_run_learns_and_says_how_it_went(config, tmp_path):
    run = config(**{"training.steps": 60, "model.d_model": 16})
    folder = folder_of(run, tmp_path)
    result = train(folder)
    assert result == json.loads((folder / "result.json").read_text())
    assert (result["id"], result["state"], result["reason"], result["step"]) == (run.id, "done", None, 60)
    assert result["tokens"] == 60 * 4 * 16
    assert result["params"] == 2 * 2048 * 16 + 2 * (12 * 16 * 16 + 4 * 16) + 16
    assert result["state_bytes_per_param"] == pytest.approx(8, rel=0.01)
    assert result["initial_val_loss"] == pytest.approx(math.log(2048) + 0.5, abs=0.3)
    assert result["val_loss"] < result["initial_val_loss"] - 0.3
    rows = read_metrics(folder)
    steps = [row["step"] for row in rows if "loss" in row]
    assert steps == sorted(set(steps)) and steps[-1] == 60
    validations = {row["step"]: row["val_loss"] for row in rows if "val_loss" in row}
    assert list(validations) == [0, 30, 60] and validations[60] == result["val_loss"]


def test_state_counts_wherever_an_optimizer_keeps_it():
    nested = {
        "step": torch.tensor(0.0),
        "preconditioners": [torch.zeros(3, 3), (torch.zeros(2).bfloat16(), None)],
        "projector": SimpleNamespace(basis=torch.zeros(5), name="std"),
    }
    assert bytes_held({torch.nn.Parameter(torch.zeros(3)): nested}) == 4 + 36 + 4 + 20


def test_a_finished_run_is_never_run_again(config, tmp_path):
    folder = folder_of(config(), tmp_path)
    first = train(folder)
    stamp = (folder / "result.json").stat().st_mtime_ns
    assert train(folder) == first and (folder / "result.json").stat().st_mtime_ns == stamp


def test_the_same_config_gives_the_same_losses_bit_for_bit(config, tmp_path):
    first, second = (folder_of(config(), tmp_path / parent) for parent in ("a", "b"))
    assert train(first)["weights_sha256"] == train(second)["weights_sha256"]
    assert losses(first) == losses(second)


def test_a_diverged_run_is_a_result_with_step_and_reason(config, tmp_path):
    run = config(
        **{"optimizer.name": "sgdw", "optimizer.lr": 1e30, "training.clip_norm": None, "model.qk_norm": False}
    )
    folder = folder_of(run, tmp_path)
    result = train(folder)
    assert result["state"] == "diverged" and result["val_loss"] is None
    assert "step" in result["reason"] and 0 < result["step"] < 20
    assert "NaN" not in (folder / "result.json").read_text() + (folder / "metrics.jsonl").read_text()


@pytest.mark.parametrize(("name", "micro"), [("adam", 1), ("adam", 3), ("sophia", 3)])
def test_the_micro_batch_size_changes_nothing_but_rounding(config, name, micro):
    settings = {"optimizer.name": name, "training.precision": "float64"}
    if name == "sophia":
        settings["training.hessian_interval"] = 2
    whole = Run(config(**settings), torch.device("cpu"))
    parts = Run(config(**settings, **{"training.micro_batch_size": micro}), torch.device("cpu"))
    for step in range(5):
        loss, norm, _ = whole.step(step)
        other_loss, other_norm, _ = parts.step(step)
        torch.testing.assert_close(other_loss.double(), loss.double(), rtol=1e-6, atol=0)
        torch.testing.assert_close(other_norm, norm, rtol=1e-12, atol=0)
    for (name, a), (_, b) in zip(whole.model.named_parameters(), parts.model.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, msg=name)


def test_sophia_s_hessian_is_that_of_labels_drawn_from_the_model(config):
    """From h = 0 one refresh leaves (1 - beta2) g^2, g the gradient at the drawn labels."""
    run = Run(config(**{"optimizer.name": "sophia", "training.hessian_interval": 2}), torch.device("cpu"))
    seen = []
    original = run.optimizer.update_hessian
    run.optimizer.update_hessian = lambda: (seen.append(run.model.head.weight.grad.clone()), original())
    for step in range(4):
        run.step(step)
        assert len(seen) == (step + 1) // 2
        if step == 1:
            beta2 = run.optimizer.param_groups[0]["betas"][1]
            h = run.optimizer.state[run.model.head.weight]["h"]
            torch.testing.assert_close(h, (1 - beta2) * seen[0].square())
    x = torch.from_numpy(run.batches[1])
    true_labels, _ = run._losses(run.batches[1], 0.0)
    run.optimizer.zero_grad()
    true_labels.backward()
    assert not torch.allclose(run.model.head.weight.grad, seen[0]) and x.shape == (4, 16)


@pytest.mark.parametrize("name", ["adam", "adafactor", "lion", "signum", "sgdw"])
def test_every_optimizer_sees_gradients_of_norm_at_most_one(config, name):
    run = Run(config(**{"optimizer.name": name}), torch.device("cpu"))
    norms = []
    run.model.head.weight.register_hook(lambda gradient: gradient * 100)
    run.optimizer.register_step_pre_hook(
        lambda *_: norms.append(sum(p.grad.square().sum() for p in run.model.parameters()).sqrt().item())
    )
    _, norm, _ = run.step(0)
    assert norm > 1.5 and norms == [pytest.approx(1.0, abs=1e-5)]


def test_the_validation_loss_leaves_the_z_loss_out(config):
    plain, with_z = (Run(config(**{"training.z_loss": z}), torch.device("cpu")) for z in (0.0, 1.0))
    assert plain.validation_loss() == with_z.validation_loss()
    assert with_z.step(0)[0] > plain.step(0)[0] + 10


def test_effective_learning_rates_are_those_of_the_steps_taken(config, tmp_path):
    """Adam's step divides m by the denominator that its effective learning rate is the inverse of."""
    settings = {"optimizer.name": "adalayer_star", "training.effective_lr": True}
    run = Run(config(**settings), torch.device("cpu"))
    run.step(0)
    (group,) = (g for g in run.optimizer.param_groups if g["role"] == "head")
    head = run.model.head.weight
    before = head.detach().clone()
    run.step(1)
    state = run.optimizer.state[head]
    expected = before - run.optimizer.effective_lr(head, group) * state["m"] / (1 - 0.9**2)
    torch.testing.assert_close(head.detach(), expected)
    folder = folder_of(run.config, tmp_path)
    train(folder)
    rows = [row["effective_lr"] for row in read_metrics(folder) if "loss" in row]
    assert rows and rows[0].keys() == {
        "embedding", "head", "norm", "qkv", "attention_out", "mlp_in", "mlp_out"
    }  # fmt: skip
    assert all(q["q05"] <= q["q50"] <= q["q95"] for row in rows for q in row.values())


def test_effective_learning_rates_of_a_sign_are_refused_before_the_first_step(config):
    signum = config(**{"optimizer.name": "signum", "training.effective_lr": True})
    with pytest.raises(UserError, match="Signum divides by no second moment"):
        Run(signum, torch.device("cpu"))
