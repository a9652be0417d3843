"""Every figure and table of the paper as a study: how many runs, at which values, with which quirks."""

import json
from functools import cache

import pytest

from optstudy.cli import run
from optstudy.config import parameter_count
from optstudy.study import library as study

FIVE = ("adam", "adafactor", "lion", "signum", "sgdw")
COUNTS = {
    "paper/table1": (45, 45),
    "paper/fig1": (45, 45),  # 5 optimizers x 9 rates
    "paper/fig2": (1, 0),
    "paper/fig3": (20, 0),  # 10 rates of SGD x {last layer, last layer and norms}
    "paper/fig4": (45, 0),
    "paper/fig5": (90, 0),  # standard, and without QK-norm and z-loss
    "paper/fig6": (70, 0),  # 5 x 7 momenta x 2 variants
    "paper/fig7": (113, 0),  # 5 x (7 decays + 7 warm-ups + 4 batches), 2 x 4 epsilons, 3 x 5 beta2
    "paper/fig8": (42, 28),  # 3 x 7 x 2, of them Adam's and Signum's from Figure 6
    "paper/fig9": (27, 0),
    "paper/fig10": (10, 10),  # at 150m those of Figure 3
    "paper/fig11": (10, 0),
    "paper/fig12": (10, 0),
    "paper/fig13": (10, 0),
    "paper/fig14": (9, 0),
    "paper/fig15": (9, 0),
    "paper/fig16": (18, 0),
    "paper/fig17": (18, 0),
    "paper/fig18": (27, 0),
}
"""Runs of each figure at 150m without those it takes from other figures (``include``), and how many of them
another figure's runs are. Figure 7 counts no run whose optimizer lacks the option, such as SGD's epsilon."""


@cache
def own(name, scale="150m"):
    """The figure's runs but for those that it shows again from other figures."""
    loaded = study.load(name)
    again = {curve for curves in loaded.file.include.values() for curve in curves}
    plan = loaded.plan(scale, adaptive=False)
    points = {p.id: p for p in plan.points if p.curve.split(" / ")[-1] not in again}
    waits = [w for w in plan.pending if w.curve.split(" / ")[-1] not in again]
    return list(points.values()), waits


@pytest.mark.parametrize("name", COUNTS)
def test_without_extension_a_figure_is_as_many_runs_as_the_paper_made(name):
    points, waits = own(name)
    assert len(points) + len(waits) == COUNTS[name][0]


def test_every_figure_and_the_table_is_a_study():
    assert {name for name in study.names() if name.startswith("paper/")} == COUNTS.keys()
    assert {f"paper/fig{n}" for n in range(1, 19)} | {"paper/table1"} == COUNTS.keys()


def test_figures_of_several_sizes_are_one_panel_each_and_small_scales_run_those_that_differ():
    assert len(study.load("paper/fig1").plan("paper", adaptive=False).points) == 4 * 45
    assert len(study.load("paper/fig9").plan("paper", adaptive=False).points) == 3 * (27 + 9)
    assert len(study.load("paper/fig1").plan("pico", adaptive=False).points) == 25
    assert len(own("paper/fig13", "paper")[0]) == 30 and len(own("paper/fig13", "pico")[1]) == 5 + 10


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("scale", ["micro", "300m", "1.2b"])
def test_each_has_runs_at_every_scale(name, scale):
    plan = study.load(name).plan(scale)
    assert plan.points or plan.pending
    assert {p.config.scale for p in plan.points} <= {scale}


@pytest.mark.parametrize("name", COUNTS)
def test_each_is_shown_for_programs(name, tmp_path, capsys):
    assert run(["show", name, "--scale", "pico", "--json", "--runs", str(tmp_path / "none")]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["study"] == name and listed["runs"]
    assert all({"id", "config", "state", "depends_on"} == one.keys() for one in listed["runs"])


def test_notes_name_the_older_figure():
    older = {1: "and of its first version", 2: 8, 3: 9, 4: 2, 5: 3, 6: 4, 7: 5, 8: 6, 9: 7, 12: 11, 13: 12,
             14: 10, 15: 13, 16: 14, 17: 15, 18: 16}  # fmt: skip
    for number, before in older.items():
        said = before if isinstance(before, str) else f"Figure {before} of its first version"
        assert said in study.load(f"paper/fig{number}").file.notes, number
    for number in (10, 11):
        assert "not in its first version" in study.load(f"paper/fig{number}").file.notes


def axis(name, curve, scale="150m", key="optimizer.lr"):
    points = own(name, scale)[0]
    return [p.x for p in points if p.curve.split(" / ")[-1] == curve and p.config.seed == 0]


def settings(name, curve, key):
    """What the runs of a figure have under a config key, waiting ones included."""
    points, waits = own(name)
    trees = [p.config.model_dump(mode="json") for p in points if p.curve == curve]
    trees += [w.settings for w in waits if w.curve == curve]
    found = []
    for tree in trees:
        for part in key.split("."):
            tree = tree[part]
        found.append(tree)
    return found


@pytest.mark.parametrize("name", ["paper/fig1", "paper/fig4"])
def test_grids_of_the_learning_rate_are_the_released_ones(name):
    ends = {"adam": (1e-4, 1.0), "adafactor": (1e-4, 1.0), "lion": (1e-5, 0.1), "signum": (1e-5, 0.1),
            "sgdw": (1e-3, 10.0)}  # fmt: skip
    for curve, (first, last) in ends.items():
        values = axis(name, curve)
        assert (values[0], values[-1], len(values)) == (first, last, 9)
    points = study.load(name).plan("150m", adaptive=False).points
    options = {p.config.optimizer.name: p.config.optimizer.options for p in points}
    assert options["sgdw"]["momentum"] == 0.98
    assert options["lion"]["betas"] == [0.9, 0.95]
    assert options["signum"]["beta"] == 0.9
    assert options["adam"]["betas"] == [0.9, 0.95] and options["adam"]["eps"] == 1e-15
    assert {p.config.training.clip_norm for p in points} == {1.0}
    assert {p.config.schedule.warmup_start for p in points} == {0.1}
    assert {p.config.model.qk_norm for p in points} == {name == "paper/fig1"}


def test_grids_of_the_other_hyperparameters_are_the_released_ones():
    assert settings("paper/fig6", "150m / sgdw", "optimizer.options.momentum") == [
        0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99,
    ]  # fmt: skip
    of = "paper/fig7"
    decays = [0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    assert settings(of, "weight decay / adam", "optimizer.weight_decay") == decays
    warmups = [share * 25_000 for share in settings(of, "warm-up / sgdw", "schedule.warmup")]
    assert warmups == [500, 1250, 2500, 5000, 10_000, 15_000, 20_000]
    sizes = settings(of, "batch size / lion", "training.batch_size")
    steps = settings(of, "batch size / lion", "training.steps")
    assert sizes == [128, 256, 512, 1024]
    assert {size * count for size, count in zip(sizes, steps, strict=True)} == {256 * 25_000}
    assert settings(of, "epsilon / adam", "optimizer.options.eps") == [1e-15, 1e-12, 1e-8, 1e-5]
    assert {tuple(betas) for betas in settings(of, "epsilon / adam", "optimizer.options.betas")} == {
        (0.9, 0.98)
    }
    beta2 = [betas[1] for betas in settings(of, "beta2 / lion", "optimizer.options.betas")]
    assert beta2 == [0.8, 0.9, 0.95, 0.98, 0.99]


def test_hybrids_and_frozen_ratios_are_the_released_ones():
    for name, curve in (("paper/fig3", "hybrid_last"), ("paper/fig11", "hybrid_matrix_only")):
        values = axis(name, curve)
        assert (values[0], values[-1], len(values)) == (0.1, 3160.0, 10)
    roles = own("paper/fig3")[0][-1].config.optimizer.roles
    assert roles["head"]["lr"] == roles["norm"]["lr"] == 3.16e-3
    assert own("paper/fig11")[0][0].config.optimizer.roles["matrix"]["lr"] == 1e-3
    for number in (14, 15, 16):
        for point in own(f"paper/fig{number}")[0]:
            assert (point.config.schedule.freeze_steps, point.config.total_steps) == (1000, 26_000)


@pytest.mark.parametrize(("scale", "rates"), [("pico", 3), ("nano", 5), ("150m", 9)])
def test_the_long_runs_are_four_times_as_long_and_fewer_rates_at_small_scales(scale, rates):
    long, base = own("paper/fig5", scale)[0], own("paper/fig1", scale)[0]
    assert {p.config.training.steps for p in long} == {4 * base[0].config.training.steps}
    assert len(long) == 2 * 5 * rates
    if scale != "nano":
        assert {p.id for p in long} == {p.id for p in own("paper/fig5", f"{scale}-long")[0]}
    of_data = {p.config.data.tokens for p in long}
    assert of_data == ({None} if rates < 9 else {100_000 * 256 * 512})


def test_a_long_scale_takes_what_files_say_of_the_shorter_one():
    assert axis("paper/fig1", "adam", "pico-long") == axis("paper/fig1", "adam", "pico")
    assert len(axis("paper/fig1", "adam", "150m-long")) == 9
    assert {p.config.training.steps for p in own("paper/fig1", "pico-long")[0]} == {9_600}


@pytest.mark.parametrize(("scale", "steps"), [("pico", 2_400), ("nano", 4_000), ("micro", 12_000)])
def test_small_scales_read_twenty_tokens_per_parameter_and_keep_shares_of_the_steps(scale, steps):
    """Without embedding and head, as the paper counts; its 150m reads 22."""
    frozen = own("paper/fig14", scale)[0][0].config
    assert (frozen.training.steps, frozen.schedule.freeze_steps) == (steps, steps // 25)
    model, data = frozen.model, frozen.data
    inner = parameter_count(model) - 2 * model.vocab_size * model.d_model
    assert 20 <= steps * frozen.training.batch_size * data.sequence_length / inner <= 25
    batches = [w.settings["training"] for w in own("paper/fig7", scale)[1] if w.curve == "batch size / adam"]
    assert {one["batch_size"] * one["steps"] for one in batches} == {steps * frozen.training.batch_size}
    short = study.load("paper/fig14").plan(scale, {"training.steps": 600}, adaptive=False).points
    assert {p.config.schedule.freeze_steps for p in short if "frozen" in p.config.optimizer.name} == {24}
    long = study.load("paper/fig5").plan(scale, {"training.steps": 600}, adaptive=False).points
    assert {p.config.training.steps for p in long} == {2_400}


def test_no_figure_runs_a_shared_run_twice():
    seen = {}
    for name, (runs, shared) in COUNTS.items():
        ids = {p.id for p in own(name)[0]}
        if name in ("paper/fig1", "paper/table1", "paper/fig10"):
            assert len(ids & set(seen)) == (shared if seen else 0)
        elif ids:
            assert not ids & set(seen), name
        seen.update(dict.fromkeys(ids))
        assert runs


def test_a_best_is_taken_from_the_panel_there_is_at_that_scale():
    """Figure 7 takes momenta from the 150m panel of Figure 6, which has none at 300m but its own."""
    plan = study.load("paper/fig7").plan("300m")
    assert len(plan.pending) == 113 and {wait.depends_on for wait in plan.pending} == {
        "paper/fig6",
        "paper/fig1",
    }
