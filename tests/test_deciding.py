"""Seeds until it is decided: three looks err as rarely as one, and only deciding runs are made."""

import json
import math
import random

import numpy as np
import pytest
from scipy.special import stdtr

from optstudy.claims.verdict import LOOKS, Part
from optstudy.cli import run
from optstudy.commands import deciding
from optstudy.errors import UserError
from optstudy.outcomes import evidence_of, verdicts
from optstudy.results import stats
from optstudy.results.curves import Curve, FinishedRun, Point
from optstudy.study import library as study
from optstudy.study import registered
from optstudy.study.session import Session
from tests.sweeps import row
from tests.test_cli import optstudy, settings
from tests.test_engine import finish

MOST_ERROR = 0.05


@pytest.mark.parametrize("parts", [1, 2, 5, 10])
def test_three_looks_at_paired_differences_err_in_at_most_five_percent(parts):
    """No true difference: a claim of several parts is decided by mistake as often as by Holm's first step."""
    rng = np.random.default_rng(parts)
    differences = rng.standard_normal((200_000, max(LOOKS)))
    wrong = np.zeros(len(differences), bool)
    for seeds, level in LOOKS.items():
        some = differences[:, :seeds]
        t = np.abs(some.mean(1)) / some.std(1, ddof=1) * math.sqrt(seeds)
        wrong |= 2 * stdtr(seeds - 1, -t) * parts < 1 - level
    error = parts * wrong.mean()
    assert error < MOST_ERROR + 2 * math.sqrt(MOST_ERROR * parts / len(differences))
    assert error > 0.043  # and not much more careful than that


def simulated(rng, name, seeds, shared, noise=0.01):
    """A curve of known shape with its best at 1e-2, of loss 5: seeds shift whole curves, and each run."""
    points = []
    for k in range(-2, 3):
        losses = [5 + 0.1 * k * k / 4 + shared[s] + rng.gauss(0, noise) for s in range(seeds)]
        runs = tuple(FinishedRun(row(name, 10 ** (k / 2 - 2), loss, s)) for s, loss in enumerate(losses))
        points.append(Point(10 ** (k / 2 - 2), k / 2 - 2, runs))
    return Curve(name, tuple(points), True)


def cut(curve, seeds):
    points = tuple(Point(p.x, p.position, p.runs[:seeds]) for p in curve.points)
    return Curve(curve.name, points, True)


def at_one_setting(one, other):
    """The difference at a setting beside the best, its variance pooled over settings."""
    return stats.paired([(1.0, one.points[3])], [(1.0, other.points[3])], one, other)


@pytest.mark.parametrize(("difference", "least"), [(stats.difference, 0.0), (at_one_setting, 0.025)])
def test_three_looks_with_pooled_variances_err_in_at_most_five_percent(difference, least):
    """Two optimizers with the same true losses, by the estimators of claims; a best's is the more careful."""
    rng, wrong, trials = random.Random(0), 0, 500
    for _ in range(trials):
        shared = [rng.gauss(0, 0.03) for _ in range(max(LOOKS))]
        one, other = (simulated(rng, name, max(LOOKS), shared) for name in "ab")
        found = ((difference(cut(one, n), cut(other, n)), level) for n, level in LOOKS.items())
        wrong += any(Part(m, high=0.0).verdict(level=level) != "not decided" for m, level in found)
    assert least <= wrong / trials < MOST_ERROR + 2 * math.sqrt(MOST_ERROR / trials)


FILE = """\
title: Mine
asks: Which?
axes:
  optimizer.name: [adam, lion, signum, sgdw]
  optimizer.lr: {from: 1e-4, to: 1, per_decade: 2}
refine: {seeds: 3}
claims:
  clear: {says: Adam beats SGD., test: best(adam) - best(sgdw) < 0}
  close: {says: Adam beats Lion., test: best(adam) - best(lion) < 0}
  same: {says: Adam beats Signum., test: best(adam) - best(signum) < 0}
"""
BEST = {"adam": 5.0, "lion": 5.03, "signum": 5.0, "sgdw": 5.5}


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.yaml").write_text(FILE)
    return lambda **options: Session(
        study.load(str(tmp_path / "mine.yaml")), "pico", tmp_path / "runs", **options
    )


def launcher(session, made, noise=0.012, most=10_000):
    """Ends every run that the session wants with a loss of known mean; remembers them in order."""

    def launch():
        while todo := [f for f in session.todo() if not (f / "result.json").exists()]:
            for folder in todo:
                if len(made) >= most:
                    raise KeyboardInterrupt
                point = session.runs_known[folder.name]
                config = point.config
                rng = random.Random(f"{config.optimizer.name} {config.optimizer.lr} {config.seed}")
                decades = math.log10(config.optimizer.lr) + 2
                shared = random.Random(config.seed).gauss(0, 0.05)
                value = BEST[config.optimizer.name] + 0.3 * decades**2 + shared + rng.gauss(0, noise)
                finish(session.runs, point, value)
                made.append((config.optimizer.name, config.optimizer.lr, config.seed))

    return launch


def begun(mine):
    """A study whose own runs have ended, and which is to be decided."""
    session, made = mine(), []
    registered.write(session, decide=True)
    launcher(session, made)()
    session.decide()
    return session, made


def words(session):
    evidence, scale = evidence_of([session]), session.scale
    return {c.name: evidence.judge(c, scale, decide=session.decides) for c in session.study.claims}


def test_seeds_go_to_open_claims_alone_at_the_looks_and_reports_say_the_same(mine, tmp_path, capsys):
    session, made = begun(mine)
    base = len(made)
    assert {seed for *_, seed in made} == {0, 1, 2}
    assert words(session)["clear"].word == "holds" and words(session)["clear"].look == 3
    open_ = [name for name, verdict in words(session).items() if verdict.word == "not decided"]
    assert open_ == ["close", "same"]
    deciding.decide(session, launcher(session, made), 2)
    said = capsys.readouterr().out
    added = made[base:]
    assert added and {name for name, *_ in added} <= {"adam", "lion", "signum"}
    assert {lr for _, lr, _ in added} <= {1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1}  # the bests and what is near
    counts = {len({s for n, r, s in made if (n, r) == one}) for one in {(n, r) for n, r, _ in added}}
    assert counts <= {6, 12}
    found = words(session)
    assert found["close"].word == "holds" and found["close"].look in (6, 12)
    assert found["clear"].look == 3
    assert found["same"].word == "not decided" and "open: same: it would take" in said
    assert "open: close" not in said

    again = mine()  # a report without a word of it reads the same seeds
    assert [(v.word, v.look) for v in words(again).values()] == [(v.word, v.look) for v in found.values()]
    made.clear()
    deciding.decide(again, launcher(again, made), 2)
    assert made == []  # nothing is left to decide with
    told = verdicts("pico", tmp_path / "runs", names=[str(tmp_path / "mine.yaml")])
    assert [(v.word, v.look) for v in told] == [(v.word, v.look) for v in found.values()]
    tree = {v.claim.name: v.tree() for v in told}
    assert tree["close"]["level"] == LOOKS[tree["close"]["look"]] and tree["close"]["seeds"] >= 6


def test_interrupted_between_looks_no_verdict_is_given_and_the_same_command_goes_on(mine):
    session, made = begun(mine)
    before = {name: (v.word, v.look) for name, v in words(session).items()}
    with pytest.raises(KeyboardInterrupt):
        deciding.decide(session, launcher(session, made, most=len(made) + 4), 2)
    halfway = mine()
    assert {name: (v.word, v.look) for name, v in words(halfway).items()} == before
    deciding.decide(halfway, launcher(halfway, made), 2)
    whole, all_ = mine(), []
    assert words(whole)["close"].word == "holds"
    deciding.decide(whole, launcher(whole, all_), 2)
    assert all_ == [] and len(made) == len(set(made))


def test_fewer_seeds_and_less_time_are_kept_to(mine, capsys):
    session, made = begun(mine)
    count = len(made)
    deciding.decide(session, launcher(session, made), 1, hours=1e-9)
    assert len(made) == count and "beyond --hours" in capsys.readouterr().out
    deciding.decide(session, launcher(session, made), 1, most=6)
    assert max(seed for *_, seed in made) == 5


def test_seeds_that_decide_one_study_are_no_others(mine, tmp_path):
    """Runs are shared by config: a study that is not to be decided has its own rule's seeds alone."""
    (tmp_path / "other.yaml").write_text(FILE)
    session, made = begun(mine)
    deciding.decide(session, launcher(session, made), 1)
    other = tmp_path / "other.yaml"
    assert max(seed for *_, seed in made) > 2
    rows = Session(study.load(str(other)), "pico", tmp_path / "runs").rows()
    assert {row.seed for row in rows} == {0, 1, 2}
    other.write_text(FILE.replace("refine:", "decide: true\nrefine:"))
    again = Session(study.load(str(other)), "pico", tmp_path / "runs")
    assert len(again.rows()) == len(made) and not again.plan.pending
    assert [(v.word, v.look) for v in words(again).values()] == [
        (v.word, v.look) for v in words(session).values()
    ]


def test_one_look_by_seeds_is_one_look(mine):
    """``--seeds 12`` is judged at 95 %, and its seeds are no one's but its own."""
    session, made = mine(seeds=12), []
    launcher(session, made)()
    assert {v.look for v in words(session).values()} == {None}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"most": 5}, "--most-seeds: input should be one of 3, 6, 12, not 5"),
        ({"hours": -1.0}, "--hours: input should be above 0, not -1"),
        ({"asked": False, "hours": 1.0}, "--most-seeds and --hours say how --decide goes on"),
    ],
)
def test_options_that_make_no_sense_are_refused(mine, options, said):
    with pytest.raises(UserError, match=said):
        deciding.check(mine(), **{"asked": True, "most": None, "hours": None, **options})
    with pytest.raises(UserError, match="leave out --seeds"):
        deciding.check(mine(seeds=3), True, None, None)


def test_the_real_command_decides(corpus_slice, tmp_path, capsys):
    """One learning rate, 30 steps: SGD at it is far behind Adam, whose own two names are the same."""
    file, runs = tmp_path / "two.yaml", tmp_path / "runs"
    file.write_text(
        "title: Two\nasks: Which?\naxes: {optimizer.name: [adam, sgdw], optimizer.lr: [1e-2]}\n"
        "claims:\n  clear: {says: Not far apart., test: -5 < best(adam) - best(sgdw) < 5}\n"
    )
    here = [str(file), *settings(corpus_slice), "--runs", str(runs)]
    ended = optstudy("run", *here, "--decide", "--most-seeds", "3", "--out", tmp_path / "report")
    assert ended.returncode == 0, ended.stderr
    assert "4 runs for the look at 3 seeds" in ended.stdout and "holds: Not far apart." in ended.stdout
    assert len(list(runs.glob("*/result.json"))) == 6
    assert run(["claims", *here, "--json"]) == 0
    (claim,) = json.loads(capsys.readouterr().out)["claims"]
    assert (claim["verdict"], claim["look"], claim["seeds"]) == ("holds", 3, 3)
    assert optstudy("run", "demo", "--decide", "--runs", runs).returncode == 2
