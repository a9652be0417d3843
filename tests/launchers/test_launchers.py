"""Real Slurm and real Ray give the table that local workers give, bit for bit (``make test-launchers``)."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

OPTSTUDY = [sys.executable, "-m", "optstudy"]
HERE = Path(__file__).parent
STUDY = """\
title: Small
asks: Is it the same everywhere?
base:
  training: {steps: STEPS, batch_size: 4}
  data: {sequence_length: 16}
  model: {d_model: 8, n_layers: 1}
  validation: {sequences: 8, points: 2}
axes:
  optimizer.name: [adam, sgdw]
  optimizer.lr: [1e-3, 1e-2, 1e-1]
"""

OWN = {
    "mine.py": """\
import torch

import step


class Plain(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                step.down(p, group["lr"])
""",
    "step.py": """\
def down(p, lr):
    p.add_(p.grad, alpha=-lr)
""",
    "optimizer.yaml": """\
title: Own
asks: Is a class of this folder found everywhere?
base:
  training: {steps: 20, batch_size: 4}
  data: {corpus: "path:my.jsonl", tokenizer: bpe-300, sequence_length: 16}
  model: {vocab_size: 300, d_model: 8, n_layers: 1}
  validation: {sequences: 8, points: 2}
axes: {optimizer.name: [mine.Plain], optimizer.lr: [0.01, 0.1]}
""",
    "train.py": """\
import hashlib, pathlib, sys

import optstudy
import step

trial = optstudy.trial()
text = pathlib.Path("my.jsonl").read_bytes()
told = {"text": hashlib.sha256(text).hexdigest(), "argv": sys.argv}
trial.finish(val_loss=(trial["optimizer.lr"] - 0.02) ** 2, **told)
""",
    "program.yaml": """\
title: Own
asks: Is a program of this folder found everywhere?
trainer: {command: [PYTHON, train.py, "{optimizer.lr}"]}
axes: {optimizer.lr: [0.01, 0.1]}
""",
}
"""A folder with studies whose paths and modules are all relative to it."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def missing(what):
    """Skip, but not where the launchers are what is tested."""
    say = pytest.fail if os.environ.get("OPTSTUDY_LAUNCHERS") == "required" else pytest.skip
    say(f"needs {what}: make test-launchers installs it")


def run(tmp_path, corpus, launcher, steps=60, options=(), **environment):
    file = tmp_path / "small.yaml"
    file.write_text(STUDY.replace("STEPS", str(steps)))
    words = [file, "--runs", tmp_path / launcher, "--out", tmp_path / "out"]
    return started(
        tmp_path, *words, "--launcher", launcher, f"--set=data.corpus={corpus}", *options, **environment
    )


def started(folder, *words, **environment):
    return subprocess.Popen(
        [*OPTSTUDY, "run", *map(str, words)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def ended(launched):
    said, _ = launched.communicate(timeout=500)
    assert launched.returncode == 0, said
    return said


def results(folder):
    keys = ("id", "state", "val_loss", "weights_sha256", "step", "reported")
    found = (json.loads(path.read_text()) for path in sorted(folder.glob("*/result.json")))
    return [{key: result.get(key) for key in keys} for result in found]


def same_with_a_folder_of_ones_own(folder, launcher, **environment):
    """Run both studies of a folder, from within it, by local workers and a launcher."""
    lines = [json.dumps({"text": f"line {k} of some text " * 40}) for k in range(60)]
    files = {
        **OWN,
        "my.jsonl": "\n".join(lines),
        "program.yaml": OWN["program.yaml"].replace("PYTHON", sys.executable),
    }
    for name, content in files.items():
        (folder / name).write_text(content)
    for study in ("optimizer.yaml", "program.yaml"):
        for one in ("local", launcher):
            ended(
                started(folder, study, "--runs", one, "--out", f"out-{one}", "--launcher", one, **environment)
            )
        assert results(folder / launcher) == results(folder / "local")
    assert len(results(folder / launcher)) == 4


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    if shutil.which("sbatch") is None or shutil.which("munged") is None or os.geteuid() != 0:
        missing("slurm-wlm and munge, as root")
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run(["bash", HERE / "slurm.sh", "start", folder], check=True)
    yield {"SLURM_CONF": str(folder / "slurm.conf")}
    subprocess.run(["bash", HERE / "slurm.sh", "stop", folder], check=True)


def test_slurm_gives_the_table_of_local_workers(slurm, corpus_slice, tmp_path):
    ended(run(tmp_path, corpus_slice, "local"))
    ended(run(tmp_path, corpus_slice, "slurm", **slurm))
    assert results(tmp_path / "slurm") == results(tmp_path / "local")
    assert len(results(tmp_path / "slurm")) == 6


def test_slurm_finds_the_files_and_modules_of_the_folder_that_the_study_was_run_in(slurm, tmp_path):
    same_with_a_folder_of_ones_own(tmp_path, "slurm", **slurm)


def test_a_preempted_job_is_requeued_and_goes_on_from_its_checkpoint(slurm, corpus_slice, tmp_path):
    steps = 4000
    ended(run(tmp_path, corpus_slice, "local", steps))
    launched = run(tmp_path, corpus_slice, "slurm", steps, **slurm)
    while not list((tmp_path / "slurm").glob("*/metrics.jsonl")):
        assert launched.poll() is None
        time.sleep(0.2)
    urgent = ["sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 2"]
    subprocess.run(urgent, check=True, env={**os.environ, **slurm}, capture_output=True)
    ended(launched)
    assert results(tmp_path / "slurm") == results(tmp_path / "local")
    attempts = [path.read_text() for path in (tmp_path / "slurm").glob("*/attempts.jsonl")]
    assert any('"code": 75' in one and one.count('"start"') > 1 for one in attempts), "nothing was preempted"
    resumed = [json.loads(line) for one in attempts for line in one.splitlines()]
    assert any(row["event"] == "start" and row["step"] > 0 for row in resumed)


def test_a_job_that_never_gets_to_its_run_is_set_aside_after_the_second(slurm, corpus_slice, tmp_path):
    launched = run(tmp_path, corpus_slice, "slurm", options=["--slurm", "setup=[exit 1]"], **slurm)
    said, _ = launched.communicate(timeout=120)
    assert launched.returncode != 0 and said.count("failed 2 times") == 6, said
    assert "ended without a message" in said and not results(tmp_path / "slurm")


def test_a_full_disk_on_the_node_ends_the_study_with_its_one_line(slurm, corpus_slice, tmp_path):
    options = ["--slurm", "setup=[ulimit -f 2]"]
    launched = run(tmp_path, corpus_slice, "slurm", 2000, options=options, **slurm)
    said, _ = launched.communicate(timeout=120)
    assert launched.returncode == 2 and "metrics.jsonl: File too large" in said.splitlines()[-1], said
    subprocess.run(["scancel", "--me"], env={**os.environ, **slurm}, check=True)


def test_ray_gives_the_table_of_local_workers(corpus_slice, tmp_path):
    if importlib.util.find_spec("ray") is None:
        missing("Ray")
    ended(run(tmp_path, corpus_slice, "local"))
    ended(run(tmp_path, corpus_slice, "ray", RAY_AUTH_MODE="disabled"))
    assert results(tmp_path / "ray") == results(tmp_path / "local")
    assert len(results(tmp_path / "ray")) == 6


def test_ray_finds_the_files_and_modules_of_the_folder_that_the_study_was_run_in(tmp_path):
    if importlib.util.find_spec("ray") is None:
        missing("Ray")
    same_with_a_folder_of_ones_own(tmp_path, "ray", RAY_AUTH_MODE="disabled")
