"""A machine as a new user may have it: no compiler, no home folder, a path with a blank and an umlaut."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.test_cli import OPTSTUDY, STUDY, TINY

MINE = """\
import torch


class Mine(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad.sign(), alpha=-group["lr"])
"""
SMALL = [f"--set={key}={value}" for key, value in {**TINY, "optimizer.lr": 1e-2, "training.steps": 4}.items()]


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """A bare environment, in a folder with such a name."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "uname"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    folder = tmp_path / "Größe und mehr"
    folder.mkdir()
    monkeypatch.chdir(folder)
    cache = os.environ.get("OPTSTUDY_CACHE") or str(Path("~/.cache/optstudy").expanduser())
    return {"PATH": str(tools), "OPTSTUDY_CACHE": cache, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}


def carry_out(plain, *arguments):
    command = [OPTSTUDY, *arguments]
    done = subprocess.run(command, env=plain, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_own_text_own_optimizer_and_report(plain):
    lines = (f"Line {number} of a text of my own, as long as it is.\n" for number in range(9000))
    Path("mein Text ä.txt").write_text("\n".join(lines), encoding="utf-8")
    Path("mine.py").write_text(MINE)
    Path("s.yaml").write_text(STUDY)
    chosen = [*SMALL, "--set=data.corpus=path:mein Text ä.txt", "--set=data.tokenizer=bpe-300"]
    said = carry_out(plain, "run", "s.yaml", *chosen, "--set=optimizer.name=mine.Mine")
    assert "wrote report/s/pico/index.html" in said and "Mine" in said
    assert "too early" not in said and Path("report/s/pico/figure.png").exists()
    assert "1 runs to runs.csv" in carry_out(plain, "export")


def test_without_a_home_folder_and_a_cache_it_says_what_to_set(plain):
    del plain["OPTSTUDY_CACHE"]
    carry_out(plain, "studies")
    assert "fig1" in carry_out(plain, "claims")
    assert "report" in carry_out(plain, "--help")
