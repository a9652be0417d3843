"""Study files: what they say is what is run; mistakes are named with file, line and key."""

import re
from collections import Counter

import pytest

from optstudy.errors import UserError
from optstudy.grids import HalfDecades
from optstudy.study import library as study
from optstudy.study.file import Adaptive
from optstudy.study.plan import extended, grown

MINE = """\
title: Mine
asks: What?
base: {training.steps: 50}
axes:
  optimizer.name: [adam, signum]
  optimizer.lr: {from: 1e-3, to: 1e-2, per_decade: 2}
optimizers:
  signum:
    base: {optimizer.options.beta: 0.95}
    axes: {optimizer.lr: [1e-4, 1e-3]}
scales:
  nano:
    base: {training.steps: 70}
    optimizers:
      adam: {axes: {optimizer.lr: [5e-3]}}
seeds: [0, 1]
"""


def mine(content=MINE):
    return study.Study("mine", study.parse(content, "mine.yaml"))


def described(points):
    return [(p.curve, p.config.optimizer.lr, p.config.seed, p.config.training.steps) for p in points]


def test_runs_are_the_product_of_the_axes_with_each_optimizers_own():
    adam = [("adam", lr, seed, 50) for lr in (1e-3, 3.16e-3, 1e-2) for seed in (0, 1)]
    signum = [("signum", lr, seed, 50) for lr in (1e-4, 1e-3) for seed in (0, 1)]
    points = mine().points("pico")
    assert described(points) == adam + signum
    assert {p.config.optimizer.options["beta"] for p in points if p.curve == "signum"} == {0.95}


def test_a_scale_has_the_last_word():
    assert described(mine().points("nano"))[:2] == [("adam", 5e-3, 0, 70), ("adam", 5e-3, 1, 70)]


def test_an_override_collapses_its_axis():
    points = mine().points("pico", {"optimizer.lr": 0.5, "training.steps": 9}, seeds=1)
    assert described(points) == [("adam", 0.5, 0, 9), ("signum", 0.5, 0, 9)]
    assert described(mine().points("pico", {"optimizer.name": "lion"}, seeds=1))[0][0] == "lion"


def test_the_figure_s_half_decades_are_rounded_before_they_are_hashed():
    values = HalfDecades.model_validate({"from": 1e-4, "to": 1.0}).values()
    assert values == [1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1, 3.16e-1, 1.0]


@pytest.mark.parametrize(
    ("first", "per_decade"),
    [(1e-3, 1), (1e-3, 2), (1e-3, 3), (1e-3, 4), (1e-3, 5), (1e-3, 10), (2e-3, 2), (1.2e-3, 2), (0.25, 3)],
)
def test_grids_that_start_from_different_numbers_of_one_grid_meet_in_the_same_numbers(first, per_decade):
    grid = HalfDecades.model_validate({"from": first, "to": 1e3 * first, "per_decade": per_decade}).values()
    assert len(grid) == 3 * per_decade + 1 and float(f"{first * 10:.3g}") in grid
    for start in grid[: 2 * per_decade]:
        other = HalfDecades.model_validate({"from": start, "to": 1e3 * first, "per_decade": per_decade})
        assert other.values() == grid[grid.index(start) :]


def test_grids_that_grow_do_so_over_the_same_numbers():
    rule = Adaptive(rise=0.1)
    assert grown([1e-3, 3.16e-3], {1e-3: 5.0, 3.16e-3: 4.0}, rule) == [1e-2]
    assert grown([1.0, 3.16, 10.0, 31.6, 100.0, 316.0], {1.0: 6.0, 316.0: 4.0}, rule) == [1000.0]
    assert grown([3.16e-3, 1e-2], {3.16e-3: 4.0, 1e-2: 5.0}, rule) == [1e-3]


def test_what_ran_at_a_number_that_an_earlier_version_rounded_to_counts():
    losses = {1.0: 6.0, 3.16: 5.0, 10.0: 4.9, 31.6: 4.8, 100.0: 4.7, 316.0: 4.6, 999.0: 4.9}
    values = extended(
        [1.0, 3.16, 10.0, 31.6, 100.0, 316.0], [0], Adaptive(rise=0.1), lambda v, seed: losses.get(v)
    )
    assert values == sorted(losses)


def test_fig1_has_the_papers_grid():
    grids = {}
    for point in study.load("paper/fig1").points("nano"):
        grids.setdefault(point.curve, []).append(point.config.optimizer.lr)
    assert {name: (min(grid), max(grid), len(grid)) for name, grid in grids.items()} == {
        "adam": (1e-4, 1.0, 9),
        "adafactor": (1e-4, 1.0, 9),
        "lion": (1e-5, 1e-1, 9),
        "signum": (1e-5, 1e-1, 9),
        "sgdw": (1e-3, 10.0, 9),
    }


@pytest.mark.parametrize("scale", ["pico", "pico-long", "nano", "micro"])
def test_the_demo_is_five_rates_for_each_optimizer_out_of_fig1_cut_short_at_pico(scale):
    demo = study.load("demo").points(scale)
    short = {"training.steps": 600} if scale == "pico" else {}
    fig1 = {point.config.id for point in study.load("paper/fig1").points(scale, short)}
    assert Counter(point.curve for point in demo) == dict.fromkeys(
        ["adam", "adafactor", "lion", "signum", "sgdw"], 5
    )
    assert {point.config.id for point in demo} <= fig1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (MINE.replace("axes:", "axs:", 1), "mine.yaml:4: unknown key 'axs'; did you mean 'axes'?"),
        (MINE.replace("per_decade", "per_decad"), "mine.yaml:6: "),
        (MINE.replace("seeds: [0, 1]", "seeds: [0, -1]"), "mine.yaml:16: seeds.1: "),
        (
            MINE.replace("[1e-4, 1e-3]", "[1e-3, 1e-4, 0.001]"),
            "mine.yaml:10: optimizers.signum.axes.optimizer.lr: each number may appear only once, not [",
        ),
        (
            MINE.replace("per_decade: 2", "per_decade: 600"),
            "mine.yaml:6: axes.optimizer.lr: 'per_decade' (600) is too fine for values of three digits",
        ),
        ("- 1\n- 2\n", "mine.yaml:1: "),
        ("", "mine.yaml:1: "),
        ("title: [", "mine.yaml:1: while parsing"),
        ("title: !!python/object/apply:os.system [ls]\nasks: x\n", "mine.yaml"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line(content, said):
    with pytest.raises(UserError) as error:
        mine(content)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ({"optimizer.lrr": 1.0}, "did you mean 'lr'?"),
        ({"optimizer.lr": -1.0}, "optimizer.lr: input should be greater than 0, not -1.0"),
        ({"optimizer.name": "adm"}, "did you mean 'adam'?"),
        ({"data.corpus": "enwik9"}, "enwik8"),
        ({"data.corpus": "path:/nowhere/text.txt"}, "/nowhere/text.txt"),
    ],
)
def test_a_mistake_in_an_override_is_named_before_anything_runs(override, said):
    with pytest.raises(UserError, match=r"mine|nowhere|enwik") as error:
        mine().points("pico", override)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_mistake_found_in_the_runs_is_named_with_the_file_as_it_was_given(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(MINE.replace("optimizer.lr:", "optimizer.lrr:"))
    with pytest.raises(UserError) as error:
        study.load(str(file)).points("pico")
    assert re.match(rf"{re.escape(str(file))}:\d+: .*did you mean 'lr'\?", str(error.value))


def test_unknown_studies_and_scales_are_named():
    with pytest.raises(UserError, match=r"unknown study 'dmo'; did you mean 'demo'\?"):
        study.load("dmo")
    with pytest.raises(UserError, match=r"unknown scale 'picco'; did you mean 'pico'\?"):
        mine().points("picco")


def test_values_are_read_as_yaml_1_2_reads_them():
    assert study.overrides(["a=3e-3", "b=no", "c=[0.9, 0.95]", "d=null", "e=1", "f=path:x=y"]) == {
        "a": 3e-3, "b": "no", "c": [0.9, 0.95], "d": None, "e": 1, "f": "path:x=y",
    }  # fmt: skip
    for wrong in ("a", "=1"):
        with pytest.raises(UserError, match="is not key=value"):
            study.overrides([wrong])
