"""The committed record: exact to the last bit, extended over sittings, done in the study engine's eyes."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from optstudy.cli import run
from optstudy.errors import UserError
from optstudy.identity import run_id
from optstudy.outcomes import RECORDED
from optstudy.record import write_json
from optstudy.results import archive
from optstudy.study import library as study
from optstudy.study.session import Session, Shared
from tests.test_engine import finish

AT_600 = {
    "paper/table1", *(f"paper/fig{n}" for n in range(1, 19)),
    "beyond/adaptivity-map", "beyond/fidelity",
}  # fmt: skip
"""Studies whose runs of 600 steps are all in the record; of beyond/rivals four optimizers are."""


def finished(runs, points, loss=5.0):
    for k, point in enumerate(points):
        finish(runs, point, loss + k / 7)
        write_json(runs / point.id / "env.json", {"cpu": "AVX512", "torch": "2.13.0+cpu", "pid": 3})
        lines = [{"step": s, "tokens": 64 * s, "loss": 8.0 - s / 100, "lr": 1e-3} for s in range(9, 900, 9)]
        lines.append({"step": 900, "tokens": 57_600, "val_loss": loss + k / 7, "seconds": 3.0})
        (runs / point.id / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return archive.collect(runs, [point.id for point in points])


def every_point():
    """One run of every curve of every study that needs no results."""
    found, plans = {}, {}
    for name in study.names():
        for point in study.load(name).plan("pico", adaptive=False, others=plans).points:
            found.setdefault((name, point.curve), point)
    return list({point.id: point for point in found.values()}.values())


def test_a_row_gives_back_its_run_exactly(tmp_path):
    points = every_point()
    kept = finished(tmp_path, points)
    again = archive.parse(archive.dump(kept), "record.csv")
    assert again.keys() == kept.keys() == {point.id for point in points}
    for key, entry in again.items():
        assert entry.row == kept[key].row
        assert run_id(entry.row.config) == key
        assert entry.machine == {"cpu": "AVX512", "torch": "2.13.0+cpu"}
        assert entry.row.versions == {"torch": "2.13.0+cpu"}
        assert entry.metrics[-1]["val_loss"] == pytest.approx(entry.row.val_loss, rel=1e-5)
        assert 20 <= len(entry.metrics) <= 2 * archive.POINTS + 1
    assert archive.dump(again) == archive.dump(archive.parse(archive.dump(again), "record.csv"))


def test_versions_of_packages_are_kept(tmp_path):
    (point,) = study.load("demo").points("pico")[:1]
    finished(tmp_path, [point])
    result = tmp_path / point.id / "result.json"
    versions = {"torch": "2.13.0+cpu", "pytorch_optimizer": "4.1"}
    write_json(result, {**json.loads(result.read_text()), "versions": versions})
    kept = archive.collect(tmp_path, [point.id])
    assert kept[point.id].row.versions == versions
    again = archive.parse(archive.dump(kept), "record.csv")
    assert again[point.id].row == kept[point.id].row


def test_every_run_of_the_committed_record_has_the_id_of_its_config():
    kept = archive.load("pico")
    assert len(kept) >= 1173 and kept is not archive.load("pico-long")
    assert all(run_id(entry.row.config) == key for key, entry in kept.items())
    assert archive.load("pico-long") == kept and archive.load("nano").keys().isdisjoint(kept)


def test_every_study_of_600_steps_is_whole_in_the_record_and_takes_all_of_it():
    """1,182 runs, 9 of them another's under a second name; those of Figure 5 have 2,400 steps."""
    folder = Path(archive.__file__).parent.parent / archive.FOLDER
    kept, left = archive.load("pico"), set(archive.read(folder / "pico-600.csv"))
    assert len(left) == 1123
    at_600, shared = {"training.steps": 600}, Shared()
    for name in study.names():
        if name.startswith(RECORDED):
            session = Session(study.load(name), "pico", Path("none"), at_600, kept=kept, shared=shared)
            if name in AT_600:
                assert not session.plan.pending and set(session.states().values()) <= {"done", "diverged"}
            left -= session.runs_known.keys()
    assert not left


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
                 st.text(), st.lists(st.text())))  # fmt: skip
@example("\r")
def test_every_value_survives_its_cell(value):
    cell = archive._cell(value)
    assert cell and archive._value(cell) == value and type(archive._value(cell)) is type(value)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow([cell])
    assert next(csv.reader(io.StringIO(text.getvalue(), newline=""))) == [cell]


def test_what_a_record_beside_has_is_not_added_again(tmp_path):
    first, second = study.load("demo").points("pico")[:2]
    archive.extend(tmp_path / "pico-600.csv", finished(tmp_path / "a", [first]))
    both = finished(tmp_path / "b", [first, second])
    assert archive.extend(tmp_path / "pico.csv", both) == (1, 1)
    assert archive.extend(tmp_path / "nano.csv", both) == (2, 2)
    assert archive.beside(tmp_path / "pico.csv").keys() == {first.id}
    assert archive.read(tmp_path / "pico.csv").keys() == {second.id}


def test_a_record_of_a_thousand_runs_is_small(tmp_path):
    points = every_point()
    size = len(archive.dump(finished(tmp_path, points)))
    assert size / len(points) * 1_300 < 5e6


def test_a_record_grows_over_sittings_and_keeps_what_it_has(tmp_path):
    first, second = study.load("demo").points("pico")[:2]
    path = tmp_path / "record" / "pico.csv"
    assert archive.extend(path, finished(tmp_path / "a", [first])) == (1, 1)
    before = path.read_text()
    assert archive.extend(path, finished(tmp_path / "b", [first], loss=6.0)) == (0, 1)
    assert path.read_text() == before
    assert archive.extend(path, finished(tmp_path / "b", [second])) == (1, 2)
    assert set(before.splitlines()[1:]) < set(path.read_text().splitlines())


def test_runs_of_older_numerics_leave_the_record(tmp_path, monkeypatch):
    first, second = study.load("demo").points("pico")[:2]
    path = tmp_path / "pico.csv"
    archive.extend(path, finished(tmp_path / "a", [first]))
    monkeypatch.setattr(archive, "NUMERICS", 2)
    assert archive.extend(path, {}) == (0, 0)
    assert second.id not in archive.read(path)


@pytest.mark.parametrize("text", ["id,state\nx,done\n", "nonsense\n1\n", 'id,val_loss\n"a\n'])
def test_a_damaged_record_is_named_with_its_line(text):
    with pytest.raises(UserError, match=r"record.csv:\d+: not a run"):
        archive.parse(text, "record.csv")


def test_a_kept_run_is_done_and_needs_no_folder(tmp_path):
    demo = study.load("demo")
    points = demo.points("pico")
    kept = finished(tmp_path / "elsewhere", points[:10])
    runs = tmp_path / "runs"
    session = Session(demo, "pico", runs, kept=kept)
    assert [session.state(p.id) for p in points] == ["done"] * 10 + ["waiting"] * 15
    assert {folder.name for folder in session.todo()} == {p.id for p in points[10:]}
    assert {path.name for path in runs.iterdir()} == {p.id for p in points[10:]}
    assert {row.id for row in session.rows()} == kept.keys()
    finish(runs, points[0], loss=1.0)
    again = Session(demo, "pico", runs, kept=kept)
    assert again.row(points[0].id).loss == 1.0, "a folder's own result goes first"


def test_kept_runs_decide_what_depends_on_them(tmp_path):
    fig1 = Session(study.load("paper/fig1"), "pico", tmp_path, adaptive=False)
    kept = finished(tmp_path / "elsewhere", fig1.plan.points)
    waits = Session(study.load("paper/fig6"), "pico", tmp_path, adaptive=False)
    ready = Session(study.load("paper/fig6"), "pico", tmp_path, adaptive=False, kept=kept)
    assert len(ready.plan.pending) < len(waits.plan.pending)


@pytest.fixture
def own_record(tmp_path, monkeypatch):
    """A record of Figure 1 at pico in the package's place."""
    points = study.load("paper/fig1").plan("pico", adaptive=False).points
    kept = finished(tmp_path / "elsewhere", points)
    monkeypatch.setattr(archive, "load", lambda scale: kept if scale == "pico" else {})
    return points


def test_reports_and_tables_fall_back_on_the_record(own_record, tmp_path, capsys):
    (runs := tmp_path / "none").mkdir()
    assert (
        run(["report", "paper/fig1", "--runs", str(runs), "--out", str(tmp_path / "out"), "--format", "html"])
        == 0
    )
    page = (tmp_path / "out" / "paper" / "fig1" / "pico" / "index.html").read_text()
    assert own_record[0].id in page and not list(runs.iterdir())
    assert run(["export", "paper/fig1", "--runs", str(runs), "--out", str(tmp_path / "t.csv")]) == 0
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 26
    capsys.readouterr()
    assert run(["show", "paper/fig1", "--runs", str(runs), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["runs"]
    assert sum(one["state"] == "done" for one in shown) == 25
    assert run(["show", "paper/fig1", "--runs", str(runs), "--json", "--fresh"]) == 0
    assert {one["state"] for one in json.loads(capsys.readouterr().out)["runs"]} == {"waiting"}


def test_the_demo_runs_itself_whatever_the_record_has(own_record, tmp_path, capsys):
    assert run(["show", "demo", "--runs", str(tmp_path / "none"), "--json"]) == 0
    assert {one["state"] for one in json.loads(capsys.readouterr().out)["runs"]} == {"waiting"}


def test_the_command_adds_the_runs_of_the_packages_studies_only(tmp_path, capsys):
    runs, path = tmp_path / "runs", tmp_path / "pico.csv"
    paper = study.load("paper/fig1").plan("pico", adaptive=False).points[:3]
    mine = study.load("demo").points("pico", {"training.steps": 7})[:1]
    finished(runs, [*paper, *mine])
    assert run(["export", "--record", str(path), "--runs", str(runs)]) == 0
    assert archive.read(path).keys() == {point.id for point in paper}
    assert "added 3 runs" in capsys.readouterr().out


def test_reading_the_record_imports_no_torch():
    code = "import sys; from optstudy.results import archive; archive.load('pico')"
    code += "; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
