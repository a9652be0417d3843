"""What runs cost before they run, and the tidy table after; batch scripts as Slurm gets them."""

import csv
import io
import subprocess
from pathlib import Path

import pytest

from optstudy.commands.launching import Launching
from optstudy.errors import UserError
from optstudy.launch import slurm
from optstudy.launch.options import Slurm
from optstudy.launch.slots import slots
from optstudy.results import export
from optstudy.results.curves import Place
from optstudy.results.figure import Figure
from optstudy.results.table import read_rows
from optstudy.study import cost
from optstudy.study import library as study
from optstudy.study.session import Session
from tests.configs import tiny
from tests.test_engine import finish


def test_time_is_that_of_finished_runs_of_the_same_size(tmp_path):
    points = study.load("demo").points("pico")
    finish(tmp_path, points[0])
    speed = cost.Speed(read_rows(tmp_path, [points[0].id]))
    config = points[1].config
    assert speed.seconds(config)[0] == pytest.approx(9.0 / 900 * config.tokens)
    spent = cost.estimate([p.config for p in points[1:5]], speed, slots=2, record_bytes=1000)
    assert (spent.runs, spent.tokens) == (4, 4 * config.tokens)
    assert spent.seconds == pytest.approx(2 * 9.0 / 900 * config.tokens)
    larger = study.load("demo").points("nano")[0].config
    seconds, rests_on = speed.seconds(larger)
    assert seconds == pytest.approx(9.0 * cost.flops(larger) / cost.flops(config)) and "another" in rests_on


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
    assert len(fig1) == 9 and len(sharing) >= 4, sharing
