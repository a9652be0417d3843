"""A study under fire: several launchers on one folder, workers and launchers killed, the same table."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optstudy.launch import attempts

OPTSTUDY = Path(sys.executable).with_name("optstudy")
STUDY = """\
title: Forty
asks: Does every run end exactly once?
base:
  training: {steps: 60, batch_size: 4}
  data: {sequence_length: 16}
  model: {d_model: 8, n_layers: 1}
  validation: {sequences: 8, points: 2}
axes:
  optimizer.name: [adam, sgdw]
  optimizer.lr: [1e-3, 3e-3, 1e-2, 3e-2]
seeds: [0, 1, 2, 3, 4]
"""

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def start(file, runs, corpus, jobs):
    command = [OPTSTUDY, "run", file, "--runs", runs, "--out", runs.parent / "out", "--jobs", str(jobs)]
    return subprocess.Popen(
        [*map(str, command), f"--set=data.corpus={corpus}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def results(runs):
    keys = ("id", "state", "val_loss", "weights_sha256", "step")
    found = (json.loads(path.read_text()) for path in sorted(runs.glob("*/result.json")))
    return [{key: result[key] for key in keys} for result in found]


def children(pid):
    """Processes that a process started, and theirs."""
    try:
        direct = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in direct] + [one for child in direct for one in children(int(child))]


def workers(launcher):
    """A launcher's processes that train: those that hold a lease."""
    leases = (json.loads(path.read_text()) for path in launcher.runs.glob("*/lease-*.json"))
    return {one["pid"] for one in leases if "pid" in one} & set(children(launcher.pid))


def test_every_run_ends_exactly_once_whoever_is_killed(corpus_slice, tmp_path):
    file = tmp_path / "forty.yaml"
    file.write_text(STUDY)
    quiet = tmp_path / "quiet"
    undisturbed = start(file, quiet, corpus_slice, 2)
    _, said = undisturbed.communicate()
    assert undisturbed.returncode == 0, said
    runs, rng, killed, launchers_killed = tmp_path / "chaos", random.Random(0), 0, 0
    launchers = [start(file, runs, corpus_slice, 2) for _ in range(3)]
    written = {}
    began = time.monotonic()
    while any(launcher.poll() is None for launcher in launchers):
        assert time.monotonic() - began < 600
        time.sleep(1)
        for path in runs.glob("*/result.json"):
            stamp = path.stat().st_mtime_ns
            assert written.setdefault(path, stamp) == stamp, "a result was written twice"
        alive = [launcher for launcher in launchers if launcher.poll() is None]
        for launcher in alive:
            launcher.runs = runs
        at_work = [pid for launcher in alive for pid in workers(launcher)]
        if len(at_work) > 1:
            os.kill(rng.choice(at_work), signal.SIGKILL)
            killed += 1
        if launchers_killed < 2 and len(written) > 10 * (launchers_killed + 1) and alive:
            victim = rng.choice(alive)
            os.kill(victim.pid, signal.SIGKILL)
            launchers_killed += 1
            launchers.append(start(file, runs, corpus_slice, 2))
    for launcher in launchers:
        said = launcher.stderr.read().decode()
        assert launcher.wait() in (0, -signal.SIGKILL), said
        launcher.stderr.close()
    assert killed > 10 and launchers_killed == 2
    assert results(runs) == results(quiet) and len(results(runs)) == 40
    for folder in runs.iterdir():
        ends = [row for row in attempts.read(folder) if row["event"] == "end"]
        assert [row["code"] for row in ends].count(0) <= 1
        assert not list(folder.glob("lease-*"))
