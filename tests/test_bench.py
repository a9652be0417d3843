"""Measuring speed: what is asked for is checked, and a bench may take more steps than a run has."""

import sys

import pytest
import torch

from optstudy import cli
from optstudy.bench import train as bench_train
from optstudy.training.run import peak_memory_mb
from tests.configs import tiny_on

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["optim", "--rounds", "0"], "--rounds: input should be at least 1, not 0"),
        (["train", "--rounds", "-1"], "--rounds: input should be at least 1, not -1"),
        (["train", "--threads", "-1"], "--threads: input should be at least 1, not -1"),
    ],
)
def test_counts_below_one_are_refused(command, said, capsys):
    assert cli.run(["bench", *command]) == 2
    assert said in capsys.readouterr().err


def test_a_bench_takes_more_steps_than_the_run_has(corpus_slice):
    step = bench_train._ours(tiny_on(corpus_slice, **{"training.steps": 2}), CPU)
    for _ in range(4):
        step()


def test_the_systems_peak_memory_is_in_bytes_on_a_mac(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    in_kilobytes = peak_memory_mb(CPU)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak_memory_mb(CPU) == pytest.approx(in_kilobytes / 1024, rel=0.1)
