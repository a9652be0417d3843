"""Claims on made-up study tables: every verdict can be reached, and what is measured is what it says."""

import csv
import dataclasses
import json
import math
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optstudy.claims import grammar
from optstudy.claims.evaluation import Evidence, Pair, Side
from optstudy.claims.measures import Where
from optstudy.claims.verdict import Claim, Part, Range, Verdict
from optstudy.cli import run
from optstudy.outcomes import verdicts
from optstudy.results import archive, stats
from optstudy.results.curves import FinishedRun, group
from optstudy.results.estimate import Estimate, student_t
from optstudy.results.figure import Figure
from optstudy.results.minimum import best_setting
from optstudy.results.noise import rest
from optstudy.study import library as study
from optstudy.study.session import Session
from tests.sweeps import INITIAL, place, row
from tests.test_engine import finish

SEEDS = (0, 1, 2)
PACKAGED = {one.name: one for name in study.names() for one in study.load(name).claims}


def curve(name, best=5.0, where=1e-2, bend=0.4, seeds=SEEDS, noise=0.01, grid=9, shared=0.0, label=None):
    """A parabola over log10(lr) around ``where``; seeds shift all curves by the same, and each by its own."""
    runs = []
    rng = random.Random(name)
    own = {(k, seed): rng.gauss(0, noise) for k in range(grid) for seed in range(5)}
    for k in range(grid):
        lr = float(f"{where * 10 ** ((k - grid // 2) / 2):.3g}")
        near = abs(k - grid // 2) <= 1
        for seed in seeds if near else seeds[:1]:
            value = best + bend * ((k - grid // 2) / 2) ** 2 + shared * (seed - 1) + own[k, seed]
            lost = value >= INITIAL
            run = row(name, lr, None if lost else value, seed)
            runs.append((FinishedRun(run), place(run.id, label or name, lr)))
    (made,) = group(runs, log=True)
    return made


def evidence(**figures):
    """Figures by study name with ``_`` for ``/``."""
    loaded = {name.replace("_", "/"): figure(*curves) for name, curves in figures.items()}
    return Evidence(lambda name: loaded.get(name, figure()))


def figure(*curves, **changes):
    """A figure that has these curves."""
    made = Figure("s", "t", [], [], **changes)
    vars(made)["curves"] = list(curves)
    return made


def measured(test, **figures):
    """What a test of the study ``mine`` measures: its only part."""
    relations = grammar.parse(test, lambda curve, panel: Where("mine", curve, panel))
    (part,) = evidence(**figures).judge(Claim("n", "S.", "mine", test, relations), "pico").parts
    return part


def less(function, one, other, **options):
    """One curve's number less another's."""
    return Pair(Side(function, one, **options), Side(function, other, **options)).difference()


def five(sgd_best=6.0, sgd_bend=1.5, adafactor=5.01, **options):
    return [
        curve("adam", 5.0, **options), curve("adafactor", adafactor, **options),
        curve("lion", 5.01, where=1e-3, **options), curve("signum", 5.0, where=1e-3, **options),
        curve("sgdw", sgd_best, where=0.3, bend=sgd_bend, **options),
    ]  # fmt: skip


def judged(name, **figures):
    return evidence(**figures).judge(PACKAGED[name], "pico")


def test_there_is_a_claim_for_every_figure_and_names_are_unique():
    figures = [one.name for name in study.names() for one in study.load(name).claims]
    assert len(figures) == len(set(figures)) == len(PACKAGED)
    assert {claim.figure for claim in PACKAGED.values()} >= {f"paper/fig{n}" for n in range(1, 19)}
    assert sum(claim.figure.startswith("paper/") for claim in PACKAGED.values()) == 45
    assert all(claim.statement.endswith(".") for claim in PACKAGED.values())


def test_the_verdicts_on_the_record_are_those_from_before_the_tests_were_data(tmp_path):
    """Verdicts, estimates and intervals on the record of 600 steps: no threshold has moved, no estimator."""
    with (Path(__file__).parent / "golden" / "verdicts.csv").open() as file:
        before = {row.pop("name"): row for row in csv.DictReader(file)}
    after = {}
    paper = [name for name in study.names() if name.startswith("paper/")]
    for verdict in verdicts("pico", tmp_path, names=paper, overrides={"training.steps": 600}):
        tree = verdict.tree()
        numbers = (tree["estimate"], *(tree["interval"] or (None, None)))
        shown = ["" if one is None else f"{one:.6f}" for one in numbers]
        after[tree["name"]] = dict(
            zip(("verdict", "estimate", "low", "high"), [tree["verdict"], *shown], strict=True)
        )
    assert after == before


@pytest.mark.parametrize(
    ("name", "curves", "word"),
    [
        ("non-sgd-same-loss", five(), "holds"),
        ("non-sgd-same-loss", five(adafactor=5.3), "does not hold"),
        ("non-sgd-same-loss", five(adafactor=5.05), "not decided"),
        ("non-sgd-same-loss", five(seeds=(0,)), "not decided"),
        ("non-sgd-same-stability", five(), "holds"),
        ("sgd-worse-loss", five(), "holds"),
        ("sgd-worse-loss", five(sgd_best=5.01), "does not hold"),
        ("sgd-less-stable", five(), "holds"),
        ("sgd-less-stable", five(sgd_bend=0.4), "does not hold"),
        ("adam-adafactor-rate", five(), "holds"),
        ("adam-adafactor-rate", [curve("adam"), curve("adafactor", where=1.0)], "does not hold"),
        ("lion-signum-rate", five(), "holds"),
    ],
)  # fmt: skip
def test_each_verdict_is_reached(name, curves, word):
    if name == "adam-adafactor-rate" and word == "holds":
        curves = [curve("adam", bend=0.9), curve("adafactor", bend=0.9)]
    verdict = judged(name, paper_fig1=curves, paper_table1=curves)
    assert verdict.word == word, verdict.parts
    low, high = verdict.tree()["interval"] or (-math.inf, math.inf)
    assert low <= verdict.tree()["estimate"] <= high


def test_a_claim_without_its_runs_is_not_decided_and_says_what_is_missing():
    verdict = judged("star-almost-adam", paper_fig1=five())
    assert verdict.word == "not decided" and "paper/fig9 adalayer_star" in verdict.why_not
    assert verdict.tree()["estimate"] is None and verdict.tree()["seeds"] == 0


def test_an_incomplete_curve_decides_nothing():
    partial = figure(*five(), waiting=frozenset({("", "lion")}))
    verdict = Evidence(lambda name: partial).judge(PACKAGED["non-sgd-same-loss"], "pico")
    assert verdict.word == "not decided" and "lion" in verdict.why_not


def test_one_failing_part_decides_even_where_another_is_missing():
    """That the claim does not hold needs no more runs."""
    curves = [c for c in five(adafactor=5.5) if c.label != "lion"]
    assert judged("non-sgd-same-loss", paper_fig1=curves).word == "does not hold"


def test_a_best_at_the_edge_of_its_grid_has_no_window():
    edge = curve("adafactor", where=1e-2)
    edge = dataclasses.replace(edge, points=edge.points[4:])
    curves = [edge if c.label == "adafactor" else c for c in five()]
    verdict = judged("non-sgd-same-stability", paper_fig1=curves)
    assert verdict.word == "not decided" and "window" in verdict.why_not


def test_the_difference_of_bests_is_paired_over_seeds():
    """Seed effects that both share leave the difference alone; unpaired they would swamp it."""
    one, other = (
        curve(name, best, bend=4.0, shared=0.5, noise=0.0) for name, best in (("a", 5.0), ("b", 5.2))
    )
    paired = less("best", other, one)
    assert paired.value == pytest.approx(0.2) and paired.half_width < 1e-6 and paired.seeds == 3
    assert paired == stats.difference(other, one)


def test_sensitivity_is_wortsmans_in_a_window_that_both_have():
    flat, steep = curve("a", bend=0.1, noise=0.0), curve("b", bend=0.9, noise=0.0)
    found = less("sensitivity", steep, flat)
    mean = sum((k / 2) ** 2 for k in (-2, -1, 0, 1, 2)) / 5
    assert found.value == pytest.approx(0.8 * mean)
    narrow = dataclasses.replace(steep, points=steep.points[3:6])
    found = less("sensitivity", narrow, flat)
    assert found.value == pytest.approx(0.8 * 0.25 * 2 / 3)


def test_a_curve_without_seeds_takes_the_noise_of_its_optimizers_learning_rates():
    runs = [row("adam", 1e-2 + m / 1e9, 5.0 + m) for m in (0.0, 0.5, 0.9, 0.99)]
    (momentum,) = group([(FinishedRun(r), place(r.id, "150m / adam", r.loss - 5.0)) for r in runs], log=False)
    seeded = curve("adam", noise=0.02)
    fig1, fig6 = figure(seeded), figure(momentum, noise=("paper/fig1", {}))
    with_noise = Evidence({"paper/fig1": fig1, "paper/fig6": fig6}.__getitem__)
    test = "gain(adam in '150m', 0.5) < 0"
    relations = grammar.parse(test, lambda curve, panel: Where("paper/fig6", curve, panel))
    claim = Claim("n", "S.", "paper/fig6", test, relations)
    (part,) = with_noise.judge(claim, "pico").parts
    variance, degrees = rest(seeded)
    assert part.measured.value == pytest.approx(0.5)
    assert part.measured.half_width == pytest.approx(student_t(degrees) * math.sqrt(2 * variance))
    (bare,) = evidence(paper_fig6=[momentum]).judge(claim, "pico").parts
    assert bare.measured.interval is None and bare.verdict() == "not decided"


def test_a_panel_that_is_not_run_at_the_scale_gives_way_to_the_one_that_is():
    made = curve("adam", label="300m / adam")
    e = evidence(paper_fig6=[made])
    assert e.curve(Where("paper/fig6", "adam", "150m")) is made


def test_the_best_setting_is_told_as_finely_as_the_curve_is_bent():
    sharp, flat = (best_setting(curve("a", bend=b, noise=0.01, grid=5)) for b in (0.9, 0.002))
    assert sharp.value == pytest.approx(-2.0, abs=0.03) and sharp.half_width < 0.1
    assert flat.half_width > 0.3
    assert best_setting(curve("a", seeds=(0,))).half_width is None


RATES = {"head": {"q05": 1e-3, "q50": 3e-2, "q95": 1.0}, "norm": {"q05": 1e-4, "q50": 2e-4, "q95": 3e-4}}
RATES |= {
    role: {"q05": 1e-2, "q50": 2e-2, "q95": 3e-2} for role in ("qkv", "attention_out", "mlp_in", "mlp_out")
}


@pytest.mark.parametrize(("head", "word"), [(1.0, "holds"), (5e-3, "does not hold")])
def test_spreads_of_effective_rates(head, word):
    quantiles = {**RATES, "head": {**RATES["head"], "q95": head}}
    found = row("adalayer_star")
    history = [{"step": s, "tokens": s, "effective_lr": quantiles} for s in range(0, 900, 90)]
    places = [place(found.id, "adalayer_star", found.lr)]
    made = Figure("paper/fig2", "t", [found], places, recorded={found.id: history})
    e = Evidence(lambda name: made)
    assert e.judge(PACKAGED["logit-rates-vary"], "pico").word == word
    small = e.judge(PACKAGED["norm-rates-small"], "pico")
    assert small.word == "holds" and small.tree()["estimate"] == pytest.approx(2.0)


ends = st.floats(-10, 10)


@settings(deadline=None)
@given(ends, ends, ends, ends)
def test_a_verdict_is_where_the_interval_lies(a, b, c, d):
    (low, high), (least, most) = sorted((a, b)), sorted((c, d))
    inside, outside = least <= low and high <= most, high < least or low > most
    wanted = "holds" if inside else "does not hold" if outside else "not decided"
    assert Part(Range((low + high) / 2, low, high), least, most).verdict() == wanted
    error = (high - low) / 2 / student_t(4)
    estimate = Estimate((low + high) / 2, error, 4)
    if min(abs(x - y) for x in (low, high) for y in (least, most)) > 1e-9:
        assert Part(estimate, least, most).verdict() == wanted


def parts_at(*chances):
    """Parts on the right side of zero whose p-values are these."""
    distance = [student_t(9, 1 - p) for p in chances]
    return tuple(Part(Estimate(-t, 1.0, 9), high=0.0) for t in distance)


@pytest.mark.parametrize(
    ("chances", "word"),
    [
        ((0.04,), "holds"),
        ((0.04, 0.02), "holds"),
        ((0.04, 0.03), "not decided"),  # the smallest of two must be below 0.025
        ((0.01, 0.02, 0.04), "holds"),
        ((0.01, 0.03, 0.04), "not decided"),
        ((0.001, 0.001, 0.06), "not decided"),
    ],
)
def test_parts_are_corrected_for_their_number_as_holm_says(chances, word):
    claim = Claim("n", "S.", "paper/fig1", "t")
    verdict = Verdict(claim, "pico", parts_at(*chances))
    assert verdict.word == word
    if word == "not decided":
        alone = max(chances) < 0.05
        assert ("decided alone" in verdict.why_not) == alone
        assert ("over the threshold" in verdict.why_not) != alone


def test_one_part_that_fails_by_more_than_chance_among_all_of_them_decides():
    fails = Part(Estimate(1.0, 0.1, 9), high=0.0)
    open_ = Part(Estimate(-0.1, 1.0, 9), high=0.0)
    claim = Claim("n", "S.", "paper/fig1", "t")
    assert Verdict(claim, "pico", (open_, fails, open_)).word == "does not hold"
    barely = Part(Estimate(student_t(9, 1 - 0.02), 1.0, 9), high=0.0)
    assert barely.verdict() == "does not hold"
    assert Verdict(claim, "pico", (open_, barely, open_)).word == "not decided"


@settings(deadline=None)
@given(st.lists(st.tuples(ends, st.floats(1e-3, 3)), min_size=1, max_size=6))
def test_a_claim_holds_only_if_all_its_parts_do_and_reports_the_deciding_one(numbers):
    parts = tuple(Part(Estimate(v, w, 5), high=0.0) for v, w in numbers)
    verdict = Verdict(Claim("n", "S.", "paper/fig1", "t"), "pico", parts)
    assert (verdict.word == "holds") == (set(verdict.words) == {"holds"})
    assert (verdict.word == "does not hold") == ("does not hold" in verdict.words)
    for part, word in zip(parts, verdict.words, strict=True):
        assert word in ("not decided", part.verdict())
    mine = [part for part, word in zip(parts, verdict.words, strict=True) if word == verdict.word]
    assert verdict.deciding.measured.value == max(part.measured.value for part in mine)


@settings(deadline=None)
@given(st.floats(-0.5, 0.5))
def test_shifting_both_curves_shifts_no_claim(shift):
    one, other = curve("a", 5.0 + shift), curve("b", 5.2 + shift)
    base = curve("a", 5.0), curve("b", 5.2)
    for function in ("best", "sensitivity"):
        assert less(function, one, other).value == pytest.approx(less(function, *base).value)


@pytest.mark.long
def test_every_claim_is_decided_by_a_whole_table_of_real_studies(tmp_path, monkeypatch, capsys):
    """A loss made up for every run of every study at pico: what claims ask for is what the studies run."""
    effects = {"sgdw": 0.8, "adalayer": 0.2}

    def loss(point):
        config = point.config
        rng = random.Random(point.id)
        center = {"lion": -3, "signum": -3, "sgdw": -0.5, "sophia": -3}.get(config.optimizer.name, -2)
        center = 1.0 if config.optimizer.name.startswith("hybrid") else center
        decades = math.log10(config.optimizer.lr) - center
        return 4.5 + effects.get(config.optimizer.name, 0.0) + 0.5 * decades**2 + rng.gauss(0, 0.005)

    runs = tmp_path / "runs"
    names = [name for name in study.names() if name.startswith("paper/")]
    for name in names:
        session = Session(study.load(name), "pico", runs)
        while todo := [f for f in session.todo() if not (f / "result.json").exists()]:
            for folder in todo:
                point = session.runs_known[folder.name]
                finish(runs, point, min(loss(point), 8.9))
                if point.config.training.effective_lr:
                    lines = [{"step": s, "tokens": s, "loss": 5.0, "effective_lr": RATES} for s in range(9)]
                    text = "".join(json.dumps(line) + "\n" for line in lines)
                    (folder / "metrics.jsonl").write_text(text)
    assert run(["claims", "paper", "--runs", str(runs), "--json", "--fresh"]) == 0
    listed = json.loads(capsys.readouterr().out)["claims"]
    paper = [name for name, claim in PACKAGED.items() if claim.figure.startswith("paper/")]
    assert [one["name"] for one in listed] == paper
    assert {one["scale"] for one in listed} == {"pico"}
    assert [one["name"] for one in listed if one["estimate"] is None or one["interval"] is None] == []
    words = {one["name"]: one["verdict"] for one in listed}
    assert words["sgd-worse-loss"] == words["non-sgd-same-loss"] == words["last-layer-improves"] == "holds"
    assert words["longer-better"] != "holds" and words["frozen-all-fails"] == "does not hold"

    record = tmp_path / "pico.csv"
    assert run(["export", "--record", str(record), "--runs", str(runs)]) == 0
    capsys.readouterr()
    (none := tmp_path / "none").mkdir()
    kept = archive.read(record)
    monkeypatch.setattr(archive, "load", lambda scale: kept)
    assert run(["claims", "paper", "--runs", str(none), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["claims"] == listed
    assert run(["claims", "paper", "--runs", str(none)]) == 0
    assert f"{len(listed)} claims at pico" in capsys.readouterr().out
    out = tmp_path / "out"
    for name in ("fig1", "fig2"):
        assert run(["report", f"paper/{name}", "--runs", str(none), "--out", str(out)]) == 0
        assert_shown((out / "paper" / name / "pico" / "index.html").read_text(), f"paper/{name}", listed)
    assert run(["report", "paper", "--runs", str(runs), "--out", str(out), "--format", "html"]) == 0
    cards = (out / "paper" / "pico" / "index.html").read_text()
    for name in names:
        mine = [one for one in listed if one["figure"] == name]
        assert_shown(
            (out / "paper" / "pico" / name.replace("/", "-") / "index.html").read_text(), name, listed
        )
        assert not mine or re.search(rf"{len(mine)} claims?: \d", cards)
    assert len(re.findall(r"\d+ claims?: \d", cards)) == len({one["figure"] for one in listed})


def assert_shown(text, name, listed):
    """The page has each of its figure's claims with the verdict that ``optstudy claims`` gives it."""
    rows = re.findall(r'<small>([\w-]+)</small></td><td><span class="verdict \w+">([a-z ]+)</span>', text)
    assert rows == [(one["name"], one["verdict"]) for one in listed if one["figure"] == name]


def test_claims_import_no_torch():
    code = "import sys; from optstudy.claims import evaluation; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_scale_is_named(capsys):
    assert run(["claims", "--scale", "picco"]) == 2
    assert "did you mean 'pico'" in capsys.readouterr().err
