"""How the command line shows itself: help, completion, tables in pipes, progress, hints."""

import io
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from optstudy.cli import app, run
from optstudy.commands import data as data_command
from optstudy.commands.tables import show_table
from optstudy.commands.watch import ProgressView
from optstudy.launch.events import Event
from optstudy.record import write_json
from optstudy.study.session import Session
from tests.configs import folder_of
from tests.test_cli import OPTSTUDY, STUDY, optstudy
from tests.test_engine import SWEEP, a_study, finish

GROUPS = {"data": ("prepare", "list", "verify", "info", "show"), "bench": ("optim", "train")}


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("asked", [[], ["--help"], ["-h"]])
def test_help_has_a_word_on_each_subcommand(group, asked, capsys):
    assert run([group, *asked]) == 0
    shown = capsys.readouterr().out
    for name in GROUPS[group]:
        assert re.search(rf"│ {name} +[A-Z]\w+", shown), shown


def test_help_has_no_options_that_nobody_asked_for(capsys):
    for name in ("run", "show", "status", "report", "export", "train"):
        assert run([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert "--set" in shown and "--empty" not in shown
    assert "--empty" not in app.generate_docs()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_into_the_home_folder_and_knows_commands_and_options(shell, tmp_path):
    done = optstudy("--install-completion", "--shell", shell, env={**os.environ, "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    scripts = [path for path in tmp_path.rglob("*optstudy*") if path.is_file()]
    written = "".join(path.read_text() for path in scripts)
    for word in ("prepare", "optimizers", "--per-gpu", "--scale"):
        assert word in written
    if shell == "bash" and shutil.which("bash"):
        subprocess.run(["bash", "-n", scripts[0]], check=True)


ROWS = [("a" * 60, "b" * 60, "two\nlines", "3"), ("c", "[d]", "e", "40")]


def test_a_table_in_a_pipe_has_a_line_per_row(capsys):
    show_table(("one", "two", "three", "four"), ROWS, right=(3,))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[1].split() == ["a" * 60, "b" * 60, "two", "lines", "3"]
    assert lines[2].endswith("40") and "[d]" in lines[2] and len({len(line) for line in lines}) == 1


def test_a_table_on_a_terminal_fits_into_it(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("FORCE_COLOR", "1")
    show_table(("one", "two", "three", "four"), ROWS, right=(3,))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, plain.splitlines())) <= 60 and len(plain.splitlines()) > 3 and "[d]" in plain


def test_tables_of_commands_do_not_wrap_in_a_pipe():
    from optstudy.recipes import names
    from optstudy.study import library as study

    count = sum(len(study.load(name).claims) for name in study.names())
    for arguments, lines in ((["claims"], count + 1), (["optimizers"], len(names()) + 1)):
        said = optstudy(*arguments, env={**os.environ, "COLUMNS": "80"}).stdout.splitlines()
        assert len(said) == lines, said


def test_corpora_are_listed_a_line_each_in_a_pipe(own_cache, capsys):
    data_command.list_()
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown[:5]] == ["corpus", "enwik8", "c4", "wikitext-103", "fineweb"]


def test_progress_counts_each_run_once(tmp_path):
    study = a_study(SWEEP)
    points = study.points("pico")
    finish(tmp_path, points[0])
    shown = io.StringIO()
    session = Session(study, "pico", tmp_path)
    with ProgressView(session, 2, Console(file=shown, width=200)) as watch:
        for point in points[1:4]:  # three end between two looks of the launcher
            finish(tmp_path, point)
        for point in points[1:4]:
            watch.on_event(Event("ended", tmp_path / point.id))
    counted = re.findall(rf"^\[(\d+)/{len(session.states())}\]", shown.getvalue(), re.MULTILINE)
    assert counted == ["2", "3", "4"]


@pytest.mark.parametrize("command", ["status", "run"])
def test_a_lease_from_the_future_has_a_hint(command, tmp_path):
    (tmp_path / "s.yaml").write_text(STUDY)
    study = Session(a_study(STUDY, "s"), "pico", tmp_path / "runs")
    for point in study.plan.points:
        folder = folder_of(point.config, tmp_path / "runs")
        if point is not study.plan.points[0]:
            finish(tmp_path / "runs", point)
        else:
            held = folder / "lease-000001.json"
    write_json(held, {"machine": "elsewhere", "host": "far", "pid": 1, "started": "1"})
    later = time.time() + 86_400
    os.utime(held, (later, later))
    arguments = [OPTSTUDY, command, "s.yaml", "--runs", "runs"]
    with subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.PIPE, text=True, stdout=-3) as process:
        line = process.stderr.readline()
        process.terminate()
    dated = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(later))
    assert re.search(rf"{held.name}: dated {dated}, in the future.*delete this file", line)


def test_a_job_finds_the_cache_where_the_launcher_has_it(tmp_path, monkeypatch):
    from optstudy.launch import slurm

    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(
        f'#!/bin/sh\necho "$OPTSTUDY_CACHE|$XDG_CACHE_HOME|$SBATCH_X" >{tmp_path}/told\necho 7\n'
    )
    sbatch.chmod(0o755)
    for key, value in {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SBATCH_X": "1"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("OPTSTUDY_CACHE", "relative")
    monkeypatch.setenv("XDG_CACHE_HOME", "/absolute")
    assert slurm._submit("#!/bin/bash\n", tmp_path) == "7"
    assert (tmp_path / "told").read_text() == f"{tmp_path}/relative|/absolute|\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", [["studies", "--json"], ["optimizers"]])
def test_output_to_a_full_disk_is_one_line(command):
    with Path("/dev/full").open("w") as full:
        said = subprocess.run(
            [sys.executable, "-m", "optstudy", *command],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (said.returncode, said.stderr) == (2, "optstudy: standard output: No space left on device\n")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "found"),
    [(["run", "paper/fig1"], "paper/fig18"), (["run", "--per"], "--per-gpu"), (["da"], "data")],
)
def test_bash_completes_studies_options_and_commands(words, found, tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{OPTSTUDY.parent}:{os.environ['PATH']}"}
    assert optstudy("--install-completion", "--shell", "bash", env=environment).returncode == 0
    (script,) = [path for path in tmp_path.rglob("optstudy") if path.is_file()]
    line = " ".join(["optstudy", *words])
    code = (
        f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; COMP_LINE='{line}'; "
        'COMP_POINT=${#COMP_LINE}; _optstudy; echo "${COMPREPLY[@]}"'
    )
    said = subprocess.run(["bash", "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found in said.stdout.split()
