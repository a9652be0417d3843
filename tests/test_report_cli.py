"""``optstudy report`` and ``compare`` as they are called."""

import json
import math
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from optstudy import cli
from optstudy.outcomes import figure_of
from optstudy.study import library as study
from optstudy.study.session import Session
from tests import sweeps


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with a result for all runs of the demo but the last."""
    folder = tmp_path_factory.mktemp("runs")
    points = Session(study.load("demo"), "pico", folder).plan.points
    for point in points[:-1]:
        loss = sweeps.loss_at(point.curve, float(point.x), 0)
        row = sweeps.row(loss=loss)
        result = {name: getattr(row, name) for name in type(row).__dataclass_fields__ if name != "config"}
        (folder / point.id).mkdir()
        (folder / point.id / "config.json").write_text(json.dumps(point.config.model_dump(mode="json")))
        (folder / point.id / "result.json").write_text(json.dumps({**result, "id": point.id, "format": 1}))
    return folder


def finish(folder: Path, session: Session) -> None:
    """Give every run of a plan a made-up result."""
    for point in {**session.runs_known}.values():
        run = folder / point.id
        if not run.exists():
            run.mkdir()
            row = sweeps.row(loss=5.0 + abs(math.log10(point.config.optimizer.lr) + 2))
            result = {name: getattr(row, name) for name in type(row).__dataclass_fields__ if name != "config"}
            (run / "config.json").write_text(json.dumps(point.config.model_dump(mode="json")))
            (run / "result.json").write_text(json.dumps({**result, "id": point.id, "format": 1}))


def test_panels_are_named_by_what_ran_and_runs_that_panels_share_are_drawn_once(tmp_path: Path) -> None:
    sessions = {name: Session(study.load(f"paper/{name}"), "pico", tmp_path) for name in ("fig3", "fig13")}
    for session in sessions.values():
        finish(tmp_path, session)
    fig3, fig13 = (figure_of(session) for session in sessions.values())
    assert [panel.title for panel in fig3.panels] == ["last layer", "last layer and norms"]
    for panel in fig3.panels:
        assert {c.name for c in panel.curves if fig3.baseline(c)} == {"adalayer_star", "sgdw"}
    assert [panel.title for panel in fig13.panels] == [""]
    assert {"adafactor", "sgdw"} <= {curve.name for curve in fig13.curves if fig13.baseline(curve)}
    assert all(len(point.rows) == 1 for curve in fig13.curves for point in curve.points)


def test_the_command_on_the_page_is_the_one_that_ran(tmp_path: Path) -> None:
    file = tmp_path / "my study.yaml"
    file.write_text("title: t\nasks: q\nbase: {optimizer.name: adam}\naxes: {optimizer.lr: [1e-3, 1e-2]}\n")
    chosen = study.overrides(
        ["training.steps=50", "optimizer.options.betas=[0.9, 0.95]", "data.corpus=enwik8"]
    )
    command = figure_of(Session(study.load(str(file)), "nano", tmp_path, chosen, seeds=2)).command
    _, _, *words = shlex.split(command)
    assert command.startswith("optstudy run ") and words[:3] == [str(file), "--scale", "nano"]
    assert study.overrides([b for a, b in pairwise(words) if a == "--set"]) == chosen
    assert words[-2:] == ["--seeds", "2"]


def test_report_prints_the_table_and_writes_the_formats_asked_for(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    formats = ["--format", "html", "--format", "pdf", "--format", "md"]
    assert cli.run(["report", "demo", "--runs", str(runs), "--out", str(tmp_path), *formats]) == 0
    said = capsys.readouterr().out
    assert "Adam at learning rate" in said and "1 of 25 runs have no result yet" in said
    written = [Path(line.removeprefix("wrote ")) for line in said.splitlines() if line.startswith("wrote ")]
    assert [path.name for path in written] == ["index.html", "figure.pdf", "table.md"]
    assert all(path.is_file() for path in written)


@pytest.mark.long
def test_report_of_a_folder_of_studies_is_an_index(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        cli.run(
            ["report", "paper", "--runs", str(runs), "--out", str(tmp_path), "--set", "training.steps=600"]
        )
        == 0
    )
    index = tmp_path / "paper" / "pico" / "index.html"
    assert str(index) in capsys.readouterr().out
    assert "Adam at learning rate" in index.read_text()
    assert (index.parent / "paper-fig1" / "index.html").is_file()


def test_report_without_runs_or_with_an_unknown_format_or_study_is_the_users_mistake(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (["demo", "--runs", str(tmp_path / "none")], "no run has ended"),
        (["demo", "--runs", str(runs), "--out", str(tmp_path), "--format", "pfd"], "did you mean 'pdf'"),
        (["papr", "--runs", str(runs)], "unknown study 'papr'"),
    ):
        assert cli.run(["report", *arguments]) == 2
        said = capsys.readouterr().err
        assert message in said and "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_compare_of_a_folder_with_itself_finds_no_change(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["compare", str(runs), str(runs), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("24 pairs: the loss changed by +0.0000") and "is equal in 24" in said
    assert (tmp_path / "index.html").is_file()
