"""A run that is killed and resumed ends as if it had never stopped."""

import hashlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from optstudy.ending import Preempted, Unloadable
from optstudy.record import read_result
from optstudy.training import checkpoint
from optstudy.training.train import train
from tests.configs import folder_of, losses, tiny_on
from tests.device import DEVICE

WORKER = """
import sys
from pathlib import Path
from optstudy.training.train import Preempted, train
try:
    train(Path(sys.argv[1]), device=sys.argv[3], checkpoint_minutes=float(sys.argv[2]))
except Preempted:
    sys.exit(75)
"""


def start(folder, checkpoint_minutes):
    return subprocess.Popen([sys.executable, "-c", WORKER, str(folder), str(checkpoint_minutes), DEVICE.type])


def wait_for_rows(folder, count, worker):
    while len(losses(folder)) < count and worker.poll() is None:
        time.sleep(0.005)


def run_and_kill(corpus, tmp_path, kills, steps, generator):
    config = tiny_on(corpus, **{"training.steps": steps, "optimizer.weight_decay": 0.1})
    undisturbed = folder_of(config, tmp_path / "undisturbed")
    expected = train(undisturbed, device=DEVICE.type)
    killed = folder_of(config, tmp_path / "killed")
    done = 0
    while read_result(killed) is None:
        worker = start(killed, 0)
        if done < kills:
            before = len(losses(killed))
            wait_for_rows(killed, before + 1, worker)
            time.sleep(generator.uniform(0, 0.1))
            worker.send_signal(signal.SIGKILL)
            done += 1
        worker.wait()
    assert done == kills
    assert read_result(killed)["weights_sha256"] == expected["weights_sha256"]
    assert losses(killed) == losses(undisturbed)
    assert not (killed / "checkpoints").exists()


def test_killed_at_random_moments_a_run_ends_bitwise_as_undisturbed(corpus_slice, tmp_path):
    run_and_kill(corpus_slice, tmp_path, kills=2, steps=300, generator=random.Random(0))


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_killed_fifty_times_a_run_ends_bitwise_as_undisturbed(corpus_slice, tmp_path):
    seed = int.from_bytes(os.urandom(4))
    print("seed", seed)  # noqa: T201
    run_and_kill(corpus_slice, tmp_path, kills=50, steps=12_000, generator=random.Random(seed))


@pytest.mark.parametrize("asked_by", [signal.SIGTERM, signal.SIGUSR1])
def test_asked_to_stop_a_run_leaves_a_checkpoint_and_says_it_can_be_resumed(corpus_slice, tmp_path, asked_by):
    config = tiny_on(corpus_slice, **{"training.steps": 3000})
    folder = folder_of(config, tmp_path)
    worker = start(folder, 60)
    wait_for_rows(folder, 3, worker)
    worker.send_signal(asked_by)
    assert worker.wait() == 75 and read_result(folder) is None
    state = checkpoint.load(folder, torch.device("cpu"))
    assert 0 < state["log"]["steps"] < 3000


def state(value):
    return {"tensor": torch.full((1000,), float(value)), "pending": [(torch.tensor(1.5), 2.0)], "name": "x"}


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, capsys):
    checkpoint.save(tmp_path, 1, state(1))
    newest = checkpoint.save(tmp_path, 2, state(2))
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    loaded = checkpoint.load(tmp_path, torch.device("cpu"))
    said = f"optstudy: {newest}: checkpoint is damaged; using the previous one\n"
    assert capsys.readouterr().err == said
    assert torch.equal(loaded["tensor"], state(1)["tensor"])


def test_only_the_last_two_are_kept_and_leftovers_removed(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".step-half").write_bytes(b"half a checkpoint")
    paths = [checkpoint.save(tmp_path, step, state(step)) for step in (5, 50, 500)]
    assert sorted((tmp_path / "checkpoints").iterdir()) == sorted(paths[1:])
    assert {path.stat().st_mode & 0o777 for path in paths[1:]} == {0o644}, "others may go on from it"
    assert checkpoint.load(tmp_path, torch.device("cpu"))["tensor"][0] == 500


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint.load(tmp_path, torch.device("cpu")) is None


def test_nothing_is_unpickled(tmp_path):
    checkpoint.save(tmp_path, 1, {"path": tmp_path})
    with pytest.raises(checkpoint.Odd, match="does not load without unpickling"):
        checkpoint.load(tmp_path, torch.device("cpu"))


@pytest.fixture(scope="module")
def interrupted(corpus_slice, tmp_path_factory):
    """A run with checkpoints of steps 5 and 10, and what the newer one holds."""
    folder = folder_of(tiny_on(corpus_slice), tmp_path_factory.mktemp("interrupted"))
    for step in (5, 10):
        with pytest.raises(Preempted):
            train(folder, on_progress=stopper(step))
    return folder, checkpoint.load(folder, torch.device("cpu"))


def stopper(step):
    def stop(row):
        if row["step"] == step:
            signal.raise_signal(signal.SIGTERM)

    return stop


def forge(path, state):
    """Put other content into a checkpoint, with the name that goes with it."""
    file = io.BytesIO()
    torch.save(state, file)
    path.unlink()
    digest = hashlib.sha256(file.getvalue()).hexdigest()[:16]
    path.with_name(f"{path.name.rpartition('-')[0]}-{digest}.pt").write_bytes(file.getvalue())


def put(tree, key, value):
    """Return nested mappings with one value replaced, or left out where it is the mapping's own type."""
    head, _, rest = key.partition(".")
    return {**tree, head: put(tree[head], rest, value) if rest else value}


ODD = {
    "a list": lambda state: [1],
    "nothing": lambda state: {},
    "no log": lambda state: {key: value for key, value in state.items() if key != "log"},
    **{
        f"{key}: {value!r}": lambda state, key=key, value=value: put(state, key, value)
        for key, value in (
            *(
                ("run", 3),
                ("metrics", b"x"),
                ("id", 7),
                ("folder", None),
                ("log.steps", -1),
                ("log.steps", "x"),
            ),
            *(("log.losses", []), ("log.seconds", float("nan")), ("log.initial_val_loss", None)),
            *(("run.model", {}), ("run.optimizer", {"state": {}, "param_groups": []}), ("run.beside", 3)),
            *(("run.cpu_rng", 3), ("run.python_rng", (1, 2)), ("run.numpy_rng", {"a": 1})),
        )
    },
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_checkpoint_gives_way_to_the_one_before_in_one_line(odd, interrupted, tmp_path, capsys):
    whole, state = interrupted
    folder = shutil.copytree(whole, tmp_path / whole.name)
    newest = checkpoint.newest(folder)
    forge(newest, ODD[odd](state))
    assert train(folder)["state"] == "done"
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "this checkpoint cannot be loaded" in said and "step-000000010" in said


def test_where_no_checkpoint_can_be_loaded_none_is_thrown_away(interrupted, tmp_path):
    whole, state = interrupted
    folder = shutil.copytree(whole, tmp_path / whole.name)
    for path in (folder / "checkpoints").iterdir():
        forge(path, put(state, "log.steps", -1))
    for _ in range(2):
        with pytest.raises(Unloadable, match=r"and there is no previous one; delete .* to begin again"):
            train(folder)
    assert len(list((folder / "checkpoints").iterdir())) == 2
