"""Loss against cost: step times on one machine, the front, and a picture in which nothing covers a name."""

import itertools
import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optstudy.errors import UserError
from optstudy.report import costs as drawn
from optstudy.report import figures, page, write
from optstudy.results import archive
from optstudy.results.costs import Spot, front, plots, spots, step_times
from optstudy.results.estimate import Estimate
from optstudy.results.figure import Figure
from optstudy.study import library
from tests import sweeps


def environment(runs: Path, run: str, cpu: str) -> None:
    (runs / run).mkdir()
    (runs / run / "env.json").write_text(json.dumps({"cpu": cpu, "device": "cpu"}))


def timed(runs: Path | None, times: Any, **changes: Any) -> Figure:
    """A run per optimizer and machine; ``times`` has milliseconds by optimizer and machine."""
    rows = []
    for name, of in times.items():
        for seed, (cpu, ms) in enumerate(of.items()):
            rows.append(sweeps.row(name, seed=seed, step_ms=ms))
            if runs is not None:
                environment(runs, rows[-1].id, cpu)
    return sweeps.figure(rows=rows, runs=runs, **changes)


def test_steps_are_compared_on_the_machine_that_both_ran_on(tmp_path: Path) -> None:
    times = {
        "adam": {"fast": 10.0, "slow": 40.0},
        "lion": {"fast": 12.0, "slow": 44.0},
        "muon": {"slow": 80.0},
        "soap": {"other": 15.0},
    }
    ratios = step_times(timed(tmp_path, times)).ratios
    assert ratios == pytest.approx({"adam": 1.0, "lion": 1.15, "muon": 2.0})


def test_no_time_is_told_without_adam_and_a_record_s_is_the_one_measured_apart(tmp_path: Path) -> None:
    assert step_times(timed(None, {"lion": {"a": 1.0}, "muon": {"a": 2.0}})).ratios == {}
    figure = timed(None, {"adam": {"a": 1.0}, "muon": {"a": 2.0}}, costs=["step_ms"])
    assert step_times(figure).ratios == {"adam": 1.0, "muon": 2.0}
    kept = replace(figure, recorded={row.id: [] for row in figure.rows})
    once = archive.step_ratios("pico")
    assert step_times(kept).ratios == {"adam": 1.0, "muon": once["muon"]} and step_times(kept).apart
    assert step_times(replace(kept, costs=())).ratios == {}
    kept = replace(kept, scale="nano")
    assert step_times(kept).ratios == {} and plots(kept) == [] and not step_times(kept).apart
    assert drawn.about(kept) == [drawn.UNKNOWN] and drawn.about(figure) == [drawn.ABOUT["step_ms"]]
    write(kept, tmp_path, ["svg"])
    assert not (tmp_path / "costs.svg").exists()


def test_the_front_is_what_no_other_is_better_than_in_both() -> None:
    draw = random.Random(7)
    curve: Any = None
    for _ in range(50):
        some = [Spot(curve, draw.randint(1, 6), Estimate(draw.randint(1, 6))) for _ in range(8)]
        places = {(spot.cost, spot.loss.value) for spot in some}
        beaten = {(x, y) for x, y in places for p, q in places if p <= x and q <= y and (p, q) != (x, y)}
        assert [(spot.cost, spot.loss.value) for spot in front(some)] == sorted(places - beaten)


def crowd() -> Figure:
    """Thirty optimizers, of which many have the same state and nearly the same loss."""
    rows = [
        sweeps.row(
            f"optimizer_{k}" if k else "adam", 1e-3, 4.7 + 0.01 * (7 * k % 30), seed, state_bytes_per_param=s
        )
        for k, s in zip(range(30), itertools.cycle((4.0, 8.0, 8.0, 12.0)), strict=False)
        for seed in range(3)
    ]
    rows = [replace(row, val_loss=(row.val_loss or 0) + 0.01 * row.seed) for row in rows]
    return sweeps.figure(rows=rows, costs=["state_bytes_per_param"])


def test_names_cover_neither_each_other_nor_a_point() -> None:
    from matplotlib.figure import Figure as Drawing

    figure = crowd()
    made = Drawing(layout="constrained")
    drawn.draw_costs(made, figure, plots(figure))
    (axis,) = made.axes
    names = [text for text in axis.texts if text.get_text()]
    assert len(names) == 30
    boxes = [text.get_window_extent() for text in names]
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    ((panel, cost),) = plots(figure)
    points = axis.transData.transform([(s.cost, s.loss.value) for s in spots(figure, panel, cost)])
    assert not any(box.contains(*point) for box in boxes for point in points)
    inside = axis.get_window_extent()
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes)


def test_costs_are_drawn_on_the_page_and_as_files_of_their_own(tmp_path: Path) -> None:
    figure = sweeps.figure(costs=["state_bytes_per_param", "step_ms", "peak_memory_mb"])
    written = write(figure, tmp_path, ["html", "svg", "png", "pdf"])
    assert {"costs.svg", "costs.png", "costs.pdf"} < {path.name for path in written}
    text = page.page(figure)
    (section,) = re.findall(r"<section>\s*<h2>Loss against cost</h2>.*?</section>", text, re.DOTALL)
    assert section.count("<svg") == 3
    assert all(axis in section for axis in drawn.AXES.values())
    assert all(re.search(rf">{name}</text>", section) for name in ("Adam", "Adafactor", "SGD, 6.362"))
    assert "Loss against cost" not in page.page(sweeps.figure())


def test_the_files_figures_take_the_colour_of_the_page_and_have_one_for_the_dark() -> None:
    for one in (figures.draw(sweeps.figure(), "svg"), figures.pictures(crowd(), ["svg"])["costs.svg"]):
        text = one.decode()
        assert "currentColor" in text and "prefers-color-scheme:dark" in text
        used = set(re.findall(r"(?:fill|stroke): (#\w+)", text))
        assert used.isdisjoint({"#000000", "#ffffff", figures.style.INK})


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        ("{costs: [state]}", "figure.costs"),
        ("{costs: [step_ms, step_ms]}", "twice"),
        ("{kind: map, costs: [step_ms]}", "not with 'kind: map'"),
    ],
)
def test_a_study_that_asks_for_costs_wrongly_is_refused(tmp_path: Path, figure: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"title: t\naxes: {{optimizer.name: [adam, lion]}}\nfigure: {figure}\n")
    with pytest.raises(UserError, match=r":3: ") as caught:
        library.load(str(path))
    assert said in str(caught.value)
