"""What a run's folder says is checked against its name, its text and what the command says."""

import json
import shutil
import signal
import subprocess
import sys

import pytest

from optstudy.config import RunConfig
from optstudy.data.text import fingerprint
from optstudy.ending import Preempted
from optstudy.errors import UserError, validate
from optstudy.folders import prepare
from optstudy.launch import attempts, lease
from optstudy.record import read_json, read_metrics, read_result, write_json
from optstudy.results.table import read_row
from optstudy.study.library import load
from optstudy.study.session import Session
from optstudy.training.train import train
from tests.configs import TINY, folder_of, losses, tiny_on
from tests.conftest import write_lines

OPTSTUDY = [sys.executable, "-m", "optstudy"]
NOT_IN_ID = {"watch.norms": True, "training.parallel": "fsdp", "scale": "nano"}


def optstudy(*arguments):
    return subprocess.run([*OPTSTUDY, *map(str, arguments)], capture_output=True, text=True, check=False)


def stop(row):
    if row["step"] == 10:
        signal.raise_signal(signal.SIGTERM)


def interrupted(folder):
    """Train up to a checkpoint."""
    with pytest.raises(Preempted):
        train(folder, on_progress=stop)
    return folder


def change(folder, key, value):
    path = folder / "config.json"
    tree = json.loads(path.read_text())
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        node = node[parent]
    node[leaf] = value
    path.write_text(json.dumps(tree))


def test_what_is_no_part_of_the_id_is_the_command_s_when_a_run_is_continued(corpus_slice, tmp_path):
    file = tmp_path / "run.yaml"
    tree = {**TINY, "data": {**TINY["data"], "corpus": corpus_slice, "fingerprint": ""}}
    file.write_text(json.dumps(tree))
    folder = interrupted(folder_of(tiny_on(corpus_slice), tmp_path / "runs"))
    changed = [part for key, value in NOT_IN_ID.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    done = optstudy("train", file, "--runs", tmp_path / "runs", *changed)
    assert done.returncode == 0, done.stderr
    config = validate(RunConfig, read_json(folder / "config.json"))
    assert config.watch.norms and config.training.parallel == "fsdp" and config.scale == "nano"
    rows = [row for row in read_metrics(folder) if "loss" in row]
    assert ["norms" in row for row in rows] == [row["step"] > 10 for row in rows]


def test_a_study_tells_its_unfinished_runs_and_leaves_others(corpus_slice, tmp_path):
    changes = {"data.corpus": corpus_slice, "training.steps": 20, "optimizer.lr": 1e-2}
    first = Session(load("demo"), "pico", tmp_path, changes)
    done, held, begun, *_ = first.todo()
    write_json(done / "result.json", {"id": done.name})
    with attempts.attempt(held):
        later = Session(load("demo"), "pico", tmp_path, {**changes, "watch.norms": True})
        later.todo()
    norms = [read_json(folder / "config.json")["watch"]["norms"] for folder in (done, held, begun)]
    assert norms == [False, False, True]


def test_a_corpus_that_moved_is_found_by_the_command_and_one_that_changed_is_refused(tmp_path):
    documents = [f"A sentence about number {i}, and another one." for i in range(3000)]
    old = write_lines(tmp_path / "old.jsonl", documents)
    config = tiny_on(f"path:{old}", **{"data.tokenizer": "bpe-300"})
    folder = interrupted(folder_of(config, tmp_path / "runs"))
    new = old.rename(tmp_path / "new.jsonl")
    with pytest.raises(UserError, match=r"old\.jsonl"):
        train(folder)
    prepare(tmp_path / "runs", tiny_on(f"path:{new}", **{"data.tokenizer": "bpe-300"}), lease.holder)
    interrupted_again = read_json(folder / "config.json")
    assert interrupted_again["data"]["corpus"] == f"path:{new}"
    write_lines(new, [*documents, "One more."])
    with pytest.raises(UserError, match=r"data\.corpus: .* has changed since this run was made") as refused:
        train(folder)
    now = fingerprint(f"path:{new}")
    assert now in str(refused.value) and config.data.fingerprint in str(refused.value)
    write_lines(new, documents)
    assert train(folder)["state"] == "done"


def test_a_text_that_changed_before_the_first_attempt_is_refused_too(tmp_path):
    file = write_lines(tmp_path / "text.jsonl", [f"Sentence {i}." for i in range(200)])
    folder = folder_of(tiny_on(f"path:{file}", **{"data.tokenizer": "bpe-300"}), tmp_path / "runs")
    write_lines(file, [f"Another {i}." for i in range(200)])
    done = optstudy("train", folder)
    assert (
        done.returncode == 2
        and "has changed since this run was made" in done.stderr
        and done.stderr.count("\n") == 1
    )
    assert attempts.read(folder)[-1]["code"] == 2


@pytest.mark.parametrize("begun", [False, True])
def test_an_edited_config_is_refused_by_name(corpus_slice, tmp_path, begun):
    folder = folder_of(tiny_on(corpus_slice), tmp_path)
    if begun:
        interrupted(folder)
    change(folder, "training.batch_size", 8)
    before = losses(folder)
    done = optstudy("train", folder)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{folder}/config.json: is the config of run " in done.stderr and folder.name in done.stderr
    with pytest.raises(UserError, match=f"not of {folder.name}"):
        prepare(tmp_path, tiny_on(corpus_slice), lease.holder)
    change(folder, "training.batch_size", 4)
    change(folder, "watch.norms", True)
    assert losses(folder) == before and train(folder)["state"] == "done"


def test_a_folder_named_by_hand_goes_on_but_not_as_another_run(corpus_slice, tmp_path):
    folder = folder_of(tiny_on(corpus_slice), tmp_path).rename(tmp_path / "my-run")
    change(folder, "training.batch_size", 8)
    interrupted(folder)
    change(folder, "training.batch_size", 4)
    with pytest.raises(UserError, match="the checkpoint is of run"):
        train(folder)
    change(folder, "training.batch_size", 8)
    moved = folder.rename(tmp_path / "another-name")
    assert train(moved)["state"] == "done"
    change(moved, "training.batch_size", 4)
    done = optstudy("train", moved)
    assert done.returncode == 2 and "another-name/config.json: is the config of run" in done.stderr


@pytest.mark.parametrize("name", ["a-copy", "0123456789ab"])
def test_a_copy_of_a_run_s_folder_is_refused_by_name(corpus_slice, tmp_path, name):
    folder = interrupted(folder_of(tiny_on(corpus_slice), tmp_path))
    copy = shutil.copytree(folder, tmp_path / name)
    with pytest.raises(UserError, match=name) as refused:
        train(copy)
    assert folder.name in str(refused.value)
    assert train(folder)["state"] == "done"


def test_copies_of_a_finished_run_are_exported_once(corpus_slice, tmp_path):
    folder = folder_of(tiny_on(corpus_slice), tmp_path / "runs")
    train(folder)
    for name in ("backup", "0123456789ab"):
        shutil.copytree(folder, tmp_path / "runs" / name)
    done = optstudy("export", "--runs", tmp_path / "runs", "--out", tmp_path / "table.csv")
    assert done.returncode == 0 and "wrote 1 runs" in done.stdout
    assert "runs/backup: holds run" in done.stderr and "runs/0123456789ab: holds run" in done.stderr
    with pytest.raises(UserError, match="it is a copy"):
        read_row(tmp_path / "runs" / "0123456789ab")


def test_in_a_run_s_folder_only_what_is_no_part_of_its_id_can_be_set(corpus_slice, tmp_path):
    folder = interrupted(folder_of(tiny_on(corpus_slice), tmp_path))
    done = optstudy("train", folder, "--set", "training.steps=30")
    assert done.returncode == 2 and "only values outside its id can change" in done.stderr
    done = optstudy("train", folder, "--set", "watch.norms=true")
    assert done.returncode == 0 and "norms" in read_metrics(folder)[-2]


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"id"', "\0" * 300])
@pytest.mark.parametrize("name", ["result.json", "config.json"])
def test_a_damaged_record_is_named_and_the_others_go_on(corpus_slice, tmp_path, name, damage, capsys):
    changes = {"data.corpus": corpus_slice, "training.steps": 20, "optimizer.lr": 1e-2}
    session = Session(load("demo"), "pico", tmp_path, changes)
    broken, whole = session.todo()[:2]
    result = {"reason": None, **dict.fromkeys(("val_loss", "train_loss"), 5.0), "state": "done", "format": 1}
    for key in ("initial_val_loss", "step", "tokens", "tokens_per_s", "seconds", "step_ms", "peak_memory_mb"):
        result[key] = 9
    for folder in (broken, whole):
        tree = {"id": folder.name, **result, "params": 1, "state_bytes_per_param": 8.0}
        write_json(folder / "result.json", tree)
    (broken / name).write_text(damage)
    again = Session(load("demo"), "pico", tmp_path, changes)
    assert again.state(broken.name) == "failed" and again.state(whole.name) == "done"
    assert f"{broken / name}: damaged" in again.why(broken.name)
    assert [row.id for row in again.rows()] == [whole.name]
    assert capsys.readouterr().err.count(f"{broken / name}: damaged") == 1
    again.todo()
    if name == "config.json":  # the command knows what it was
        assert again.state(broken.name) == "done"
    else:
        assert again.forgive() == 1 and again.state(broken.name) != "failed"
        assert (broken / "result.json.damaged").exists() and read_result(broken) is None


def test_a_damaged_result_is_refused_by_train_in_a_line(corpus_slice, tmp_path):
    folder = folder_of(tiny_on(corpus_slice), tmp_path)
    (folder / "result.json").write_bytes(b"")
    done = optstudy("train", folder)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"optstudy: {folder}/result.json: damaged: it is empty")
