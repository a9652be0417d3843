"""Configs, options, records and texts damaged at random: each is used, or refused in one line."""

import json
import random
import shutil
from pathlib import Path

import pytest

from optstudy import cli, errors, open_study
from optstudy.errors import UserError
from optstudy.record import read_json, write_json
from optstudy.study import yamlfile
from optstudy.study.library import load, single
from optstudy.study.schema import settings
from optstudy.study.session import Session
from tests import damage
from tests.configs import TINY
from tests.test_damaged_studies import FILES, OWN

LONG = pytest.mark.long
STUDY = """\
title: Two optimizers
asks: Which is better?
axes: {optimizer.name: [adam, lion], optimizer.lr: [1e-3, 1e-2]}
seeds: [0, 1]
"""


def told(capsys, code, *where):
    """Check that a command ended well, or with one line that names what it is about; return what it said."""
    said = capsys.readouterr()
    assert code in (0, 2), said.err
    if code == 2:
        assert said.err.startswith("optstudy: ") and said.err.count("\n") == 1, said.err
        assert len(said.err) < 2000 and said.err[:-1].isprintable(), said.err
        assert not where or any(one in said.err for one in where), said.err
    return said.out + said.err


@pytest.mark.parametrize("count", [40, pytest.param(700, marks=LONG)])
def test_anything_in_any_place_of_a_study_file(count, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    texts = [OWN, *(file.read_text() for file in FILES)]
    trees = [yamlfile.plain(yamlfile.parse(text, ""), "") for text in texts]
    rng, refused = random.Random(count), 0
    for _ in range(count):
        content = damage.a_tree(rng.choice(trees), rng)
        Path("damaged.yaml").write_bytes(content)
        code = cli.run(["show", "damaged.yaml", "--no-adaptive"])
        told(capsys, code, "damaged.yaml")
        refused += code == 2
    assert refused > count / 2


@pytest.mark.parametrize("count", [60, pytest.param(400, marks=LONG)])
def test_anything_in_any_place_of_a_config(count, tmp_path):
    rng = random.Random(count)
    tree = {**TINY, "data": {**TINY["data"], "corpus": "enwik8"}, "scale": "pico"}
    file = tmp_path / "config.json"
    for _ in range(count):
        file.write_bytes(damage.a_tree(tree, rng))
        try:
            single(file, {})
        except UserError as error:
            assert str(file) in str(error)


@pytest.mark.parametrize("count", [40, pytest.param(400, marks=LONG)])
def test_anything_given_to_set(count, capsys):
    rng, keys = (
        random.Random(count),
        [*settings(), "", ".", "a..b", "optimizer", "data", "no.such", "$x", "\0"],
    )
    for _ in range(count):
        value = rng.choice(
            [*damage.VALUES, damage.LONG, "0x" + "f" * 5000, "9" * 5000, "[" * 5000, "? " * 50, "{"]
        )
        written = value if isinstance(value, str) else json.dumps(value)
        assignment = f"{rng.choice(keys)}={written}"
        told(capsys, cli.run(["show", "demo", "--set", assignment]), "--set", "optimizer.name")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study with records: six runs done, one begun, one that waits."""
    home = tmp_path_factory.mktemp("study")
    (home / "s.yaml").write_text(STUDY)
    folders = Session(load(str(home / "s.yaml")), "pico", home / "whole").todo()
    numbers = {"tokens_per_s": 1e4, "seconds": 10.0, "step_ms": 5.0, "peak_memory_mb": 300.0, "params": 1000}
    for i, folder in enumerate(folders[:7]):
        result = {
            "id": folder.name,
            "state": "done",
            "reason": None,
            "val_loss": 5 + i / 10,
            "train_loss": 5.0,
        }
        result |= {"initial_val_loss": 8.0, "step": 600, "tokens": 614400, "state_bytes_per_param": 8.0}
        if i == 5:
            result |= {"state": "diverged", "reason": "loss was nan", "val_loss": None, "train_loss": None}
        rows = [{"step": 0, "tokens": 0, "val_loss": 8.0, "seconds": 0.1}]
        for step in (6, 12):
            row = {"step": step, "tokens": step * 1024, "loss": 7.0, "lr": 1e-3, "grad_norm": 1.0}
            rows.append({**row, "seconds": step / 10, "effective_lr": {"head": {"q05": 1e-3, "q95": 1e-2}}})
        process = {"host": "h", "machine": "m", "pid": 1, "started": "1"}
        tries = [{"event": "start", "step": 0, **process}, {"event": "end", "code": 0}]
        for name, lines in (("metrics.jsonl", rows), ("attempts.jsonl", tries)):
            (folder / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        write_json(folder / "env.json", {"torch": "2.13", "cpu": "AVX2", "not_saved": []})
        write_json(
            folder / ("lease-000001.json" if i == 6 else "result.json"),
            process if i == 6 else {**result, **numbers},
        )
    return home


COMMANDS = {
    "status": ["status", "s.yaml", "--runs", "runs"],
    "status --json": ["status", "s.yaml", "--runs", "runs", "--json"],
    "show": ["show", "s.yaml", "--runs", "runs"],
    "run": ["run", "s.yaml", "--runs", "runs", "--dry-run"],
    "report": ["report", "s.yaml", "--runs", "runs", "--format", "md"],
    "export": ["export", "--runs", "runs", "--out", "runs.csv"],
    "export study": ["export", "s.yaml", "--runs", "runs", "--out", "study.csv"],
    "compare": ["compare", "whole", "runs"],
}
READ = {"result.json": COMMANDS, "config.json": COMMANDS, "lease-000001.json": ["status", "show", "run"]}
"""Which commands read a file for certain, and so must name it where it is damaged."""


@pytest.mark.parametrize("count", [8, pytest.param(200, marks=LONG)])
def test_one_damaged_file_of_a_record_stops_no_command(count, finished, monkeypatch, capsys):
    monkeypatch.chdir(finished)
    rng = random.Random(count)
    for _ in range(count):
        shutil.rmtree("runs", ignore_errors=True)
        shutil.copytree("whole", "runs")
        folder = rng.choice(
            [path for path in sorted(Path("runs").iterdir()) if (path / "attempts.jsonl").exists()]
        )
        file = rng.choice(sorted(folder.iterdir()))
        beyond_doubt = damage.a_file(file, rng)
        finished_run = (folder / "result.json") in folder.iterdir()
        for name, command in COMMANDS.items():
            errors._said.clear()
            code = cli.run(command)
            said = told(capsys, code)
            assert code == 0, (name, file, said)
            read = name in READ.get(file.name, ()) and finished_run != file.name.startswith("lease")
            assert not (beyond_doubt and read) or str(file) in said, (name, file, said)


@pytest.mark.long
def test_damaged_records_of_a_paper_study_stop_neither_claims_nor_python(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folders = Session(load("paper/fig1"), "pico", Path("runs")).todo()
    rng = random.Random(0)
    for folder in folders:
        (folder / "result.json").write_bytes(rng.choice(damage.HURTING))
    assert cli.run(["claims", "--runs", "runs", "--fresh"]) == 0
    said = capsys.readouterr()
    assert "claims at pico" in said.out
    assert said.err.count("damaged: ") == len(folders), "each is named, once"
    study = open_study("paper/fig1", runs="runs", fresh=True)
    assert study.table() == [] and study.claims() and study.data().rows == []


@pytest.mark.parametrize("count", [6, pytest.param(200, marks=LONG)])
def test_damaged_texts(count, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPTSTUDY_CACHE", str(tmp_path / "cache"))
    rng = random.Random(count)
    for i in range(count):
        home = tmp_path / str(i)
        home.mkdir()
        file = damage.a_corpus(home, rng)
        code = cli.run(["data", "prepare", f"path:{file}", "--tokenizer", "bpe-300", "--jobs", "1"])
        told(capsys, code, str(home))


def test_what_was_damaged_is_read_as_it_was_before(finished):
    for folder in (finished / "whole").iterdir():
        assert read_json(folder / "config.json")["scale"] == "pico"
