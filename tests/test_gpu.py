"""What only a GPU can show: that no step waits for it, and that it computes what a CPU does."""

import copy
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from optstudy.record import read_metrics
from optstudy.training.run import Run
from optstudy.training.train import train
from tests.configs import folder_of, losses, tiny_on
from tests.device import DEVICE
from tests.test_optim_torch import every_rule, make, parameters, run

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(DEVICE.type == "cpu", reason="make test-gpu runs it")]


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that not everything is noticed
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@every_rule
@pytest.mark.parametrize("compile_", [False, True])
def test_no_step_waits_for_the_gpu(name: str, compile_: bool) -> None:
    params = parameters()
    optimizer = make(name, params, compile=compile_, weight_decay=0.1)
    for p in params:
        p.grad = torch.ones_like(p)
    for _ in range(4):  # to the end of an estimate and after
        optimizer.step()
    with waiting_is_an_error():
        optimizer.step()


@every_rule
def test_a_state_goes_from_the_gpu_to_a_cpu_and_back(name: str) -> None:
    here = parameters(torch.float64)
    optimizer = make(name, here)
    run(optimizer, here, range(3))
    there = [p.detach().cpu().requires_grad_() for p in here]
    on_cpu = make(name, there, lr=1.0)
    on_cpu.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(on_cpu, there, range(3, 5))
    back = [p.detach().to(DEVICE).requires_grad_() for p in there]
    again = make(name, back, lr=1.0)
    again.load_state_dict(copy.deepcopy(on_cpu.state_dict()))
    run(again, back, range(5, 7))
    run(optimizer, here, range(3, 7))
    for p, q in zip(here, back, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["adam", "sophia", "adafactor_bigvision"])
def test_a_run_goes_as_on_a_cpu(name: str, corpus_slice: str, tmp_path: Any) -> None:
    config = tiny_on(corpus_slice, **{"optimizer.name": name, "optimizer.lr": 1e-3})
    found = []
    for device in ("cpu", DEVICE.type):
        folder = folder_of(config, tmp_path / device)
        train(folder, device=device)
        found.append([x for _, *both in losses(folder) for x in both if x is not None])
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_a_run_in_bfloat16_learns_and_says_what_it_ran_on(corpus_slice: str, tmp_path: Any) -> None:
    large = {"model.d_model": 64, "training.steps": 60, "training.precision": "bfloat16"}
    folder = folder_of(tiny_on(corpus_slice, **large), tmp_path)
    result = train(folder, device=DEVICE.type)
    assert result["val_loss"] < result["initial_val_loss"] - 0.3
    assert json.loads((folder / "env.json").read_text())["device"] == torch.cuda.get_device_name(DEVICE)
    assert 0 < result["peak_memory_mb"] < 1000
    assert [row["step"] for row in read_metrics(folder) if "loss" in row][-1] == 60


def test_a_training_step_does_not_wait_for_the_gpu(corpus_slice: str) -> None:
    taken = Run(tiny_on(corpus_slice), DEVICE)
    for step in range(3):
        taken.step(step)
    with waiting_is_an_error():
        taken.step(3)
