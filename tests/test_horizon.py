"""Studies over lengths and batches: what they run, and what a study with a horizon shows everywhere."""

import csv
import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

from optstudy.cli import run
from optstudy.errors import UserError
from optstudy.findings import open_study
from optstudy.results import archive
from optstudy.results.gaps import gaps
from optstudy.study import library as study
from optstudy.study.session import Session
from tests.test_engine import finish

MINE = """\
title: Lengths
asks: What?
axes:
  optimizer.name: [adam, signum]
  training.steps: [100, 200, 400, 800]
  optimizer.lr: {from: 1e-3, to: 1e-1, per_decade: 2}
seeds: [0, 1, 2]
tokens: {reference: adam}
figure: {kind: gaps}
claims:
  few: {says: Adam needs at least 70 %., test: "tokens('signum, steps 400') > 0.7"}
  fewer: {says: Adam needs less than 60 %., test: "tokens('signum, steps 800') < 0.6"}
  near: {says: Adam needs at least 80 %., test: "tokens('signum, steps 800') > 0.8"}
  short: {says: Adam needs at least 80 %., test: "tokens('signum, steps 100') > 0.8"}
  alike: {says: The share stays., test: "tokens('signum, steps 800') - tokens('signum, steps 200') < 0.3"}
"""
OTHER = """\
title: Other
asks: What?
axes: {optimizer.name: [lion], optimizer.lr: {from: 1e-3, to: 1e-1, per_decade: 2}}
base: {training.steps: 400}
seeds: [0, 1, 2]
tokens: {reference: adam, from: mine.yaml}
"""
THEIRS = """\
title: Theirs
asks: What?
trainer: {command: [python, "-c", "print(1)", "{steps}", "{lr}"], metric: loss}
base: {steps: 4}
axes: {lr: [1, 2]}
"""
SPENT = {"adam": 1.0, "signum": 0.8, "lion": 8.0}


def loss(config):
    """Signum wastes a fifth of its tokens; the best rate falls with the fourth root of the steps."""
    noise = random.Random(f"{config.seed} {config.training.steps}").gauss(0, 0.02)
    noise += random.Random(config.id).gauss(0, 0.002)
    at = math.log10(config.optimizer.lr) + 2 + 0.25 * math.log10(config.training.steps / 200)
    steps = config.training.steps * SPENT[config.optimizer.name]
    return 3.8 + 9 * steps**-0.33 + 0.4 * at**2 + noise


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Two studies of one's own, run."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("mine", MINE), ("other", OTHER)):
        Path(f"{name}.yaml").write_text(text)
        for point in study.load(f"{name}.yaml").points("pico"):
            finish(tmp_path / "runs", point, loss(point.config))
    return tmp_path


def test_a_study_with_lengths_of_its_own_shows_token_equivalents_everywhere(mine, capsys):
    assert run(["report", "mine.yaml", "--format", "md", "--format", "html", "--format", "svg"]) == 0
    out = mine / "report" / "mine" / "pico"
    table = (out / "table.md").read_text()
    assert "| Token-equivalent | By a fit |" in table and "| Above Adam |" in table
    page = (out / "index.html").read_text()
    assert "Gaps to Adam" in page and "Token-equivalent" in page and "tokens Adam needs" in page
    assert "nats above Adam" in (out / "figure.svg").read_text()
    said = " ".join(capsys.readouterr().out.split())
    assert "At 819 k tokens Adam has the lowest loss: no other is below Adam." in said
    assert "Adam, steps 800 4.8" in said and "+0.000 ± 0.000 1 " in said
    assert "Signum +" in said and "Adam needs 0.8" in said
    assert run(["export", "mine.yaml", "--out", "t.csv"]) == 0
    with Path("t.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["optimizer.name"] == "signum"]
    found = {row["training.steps"]: (row["token_equivalent_sign"], row["token_equivalent"]) for row in rows}
    assert found["100"][0] == "<" and found["400"][0] == ""
    assert float(found["400"][1]) == pytest.approx(0.8, abs=0.05)


def test_python_has_the_ratio_with_its_interval_and_the_fit(mine):
    one = open_study("mine.yaml")
    found = {line["curve"]: line for line in one.summary()}
    for steps in (200, 400, 800):
        line = found[f"signum, steps {steps}"]
        assert line["token_equivalent_low"] < 0.8 < line["token_equivalent_high"]
        assert line["token_equivalent"] == pytest.approx(0.8, abs=0.06)
        assert line["token_equivalent_fitted"] == pytest.approx(0.8, abs=0.06)
    assert found["signum, steps 100"]["token_equivalent_sign"] == "<"
    (adam, signum) = gaps(one.data())
    assert [gap.x for gap in signum.gaps] == [102_400, 204_800, 409_600, 819_200]
    assert {gap.nats.value for gap in adam.gaps} == {0.0}
    assert all(gap.nats.interval[0] > 0 for gap in signum.gaps)


def test_claims_on_tokens_are_decided_inside_the_lengths_and_open_outside(mine, capsys):
    assert run(["claims", "mine.yaml", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)["claims"]}
    words = {name: one["verdict"] for name, one in found.items()}
    assert words.pop("fewer") == "does not hold"
    assert words == {"few": "holds", "near": "not decided", "short": "not decided", "alike": "holds"}
    assert found["few"]["interval"][0] > 0.7 and found["few"]["seeds"] == 3


def test_a_study_takes_the_reference_of_another_and_outside_its_lengths_there_is_no_number(mine):
    (line,) = open_study("other.yaml").summary()
    assert (line["token_equivalent_sign"], line["token_equivalent"]) == (">", pytest.approx(2.0))
    assert line["token_equivalent_fitted"] is None and line["token_equivalent_high"] is None
    (longer,) = open_study("other.yaml", overrides={"training.steps": 400}).summary()
    assert longer["token_equivalent"] == line["token_equivalent"], "the reference keeps its lengths"


def test_a_predicted_rate_is_printed_for_the_length_that_is_named(mine, capsys):
    assert run(["report", "mine.yaml", "--format", "md", "--predict", "5e6"]) == 0
    said = capsys.readouterr().out
    assert "best learning rate with 5 M tokens, by a power law:" in said
    (line,) = [one for one in said.splitlines() if one.startswith("  Adam: ")]
    assert "by 4 lengths of 102 k to 819 k tokens" in line
    truth = 10 ** (-2 - 0.25 * math.log10(5e6 / 1024 / 200))
    low, high = (float(part.strip(" ),")) for part in line.split("(")[1].split(")")[0].split(" to "))
    assert low < truth < high < 4 * low


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["other.yaml", "--predict", "1e9"], "has no optimizer with its best learning rate inside the grid"),
        (["mine.yaml", "--predict", "0"], "--predict: a number of tokens, such as 1e9, not 0"),
        (["mine.yaml", "--predict", "nan"], "--predict: a number of tokens, such as 1e9, not nan"),
        (["paper", "--predict", "1e9"], "--predict: only for the report of one study"),
    ],
)
def test_a_prediction_that_cannot_be_made_is_refused(mine, arguments, said, capsys):
    assert run(["report", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (MINE.replace(": adam}", ": adan}"), "tokens.reference: this study has no curve 'adan'; did you"),
        (OTHER.replace(": adam", ": sgdw"), "wrong.yaml:6: tokens.reference: mine.yaml has no curve 'sgdw'"),
        (OTHER.replace("mine.yaml", "beyond/horizn"), "'beyond/horizn'; did you mean 'beyond/horizon'?"),
        (MINE.replace("erence:", "erens:"), "wrong.yaml:8: unknown key 'tokens.referens'; did you mean"),
    ],
)  # fmt: skip
def test_a_wrong_reference_is_named_before_anything_runs(mine, wrong, said):
    Path("wrong.yaml").write_text(wrong)
    with pytest.raises(UserError) as error:
        study.load("wrong.yaml").plan("pico")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("tokens: {reference: adam}\n", ":6: tokens: only for optstudy's own trainer"),
        ("figure: {kind: gaps}\n", ":6: figure.kind: gaps: only for optstudy's own trainer"),
        ("base: {steps: $steps}\n", "no axis '$steps'"),
    ],
)
def test_another_trainer_has_no_tokens_to_compare(mine, added, said):
    text = THEIRS.replace("base: {steps: 4}\n", "") if added.startswith("base") else THEIRS
    Path("theirs.yaml").write_text(text + added)
    with pytest.raises(UserError) as error:
        study.load("theirs.yaml").plan("")
    assert said in str(error.value)


def test_the_lengths_of_another_trainer_are_no_reference(mine):
    Path("theirs.yaml").write_text(THEIRS)
    Path("wrong.yaml").write_text(OTHER.replace("mine.yaml", "theirs.yaml"))
    with pytest.raises(UserError, match=r"wrong\.yaml:6: tokens\.from: theirs\.yaml has another trainer"):
        study.load("wrong.yaml").plan("pico")


def test_a_part_of_a_study_needs_no_reference(mine):
    part = replace(study.load("mine.yaml"), axes={"optimizer.name": ["signum"]})
    assert {p.config.optimizer.name for p in part.plan("pico").points} == {"signum"}


@pytest.mark.parametrize("chosen", [{"training.steps": 80}, {"training": {"steps": 80}}])
def test_steps_that_are_chosen_are_what_lengths_are_multiples_of(chosen):
    points = study.load("beyond/horizon").plan("pico", chosen, adaptive=False).points
    assert {p.config.training.steps for p in points} == {20, 40, 80, 160, 320}


def test_the_study_of_lengths_has_nine_optimizers_at_five_lengths():
    plan = study.load("beyond/horizon").plan("pico", adaptive=False)
    lengths = {}
    for point in plan.points:
        lengths.setdefault(point.curve.rpartition(" / ")[0], set()).add(point.config.training.steps)
    assert list(lengths) == ["steps / 4", "steps / 2", "steps", "steps x 2", "steps x 4"]
    assert list(lengths.values()) == [{600}, {1_200}, {2_400}, {4_800}, {9_600}]
    assert len({label.rpartition(" / ")[2] for label in plan.curves}) == 9
    assert len(plan.points) + len(plan.pending) == 9 * 5 * 3
    fig1 = {point.id for point in study.load("paper/fig1").points("pico")}
    assert len(fig1 & {point.id for point in plan.points}) == 5 * 3


def test_the_study_of_batches_holds_tokens_and_the_half_life_of_betas():
    points = study.load("beyond/batch").plan("pico", adaptive=False).points
    assert {p.config.tokens for p in points} == {2_400 * 16 * 64}
    assert {p.config.training.batch_size for p in points} == {4, 8, 16, 32, 64}
    for point in points:
        batch, options = point.config.training.batch_size, point.config.optimizer.options
        held = "half-life held" in point.curve
        betas = options.get("betas") or [options.get("beta") or options.get("momentum")]
        as_they_are = {"sgdw": [0.98], "signum": [0.9]}.get(point.config.optimizer.name, [0.9, 0.95])
        for beta, one in zip(betas, as_they_are, strict=True):
            assert beta == pytest.approx(one ** (batch / 16) if held else one, rel=2e-4), point.curve
    assert len(points) == 5 * 4 * 3 + 4 * 4 * 3


def test_what_has_run_at_600_steps_is_part_of_the_study_of_lengths():
    session = Session(study.load("beyond/horizon"), "pico", Path("none"), kept=archive.load("pico"))
    adam = [p for p in session.plan.points if p.curve == "steps / 4 / adam"]
    assert len({p.x for p in adam}) == 9 and len(adam) == 15
    assert {session.state(p.id) for p in adam} == {"done"}
