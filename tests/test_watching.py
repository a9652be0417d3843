"""What a run shows while it trains: norms, effective rates, trackers, the bar; and the precision ``auto``."""

import json
import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from optstudy.commands import progress_bar
from optstudy.config import RunConfig
from optstudy.errors import UserError, validate
from optstudy.record import read_json, read_metrics
from optstudy.training import probe
from optstudy.training.compiling import choose_precision
from optstudy.training.run import Run, decile_of
from optstudy.training.train import train
from tests.configs import TINY, folder_of, losses, tiny, tiny_on

CPU = torch.device("cpu")


def test_what_watches_is_no_part_of_the_id_and_changes_no_weight(corpus_slice, tmp_path):
    plain = tiny_on(corpus_slice)
    watched = tiny_on(corpus_slice, **{"watch.norms": True})
    assert plain.id == watched.id and watched.watch.norms
    first = train(folder_of(plain, tmp_path / "plain"))
    second = train(folder := folder_of(watched, tmp_path / "watched"))
    assert first["weights_sha256"] == second["weights_sha256"]
    assert losses(folder) == losses(tmp_path / "plain" / plain.id)
    older = plain.model_dump(mode="json")
    del older["watch"]
    assert validate(RunConfig, older) == plain


@pytest.mark.parametrize("name", ["adam", "sophia", "hybrid_last_norm", "adalayer_star_norms_off"])
def test_norms_are_those_of_one_step_by_role(corpus_slice, name):
    settings = {"optimizer.name": name, "watch.norms": True, "training.hessian_interval": 1}
    run = Run(tiny_on(corpus_slice, **settings), CPU)
    run.step(0)
    assert run.probe() == {}
    before = [p.detach().clone() for p in run.model.parameters()]
    gradients = {}
    run.optimizer.register_step_pre_hook(
        lambda *_: gradients.update({p: p.grad.clone() for p in run.model.parameters()})
    )
    run.probe.expect(True)
    run.step(1)
    run.probe.expect(False)
    found = run.probe()["norms"]
    assert run.probe() == {}
    change = {p: p.detach() - b for p, b in zip(run.model.parameters(), before, strict=True)}
    for group_role in {group["role"] for group in run.optimizer.param_groups}:
        own = [p for g in run.optimizer.param_groups if g["role"] == group_role for p in g["params"]]
        expected = {
            "gradient": torch.cat([gradients[p].flatten() for p in own]).norm().item(),
            "update": torch.cat([change[p].flatten() for p in own]).norm().item(),
            "weight": torch.cat([p.detach().flatten() for p in own]).norm().item(),
        }
        assert found.pop(group_role) == pytest.approx(expected, rel=1e-5)
    assert not found


def test_every_row_of_the_metrics_has_the_norms_and_they_make_up_the_clipped_gradient(corpus_slice, tmp_path):
    config = tiny_on(corpus_slice, **{"watch.norms": True, "training.effective_lr": True})
    train(folder := folder_of(config, tmp_path))
    rows = [row for row in read_metrics(folder) if "loss" in row]
    assert len(rows) == 20
    for row in rows:
        total = sum(of["gradient"] ** 2 for of in row["norms"].values()) ** 0.5
        assert total == pytest.approx(min(1.0, row["grad_norm"]), rel=1e-4)
        assert row["norms"].keys() == row["effective_lr"].keys()


def test_effective_rates_are_the_exact_quantiles_of_small_tensors_and_near_them_for_large(corpus_slice):
    run = Run(tiny_on(corpus_slice, **{"training.effective_lr": True}), CPU)
    run.step(0)
    values = {}
    for group in run.optimizer.param_groups:
        own = [run.optimizer.effective_lr(p, group).flatten() for p in group["params"]]
        values.setdefault(group["role"], []).extend(own)
    for role, found in run.probe()["effective_lr"].items():
        exact = torch.cat(values[role]).double().quantile(torch.tensor([*probe.QUANTILES.values()]).double())
        assert list(found.values()) == pytest.approx(exact.tolist(), rel=1e-5)
    wide = [torch.rand(3000, 1000), torch.rand(2_000_000)]
    near = probe._quantiles(wide)
    assert [*near.values()] == pytest.approx([*probe.QUANTILES.values()], abs=5e-3)


def test_tensorboard_shows_what_the_metrics_say_once_also_after_a_kill(corpus_slice, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny_on(corpus_slice, **{"watch.tensorboard": True, "watch.norms": True})
    folder = folder_of(config, tmp_path)

    def killed(row):
        if row["step"] == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(folder, on_progress=killed, checkpoint_minutes=0)
    train(folder)
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    rows = [row for row in read_metrics(folder) if "loss" in row]
    for tag, of in {
        "loss": lambda row: row["loss"],
        "norms/head/update": lambda row: row["norms"]["head"]["update"],
    }.items():
        shown = [(event.step, event.value) for event in events.Scalars(tag)]
        assert shown == [(row["step"], pytest.approx(of(row), rel=1e-6)) for row in rows]
    assert {"val_loss", "grad_norm", "lr", "tokens"} <= set(events.Tags()["scalars"])


def test_weights_and_biases_gets_the_metrics_offline(corpus_slice, tmp_path):
    pytest.importorskip("wandb")
    config = tiny_on(corpus_slice, **{"watch.wandb": "a-project"})
    folder = folder_of(config, tmp_path)
    environment = {**os.environ, "WANDB_MODE": "offline"}
    command = [sys.executable, "-m", "optstudy", "train", folder]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr, ended.stderr
    (record,) = (folder / "wandb").glob(f"offline-run-*-{config.id}/run-{config.id}.wandb")
    written = record.read_bytes()
    final = read_json(folder / "result.json")["val_loss"]
    assert b"val_loss" in written and repr(final).encode() in written and b"a-project" in written


@pytest.mark.parametrize(("key", "value"), [("tensorboard", True), ("wandb", "a-project")])
def test_a_tracker_that_is_not_installed_is_named_with_its_extra(
    corpus_slice, tmp_path, monkeypatch, key, value
):
    for module in [
        name for name in sys.modules if name.split(".")[0] == key or "torch.utils.tensorb" in name
    ]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, key, None)
    folder = folder_of(tiny_on(corpus_slice, **{f"watch.{key}": value}), tmp_path)
    with pytest.raises(UserError, match=rf"pip install 'optstudy\[{key}\]'"):
        train(folder)


def on_a_terminal(command):
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**os.environ, "COLUMNS": "120"})
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 1 << 16):
            said += part
    except OSError:  # the terminal's other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.decode())


def test_on_a_terminal_a_bar_shows_loss_speed_and_time_left(corpus_slice, tmp_path):
    folder = folder_of(tiny_on(corpus_slice, **{"training.steps": 800}), tmp_path)
    said = on_a_terminal([sys.executable, "-m", "optstudy", "train", folder])
    assert re.search(r"step \d+/800  loss \d\.\d{3}  [\d,]+ tokens/s \d+:\d\d:\d\d", said), said


def test_elsewhere_a_line_a_minute_says_the_same(tmp_path, monkeypatch, capsys):
    folder = folder_of(tiny(**{"training.steps": 1000}), tmp_path)
    with progress_bar.ProgressBar(folder) as bar:
        bar.update({"step": 100, "tokens": 6400, "loss": 5.0, "seconds": 10.0})
        monkeypatch.setattr(progress_bar, "LINE_SECONDS", 0.0)
        bar.update({"step": 200, "tokens": 12800, "val_loss": 4.5, "seconds": 30.0})
        bar.update({"step": 200, "tokens": 12800, "loss": 4.0, "seconds": 30.0})
    assert capsys.readouterr().err == f"{folder.name}: step 200/1000  loss 4.000  320 tokens/s  3 min left\n"


@pytest.mark.parametrize(
    ("has", "width", "expected"), [(True, 512, "bfloat16"), (True, 8, "float32"), (False, 512, "float32")]
)
def test_auto_is_bfloat16_where_the_processor_has_it_and_the_model_is_not_tiny(
    monkeypatch, has, width, expected
):
    monkeypatch.setattr("optstudy.training.compiling.cpu_has_bfloat16", lambda: has)
    config = tiny(**{"model.d_model": width})
    assert choose_precision(config, CPU)[0] == expected


def test_auto_says_what_it_chose_and_is_never_recorded(corpus_slice, tmp_path):
    file = tmp_path / "run.json"
    config = {**TINY, "data": {**TINY["data"], "corpus": corpus_slice}}
    del config["data"]["fingerprint"]
    config["training"] = {**TINY["training"], "precision": "auto"}
    file.write_text(json.dumps(config))
    command = [sys.executable, "-m", "optstudy", "train", file, "--runs", tmp_path / "runs"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    recorded = read_json(folder / "config.json")["training"]["precision"]
    assert recorded == "float32" and f"training.precision: auto is {recorded} here: " in ended.stderr


def test_a_study_refuses_auto(tmp_path):
    command = [sys.executable, "-m", "optstudy", "show", "demo", "--set", "training.precision=auto"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and "training.precision" in ended.stderr and "'auto'" in ended.stderr


def test_flat_names_of_a_row_are_its_paths():
    from optstudy.training.trackers import flat

    row = {"step": 3, "loss": 1.0, "norms": {"head": {"update": np.float64(2.0)}}}
    assert dict(flat(row)) == {"loss": 1.0, "norms/head/update": 2.0}


def test_second_moments_are_told_by_axis_and_steps_by_their_distance(corpus_slice):
    """Restated in numpy: ratios along each axis, and cosines over all weights of a role."""
    run = Run(tiny_on(corpus_slice, **{"optimizer.name": "adam", "watch.moments": True}), CPU)
    for step in range(5):
        run.step(step)
    found = run.probe()["moments"]
    by_role = {group["role"]: group for group in run.optimizer.param_groups}
    for role, group in by_role.items():
        state = [run.optimizer.state[p] for p in group["params"]]
        m, v = ([s[name].numpy().astype(np.float64) for s in state] for name in "mv")
        for axis, over in (("row", 1), ("column", 0), ("tensor", None)):
            matrices = [(one.mean(over), one.var(over)) for one in v if one.ndim > 1]
            ratios = [np.mean(mean[mean > 0] ** 2 / var[mean > 0]) for mean, var in matrices]
            if ratios:
                assert found[role][axis] == pytest.approx(np.mean(ratios), rel=1e-3)
            else:
                assert axis not in found[role]
        blocks = {"head": lambda one: one.mean(1, keepdims=True), "qkv": lambda one: np.repeat(
            one.reshape(3, -1).mean(1), len(one) // 3)[:, None]}  # fmt: skip
        layers = [blocks.get(role, np.mean)(one) for one in v]
        adam = np.concatenate([(a / (np.sqrt(b) + group["eps"])).ravel() for a, b in zip(m, v, strict=True)])
        sign = np.concatenate([np.sign(a).ravel() for a in m])
        layer = np.concatenate([(a / np.sqrt(b)).ravel() for a, b in zip(m, layers, strict=True)])
        for name, other in (("from_signum", sign), ("from_adalayer_star", layer)):
            cosine = adam @ other / np.linalg.norm(adam) / np.linalg.norm(other)
            assert found[role][name] == pytest.approx(1 - cosine, abs=1e-4)


def test_moments_are_refused_without_one_per_weight(corpus_slice):
    with pytest.raises(UserError, match=r"watch\.moments"):
        Run(tiny_on(corpus_slice, **{"optimizer.name": "lion", "watch.moments": True}), CPU)


def test_validation_losses_by_frequency_make_up_the_validation_loss(corpus_slice, tmp_path):
    settings = {"watch.deciles": True, "optimizer.name": "lion"}
    watched, plain = (tiny_on(corpus_slice, **{**settings, "watch.deciles": on}) for on in (True, False))
    assert watched.id == plain.id
    run = Run(watched, CPU)
    loss = run.validation_loss()
    assert loss == Run(plain, CPU).validation_loss()
    counts = np.bincount(run._decile_of[torch.from_numpy(run.held_out[:, 1:])].ravel().numpy(), minlength=10)
    total = sum(n * part for n, part in zip(counts, run.deciles, strict=True) if n)
    assert total / counts.sum() == pytest.approx(loss, rel=1e-6)
    train(folder := folder_of(watched, tmp_path))
    rows = [row["deciles"] for row in read_metrics(folder) if "val_loss" in row]
    assert len(rows) > 2 and all(len(row) == 10 for row in rows)


def test_deciles_hold_about_a_tenth_of_the_tokens_each():
    tokens = np.random.default_rng(0).zipf(1.3, 50_000) % 2048
    share = np.bincount(decile_of(tokens, 2048)[tokens], minlength=10) / len(tokens)
    counts = np.bincount(tokens, minlength=2048)
    assert (np.diff(decile_of(tokens, 2048)[np.argsort(counts, kind="stable")]) >= 0).all()
    assert share[:5] == pytest.approx(0.1, abs=0.03)  # a piece as common as a decile has one to itself
