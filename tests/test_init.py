"""``optstudy init``: what it writes runs as it is, and ``--check`` says what a program lacks."""

import importlib.util
import sys
import textwrap

import pytest

from optstudy.study import library as study
from tests.test_trainer import a_study, optstudy_command, write

HERE = {"PATH": f"{sys.executable.rpartition('/')[0]}:/usr/bin:/bin"}
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="needs transformers"
)


def init(*words, cwd):
    said = optstudy_command("init", *words, cwd=cwd, **HERE)
    assert "Traceback" not in said.stderr  # what a program writes is on the other one
    return said


@pytest.mark.parametrize("kind", ["script", "function", pytest.param("trainer", marks=needs_transformers)])
def test_what_it_writes_runs_as_it_is(kind, tmp_path):
    assert init(kind, "new/mine", cwd=tmp_path).returncode == 0
    folder = tmp_path / "new/mine"
    assert sorted(path.name for path in folder.iterdir()) == ["study.yaml", "train.py"]
    said = init("--check", "study.yaml", cwd=folder)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "ok       val_loss: " in said.stdout
    assert "ok       metrics.jsonl: " in said.stdout and "rows with step, " in said.stdout
    assert not (folder / "runs").exists()


def test_its_study_trains_both_optimizers(tmp_path, monkeypatch):
    init("script", cwd=tmp_path)
    monkeypatch.chdir(tmp_path)
    planned = study.load("study.yaml")
    assert len(planned.points(planned.scale(None))) == 10
    rates = ("--axis", "optimizer.lr=0.01", "--jobs", "2")
    said = optstudy_command("run", "study.yaml", *rates, cwd=tmp_path, **HERE)
    assert said.returncode == 0, said.stderr
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 2


@pytest.mark.parametrize("there", ["study.yaml", "train.py"])
def test_it_overwrites_nothing_and_then_writes_nothing(there, tmp_path):
    (tmp_path / there).write_text("mine")
    said = init("script", cwd=tmp_path)
    assert said.returncode == 2
    assert said.stderr.startswith(f"optstudy: {there}: exists already")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(there, "mine")]


PROGRAM = """
    import os, pathlib, sys, time
    how = sys.argv[1]
    if how == "crash":
        raise ValueError("boom")
    if how == "rows":
        pathlib.Path(os.environ["OPTSTUDY_RUN"], "metrics.jsonl").write_text("[1]\\n{}\\n")
    if how in ("hang", "begun"):
        print('{"val_loss": 3}' if how == "begun" else "loading", flush=True)
        time.sleep(100)
    if how in ("fine", "rows"):
        print('{"val_loss": 1.25}')
    if how == "nan":
        print('{"val_loss": NaN}')
"""
FOUND = {
    "fine": (0, "ok       val_loss: 1.25, after"),
    "crash": (1, "missing  it ended with code 1: ValueError: boom"),
    "nothing": (1, "missing  it ended with 0, but left no result"),
    "hang": (1, "missing  val_loss: not told within 1 s, after which the run was stopped"),
    "begun": (0, "ok       val_loss: told within 1 s, after which the run was stopped"),
    "nan": (0, "note     val_loss: the run diverged: val_loss was nan"),
    "rows": (1, "metrics.jsonl:1: damaged"),
}


@pytest.mark.parametrize("how", FOUND)
def test_a_check_says_what_is_missing(how, tmp_path):
    command = f"[{sys.executable}, train.py, '{{how}}']"
    a_study(tmp_path, f"trainer: {{command: {command}}}\naxes: {{how: [{how}]}}\n", train=PROGRAM)
    limit = ("--seconds", "1") if how in ("hang", "begun") else ()
    said = init("--check", "mine.yaml", *limit, cwd=tmp_path)
    code, line = FOUND[how]
    assert (said.returncode, line in said.stdout) == (code, True), said.stdout + said.stderr
    assert "note     seed: no word of trainer.command has {seed}" in said.stdout
    assert "note     the run's folder: no files of its own" in said.stdout
    assert f"train.py {how}\n" in said.stdout  # the command, filled in
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml", "train.py"]


def test_a_check_sees_the_files_and_settings_of_a_run(tmp_path):
    program = """
        import sys, pathlib
        pathlib.Path(sys.argv[1], "ckpt.pt").touch()
        print('{"val_loss": %s}' % sys.argv[2])
    """
    command = f"[{sys.executable}, train.py, '{{folder}}', '{{x}}', '{{seed}}']"
    a_study(tmp_path, f"trainer: {{command: {command}}}\naxes: {{x: [1, 2]}}\n", train=program)
    said = init("--check", "mine.yaml", "--set", "x=7.5", cwd=tmp_path).stdout
    assert "ok       val_loss: 7.5, after" in said
    assert "ok       the run's folder: has its own ckpt.pt" in said
    assert "seed: no word" not in said


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "init: give either what to begin with, script, trainer or function, or --check STUDY.yaml"),
        (("script", "--check", "a.yaml"), "init: give either what to begin with"),
        (("--check", "demo"), "demo: init --check: the study has no trainer:"),
        (("--check", "none.yaml"), "none.yaml"),
        (("--check", "gone.yaml"), "gone.yaml:3: trainer.command: there is no program 'frobnicate'"),
        (("--check", "gone.yaml", "--seconds", "0"), "--seconds: input should be above 0, not 0"),
    ],
)
def test_what_is_refused(words, why, tmp_path):
    write(
        tmp_path,
        {
            "gone.yaml": textwrap.dedent("""\
        title: Gone
        asks: Where?
        trainer: {command: [frobnicate, '{x}']}
        axes: {x: [1, 2]}
    """)
        },
    )
    said = init(*words, cwd=tmp_path)
    assert (said.returncode, said.stderr.count("\n")) == (2, 1)
    assert said.stderr.startswith(f"optstudy: {why}"), said.stderr
