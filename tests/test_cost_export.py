"""What runs cost before they run, and the tidy table after; batch scripts as Slurm gets them."""

import csv
import io
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from optstudy.cli import run
from optstudy.commands.launching import Launching
from optstudy.config import forward_flops
from optstudy.errors import UserError, validate
from optstudy.launch import slurm
from optstudy.launch.options import Slurm
from optstudy.launch.slots import slots
from optstudy.record import write_json
from optstudy.results import export
from optstudy.results.curves import Place
from optstudy.results.figure import Figure
from optstudy.results.table import read_rows
from optstudy.study import cost
from optstudy.study import library as study
from optstudy.study.session import Session
from tests.configs import tiny
from tests.test_engine import finish


def timed(point, tmp_path, seconds, step_ms, step):
    """The row of a finished run that took so long."""
    finish(tmp_path, point)
    (row,) = read_rows(tmp_path, [point.id])
    tokens = step * point.config.training.batch_size * point.config.data.sequence_length
    return replace(row, seconds=seconds, step_ms=step_ms, step=step, tokens=tokens)


def test_time_is_that_of_finished_runs_of_the_same_size(tmp_path):
    points = study.load("demo").points("pico")
    config = points[1].config
    speed = cost.Speed([timed(points[0], tmp_path, 0.01, 50.0, config.total_steps)])
    whole = cost.flops(config) / (
        3 * forward_flops(config.model, config.data.sequence_length) * config.tokens
    )
    assert 1 < whole < 3
    one = 0.050 * config.total_steps * whole
    assert speed.seconds(config)[0] == pytest.approx(one)
    spent = cost.estimate([p.config for p in points[1:5]], speed, slots=2, record_bytes=1000)
    assert (spent.runs, spent.tokens) == (4, 4 * config.tokens)
    assert spent.seconds == pytest.approx(2 * one)
    larger = study.load("demo").points("nano")[0].config
    seconds, rests_on = speed.seconds(larger)
    assert seconds == pytest.approx(one * cost.flops(larger) / cost.flops(config)) and "another" in rests_on


def test_a_run_of_20_steps_tells_as_much_as_a_long_one(tmp_path):
    points = study.load("demo").points("pico")
    config = points[1].config
    long = cost.Speed([timed(points[0], tmp_path, 30.0, 50.0, config.total_steps)]).seconds(config)[0]
    short = timed(points[2], tmp_path, 6.0, 50.0, 20)  # 1 s of steps, 5 s for its start and its validation
    assert cost.Speed([short]).seconds(config)[0] == pytest.approx(long, abs=6.0)
    both = cost.Speed([short, timed(points[0], tmp_path, 30.0, 50.0, config.total_steps)])
    assert both.seconds(config)[0] == pytest.approx(long, abs=6.0)


def test_hours_of_a_gpu_are_not_told_from_a_core(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for device in ("auto", "cuda"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0" if device == "cuda" else "")
        assert run(["show", "paper/fig1", "--scale", "150m", "--device", device]) == 0
        said = capsys.readouterr().out.splitlines()[-1]
        assert "hours unknown" in said and "core's" not in said and "about" not in said
    assert run(["show", "paper/fig1", "--scale", "150m", "--device", "cpu"]) == 0
    assert "h with" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(("trained_on", "known"), [("cpu", False), ("NVIDIA H200", True)])
def test_hours_of_a_gpu_come_from_runs_on_a_gpu(trained_on, known, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    point = study.load("demo").points("micro")[0]
    finish(tmp_path, point)
    write_json(tmp_path / point.id / "env.json", {"device": trained_on})
    assert run(["show", "demo", "--scale", "micro", "--runs", str(tmp_path)]) == 0
    assert ("hours unknown" not in capsys.readouterr().out) == known


def test_the_tidy_table_has_a_row_per_run_and_curve_and_a_column_per_key(tmp_path):
    points = study.load("demo").points("pico")[:2]
    for point in points:
        finish(tmp_path, point)
    rows = export.every(tmp_path)
    where = [(points[0].id, "a", ""), (points[0].id, "b", "p"), (points[1].id, "c", "")]
    places = [Place(run, curve, 1e-3, panel) for run, curve, panel in where]
    records = export.table(Figure("s", "t", rows, places))
    assert sorted(record["curve"] for record in records) == ["a", "c", "p / b"]
    assert [record["id"] for record in export.runs(rows)] == [row.id for row in rows]
    assert {record["optimizer.lr"] for record in records} == {p.config.optimizer.lr for p in points}
    export.write(records, tmp_path / "runs.csv", "csv")
    with io.StringIO((tmp_path / "runs.csv").read_text()) as file:
        again = list(csv.DictReader(file))
    assert [row["id"] for row in again] == [record["id"] for record in records]
    assert float(again[0]["val_loss"]) == 5.0
    with pytest.raises(UserError, match="'xlsx' is none of csv, parquet"):
        export.write(records, tmp_path / "runs.xlsx", "xlsx")


def test_one_worker_per_core_or_per_gpu(monkeypatch):
    small, large = tiny(), tiny(**{"model.d_model": 512, "model.n_heads": 8})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert slots([small], 3, "auto", 1) == [""] * 3
    assert slots([large], None, "auto", 2) == ["2", "3", "2", "3"]
    assert slots([large], 3, "cuda", 1) == ["2", "3", "2"]
    assert slots([large], 1, "cpu", 1) == [""]


def test_a_batch_script_says_what_the_study_file_says_and_is_valid_shell(tmp_path):
    options = Slurm(
        partition="gpu", time="01:00:00", at_once=4, setup=["module load cuda"], extra={"mail": "me"}
    )
    text = slurm.script([tmp_path / "a b", tmp_path / "c"], options, threads=2, device="cuda")
    for line in ("partition=gpu", "time=01:00:00", "array=0-1%4", "cpus-per-task=2", "mail=me"):
        assert f"#SBATCH --{line}\n" in text
    assert "module load cuda\n" in text and "folders=('a b' c)" in text
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize(
    "key", ["partition", "account", "qos", "constraint", "time", "gres", "mem", "extra.comment"]
)
@pytest.mark.parametrize(
    "value", ["a\nrm -rf x", "a\rb", "a\x85b", "a\u2028b", 'a"b', "a'b", "a\\", '""', "a\x00b"]
)
def test_a_value_for_slurm_cannot_end_its_line(key, value):
    field, _, inner = key.partition(".")
    with pytest.raises(UserError, match=f"{field}.*one line"):
        validate(Slurm, {field: {inner: value} if inner else value})


@pytest.mark.parametrize("key", ["mail\nrm", "mail type", "", "-p", "array", "a=b"])
def test_a_key_for_slurm_is_that_of_an_option(key):
    with pytest.raises(UserError, match="extra"):
        validate(Slurm, {"extra": {key: "x"}})


def test_a_value_with_blanks_reaches_slurm_whole(tmp_path):
    options = Slurm(mem=64000, extra={"comment": "first #1 try"}, constraint="[rack1|rack2]&gpu")
    text = slurm.script([tmp_path / "a"], options, threads=1, device="cpu")
    for line in ("mem=64000", 'comment="first #1 try"', "constraint=[rack1|rack2]&gpu"):
        assert f"#SBATCH --{line}\n" in text


def test_the_command_line_has_the_last_word_on_how_runs_are_submitted(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "title: M\nasks: M?\naxes: {optimizer.name: [adam], optimizer.lr: [1e-3]}\n"
        "slurm: {partition: a, mem: 4G}\n"
    )
    session = Session(study.load(str(file)), "pico", tmp_path / "runs")
    text = Launching(session, "slurm", "cpu", 3, 1, ["partition=b", "extra.mail=me"]).script()
    for line in ("partition=b", "mem=4G", "array=0-0%3", "mail=me"):
        assert f"#SBATCH --{line}\n" in text
    assert Launching(session, "local", "cpu", None, 1).script() == ""


def test_without_slurm_its_launcher_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "runs" / "x").mkdir(parents=True)
    with pytest.raises(UserError, match="no sbatch"):
        slurm.launch(lambda: [Path(tmp_path / "runs" / "x")], Slurm(), 1)


def test_studies_that_share_adams_learning_rates_share_the_runs():
    def adams(name):
        points = study.load(name).points("pico")
        return {p.id for p in points if p.config.optimizer.name == "adam" and p.config.schedule.warmup == 0.1}

    fig1 = {p.id for p in study.load("paper/fig1").points("pico") if p.curve == "adam"}
    sharing = [name for name in study.names() if name.startswith("paper/") and fig1 <= adams(name)]
    assert len(fig1) == 5 and len(sharing) >= 4, sharing
