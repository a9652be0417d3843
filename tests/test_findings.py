"""The way in from Python: a study opened, run, read, drawn and reported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import optstudy
from optstudy.cli import run
from optstudy.errors import UserError
from tests.test_cli import STUDY, settings

RECORDED = optstudy.open_study("paper/fig1", runs="no-runs", overrides={"training.steps": 600})


def test_a_study_is_read_and_drawn_without_torch(tmp_path):
    code = (
        "import sys, optstudy; s = optstudy.open_study('paper/fig1', runs='no-runs');"
        f"s.table(), s.summary(), s.claims(), s.curves(), s.figure(), s.report({str(tmp_path)!r});"
        "s._repr_html_(); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "index.html").exists()


def test_its_rows_are_those_of_export_with_one_type_a_column(tmp_path):
    rows = RECORDED.table()
    out = tmp_path / "fig1.csv"
    assert (
        run(
            [
                "export",
                "paper/fig1",
                "--set",
                "training.steps=600",
                "--runs",
                str(tmp_path),
                "--out",
                str(out),
            ]
        )
        == 0
    )
    assert len(out.read_text().splitlines()) == 1 + len(rows)
    assert len({tuple(row) for row in rows}) == 1
    for column in rows[0]:
        kinds = {type(row[column]) for row in rows if row[column] is not None}
        assert len(kinds) <= 1 and kinds <= {str, int, float, bool}, column


def test_its_claims_are_those_of_the_command_line(capsys, tmp_path):
    assert run(["claims", "--set", "training.steps=600", "--json", "--runs", str(tmp_path)]) == 0
    listed = json.loads(capsys.readouterr().out)["claims"]
    assert RECORDED.claims() == [one for one in listed if one["figure"] == "paper/fig1"]


def test_its_curves_have_points_that_have_runs_that_have_histories():
    for curve in RECORDED.curves():
        for point in curve.points:
            for one in point.runs:
                losses = [row["val_loss"] for row in one.history if "val_loss" in row]
                if one.row.state == "done" and losses:
                    assert losses[-1] == pytest.approx(one.row.val_loss, abs=1e-4)
    assert sum(bool(one.history) for c in RECORDED.curves() for p in c.points for one in p.runs) > 60


def test_its_summary_says_what_the_table_says():
    best = RECORDED.summary()[0]
    assert (best["curve"], best["best_tried"], best["seeds"], best["runs"]) == ("adam", 0.01, 3, 15)
    assert best["best_loss_low"] < best["best_loss"] < best["best_loss_high"]
    assert json.loads(json.dumps(RECORDED.summary())) == RECORDED.summary()


def test_in_a_notebook_it_shows_its_answer_table_and_figure_and_escapes_names(tmp_path):
    shown = RECORDED._repr_html_()
    assert "has the lowest validation loss" in shown and "data:image/png;base64," in shown
    assert shown.count("<tr>") == 6 and "<script" not in shown
    file = tmp_path / "mine.yaml"
    file.write_text(STUDY.replace("title: Tiny", "title: <b>&"))
    empty = optstudy.open_study(str(file), runs=tmp_path / "runs")
    assert "&lt;b&gt;&amp;" in empty._repr_html_() and "No run has finished yet" in empty._repr_html_()
    assert repr(empty).startswith("<study mine at pico: 0 finished runs")


def test_a_study_runs_from_python_and_what_has_run_is_not_run_again(corpus_slice, tmp_path, capsys):
    file = tmp_path / "tiny.yaml"
    file.write_text(STUDY)
    chosen = dict(one.removeprefix("--set=").split("=", 1) for one in settings(corpus_slice))
    overrides = {key: json.loads(value) if value.isdecimal() else value for key, value in chosen.items()}
    study = optstudy.open_study(str(file), runs=tmp_path / "runs", overrides=overrides, seeds=1)
    with pytest.raises(UserError, match="no run has ended"):
        study.figure()
    assert study.run(jobs=2) is study
    assert "6 runs: 0 done before, 6 to do" in capsys.readouterr().out
    assert len(study.table()) == 6 and len(study.curves()) == 2
    assert study.curves()[0].points[0].runs[0].history[-1]["step"] > 0
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/*")}
    study.run()
    assert "6 done before, 0 to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/*")} == stamps
    assert not Path("report").exists() or not Path("report/tiny").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "paper/fig99"}, "unknown study 'paper/fig99'; did you mean"),
        ({"name": "demo", "scale": "pocket"}, "unknown scale 'pocket'"),
        ({"name": "demo", "seeds": 0}, "seeds: input should be at least 1, not 0"),
        ({"name": "demo", "overrides": {"training.stepz": 5}}, "stepz"),
    ],
)
def test_a_mistake_is_told_when_a_study_is_opened(options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        optstudy.open_study(**options, runs=tmp_path)


def test_a_mistake_that_running_finds_is_told_in_one_line(corpus_slice, tmp_path):
    chosen = {"data.corpus": corpus_slice, "validation.sequences": 10**6, "data.sequence_length": 16}
    study = optstudy.open_study("demo", runs=tmp_path / "runs", overrides=chosen)
    with pytest.raises(UserError, match=r"^validation\.sequences: [^\n]*$"):
        study.run(jobs=1)


def test_the_package_has_no_other_names():
    with pytest.raises(AttributeError, match="no attribute 'open_studies'"):
        _ = optstudy.open_studies


@pytest.mark.parametrize("values", ["1e-3", [], 3])
def test_values_of_an_axis_are_a_list(values):
    with pytest.raises(UserError, match=r"axes: optimizer.lr: must be a list of values, .*, not "):
        optstudy.open_study("demo", axes={"optimizer.lr": values})


def test_a_file_may_be_a_path_and_a_format_a_word(tmp_path):
    (tmp_path / "mine.yaml").write_text(STUDY)
    assert optstudy.open_study(tmp_path / "mine.yaml", runs=tmp_path).table() == []
    assert [one.name for one in RECORDED.report(tmp_path, "md")] == ["table.md"]


@pytest.mark.parametrize("seeds", [0, 1.5])
def test_a_count_of_seeds_is_a_whole_number_above_0(seeds):
    with pytest.raises(
        UserError, match=r"seeds: (input should be at least 1, not 0|must be a whole number, not 1\.5)"
    ):
        optstudy.open_study("demo", seeds=seeds)


def test_values_of_an_axis_may_come_one_by_one(tmp_path):
    study = optstudy.open_study("demo", axes={"optimizer.lr": iter([1e-3, 1e-2])}, runs=tmp_path, fresh=True)
    assert repr(study).startswith("<study demo at pico: 0 finished runs")
