"""Compiled steps: the same run as plain ones, to rounding, and bit for bit the same again."""

import os
import subprocess
import sys

import pytest
import torch

from optstudy.training import compiling
from optstudy.training.run import Run
from optstudy.training.train import train
from tests.configs import folder_of, losses, tiny, tiny_on
from tests.device import DEVICE


@pytest.fixture
def config(corpus_slice):
    return tiny_on(corpus_slice, **{"optimizer.name": "sophia", "optimizer.lr": 1e-3})


def test_compiled_and_plain_runs_agree_to_rounding(config, tmp_path, monkeypatch):
    found = []
    for switch in "01":
        monkeypatch.setenv(compiling.SWITCH, switch)
        folder = folder_of(config, tmp_path / switch)
        train(folder, device=DEVICE.type)
        found.append([x for _, *both in losses(folder) for x in both if x is not None])
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[0] != found[1]


def test_all_blocks_share_one_compilation(config, monkeypatch):
    monkeypatch.setenv(compiling.SWITCH, "1")
    deep = config.model_copy(update={"model": config.model.model_copy(update={"n_layers": 5})})
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    Run(deep, DEVICE).step(0)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4  # block, its loss, optimizer kernels


def test_the_smallest_models_are_not_compiled(monkeypatch):
    monkeypatch.delenv(compiling.SWITCH, raising=False)
    assert not compiling.pays(tiny(), DEVICE)
    assert compiling.pays(tiny(**{"model.d_model": 512}), DEVICE)


def test_without_a_compiler_steps_are_plain_and_it_is_said_once(config):
    code = (
        "import sys, torch; from optstudy.training import compiling; from optstudy.scales import SCALES\n"
        "import warnings\n"
        "from tests.configs import tiny\n"
        "with warnings.catch_warnings(record=True) as said:\n"
        "    warnings.simplefilter('always')\n"
        "    big = tiny(**{'model.d_model': 512})\n"
        "    print([compiling.pays(big, torch.device('cpu')) for _ in range(2)])\n"
        "print(sum('not compiled' in str(w.message) for w in said))\n"
    )
    env = {**os.environ, "CXX": "/nonexistent", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.split("\n")[:2] == ["[False, False]", "1"], done.stderr[-2000:]


def test_one_process_compiles_while_the_others_wait(monkeypatch, tmp_path):
    monkeypatch.setenv("OPTSTUDY_CACHE", str(tmp_path))
    with compiling.one_at_a_time(tiny(), torch.device("cpu")):
        [lock] = (tmp_path / "compiled" / "steps").glob("*.lock")
        assert not lock.with_suffix("").exists()
    assert lock.with_suffix("").exists()
