"""What runs record beside their losses, from made-up runs: losses by token frequency, distances of steps."""

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from optstudy import report
from optstudy.claims import grammar
from optstudy.claims.evaluation import Evidence
from optstudy.claims.measures import Where, Wrong
from optstudy.claims.verdict import Claim
from optstudy.report import figures, maps
from optstudy.report.answer import answer
from optstudy.results import archive, deciles
from optstudy.results.archive import Entry
from optstudy.results.estimate import over_seeds
from tests import sweeps

LOSS = {"adam": 4.0, "sgdw": 4.5}
"""On the commonest tokens; each decile of rarer ones is worse, SGD's by more."""
SLOPE = {"adam": 0.2, "sgdw": 0.3}


def by_decile(name, seed, lr=1e-2, step=400):
    """Ten losses, the rarest tokens first."""
    if step == 0:
        return [sweeps.INITIAL] * 10
    away = math.log10(lr / 1e-2) ** 2 + 0.01 * seed
    return [LOSS[name] + SLOPE[name] * (9 - k) + away + 0.001 * seed * k for k in range(10)]


def history(losses, start=None):
    rows = [(0, start or [sweeps.INITIAL] * 10), (400, losses)]
    return [{"step": n, "tokens": 4096 * n, "val_loss": 4.0, "deciles": of} for n, of in rows]


def watched(**changes):
    """SGD and Adam at three rates and with three seeds, in two panels; in the second, SGD's gap is twice."""
    rows, labels, recorded = [], {}, {}
    for panel, twice in (("few", 0), ("many", 1)):
        for name in LOSS:
            for lr in (1e-3, 1e-2, 1e-1):
                for seed in range(3):
                    losses = by_decile(name, seed, lr)
                    gap = [a - b for a, b in zip(losses, by_decile("adam", seed, lr), strict=True)]
                    losses = [a + twice * b for a, b in zip(losses, gap, strict=True)]
                    row = sweeps.row(name, lr, sum(losses) / 10, seed)
                    row = replace(row, id=f"{twice}{row.id[1:]}")
                    rows.append(row)
                    labels[row.id], recorded[row.id] = f"{panel} / {name}", history(losses)
    return sweeps.figure(rows=rows, labels=labels, recorded=recorded, kind="deciles", **changes)


def measured(test, figure):
    relations = grammar.parse(test, lambda curve, panel: Where("mine", curve, panel))
    verdict = Evidence(lambda _: figure).judge(Claim("n", "S.", "mine", test, relations), "pico")
    (part,) = verdict.parts
    return SimpleNamespace(measured=part.measured, missing=part.missing, word=verdict.word)


@pytest.mark.parametrize(
    ("test", "value"),
    [
        ("decile(adam in few, 10) < 9", 4.0 + 0.01 + 0.009),
        ("decile(adam in few, 1) < 9", 5.8 + 0.01),
        ("decile(adam in few, 1, 3) < 9", 5.6 + 0.01 + 0.001),
        ("decile(sgdw in few, 1) - decile(adam in few, 1) > 0", 0.5 + 0.9),
        ("decile(adam in few, 1) - decile(adam in few, 10) > 0", 1.8 - 0.009),
        (
            "excess(decile(sgdw in few, 1) - decile(adam in few, 1), "
            "decile(sgdw in few, 10) - decile(adam in few, 10)) > 0",
            0.9,
        ),
        ("excess(best(sgdw in many) - best(adam in many), best(sgdw in few) - best(adam in few)) > 0", 0.95),
        ("excess(best(sgdw in few), best(adam in few)) > 0", 0.95),
    ],
)
def test_claims_measure_losses_by_decile_and_differences_of_differences(test, value):
    """All by hand: seeds 0 to 2 add 0.01 on average, and 0.001 for each commoner decile."""
    found = measured(test, watched())
    assert found.measured.value == pytest.approx(value) and found.measured.seeds == 3
    assert found.word == "holds"


def test_excess_has_the_sign_of_what_is_written_first():
    one, other = "best(sgdw in many) - best(adam in many)", "best(sgdw in few) - best(adam in few)"
    forth, back = (measured(f"excess({a}, {b}) > 0", watched()) for a, b in ((one, other), (other, one)))
    assert forth.measured.value == pytest.approx(-back.measured.value)
    assert forth.measured.half_width == pytest.approx(back.measured.half_width)
    assert (forth.word, back.word) == ("holds", "does not hold")


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ("decile(a) < 1", "no such form as decile(C)"),
        ("decile(a, 0) < 1", "whole numbers from 1, the rarest tokens, to 10"),
        ("decile(a, 11) < 1", "whole numbers from 1"),
        ("decile(a, 1.5) < 1", "whole numbers from 1"),
        ("decile(a, 3, 1) < 1", "no such form"),
        ("decile(a, rare) < 1", "no such form"),
        ("excess(best(a)) < 1", "excess: of the first of two over the second, not of 1"),
        ("excess(best(a), best(b), best(c)) < 1", "not of 3"),
        ("excess(best(a), setting(b)) < 1", "excess: of one unit"),
        ("excess(best(a), best(b)) - best(c) < 1", "at most two measures are compared"),
        ("excess(rate(a, head), rate(b, head)) < 1", "excess: not of rate"),
        ("average(distance(a, head, signum)) < 1", "average: not of distance"),
        ("distance(a, haed, signum) < 1", "distance: unknown role 'haed'; did you mean 'head'?"),
        ("distance(a, head, lion) < 1", "no such form"),
        ("distance(a, head) < 1", "no such form"),
        ("exces(best(a), best(b)) < 1", "did you mean 'excess'?"),
    ],
)
def test_what_cannot_be_measured_is_refused(test, said):
    with pytest.raises(Wrong, match=re.escape(said)):
        grammar.parse(test, lambda curve, panel: Where("s", curve, panel))


def test_without_losses_by_decile_nothing_is_decided_and_the_key_is_named():
    bare = replace(watched(), recorded={})
    part = measured("decile(adam in few, 1) < 9", bare)
    assert part.measured is None and "watch.deciles" in part.missing
    assert deciles.gaps(bare) == {} and "Adam" in answer(bare).sentence
    figures.draw(bare, "svg")


def test_a_diverged_run_counts_with_its_losses_before_training():
    figure = watched()
    lost = next(row for row in figure.rows if row.optimizer == "sgdw" and row.lr == 1e-2 and row.seed == 0)
    rows = [replace(row, state="diverged", val_loss=None) if row is lost else row for row in figure.rows]
    recorded = {**figure.recorded, lost.id: figure.recorded[lost.id][:1]}
    others = [replace(row, state="diverged", val_loss=None) if row.lr != 1e-2 else row for row in rows]
    panel = "few" if lost.id.startswith("0") else "many"
    found = measured(f"decile(sgdw in {panel}, 1) < 9", replace(figure, rows=others, recorded=recorded))
    kept = [by_decile("sgdw", seed)[0] for seed in (1, 2)]
    assert found.measured.value == pytest.approx((sum(kept) + sweeps.INITIAL) / 3)


def test_losses_above_those_before_training_count_as_they_are():
    """Those of rare tokens rise at first; in the mean over all tokens such a run counts as not trained."""
    figure = watched()
    worse = {id_: history([9.5, *rows[-1]["deciles"][1:]]) for id_, rows in figure.recorded.items()}
    found = measured("decile(adam in few, 1) < 99", replace(figure, recorded=worse))
    assert sweeps.INITIAL < found.measured.value == pytest.approx(9.5)


def test_gaps_are_those_of_each_seed_and_drawn_from_commonest_to_rarest(tmp_path):
    figure = watched()
    found = deciles.gaps(figure)
    assert list(found) == ["few", "many"] and [one.curve.name for one in found["few"]] == ["sgdw"]
    for k, gap in enumerate(found["few"][0].gaps):
        values = [by_decile("sgdw", seed)[k] - by_decile("adam", seed)[k] for seed in range(3)]
        assert gap.value == pytest.approx(over_seeds(values).value) and gap.interval is not None
    drawn = report.drawing(figure)
    for axis, panel in zip(drawn.axes, found, strict=True):
        line = next(line for line in axis.get_lines() if len(line.get_xdata()) == 10)
        assert list(line.get_xdata()) == list(range(10))
        assert list(line.get_ydata()) == pytest.approx([gap.value for gap in found[panel][0].gaps][::-1])
        assert axis.get_title(loc="left") == panel
    assert [label.get_text() for label in drawn.axes[-1].get_xticklabels()][::9] == [
        "1\ncommonest",
        "10\nrarest",
    ]
    assert drawn.get_size_inches()[0] <= 4.3  # about 390 pixels
    told = answer(figure)
    assert "+1.400" in told.sentence and "+0.500" in told.sentence and "rarest" in told.sentence
    report.write(figure, tmp_path, report.FORMATS)
    assert "by how common the token is" in (tmp_path / "index.html").read_text()


def steps_apart(**rows):
    """A run of Adam whose distances by role are these, at each tenth of the run."""
    row = sweeps.row("adam", 1e-2, 4.0)
    recorded = [
        {
            "step": 40 * k,
            "tokens": 4096 * k,
            "loss": 4.0,
            "moments": {role: of(k) for role, of in rows.items()},
        }
        for k in range(11)
    ]
    return sweeps.figure(rows=[row], recorded={row.id: recorded}, kind="distances")


APART = {
    "head": lambda k: {"from_signum": 0.3, "from_adalayer_star": 0.1 + 0.01 * k},
    "qkv": lambda k: {"from_signum": 0.2, "from_adalayer_star": 0.5},
    "mlp_in": lambda k: {"from_signum": 0.1, "from_adalayer_star": 0.3},
}


def test_distances_are_medians_over_a_run_and_means_over_matrices():
    figure = steps_apart(**APART)
    found = measured("distance(adam, head, adalayer_star) < 1", figure).measured
    assert (found.value, found.low, found.high) == pytest.approx(
        (0.155, 0.11, 0.2)
    )  # without the first tenth
    assert measured("distance(adam, matrix, signum) < 1", figure).measured.value == pytest.approx(0.15)
    less = "distance(adam, head, signum) - distance(adam, matrix, signum) > 0"
    assert (
        measured(less, figure).measured.value == pytest.approx(0.15)
        and measured(less, figure).word == "holds"
    )
    assert "watch.moments" in measured(less, replace(figure, recorded={})).missing


def test_distances_are_drawn_by_role_and_told(tmp_path):
    figure = steps_apart(**APART)
    drawn = report.drawing(figure)
    signum, star = drawn.axes
    assert drawn.get_size_inches()[0] <= 4.3
    assert [line.get_ydata()[-1] for line in star.get_lines()] == pytest.approx([0.2, 0.5, 0.3])
    assert [line.get_ydata()[-1] for line in signum.get_lines()] == pytest.approx([0.3, 0.2, 0.1])
    told = answer(figure)
    assert told.sentence.startswith("Adam's step is farthest from Signum's in head")
    assert "nearest in head (1 − cosine 0.10 at the start, 0.20 at the end)" in " ".join(told.rest)
    report.write(figure, tmp_path, report.FORMATS)
    assert "Distance of Adam" in (tmp_path / "index.html").read_text()
    bare = replace(figure, recorded={})
    assert "Adam" in answer(bare).sentence
    figures.draw(bare, "svg")


def test_a_record_keeps_both():
    row = sweeps.row("adam", 1e-2, 4.0)
    metrics = history([4.12346, *[5.0] * 8, None])
    metrics += [{"step": 400, "tokens": 4096, "loss": 4.0, "moments": {"head": {"from_signum": 0.25}}}]
    kept = archive.parse(archive.dump({row.id: Entry(row, {"cpu": "c", "torch": "2"}, metrics)}), "r")
    assert kept[row.id].metrics == [{**one, "step": one["step"]} for one in metrics]


def test_an_interval_in_a_map_is_that_of_the_difference():
    """Seeds shift a cell and Adam alike, so the difference is sharper than the cell."""
    rows, labels = [], {}
    for role, loss in (("head", 5.2), ("norm", 5.1)):
        for seed in range(3):
            row = sweeps.row(role, 1e-2, loss + 0.1 * seed + 0.001 * seed**2 * (role == "norm"), seed)
            rows.append(row)
            labels[row.id] = f"p / {role} / row"
    adams = [sweeps.row("adam", 1e-2, 5.0 + 0.1 * seed, seed) for seed in range(3)]
    reference = sweeps.figure(rows=adams)
    figure = sweeps.figure(rows=rows, labels=labels, kind="map", lengths=reference)
    (heat,) = maps.heats(figure)
    assert heat.cells["head", "row"].excess == pytest.approx(0.2)
    assert heat.cells["head", "row"].half_width == pytest.approx(0, abs=1e-6)
    assert 0 < heat.cells["norm", "row"].half_width < 0.02
    drawn = figures.draw(figure, "svg").decode()
    assert "+0.200" in drawn and "at 0.01" in drawn and "± 0.0" in drawn
