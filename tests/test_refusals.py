"""What would hang, fill the memory or end in a traceback is refused in one line, before any work."""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optstudy import cli, open_study
from optstudy.errors import UserError
from optstudy.record import write_atomically
from optstudy.study import yamlfile
from optstudy.study.library import single

HEAD = "title: T\nasks: Q\naxes: {optimizer.name: [adam], optimizer.lr: [0.01, 0.02]}\n"
MANY = "1000000000000"
LONG = "0x" + "f" * 5000


def refused(capsys, *arguments):
    """Run a command in this process; return the line that refuses it, without delay."""
    begun = time.monotonic()
    assert cli.run(list(arguments)) == 2
    said = capsys.readouterr().err
    assert said.startswith("optstudy: ") and said.count("\n") == 1 and len(said) < 1000, said
    assert time.monotonic() - begun < 20
    return said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"refine: {{seeds: {MANY}}}", "4: refine.seeds: "),
        (f"refine: {{neighbours: {MANY}}}", "4: refine.neighbours: "),
        (f"adaptive: {{most: {MANY}}}", "4: adaptive.most: "),
        (f"seeds: [{MANY}]", "4: seeds.0: "),
        (f"seeds: [{LONG}]", "4: seeds.0: must be between -2^63 and 2^63"),
        (f"seeds: [{'9' * 5000}]", "4: seeds.0: must be between -2^63 and 2^63"),
        (f"base: {{model.n_layers: {MANY}}}", "4: model.n_layers: "),
        (f"base: {{validation.points: {MANY}}}", "4: validation.points: "),
        (f"base: {{training: {{batch_size: {LONG}}}}}", "4: base.training.batch_size: "),
        ("base: {training: null}", "4: training: must be a mapping of keys to values, not None"),
        ("base: {data: {corpus: {path: x}}}", "4: data.corpus: a mapping cannot replace"),
        ("base: {optimizer..lr: 1}", "4: 'optimizer..lr': a key needs a name on each side"),
        ("base: {training.steps.x: 1}", "4: training.steps.x: training.steps must be a mapping, not 2400"),
        ('base: {data.corpus: "path:\\ud83d"}', "4: base.data.corpus: no text has half a character"),
        ('base: {data.corpus: "path:\\0"}', "4: base.data.corpus: no text has half a character or a NUL"),
        ('base: {data.corpus: "path:\\ud83d\\ude00.txt"}', "4: data.corpus: \U0001f600.txt: No such file"),
        ("base: {data.corpus: 'path:~nosuchuser/x'}", "4: data.corpus: ~nosuchuser/x: No such file"),
        ("base: {data.tokenizer: bpe-1}", "4: data.tokenizer: bpe-1: pieces must be"),
        ("best_of: {study: paper/fig1, keys: [optimizer]}", "4: best_of.keys: 'optimizer' is not a setting"),
        ("figure: {x: optimizer}", "4: x: 'optimizer' is not a single value"),
        ("figure: {kind: gaps, over: training.stps}", "4: figure.over: no such config key: 'training.stps'"),
        ("figure: {over: training.batch_size}", "4: figure: 'over' goes with 'kind: gaps'"),
        ("tokens: adam", "4: tokens: must be a mapping of keys to values, not 'adam'"),
        ("decide: true", "4: decide: there are no claims to decide"),
        ("base: !!int x", "4: "),
        ("? [a, b]\n: c", "4: a key must be a plain text"),
        ("? " * 60 + "x", "4: a key must be a plain text"),
        ("notes: " + "[" * 5000, "nested too deeply"),
    ],
)  # fmt: skip
def test_a_study_file_is_refused_at_its_line(line, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(f"{HEAD}{line}\n")
    assert said in refused(capsys, "show", "s.yaml")


@pytest.mark.parametrize(
    "names", ["[[adam, lion]]", "[{a: b}]", "[null]", "[1, true]", "adam", "[]", "{from: 1, to: 2}"]
)
def test_names_that_are_none_are_refused_at_their_line(names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(f"title: T\nasks: Q\naxes:\n  optimizer.name: {names}\n")
    assert "s.yaml:4: " in refused(capsys, "show", "s.yaml")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "demo", "--seeds", "1000000000"], "seeds: input should be at most 1,000, not 1000000000"),
        (
            ["report", "demo", "--seeds", "1000000000", "--format", "md"],
            "seeds: input should be at most 1,000",
        ),
        (["show", "demo", "--seeds", "1.5"], "--seeds: must be a whole number, not '1.5'"),
        (["run", "demo", "--dry-run", "--jobs=2.0"], "--jobs: must be a whole number, not '2.0'"),
        (["report", "demo", "--port", ".5"], "--port: must be a whole number, not '.5'"),
        (["data", "show", "x", "--seed", "1.5e3"], "--seed: must be a whole number, not '1.5e3'"),
        (["bench", "train", "--threads", "1."], "--threads: must be a whole number, not '1.'"),
        (["show", "demo", "--jobs", MANY], "--jobs: input should be at most 10,000"),
        (["run", "demo", "--dry-run", "--per-gpu", MANY], "--per-gpu: input should be at most 10,000"),
        (
            ["show", "demo", "--set", "optimizer.name=[adam,lion]"],
            "--set: optimizer.name: input should be a valid string",
        ),
        (["show", "demo", "--set", f"optimizer.lr={LONG}"], "--set: optimizer.lr: "),
        (["show", "demo", "--set", f"seed={'9' * 5000}"], "--set: seed: "),
        (["show", "demo", "--set", "a.b.c=1"], "--set: unknown key 'a"),
        (
            ["show", "demo", "--set", "model.n_layers=1000000"],
            "--set: model.n_layers: input should be less than",
        ),
        (["report", "demo", "--serve", "--port", "99999"], "port 99999: "),
        (["export", "--runs", "x" * 5000], "File name too long"),
        (["show", "demo", "--runs", __file__], "test_refusals.py is a file, where a folder is needed"),
        (
            ["run", "demo", "--dry-run", "--slurm", "time=1"],
            "--slurm: it says nothing without --launcher slurm",
        ),
        (["run", "demo", "--dry-run", "--launcher", "slurm", "--per-gpu", "2"], "--per-gpu: Slurm hands out"),
        (["report", "demo", "--port", "8000"], "--port: it says nothing without --serve"),
        (["report", "demo", "--host", "::"], "--host: it says nothing without --serve"),
        (["export", "--runs", ".", "--set", "seed=1"], "--set: it says nothing without a study"),
        (["export", "--runs", ".", "--scale", "nano"], "--scale: it says nothing without a study"),
        (["export", "demo", "--runs", ".", "--record", "r.csv"], "--record: of all studies of the package"),
        (["init", "script", "--set", "a=1"], "--set: it says nothing without --check"),
        (["show", "demo", "--no-such"], "Unknown option"),
        (["no-such-command"], "Unknown command"),
    ],
)
def test_an_option_is_refused_by_name(arguments, said, capsys):
    assert said in refused(capsys, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "loop.yaml"],
        ["show", "demo", "--runs", "loop"],
        ["show", "demo", "--set", "data.corpus=path:loop"],
        ["data", "prepare", "path:loop", "--tokenizer", "bpe-300"],
        ["compare", "loop", "loop"],
        ["train", "loop"],
        ["init", "script", "loop"],
    ],
)
def test_a_link_that_leads_to_itself_is_named(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("loop", "loop.yaml"):
        Path(name).symlink_to(name)
    assert "loop" in refused(capsys, *arguments)


def test_a_file_that_cannot_be_written_is_named_as_it_was_given(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(tmp_path / "absent" / "x.csv", "")
    assert caught.value.filename == str(tmp_path / "absent" / "x.csv")


def test_seeds_without_number_are_refused_from_python():
    with pytest.raises(UserError, match="seeds: input should be at most 1,000, not 1000000000"):
        open_study("demo", seeds=1_000_000_000)


def test_pipes_devices_and_huge_files_are_no_files_of_settings(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "huge.yaml").write_bytes(b"a: 1\n" * (yamlfile.MOST_BYTES // 4))
    for command in ("show", "train"):
        assert "a named pipe, where a regular file is needed" in refused(
            capsys, command, str(tmp_path / "pipe.yaml")
        )
        assert "a file of settings has at most" in refused(capsys, command, str(tmp_path / "huge.yaml"))
    assert "a device" in refused(capsys, "train", "/dev/zero")
    assert "a named pipe" in refused(capsys, "export", "--record", str(tmp_path / "pipe.yaml"))


def test_a_number_that_python_gives_is_shown_even_if_it_cannot_be_written_out(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"training\.steps: .* not a whole number beyond 2"):
        single(
            tmp_path / "run.json",
            {"training.steps": 10**6000, "optimizer.name": "adam", "optimizer.lr": 1e-3},
        )


def test_what_is_written_to_a_pipe_leaves_it_one(tmp_path):
    (tmp_path / "runs").mkdir()
    pipe = tmp_path / "table.csv"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert cli.run(["export", "--runs", str(tmp_path / "runs"), "--out", str(pipe)]) in (0, 2)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    os.close(reader)


@pytest.mark.parametrize("command", [["studies"], ["show", "demo", "--json"]])
def test_a_reader_that_leaves_is_no_error(command):
    process = subprocess.Popen([sys.executable, "-m", "optstudy", *command], stdout=-1, stderr=-1)
    process.stdout.close()
    with process:
        said = process.stderr.read()
    assert process.returncode == 0 and said == b""


def test_names_are_written_whatever_the_locale_has(tmp_path):
    (tmp_path / "\u00fc.yaml").write_text(HEAD.replace("title: T", "title: \u00dcber \u65e5\u672c"))
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "optstudy", "show", "\u00fc.yaml"]
    done = subprocess.run(command, cwd=tmp_path, env=ascii_only, capture_output=True, check=False)
    assert done.returncode == 0 and done.stderr == b"" and rb"\xdcber \u65e5\u672c" in done.stdout


def test_a_surplus_argument_and_a_key_set_twice_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, "optimizers", "adam")
    assert said == "optstudy: unexpected argument 'adam'; optstudy optimizers --help lists what it takes\n"
    twice = ("--set", "optimizer.lr=1", "--axis", "optimizer.lr=1e-3,1e-2")
    assert "optimizer.lr: --axis gives its values and --set another" in refused(
        capsys, "show", "demo", *twice
    )
