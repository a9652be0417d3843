"""Every way a run may end early: its exit code, its reason in the record, and how it goes on.

The real command line, real signals, a real lack of memory and of room on the disk.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optstudy.ending import OF_SEVERAL, Interruption, Preempted, of_several, out_of_memory
from optstudy.errors import UserError
from optstudy.launch import attempts, slurm
from optstudy.launch.options import Slurm
from optstudy.record import read_json, read_result, write_json
from optstudy.training import checkpoint
from optstudy.training.run import Run
from optstudy.training.train import train
from tests.configs import folder_of, losses, tiny_on

MEMORY = int(2.5 * 2**30)
COMMAND = [sys.executable, "-m", "optstudy", "train"]


def ended(folder, **options):
    """Run the command on a folder; return how it ended and the last line of its attempts."""
    done = subprocess.run([*COMMAND, folder], capture_output=True, text=True, check=False, **options)
    assert "Traceback" not in done.stderr, done.stderr
    return done, attempts.read(folder)[-1]


def wait_until(condition, worker):
    while not condition():
        assert worker.poll() is None, worker.communicate()
        time.sleep(0.002)


def test_a_loss_that_is_nan_is_a_result_with_code_3(corpus_slice, tmp_path):
    wild = {
        "optimizer.name": "sgdw",
        "optimizer.lr": 1e30,
        "training.clip_norm": None,
        "model.qk_norm": False,
    }
    folder = folder_of(tiny_on(corpus_slice, **wild), tmp_path)
    done, noted = ended(folder)
    assert done.returncode == noted["code"] == 3
    assert noted["reason"] == read_result(folder)["reason"] and noted["reason"].startswith(
        "loss was nan at step"
    )
    assert noted["reason"] in done.stdout


def test_memory_that_is_not_there_ends_with_code_1_and_says_what_to_lower(corpus_slice, tmp_path):
    """In mid-run: weights, gradients and Adam's state of 77 M parameters want 1.2 GB beside torch's 0.8."""
    folder = folder_of(tiny_on(corpus_slice, **{"model.vocab_size": 600_000, "model.d_model": 64}), tmp_path)
    limit = (MEMORY, MEMORY)
    done, noted = ended(folder, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit))
    assert done.returncode == noted["code"] == 1
    assert "out of memory: you tried to allocate" in done.stderr and "micro_batch_size" in done.stderr
    assert noted["error"].startswith("OutOfMemory: out of memory") and losses(folder)
    assert read_result(folder) is None and attempts.set_aside(folder) is None


def test_both_devices_ways_to_lack_memory_are_known():
    gpu = type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert "Tried to allocate 2.00 GiB" in str(out_of_memory(gpu))
    assert "an allocation failed" in str(out_of_memory(MemoryError()))
    assert out_of_memory(RuntimeError("shapes do not match")) is None


def in_little_room(script, size="1200k"):
    """Arguments that run a shell script with a file system of that size at /mnt."""
    return ["unshare", "-rm", "sh", "-c", f"mount -t tmpfs -o size={size} tmpfs /mnt && {script}"]


def can_mount():
    try:
        return subprocess.run(in_little_room("true"), capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_mount(), reason="this system lets no user mount a small file system")
def test_a_full_disk_ends_with_code_2_and_the_older_checkpoint_stays(corpus_slice, tmp_path):
    """A checkpoint of this model takes 480 kB: the second or third does not fit into 1,200 kB."""
    config = tiny_on(corpus_slice, **{"training.steps": 200})
    source = folder_of(config, tmp_path)
    worker = (
        "from optstudy import cli; from optstudy.training import train; train.CHECKPOINT_MINUTES = 0; "
        "import sys; sys.exit(cli.run(['train', '/mnt/run']))"
    )
    script = (
        f'cp -r {source} /mnt/run; {sys.executable} -c "{worker}"; code=$?; '
        f"ls -a /mnt/run/checkpoints; cp -r /mnt/run {tmp_path}/after; exit $code"
    )
    done = subprocess.run(in_little_room(script), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.startswith("optstudy: /mnt/run/checkpoints: No space left on device")
    assert ".step-" not in done.stdout and "step-" in done.stdout
    noted = attempts.read(tmp_path / "after")[-1]
    assert noted["code"] == 2 and "No space left on device" in noted["error"]
    (tmp_path / "after").rename(tmp_path / "again")
    assert train(tmp_path / "again") == read_json(tmp_path / "again" / "result.json")


def test_a_checkpoint_that_finds_no_room_is_that_error_and_leaves_nothing(tmp_path):
    """Through a limit on the size of files, which needs no right to mount."""
    code = (
        "import resource, signal, sys, torch; from pathlib import Path;"
        "from optstudy.training import checkpoint;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "checkpoint.save(Path(sys.argv[1]), 1, {'x': torch.ones(10)});"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000));"
        "checkpoint.save(Path(sys.argv[1]), 2, {'x': torch.ones(100_000)})"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert f"OSError: [Errno 27] File too large: '{tmp_path}/checkpoints'" in done.stderr
    (kept,) = (tmp_path / "checkpoints").iterdir()
    assert kept.name.startswith("step-000000001-")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["starting", "training"])
def test_asked_to_stop_a_run_ends_with_code_75_and_goes_on_later(corpus_slice, tmp_path, moment, number):
    config = tiny_on(corpus_slice, **{"training.steps": 4000})
    folder = folder_of(config, tmp_path)
    worker = subprocess.Popen([*COMMAND, folder], stderr=subprocess.PIPE, text=True)
    begun = (folder / "attempts.jsonl").exists
    wait_until(begun if moment == "starting" else lambda: len(losses(folder)) > 3, worker)
    worker.send_signal(number)
    asked = time.monotonic()
    _, said = worker.communicate(timeout=60)
    assert time.monotonic() - asked < 30
    noted = attempts.read(folder)[-1]
    assert worker.returncode == noted["code"] == 75 and "Traceback" not in said
    assert (
        noted["error"].startswith(f"Preempted: {number.name}: stopped")
        and "the same command continues" in said
    )
    checkpoints = list((folder / "checkpoints").glob("step-*"))
    assert len(checkpoints) == (moment == "training")
    assert attempts.verdict(attempts.read(folder)) is None and attempts.kills(folder) == 0


def test_a_signal_within_the_note_of_the_start_leaves_word_too(tmp_path, monkeypatch):
    def interrupted(descriptor: int, line: bytes) -> None:
        monkeypatch.undo()
        raise Preempted("SIGTERM: stopped before it had taken a step")

    monkeypatch.setattr(attempts.os, "write", interrupted)
    with pytest.raises(Preempted), attempts.attempt(tmp_path):
        pytest.fail("it had not begun")
    (noted,) = attempts.read(tmp_path)
    assert noted["event"] == "end" and noted["code"] == 75 and attempts.verdict([noted]) is None


def test_stopped_before_any_micro_batch_or_validation_batch_a_run_ends_bitwise_as_undisturbed(
    corpus_slice, tmp_path, monkeypatch
):
    settings = {"training.steps": 4, "training.micro_batch_size": 2, "optimizer.name": "sophia"}
    settings |= {"training.hessian_interval": 2, "validation.sequences": 4}
    config = tiny_on(corpus_slice, **settings)
    expected = train(undisturbed := folder_of(config, tmp_path / "undisturbed"))
    original, calls = Run._output, 0

    def hidden(self, x):
        nonlocal calls
        calls += 1
        if calls == at:
            signal.raise_signal(signal.SIGTERM)
        return original(self, x)

    monkeypatch.setattr(Run, "_output", hidden)
    at, stopped = 0, 0
    while True:
        at, calls = at + 1, 0
        folder = folder_of(config, tmp_path / str(at))
        try:
            train(folder)
        except Preempted as stop:
            assert str(stop).startswith("SIGTERM: stopped")
            stopped += 1
        if calls < at:
            break
        assert train(folder)["weights_sha256"] == expected["weights_sha256"]
        assert losses(folder) == losses(undisturbed)
    assert stopped >= at - 2 > 14  # in the very last batch it comes too late to stop anything


def test_a_second_ctrl_c_stops_at_once_and_an_ignored_signal_stays_ignored():
    with Interruption() as interruption:
        interruption.deferred = True
        signal.raise_signal(signal.SIGINT)
        assert interruption.came == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGINT)
            assert interruption.came is None and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_damaged_newest_checkpoint_is_named_and_the_run_ends_as_undisturbed(corpus_slice, tmp_path):
    config = tiny_on(corpus_slice, **{"training.steps": 30})
    expected = train(folder_of(config, tmp_path / "undisturbed"))
    folder = folder_of(config, tmp_path / "damaged")

    def stop(row):
        if row["step"] == 20:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Preempted):
        train(folder, on_progress=stop, checkpoint_minutes=0)
    newest, before = checkpoint._newest_first(folder)
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    done, noted = ended(folder)
    assert done.returncode == noted["code"] == 0
    assert f"{newest}: checkpoint is damaged; using the previous one" in done.stderr
    assert json.loads((folder / "result.json").read_text())["weights_sha256"] == expected["weights_sha256"]
    assert Path(before).name < newest.name


ONE_OF_TWO = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29633"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WORLD_SIZE": ""},
        {"WORLD_SIZE": " "},
        {"WORLD_SIZE": "1", "RANK": "x"},
        {"RANK": "1"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "1"},
        {"LOCAL_RANK": "1", "MASTER_ADDR": "here"},
    ],
)
def test_these_environments_are_of_a_single_process(monkeypatch, environment):
    set_only(monkeypatch, environment)
    assert not of_several()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        ({"WORLD_SIZE": "-2"}, "at least 1"),
        ({"WORLD_SIZE": "2.0"}, "WORLD_SIZE is '2.0'"),
        ({"RANK": None}, "RANK is not set, where a whole number from 0 to 1 is needed"),
        ({"RANK": ""}, "RANK is ''"),
        ({"RANK": "2"}, "RANK is '2'"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK is 'x'"),
        ({"MASTER_ADDR": None}, "WORLD_SIZE is 2, but MASTER_ADDR is not set"),
        ({"MASTER_PORT": ""}, "MASTER_PORT is not set"),
    ],
)
def test_an_environment_that_does_not_say_which_of_several_is_refused(monkeypatch, changes, said):
    set_only(monkeypatch, {k: v for k, v in {**ONE_OF_TWO, **changes}.items() if v is not None})
    with pytest.raises(UserError) as refused:
        of_several()
    assert said in str(refused.value) and "unset WORLD_SIZE" in str(refused.value)


def set_only(monkeypatch, environment):
    for name in OF_SEVERAL:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_it_is_refused_by_the_command_in_a_line(corpus_slice, tmp_path):
    folder = folder_of(tiny_on(corpus_slice), tmp_path)
    environment = {**os.environ, "WORLD_SIZE": "garbage"}
    done = subprocess.run([*COMMAND, folder], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("optstudy: WORLD_SIZE is 'garbage'")
    assert done.stderr.count("\n") == 1


def test_a_run_that_another_process_works_on_ends_with_code_4_and_is_left_alone(corpus_slice, tmp_path):
    folder = folder_of(tiny_on(corpus_slice), tmp_path)
    with attempts.attempt(folder):
        done, noted = ended(folder)
        assert done.returncode == noted["code"] == 4 and noted["event"] == "held"
        assert f"{folder}: process {os.getpid()} on " in done.stderr and "works on it" in done.stderr
        assert attempts.set_aside(folder) is None and attempts.kills(folder) == 1
        assert not (folder / "env.json").exists()
    assert attempts.kills(folder) == 0


def test_a_slurm_job_whose_run_another_works_on_is_not_queued_again(corpus_slice, tmp_path):
    """The batch script itself, with what Slurm sets, and a stand-in for ``scontrol``."""
    folder = folder_of(tiny_on(corpus_slice), tmp_path)
    script = slurm.script([folder], Slurm(), threads=1, device="cpu")
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/requeued\n')
    (tmp_path / "scontrol").chmod(0o755)
    several = {"WORLD_SIZE": "2", "RANK": "0", "SLURM_NTASKS": "2"}
    task = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_JOB_ID": "1", **several}
    environment = {**os.environ, **task, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with attempts.attempt(folder):
        held = subprocess.run(["bash", "-c", script], env=environment, check=False)
    assert held.returncode == 4 and not (tmp_path / "requeued").exists()
    done = subprocess.run(["bash", "-c", script], env=environment, check=False)
    assert done.returncode == 0 and read_result(folder)["state"] == "done"


def test_a_lease_from_the_future_is_told_so(tmp_path):
    elsewhere = {"machine": "elsewhere", "host": "far", "pid": 1, "started": "1"}
    write_json(tmp_path / "lease-000001.json", elsewhere)
    later = time.time() + 86_400
    os.utime(tmp_path / "lease-000001.json", (later, later))
    said = r"dated 86\d\d\d s in the future: check the clocks"
    with pytest.raises(attempts.Held, match=said), attempts.attempt(tmp_path):
        pytest.fail("it is held")
