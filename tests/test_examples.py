"""The programs of ``examples/``, and the tutorial on a script of one's own, as its reader carries it out."""

import json
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests import pages
from tests.test_init import HERE, needs_transformers
from tests.test_trainer import optstudy_command, until

EXAMPLES = pages.ROOT / "examples"
CASES = {
    "gpt": ("--set", "max_iters=20", "--axis", "optimizer.lr=0.01", "--seeds", "1"),
    "trainer": ("--set", "steps=10", "--set", "optimizer.name=adalayer_star", "--axis", "optimizer.lr=0.01"),
    "function": ("--axis", "optimizer.lr=0.01", "--set", "width=8"),
    "other-language": (),
}
RUNS = {"gpt": 2, "trainer": 1, "function": 2, "other-language": 15}


MARKS = {"trainer": needs_transformers, "gpt": pytest.mark.long}


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, ())) for name in CASES])
def test_an_example_runs(name, tmp_path):
    shutil.copytree(EXAMPLES / name, tmp_path / name)
    said = optstudy_command("run", "sweep.yaml", "--jobs", 2, *CASES[name], cwd=tmp_path / name, **HERE)
    assert said.returncode == 0, said.stdout + said.stderr
    results = [json.loads(path.read_text()) for path in (tmp_path / name).glob("runs/*/result.json")]
    assert [one["state"] for one in results] == ["done"] * RUNS[name]
    assert all(0 < one["val_loss"] < 10 for one in results)
    if name != "gpt":  # it knows nothing of optstudy
        assert all(path.read_text() for path in (tmp_path / name).glob("runs/*/metrics.jsonl"))
        assert len(list((tmp_path / name).glob("runs/*/metrics.jsonl"))) == RUNS[name]


def test_every_example_is_carried_out():
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} == CASES.keys()


STAND_IN = textwrap.dedent("""
    import math, random, sys, time

    out_dir, optimizer, learning_rate, max_iters, seed = "out", "adamw", 1e-3, 600000, 1337
    for argument in sys.argv[1:]:
        key, equals, value = argument.removeprefix("--").partition("=")
        if not equals or key not in globals():
            raise ValueError(f"Unknown config key: {key}")
        globals()[key] = type(globals()[key])(value)
    best, behind = {"adamw": (1e-2, 0), "sgd": (0.1, 0.5), "rmsprop": (1e-2, 0.1)}[optimizer]
    noise = random.Random(f"{seed} {optimizer} {learning_rate}").gauss(0, 0.01)
    loss = 2 + behind + 0.3 * math.log10(learning_rate / best) ** 2 + noise
    open("started.txt", "a").write(f"{optimizer} {learning_rate} {seed}\\n")
    for step in range(0, max_iters + 1, max_iters // 2):
        now = loss + math.exp(-step / max_iters)
        print(f"step {step}: train loss {now:.4f}, val loss {now:.4f}", flush=True)
        print(f"iter {step}: loss {now:.4f}, time 1.00ms, mfu -100.00%", flush=True)
        time.sleep(0.1)
""")
"""nanoGPT's interface, and what it prints; its losses are a formula."""


def commands():
    """The tutorial's command lines that run its study, as words."""
    page = pages.of("docs/tutorials/own-script.md", "sh")
    lines = [line.split() for block in page for line in pages.commands(block)]
    return [line[2:] for line in lines if line[:2] == ["optstudy", "run"]]


def test_the_tutorial_on_a_script_of_ones_own(tmp_path):
    (sweep,) = pages.of("docs/tutorials/own-script.md", "yaml")
    (tmp_path / "sweep.yaml").write_text(sweep.text)
    (tmp_path / "train.py").write_text(STAND_IN)
    run, add_optimizer, _ = commands()

    def done():
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/result.json")}

    for least in (2, 6):  # killed twice
        process = subprocess.Popen(
            [sys.executable, "-m", "optstudy", "run", *run],
            cwd=tmp_path,
            env={**HERE, "PYTHONPATH": str(pages.ROOT / "src")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(lambda least=least: len(done()) >= least, 100)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.5)
    kept = done()
    said = optstudy_command("run", *run, cwd=tmp_path, **HERE)
    assert said.returncode == 0, said.stdout + said.stderr
    assert len(done()) == 20 and kept.items() <= done().items()
    for verdict in ("AdamW reaches a lower loss than SGD", "AdamW loses less than 0.5 nats"):
        assert verdict in said.stdout
    assert said.stdout.count("holds") >= 2 and "not decided" not in said.stdout
    kept, begun = done(), len((tmp_path / "started.txt").read_text().splitlines())
    said = optstudy_command("run", *add_optimizer, cwd=tmp_path, **HERE)
    assert said.returncode == 0, said.stdout + said.stderr
    started = (tmp_path / "started.txt").read_text().splitlines()[begun:]
    assert len(started) == 10 and all(line.startswith("rmsprop") for line in started)
    assert len(done()) == 30 and kept.items() <= done().items()
    assert re.search(r"^rmsprop +\d\.\d+ ± \d", said.stdout, re.MULTILINE)
