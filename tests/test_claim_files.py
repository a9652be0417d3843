"""A stranger's claims in a stranger's study file, with the real command line: refused, judged, marked."""

import json
import math
import re
from pathlib import Path

import pytest

from optstudy.claims import grammar
from optstudy.claims.measures import FUNCTIONS, Relation, Where, Wrong
from optstudy.cli import run
from optstudy.errors import UserError
from optstudy.findings import open_study
from optstudy.report import answer
from optstudy.study import library as study
from optstudy.study.session import Session
from tests.test_cli import optstudy, settings
from tests.test_engine import finish

FILE = """\
title: Tiny
asks: Which is better?
axes:
  optimizer.name: [adam, sgdw]
  optimizer.lr: [1e-2]
seeds: [0, 1, 2]
claims:
  tiger-better:
    says: SGD beats Adam
    test: {test}
"""
RIGHT = "best(sgdw) - best(adam) < 0"


def written(tmp_path, test=RIGHT, more=""):
    file = tmp_path / "mine.yaml"
    file.write_text(FILE.format(test=json.dumps(test)) + more)
    return file


WRONG = {
    "bset(adam) < 5": "unknown function 'bset'; did you mean 'best'?",
    "best(adma) < 5": "mine has no curve 'adma'; did you mean 'adam'?",
    "best(adam in '150m') < 5": "mine has no panel '150m'; it has no panels",
    "best(adam) - best('paper/fig1: adma') < 0": "paper/fig1 has no curve 'adma'; did you mean 'adam'?",
    "best(adam) - best('paper/fig1: adam' in '15m') < 0": "paper/fig1 has no panel '15m'; did you mean",
    "gain('paper/fig7: lion' in epsilon, 1) < 0": "panel 'epsilon' of paper/fig7 has no curve 'lion'",
    "best(adam) - best('paper/fgi1: adam') < 0": "unknown study 'paper/fgi1'; did you mean 'paper/fig1'?",
    "best(adam, 3) < 5": "no such form as best(C, 3); allowed: best(C)",
    "at(adam) < 5": "no such form as at(C); allowed: at(C, SETTING)",
    "best() < 5": "expected a curve",
    "mean(adam, 2, 1) < 5": "no such form as mean(C, 2, 1)",
    "sensitivity(adam, hole) < 5": "no such form as sensitivity(C, hole); allowed: sensitivity(C), ",
    "rate(adam, heads) < 1": "unknown role 'heads'; did you mean 'head'?",
    "rate(adam, head, 0.05, 0.9) < 1": "quantiles are of 0.05, 0.25",
    "setting(adam) - best(sgdw) < 0": "setting is in the axis's own unit, best in nats",
    "setting(adam) < best(sgdw)": "setting is in the axis's own unit, best in nats",
    "setting(adam) - setting(sgdw) < 0.5 nats": "setting is in decades here, but the number is in nats",
    "best(adam) - best(sgdw) < 5 %": "best is in nats here, but the number is in %",
    "best(adam) < 5 cm": "unknown unit 'cm'; allowed: %, decades, nats",
    "setting(adam) > -1": "setting alone is compared with a setting above 0, not with -1",
    "tokens(adam) > 80": "tokens is a share: 0.8 or 80 %, not 80",
    "tokens(adam) > 0.8": "mine has no token-equivalents: its file names no reference",
    "average(all(best(adam) < 5)) < 1": "all takes whole tests and stands outside of them",
    "best(adam) - sensitivity(sgdw) < 0": "a difference is of two by one function, not of best",
    "sensitivity(adam) - sensitivity(sgdw, whole) < 0": "both around the best, or both over settings",
    "best(adam) - best(adam) < 0": "best of adam (mine) less itself",
    "best(adam) - best(sgdw) - best(sgdw) < 0": "at most two measures are compared",
    "best(adam) + best(sgdw) < 0": "at most two measures are compared",
    "average(best(adam), setting(sgdw)) < 0": "average: of one unit",
    "average(best(adam), best(sgdw)) - best(adam) < 0": "at most two measures are compared",
    "average(best(adam) - best(sgdw)) - best(adam) < 0": "an average stands alone",
    "best(adam) - best(sgdw)": "expected one of < <= > >=",
    "best(adam) == 5": "compare by < <= > >=",
    "best(adam) < 5 < 6 < 7": "a chain is a number, a measure and a number",
    "5 < best(adam) > 4": "a chain is a number, a measure and a number",
    "0.1 < best(adam) - best(sgdw) < 0.05": "no number is between 0.1 and 0.05",
    "3 < 4": "it measures no curve",
    "best(adam) < 1e999": "expected a number",
    "best(mine.Tiger) < 5": "is quoted: 'mine.Tiger'",
    "best(adam < 5": "expected ')', not '<'",
    "best('adam) < 5": "unexpected \"'adam\"",
    "all(best(adam) < 5, best(sgdw) < 5": "expected ')', not the end",
    "best(adam) < 5 and best(sgdw) < 5": "unknown unit 'and'",
    "all()": "expected a function",
    "__import__('os') < 5": "unknown function '__import__'; allowed: all, at, average",
    "(lambda: 0)() < 5": "unexpected ':'",
    "all(" * 50: "nested too deeply",
    "5": "expected one of < <= > >=",
}  # fmt: skip


@pytest.mark.parametrize(("test", "said"), WRONG.items(), ids=[*WRONG])
def test_a_wrong_test_is_refused_when_the_file_is_read(test, said, tmp_path):
    file = written(tmp_path, test)
    with pytest.raises(UserError) as refused:
        study.load(str(file))
    assert str(refused.value).startswith(f"{file}:10: claims.tiger-better.test: "), refused.value
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("words", [("claims",), ("show",), ("run", "--dry-run"), ("status",), ("report",)])
def test_every_command_refuses_a_typo_in_one_line_with_file_line_and_nearest_name(words, tmp_path):
    file = written(tmp_path, "bset(sgdw) - best(adam) < 0")
    (tmp_path / "runs").mkdir()
    ended = optstudy(words[0], file, *words[1:], "--runs", tmp_path / "runs")
    assert ended.returncode == 2 and ended.stdout == ""
    said = "claims.tiger-better.test: unknown function 'bset'; did you mean 'best'?"
    assert ended.stderr == f"optstudy: {file}:10: {said}\n"


def test_keys_of_a_claim_are_checked_too(tmp_path):
    file = written(tmp_path)
    for wrong, said in (
        ("tset:", ":10: unknown key 'claims.tiger-better.tset'; did you mean 'test'?"),
        ("ask:", ":10: unknown key 'claims.tiger-better.ask'; allowed: says, test"),
    ):
        file.write_text(FILE.replace("test:", wrong).format(test="x"))
        with pytest.raises(UserError, match=re.escape(said)):
            study.load(str(file))
    file.write_text(FILE.format(test="[1]"))
    with pytest.raises(UserError, match=r":10: claims.tiger-better.test: input should be a valid string"):
        study.load(str(file))


LABELS = """\
title: T
asks: A
axes:
  optimizer.name: [adam]
  optimizer.lr: [1e-2]
  wait: {short: {base: {schedule.warmup: 0.02}}, long: {base: {schedule.warmup: 0.3}}}
"""
WARMUPS = """\
title: T
asks: A
base: {optimizer.name: adam, optimizer.lr: 1e-2}
axes: {schedule.warmup: [0.02, 0.3]}
figure: {curve: schedule.warmup, x: optimizer.lr}
"""


@pytest.mark.parametrize(
    ("file", "right", "wrong", "said"),
    [
        (LABELS, "adam, wait long", "adam, wait lang", "; did you mean 'adam, wait long'?"),
        (f"{LABELS}figure: {{curve: wait}}\n", "long", "lang", "; did you mean 'long'?"),
        (WARMUPS, "3e-1", "0.4", "; did you mean '0.3'?"),
    ],
)
def test_curves_are_known_by_the_names_that_the_figure_gives_them(file, right, wrong, said, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"{file}claims: {{c: {{says: S, test: \"best('{right}') < 9\"}}}}\n")
    (claim,) = study.load(str(path)).claims
    assert claim.relations[0].quantities[0].one.curve.curve == right
    path.write_text(f"{file}claims: {{c: {{says: S, test: \"best('{wrong}') < 9\"}}}}\n")
    with pytest.raises(UserError, match=re.escape(f"mine has no curve {wrong!r}{said}")):
        study.load(str(path))


@pytest.mark.parametrize(
    ("noise", "said"),
    [
        ("{study: paper/fgi1}", "noise.study: unknown study 'paper/fgi1'; did you mean 'paper/fig1'?"),
        ("{study: paper/fig1, curves: {adma: adam}}", "noise.curves.adma: mine has no curve 'adma'"),
        ("{study: paper/fig1, curves: {adam: adma}}", "noise.curves.adam: paper/fig1 has no curve 'adma'"),
    ],
)
def test_where_the_noise_is_taken_from_is_checked_too(noise, said, tmp_path):
    file = written(tmp_path, more=f"noise: {noise}\n")
    with pytest.raises(UserError, match=re.escape(f"{file}:11: {said}")):
        study.load(str(file))


def relations(test):
    return grammar.parse(test, lambda curve, panel: Where("s", curve, panel))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("best(a) - best(b) < 0", "best(a) < best(b)"),
        ("best(a) - best(b) < 0.05", "best(a) < best(b) + 0.05 nats"),
        ("best(a) - best(b) < 0.05", "best(a) - 0.05 < best(b)"),
        ("best(a) - best(b) < 0.05", "0.05 > best(a) - best(b)"),
        ("best(a) - best(b) <= 0.05", "best(a) - best(b) < 0.05"),
        ("-1 < at(a, -2) < 2", "2 > at('a', -2) > -1"),
        ("tokens(a) > 80 %", "0.8 < tokens(a)"),
        ("tokens(a) > 0.8", "-tokens(a) < -0.8"),
        ("setting(a) - setting(b) > 0.5", "setting(a) - setting(b) > 0.5 decades"),
        ("best(a in 'x y') < 1", 'best("a" in "x y") < 1.0'),
        ("average(best(a) - best(b)) < 1", "best(a) - best(b) < 1"),
        ("all(best(a) < 1, best(b) < 1)", "all(all(best(a) < 1), best(b)<1,)"),
    ],
)
def test_the_same_may_be_written_in_two_ways(one, other):
    assert relations(one) == relations(other)


def test_a_setting_alone_is_compared_with_one_and_two_in_decades():
    assert relations("1e-3 < setting(a) < 1e-1")[0].low == -3
    assert relations("setting(a) - setting(b) < 0.5")[0].high == 0.5


@pytest.mark.parametrize("test", ["best(a) - best(b) > 0", "0 < best(a) - best(b)"])
def test_what_is_measured_is_what_is_written_and_not_its_negative(test):
    (relation,) = relations(test)
    (quantity,) = relation.quantities
    assert (quantity.one.curve.curve, quantity.other.curve.curve) == ("a", "b")
    assert relation == Relation(relation.quantities, low=0.0)


def test_names_may_be_anything_that_can_be_quoted():
    text = "best('sophia, Liu et al.') - best(\"it's\" in 'no QK-norm, no z-loss') < 0"
    (relation,) = relations(text)
    assert relation.quantities[0].one.curve.curve == "sophia, Liu et al."
    assert relation.quantities[0].other.curve == Where("s", "it's", "no QK-norm, no z-loss")
    with pytest.raises(Wrong):
        relations("best('') < 0")


def test_every_function_is_described_in_the_schema_and_the_docs():
    page = (Path(__file__).parent.parent / "docs" / "add-a-study.md").read_text()
    schema = json.loads(optstudy("schema").stdout)["$defs"]["ClaimSpec"]["properties"]["test"]["description"]
    for name, function in FUNCTIONS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}("))
        for form in function.forms.replace("), ", ")\n").split("\n"):
            assert form in schema and f"`{form}`" in row
        assert function.unit in schema and function.unit.removeprefix("the ") in row


LENGTHS = """\
title: Lengths
asks: How far?
seeds: [0, 1]
tokens: {reference: adam}
panels: {s1: {base: {training.steps: 20}}, s2: {base: {training.steps: 40}},
         s3: {base: {training.steps: 80}}, s4: {base: {training.steps: 160}}}
axes: {optimizer.name: [adam, lion], optimizer.lr: [1e-3, 1e-2, 1e-1]}
claims:
  alone: {says: A bound, test: tokens(lion in s1) < 1.5}
  two: {says: A bound less a number, test: tokens(lion in s1) - tokens(adam in s2) < 0}
  rate: {says: A setting, test: setting(lion) < 1}
"""


@pytest.mark.parametrize("falling", [True, False])
def test_a_bound_is_no_number_and_what_lacks_for_tokens_is_told(falling, tmp_path, capsys):
    """Lion is above Adam's highest loss at the shortest length, so its tokens there are only a bound."""
    (tmp_path / "lengths.yaml").write_text(LENGTHS)
    session = Session(study.load(str(tmp_path / "lengths.yaml")), "pico", tmp_path / "runs")
    for point in session.plan.points:
        config, sign = point.config, -1 if falling else 1
        length, rate = math.log2(config.training.steps), math.log10(config.optimizer.lr)
        loss = 5 + sign * 0.2 * length + 0.1 * (rate + 2) ** 2 + 0.01 * config.seed
        finish(session.runs, point, loss + 0.05 * (config.optimizer.name == "lion"))
    assert run(["claims", str(tmp_path / "lengths.yaml"), "--runs", str(tmp_path / "runs")]) == 0
    alone, two, rate, _ = capsys.readouterr().out.splitlines()
    warned = answer.warnings(open_study(str(tmp_path / "lengths.yaml"), runs=tmp_path / "runs").data())
    assert "A setting (setting(lion) < 1); 0.01" in rate
    if falling:
        assert "holds: A bound (tokens(lion in s1) < 1.5); < +1.000, +0.000 to +1.000" in alone
        assert two.endswith("missing: tokens of lengths lion as a number: only < 1.00 is known")
        assert not any("token" in one for one in warned)
    else:
        config = session.plan.points[0].config
        batch = config.training.batch_size * config.data.sequence_length
        why = f"adam has no lower loss with {40 * batch:,} tokens than with {20 * batch:,}, in lengths"
        assert alone.endswith(f"missing: tokens of lengths lion: {why}")
        assert f"No token-equivalents: {why}." in warned


def test_a_claim_is_judged_reported_and_marked_when_it_changes_after_its_runs(corpus_slice, tmp_path, capsys):
    """Six runs of a second each; the config is overridden, as any study's may be."""
    file, runs, out = written(tmp_path), tmp_path / "runs", tmp_path / "report"
    here = [str(file), *settings(corpus_slice), "--runs", str(runs)]
    runs.mkdir()

    def said(*words):
        assert run([words[0], *here, *words[1:]]) == 0
        return capsys.readouterr().out

    def judged():
        found = json.loads(said("claims", "--json"))["claims"]
        return [(one["name"], one["verdict"], one["changed"]) for one in found]

    assert judged() == [("tiger-better", "not decided", "")]
    ended = optstudy("run", *here, "--out", out)
    assert ended.returncode == 0, ended.stderr
    (line,) = [line for line in ended.stdout.splitlines() if "SGD beats Adam" in line]
    word = line.partition(": ")[0]
    assert word in ("holds", "does not hold", "not decided") and f"({RIGHT})" in line and "3 seeds" in line
    assert judged() == [("tiger-better", word, "")]
    first = json.loads((runs / "mine.claims.json").read_text())["entries"]
    assert [(one["runs"], one["claims"]["tiger-better"]["test"]) for one in first] == [(0, RIGHT)]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", first[0]["time"])
    page = (out / "mine" / "pico" / "index.html").read_text()
    assert "best(sgdw) - best(adam) &lt; 0" in page and "after 6 runs" not in page

    written(tmp_path, "best(sgdw) - best(adam) < 100", "  late: {says: New, test: best(adam) < 100}\n")
    mark = [("tiger-better", "holds", "changed after 6 runs"), ("late", "holds", "added after 6 runs")]
    assert judged() == mark  # told before it is written
    ended = optstudy("run", *here, "--out", out)
    assert ended.returncode == 0 and ended.stdout.count("after 6 runs") == 2 and judged() == mark
    said("report", "--out", str(out), "--format", "md", "--format", "html")
    told = [(out / "mine" / "pico" / name).read_text() for name in ("table.md", "index.html")]
    for text in (*told, said("status"), said("claims")):
        assert "changed after 6 runs" in text and "added after 6 runs" in text and "100" in text

    written(tmp_path)
    assert judged() == [("tiger-better", word, "")]  # as it was written first
    (runs / "mine.claims.json").write_text("{")
    assert run(["claims", *here]) == 2 and "mine.claims.json: damaged" in capsys.readouterr().err
