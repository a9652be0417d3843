"""One figure: its points pool seeds and nothing else, and whatever reads it says the same."""

import json
import math
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optstudy import report as reports
from optstudy.findings import open_study
from optstudy.outcomes import figure_of
from optstudy.report import maps, style
from optstudy.report.answer import answer
from optstudy.results import archive, stats
from optstudy.results.curves import Place
from optstudy.results.export import table
from optstudy.results.figure import Figure
from optstudy.results.table import Row
from optstudy.study import library as study
from optstudy.study.expansion import Plans
from optstudy.study.session import Session
from tests import sweeps
from tests.test_engine import finish
from tests.test_report_sets import record

AXES = {
    "optimizer.name": ["adam", "lion", "sgdw"],
    "optimizer.lr": [1e-3, 1e-2, 1e-1],
    "training.batch_size": [4, 8, 16],
    "optimizer.weight_decay": [0.0, 0.1],
    "model.qk_norm": [True, False],
    "schedule.warmup": [0.05, 0.1],
    "part": ["all", "no head", "same"],
}
PARTS = {"all": {}, "no head": {"optimizer.roles.head.train": False}, "same": {}}
"""The names on the axis ``part``; two stand for the same settings."""
MADE = "title: T\nasks: Q?\nbase: {training.steps: 20}\n"


def ran(folder: Path, text: str, loss: Any, name: str = "mine") -> Session:
    """A study of one's own whose runs have all ended, with a loss made from each config."""
    file = folder / f"{name}.yaml"
    file.write_text(MADE + text)
    session = Session(study.load(str(file)), "pico", folder / "runs")
    while todo := [f for f in session.todo() if not (f / "result.json").exists()]:
        for run in todo:
            point = session.runs_known[run.name]
            finish(folder / "runs", point, loss(point.config))
    return session


def without_seed(row: Row) -> str:
    return json.dumps({key: value for key, value in row.config.items() if key != "seed"}, sort_keys=True)


@st.composite
def studies(draw: st.DrawFn) -> str:
    """A study over some axes, any of which is the figure's x or its curve, with or without named curves."""
    keys = draw(st.lists(st.sampled_from(list(AXES)), min_size=2, max_size=4, unique=True))
    axes = {
        key: draw(st.lists(st.sampled_from(AXES[key]), min_size=1, max_size=3, unique=True)) for key in keys
    }
    if "part" in axes:
        axes["part"] = {name: PARTS[name] for name in axes["part"]}
    axes.setdefault("optimizer.name", ["adam"])
    axes.setdefault("optimizer.lr", [1e-2])
    lines = [f"axes: {json.dumps(axes)}", f"seeds: {list(range(draw(st.integers(1, 2))))}"]
    x, curve = draw(st.sampled_from(list(axes))), draw(st.sampled_from(list(axes)))
    kind = draw(st.sampled_from(["sweep", "map"]))
    figure = {"kind": kind, "x": x, "curve": curve}
    if kind == "map" and draw(st.booleans()):
        rows, columns = draw(st.lists(st.sampled_from(list(axes)), min_size=2, max_size=2, unique=True))
        figure |= {"rows": rows, "columns": columns}
    lines.append(f"figure: {json.dumps(figure)}")
    named = "" if "rows" in figure or curve == "part" else draw(st.sampled_from(["", "a / b", "plain"]))
    if named:
        lines.append(f"curves: {json.dumps({named: {}, 'other': {'base': {'model.z_loss': 0.0}}})}")
    if draw(st.booleans()):
        lines.append(f"panels: {json.dumps({'one': {}, 'two / b': {'base': {'schedule.warmup': 0.3}}})}")
    return "\n".join(lines).replace('"model.z_loss"', '"training.z_loss"') + "\n"


@settings(deadline=None, max_examples=60)
@given(text=studies())
def test_no_point_pools_runs_that_differ_in_more_than_the_seed(text: str) -> None:
    mine = study.Study("s", study.parse(MADE + text, "s.yaml"))
    rows = {p.id: sweeps.row(id=p.id, config=p.config.model_dump(mode="json")) for p in mine.points("pico")}
    kept = {run: archive.Entry(row) for run, row in rows.items()}
    figure = figure_of(Session(mine, "pico", Path("none"), kept=kept))
    pooled = [point for curve in figure.curves for point in curve.points]
    for point in pooled:
        assert len({without_seed(row) for row in point.rows}) == 1
        seeds = [row.seed for row in point.rows]
        assert len(set(seeds)) == len(seeds)
    assert {row.id for point in pooled for row in point.rows} == rows.keys()
    assert len({curve.label for curve in figure.curves}) == len(figure.curves)
    shown = {style.full_name(figure, curve) for curve in figure.curves}
    assert len(shown) == len(figure.curves)


def batches(config: Any) -> float:
    return 4.0 + 0.1 * config.training.batch_size + abs(math.log10(config.optimizer.lr) + 2)


def batches_of(row: Row) -> int:
    return int(row.value("training.batch_size"))


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (
            "figure: {x: optimizer.lr}\n",
            ["adam, batch size 4", "adam, batch size 16", "lion, batch size 4", "lion, batch size 16"],
        ),
        (
            "figure: {x: training.batch_size}\n",
            [f"{name}, learning rate {lr}" for name in ("adam", "lion") for lr in ("1e-3", "0.01", "0.1")],
        ),
        (
            "curves: {here: {}}\n",
            [f"here, optimizer {name}, batch size {b}" for name in ("adam", "lion") for b in (4, 16)],
        ),
        (
            "figure: {kind: map}\ncurves: {row / column: {}}\n",
            [f"row / column, optimizer {name}, batch size {b}" for name in ("adam", "lion") for b in (4, 16)],
        ),
    ],
)
def test_an_axis_that_is_neither_x_nor_curve_makes_curves_of_its_own(
    tmp_path: Path, text: str, labels: list[str]
) -> None:
    axes = {"optimizer.name": ["adam", "lion"], "optimizer.lr": [1e-3, 1e-2, 1e-1]}
    axes["training.batch_size"] = [4, 16]
    session = ran(tmp_path, f"axes: {json.dumps(axes)}\n{text}", batches)
    figure = figure_of(session)
    assert sorted(curve.label for curve in figure.curves) == sorted(labels)
    assert figure.one_seed and figure.summaries[0].best is not None
    assert (figure.summaries[0].best.half_width, figure.summaries[0].tried.loss) == (None, pytest.approx(4.4))
    exported = {record["curve"] for record in table(figure)}
    assert exported == set(labels)
    if figure.kind == "map":
        assert [heat.title for heat in maps.heats(figure)] == [
            f"optimizer {style.known(name)}, batch size {b}" for name in ("adam", "lion") for b in (4, 16)
        ]
    part = Figure("s", "t", [r for r in figure.rows if batches_of(r) == 4], figure.places, kind=figure.kind)
    assert {curve.label for curve in part.curves} <= set(labels)  # while the others have not ended, too
    reports.write(figure, tmp_path / "out", reports.FORMATS)
    page = (tmp_path / "out" / "index.html").read_text()
    assert all(style.name(curve) in page for curve in figure.curves)


def test_the_packages_studies_have_no_such_axis() -> None:
    plans: Plans = {}
    for name in study.names():
        points = study.load(name).plan("pico", adaptive=False, others=plans).points
        rows = {p.id: sweeps.row(id=p.id, config=p.config.model_dump(mode="json")) for p in points}
        kept = {run: archive.Entry(row) for run, row in rows.items()}
        figure = figure_of(Session(study.load(name), "pico", Path("none"), kept=kept, adaptive=False))
        assert [curve.label for curve in figure.curves if curve.apart] == [], name


def test_a_note_on_a_run_stands_on_its_point_and_in_the_warnings() -> None:
    rows = [sweeps.row(lr=lr, loss=5.0) for lr in (1e-3, 1e-2)]
    places = [Place(row.id, "adam", row.lr, note="made by older code" * (row.lr < 5e-3)) for row in rows]
    figure = Figure("s", "t", rows, places)
    (curve,) = figure.curves
    assert [point.notes for point in curve.points] == [("made by older code",), ()]
    assert "Adam: made by older code." in answer(figure).warnings
    assert [record["note"] for record in table(figure)] == ["made by older code", ""]


NUMBER = r"([+-]?\d+\.\d+) ± (\d+\.\d+)"


def test_one_comparison_has_one_interval_wherever_it_is_said(tmp_path: Path) -> None:
    """The page, Markdown, claims and ``compare`` of the same runs, and Python."""

    def loss(config: Any) -> float:
        name, lr = config.optimizer.name, config.optimizer.lr
        best = {"adam": -2.0, "adafactor": -2.0, "lion": -3.0, "signum": -3.0, "sgdw": -0.5}[name]
        noise = random.Random(config.id).gauss(0, 0.01) + 0.03 * config.seed
        behind = {"adam": 0.0, "lion": 0.1}.get(name, 0.03)
        return 4.9 + behind + 0.9 * (math.log10(lr) - best - 0.1) ** 2 + noise

    session = Session(study.load("paper/fig1"), "pico", tmp_path / "runs")
    while todo := [f for f in session.todo() if not (f / "result.json").exists()]:
        for run in todo:
            point = session.runs_known[run.name]
            finish(tmp_path / "runs", point, min(loss(point.config), 8.9))
    opened = open_study("paper/fig1", runs=tmp_path / "runs", fresh=True)
    figure = opened.data()
    lion, adam = (next(c for c in figure.curves if c.name == name) for name in ("lion", "adam"))
    found = stats.difference(lion, adam)
    assert found is not None and found.interval is not None
    wanted = (f"{found.value:.3f}", f"{found.half_width:.3f}")

    out = tmp_path / "out"
    opened.report(out, ["html", "md", "tex"])
    for path in (out / "index.html", out / "table.md"):
        text = path.read_text().replace("\u00a0", " ").replace("&#43;", "+")
        said = re.findall(rf"Lion \({NUMBER}\)", text)
        assert {(value.lstrip("+"), half) for value, half in said} == {wanted}, path
    claim = next(one for one in opened.claims() if one["name"] == "non-sgd-same-loss")
    assert claim["estimate"] == found.value and claim["interval"] == list(found.interval)
    page = (out / "index.html").read_text()
    assert f"{found.interval[0]:.3f} to {found.interval[1]:.3f}" in page

    # The same two curves as two runs folders, before and after: Lion's losses under Adam's configs.
    for name, curve in (("before", adam), ("after", lion)):
        shift = lion.best.position - adam.best.position if curve is lion else 0.0
        for point in curve.points:
            twin = min(adam.points, key=lambda p: abs(p.position - point.position + shift))
            if abs(twin.position - point.position + shift) < 0.02:
                for row in point.rows:
                    config = {**twin.rows[0].config, "seed": row.seed}
                    record(
                        tmp_path / name, [sweeps.row(id=f"{twin.x}-{row.seed}", config=config, loss=row.loss)]
                    )
    compared = reports.compare(tmp_path / "before", tmp_path / "after")
    (changed,) = compared.groups
    assert changed.best is not None and changed.best.interval == pytest.approx(found.interval)
    reports.write_comparison(compared, tmp_path / "compared")
    shown = re.findall(NUMBER, (tmp_path / "compared" / "index.html").read_text())
    assert (f"{found.value:+.4f}", f"{found.half_width:.4f}") in shown


def test_runs_from_before_a_key_was_there_are_on_the_curve_of_those_that_have_its_default() -> None:
    rows = [sweeps.row(seed=seed) for seed in (0, 1)]
    rows += [replace(row, id=f"0{row.id[1:]}", config={**row.config, "seed": 2}) for row in rows[:1]]
    rows[0].config["data"] = {**rows[0].config["data"], "text_key": "text"}
    rows[1].config["optimizer"]["options"]["eps"] = 1e-8
    places = [Place(row.id, "adam", row.lr) for row in rows]
    (one,) = Figure("s", "t", rows[::2], places[::2]).curves
    assert one.apart == ()
    rows[0].config["watch"] = {"norms": True}
    (one,) = Figure("s", "t", rows[::2], places[::2]).curves
    assert one.apart == ()
    assert len(Figure("s", "t", rows, places).curves) == 2
