"""Axes of named settings: multiplied like any other, and their names are those of curves, cells and ticks."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from optstudy import report as reports
from optstudy.errors import UserError
from optstudy.outcomes import figure_of
from optstudy.report import maps
from optstudy.results.export import table
from optstudy.study import library as study
from tests.test_figure import ran

HEAD = {"on": {}, "off": {"optimizer.roles.head.train": False}}
SIZE = {"small": {"training": {"batch_size": 4}}, "large": {"training.batch_size": 16, "training.steps": 10}}


def planned(tmp_path: Path | None = None, chosen: Any = None, scale: str = "pico", **keys: Any) -> Any:
    text = json.dumps({"title": "T", "asks": "Q?", **keys})
    return study.Study("mine", study.parse(text, "mine.yaml")).plan(scale, chosen)


def told(plan: Any) -> list[tuple[Any, ...]]:
    """What each run has of the settings that these axes name."""
    found = []
    for point in plan.points:
        config = point.config
        off = config.optimizer.roles.get("head", {}).get("train") is False
        found.append((point.curve, point.x, "off" if off else "on", config.training.batch_size))
    return found


def test_they_are_multiplied_with_each_other_and_with_plain_axes() -> None:
    plan = planned(
        axes={"optimizer.name": ["adam", "lion"], "optimizer.lr": [1e-3, 1e-2], "head": HEAD, "size": SIZE}
    )
    assert told(plan) == [
        (f"{name}, head {head}, size {size}", lr, head, 4 if size == "small" else 16)
        for name in ("adam", "lion")
        for head in HEAD
        for size in SIZE
        for lr in (1e-3, 1e-2)
    ]
    assert {point.config.training.steps for point in plan.points if "large" in point.curve} == {10}


@pytest.mark.parametrize(
    ("figure", "places"),
    [
        ({"x": "size"}, [("adam, head on", "small"), ("adam, head on", "large"),
                         ("adam, head off", "small"), ("adam, head off", "large")]),
        ({"curve": "head"}, [("on, size small", 1e-2), ("on, size large", 1e-2),
                             ("off, size small", 1e-2), ("off, size large", 1e-2)]),
        ({"x": "size", "curve": "head"},
         [("on", "small"), ("on", "large"), ("off", "small"), ("off", "large")]),
        ({"kind": "map", "rows": "head", "columns": "size"},
         [("on / small", 1e-2), ("on / large", 1e-2), ("off / small", 1e-2), ("off / large", 1e-2)]),
        ({"kind": "map", "rows": "optimizer.name", "columns": "size"},
         [("adam / small, head on", 1e-2), ("adam / small, head off", 1e-2),
          ("adam / large, head on", 1e-2), ("adam / large, head off", 1e-2)]),
    ],
)  # fmt: skip
def test_they_are_what_the_figure_says(figure: Any, places: Any) -> None:
    axes = {"optimizer.name": ["adam"], "optimizer.lr": [1e-2], "head": HEAD, "size": SIZE}
    plan = planned(axes=axes, figure=figure)
    assert sorted((p.curve, p.x) for p in plan.points) == sorted(places)


def test_every_layer_may_have_them_later_ones_winning() -> None:
    plan = planned(
        base={"optimizer.lr": 1e-2},
        axes={"optimizer.name": ["adam", "lion", "sgdw"], "head": HEAD},
        optimizers={"lion": {"axes": {"head": {"off": HEAD["off"]}}}, "sgdw": {"axes": {"size": SIZE}}},
        panels={"one": {}, "two": {"axes": {"head": {"other": {"optimizer.roles.head.lr": 1.0}}}}},
        scales={"nano": {"axes": {"head": {"on": {}}}}},
    )
    curves = [p.curve for p in plan.points]
    sgdw = [f"sgdw, head {head}, size {size}" for head in HEAD for size in SIZE]
    ones = ["adam, head on", "adam, head off", "lion, head off", *sgdw]
    assert curves[: len(ones)] == [f"one / {name}" for name in ones]
    assert [c for c in curves if c.startswith("two / adam")] == ["two / adam, head other"]


def test_a_name_may_bring_axes_and_an_optimizer_with_it() -> None:
    own = {"lr": {"axes": {"optimizer.lr": [0.1, 1.0], "size": SIZE}, "base": {"optimizer.name": "sgdw"}}}
    plan = planned(
        base={"optimizer.name": "adam"},
        axes={"optimizer.lr": [1e-2], "way": {"plain": {}, **own}},
        optimizers={"sgdw": {"base": {"optimizer.options.momentum": 0.5}}},
        figure={"curve": "way"},
    )
    assert [(p.curve, p.x) for p in plan.points] == [
        ("plain", 1e-2),
        ("lr, size small", 0.1), ("lr, size small", 1.0),
        ("lr, size large", 0.1), ("lr, size large", 1.0),
    ]  # fmt: skip
    assert {p.config.optimizer.options.get("momentum") for p in plan.points} == {None, 0.5}


def test_variables_stand_in_named_settings() -> None:
    size = {
        "small": {"training.batch_size": "$b"},
        "large": {"axes": {"$b": [64]}, "base": {"training.batch_size": "$b"}},
    }
    plan = planned(base={"optimizer.name": "adam", "optimizer.lr": 1e-2}, axes={"$b": [4], "size": size})
    assert [(p.curve, p.config.training.batch_size) for p in plan.points] == [
        ("adam, size small", 4),
        ("adam, size large", 64),
    ]


def test_a_setting_of_the_command_line_chooses_a_name() -> None:
    axes = {"optimizer.name": ["adam"], "optimizer.lr": [1e-2], "head": HEAD, "size": {"4": SIZE["small"]}}
    assert [p.curve for p in planned(axes=axes, chosen={"head": "off"}).points] == ["adam, head off, size 4"]
    assert len(planned(axes=axes, chosen={"size": 4}).points) == 2
    assert {p.x for p in planned(axes=axes, chosen={"optimizer.lr": 0.5}).points} == {0.5}
    with pytest.raises(UserError, match="--set: head: unknown name 'of'; did you mean 'off'"):
        planned(axes=axes, chosen={"head": "of"})


def test_a_sweep_is_extended_and_refined_for_each_name_by_itself(tmp_path: Path) -> None:
    def loss(config: Any) -> float:
        best = -3.0 if config.training.batch_size == 4 else -1.0
        return 4.0 + abs(math.log10(config.optimizer.lr) - best)

    axes = {"optimizer.name": ["adam"], "optimizer.lr": [1e-3, 1e-2, 1e-1], "size": SIZE}
    session = ran(tmp_path, f"axes: {json.dumps(axes)}\nadaptive: {{}}\nrefine: {{}}\n", loss)
    for curve in figure_of(session).curves:
        assert curve.best.x == (1e-3 if curve.name == "adam, size small" else 1e-1)
        assert curve.edge is None and len(curve.best.rows) == 3 and len(curve.points) == 4


def test_a_best_is_taken_over_one_and_by_the_curve_of_one(tmp_path: Path) -> None:
    taken = planned(
        axes={"optimizer.name": ["adam"], "schedule.warmup": [0.1], "head": HEAD},
        best_of={"study": "paper/fig1"}, figure={"x": "schedule.warmup"},
    )  # fmt: skip
    assert [(wait.curve, wait.depends_on) for wait in taken.pending] == [
        ("adam, head on", "paper/fig1"),
        ("adam, head off", "paper/fig1"),
    ]
    first = tmp_path / "first.yaml"
    axes = {"optimizer.name": ["adam"], "optimizer.lr": [1e-3, 1e-2], "head": HEAD}
    first.write_text(json.dumps({"title": "T", "asks": "Q?", "axes": axes}))
    text = {"axes": {**axes, "optimizer.weight_decay": [0.0, 0.1]}, "best_of": {"study": str(first)}}
    del text["axes"]["optimizer.lr"]
    text["figure"] = {"x": "optimizer.weight_decay"}

    def loss(config: Any) -> float:
        off = config.optimizer.roles.get("head", {}).get("train") is False
        return 4.0 + abs(math.log10(config.optimizer.lr) + (3 if off else 2))

    session = ran(tmp_path, yaml(text), loss, "second")
    rates = {curve.name: {row.lr for row in curve.rows} for curve in figure_of(session).curves}
    assert rates == {"adam, head on": {1e-2}, "adam, head off": {1e-3}}


def yaml(text: dict[str, Any]) -> str:
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in text.items())


def test_two_names_of_the_same_settings_are_one_run_in_two_places(tmp_path: Path) -> None:
    same = {"here": {}, "there": {}, "other": {"optimizer.weight_decay": 0.1}}
    axes = {"optimizer.name": ["adam"], "optimizer.lr": [1e-2], "place": same, "head": HEAD}
    for figure, label in (
        ({"x": "place", "curve": "head"}, "on"),
        ({"kind": "map", "rows": "place", "columns": "head"}, "on"),
    ):
        folder = tmp_path / figure.get("kind", "sweep")
        folder.mkdir()
        session = ran(
            folder, yaml({"axes": axes, "figure": figure}), lambda config: 4 + config.optimizer.weight_decay
        )
        assert len(session.rows()) == 4
        figure_ = figure_of(session)
        if figure_.kind == "map":
            (heat,) = maps.heats(figure_)
            assert (heat.rows, heat.columns) == (("here", "there", "other"), ("on", "off"))
            assert heat.cells["here", "on"].excess == heat.cells["there", "on"].excess == 0
        else:
            assert [[p.x for p in curve.points] for curve in figure_.curves] == [
                ["here", "there", "other"]
            ] * 2
        reports.write(figure_, folder / "out", ["html", "md", "svg"])
        page = (folder / "out" / "index.html").read_text()
        assert all(name in page for name in (*same, label))
        assert {record["curve"] for record in table(figure_)} == {curve.label for curve in figure_.curves}


def test_a_cell_may_differ_from_its_names() -> None:
    plan = planned(
        base={"optimizer.name": "adam", "optimizer.lr": 1e-2},
        axes={"head": HEAD, "size": SIZE},
        curves={"off / small": {"base": {"training.batch_size": 8}, "axes": {"optimizer.lr": [1.0]}}},
        figure={"kind": "map", "rows": "head", "columns": "size"},
    )
    assert told(plan) == [
        ("on / small", 1e-2, "on", 4), ("on / large", 1e-2, "on", 16),
        ("off / small", 1.0, "off", 8), ("off / large", 1e-2, "off", 16),
    ]  # fmt: skip


def test_more_combinations_than_anyone_can_mean_are_refused() -> None:
    many = {f"n{k}": {"training.steps": k + 1} for k in range(101)}
    with pytest.raises(UserError, match="more than 10,000 combinations of names"):
        planned(base={"optimizer.name": "adam", "optimizer.lr": 1e-2}, axes={"a": many, "b": many})


def test_the_map_of_adaptivity_says_itself_in_under_40_lines() -> None:
    file = Path(study.__file__).parent.parent / "studies" / "beyond" / "adaptivity-map.yaml"
    assert len(file.read_text().splitlines()) < 40
