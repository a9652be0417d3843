"""Reports that do not overwrite, forget or promise too early, and the verdicts of several studies."""

import json
import re
from pathlib import Path

import pytest

from optstudy import findings, report
from optstudy.cli import run
from optstudy.outcomes import figure_of
from optstudy.report.answer import answer
from optstudy.report.live import Site
from optstudy.results.figure import Figure
from optstudy.study import library as study
from optstudy.study.session import Session
from tests import sweeps
from tests.test_cli import STUDY
from tests.test_engine import finish

CONTENT = "title: {title}\nasks: q\naxes: {{optimizer.name: [{name}], optimizer.lr: [1e-3, 1e-2]}}\n"


def end(file, runs, chosen=(), seeds=None, count=None):
    """Record results of a study's runs, or of the first ``count``."""
    session = Session(study.load(str(file)), "pico", Path(runs), study.overrides(chosen), seeds)
    for point in session.plan.points[:count]:
        finish(Path(runs), point, loss=5.0 + float(point.config.optimizer.lr))


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Two studies called sweep.yaml, whose runs have ended."""
    monkeypatch.chdir(tmp_path)
    for folder, name in (("a", "adam"), ("b", "lion")):
        Path(folder).mkdir()
        Path(folder, "sweep.yaml").write_text(CONTENT.format(title=f"Of {folder}", name=name))
        end(f"{folder}/sweep.yaml", "runs")


def titles():
    """Reports by their file, each with its title."""
    pages = sorted(Path("report").rglob("table.md"))
    return {page.as_posix(): page.read_text().partition("\n")[0].removeprefix("# ") for page in pages}


def test_two_studies_of_one_name_have_folders_of_their_own(two, capsys):
    for name in ("a/sweep.yaml", "b/sweep.yaml", "a/sweep.yaml", "b/sweep.yaml", "./a/../b/sweep.yaml"):
        assert run(["report", name, "--format", "md"]) == 0
    found = titles()
    assert found.pop("report/sweep/pico/table.md") == "Of a"
    assert list(found.values()) == ["Of b"]
    assert capsys.readouterr().out.count(f"wrote {next(iter(found))}") == 3


@pytest.mark.parametrize(
    "other", [["--set", "training.steps=7"], ["--runs", "elsewhere"], ["--set", "optimizer.lr=1e-3"]]
)
def test_one_study_with_other_settings_or_runs_has_a_folder_of_its_own(two, other, capsys):
    chosen = [other[1]] if other[0] == "--set" else []
    end("a/sweep.yaml", "elsewhere" if other[0] == "--runs" else "runs", chosen)
    for _ in range(2):
        assert run(["report", "a/sweep.yaml", "--format", "md"]) == 0
        assert run(["report", "a/sweep.yaml", "--format", "md", *other]) == 0
    assert len(titles()) == 2
    told = [json.loads(path.read_text()) for path in Path("report").rglob("study.json")]
    assert len({json.dumps(one) for one in told}) == 2 and {one["study"] for one in told} == {
        "../a/sweep.yaml"
    }


@pytest.mark.parametrize("out", [[], ["--out", "."], ["--out", "report/sweep/pico"]])
def test_a_comparison_of_other_folders_has_a_folder_of_its_own(two, out, capsys):
    end("a/sweep.yaml", "changed")
    assert run(["report", "a/sweep.yaml", "--format", "html"]) == 0
    report = Path("report/sweep/pico/index.html")
    before = report.read_text()
    capsys.readouterr()
    written = set()
    for folders in [("runs", "changed"), ("changed", "runs"), ("runs", "runs")] * 2:
        assert run(["compare", *folders, *out]) == 0
        (path,) = re.findall(r"wrote (\S+)", capsys.readouterr().out)
        written.add(path)
        assert all(name in Path(path).read_text() for name in folders)
    assert len(written) == 3 and report.read_text() == before


def test_a_project_that_moves_keeps_its_reports(two, tmp_path, monkeypatch):
    assert run(["report", "a/sweep.yaml", "--format", "md"]) == 0
    moved = tmp_path.rename(tmp_path.with_name("moved elsewhere"))
    monkeypatch.chdir(moved)
    assert run(["report", "a/sweep.yaml", "--format", "md"]) == 0
    assert run(["report", str(moved / "a" / "sweep.yaml"), "--format", "md"]) == 0
    assert list(titles()) == ["report/sweep/pico/table.md"]


def test_a_mark_that_cannot_be_read_is_anothers(two):
    Path("report/sweep/pico").mkdir(parents=True)
    Path("report/sweep/pico/study.json").write_bytes(b"\xff\x00")
    assert run(["report", "a/sweep.yaml", "--format", "md"]) == 0
    (page,) = titles()
    assert re.fullmatch(r"report/sweep-[0-9a-f]{6}/pico/table.md", page)


@pytest.mark.long
def test_a_folder_of_studies_with_other_settings_has_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for chosen in ([], ["--set", "validation.points=11"], []):
        assert run(["report", "beyond", "--format", "md", *chosen]) == 0
    assert len({path.parent for path in Path("report").rglob("study.json")}) == 2


# Seeds


def seeds_of(arguments, capsys):
    assert run(["show", *arguments, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["runs"]
    return sorted((one["config"]["seed"], one["state"]) for one in listed)


def test_seeds_that_have_run_are_used_whether_or_not_they_are_asked_for(two, capsys):
    end("a/sweep.yaml", "runs", seeds=3)
    every = [(seed, "done") for seed in (0, 0, 1, 1, 2, 2)]
    assert seeds_of(["a/sweep.yaml"], capsys) == seeds_of(["a/sweep.yaml", "--seeds", "3"], capsys) == every
    assert seeds_of(["a/sweep.yaml", "--seeds", "2"], capsys) == every[:4]
    assert run(["report", "a/sweep.yaml", "--format", "md"]) == 0
    assert "3 seeds per setting" in Path("report/sweep/pico/table.md").read_text()
    assert run(["report", "a/sweep.yaml", "--format", "md", "--seeds", "3"]) == 0
    assert len(list(Path("report").rglob("table.md"))) == 1
    assert run(["export", "a/sweep.yaml"]) == 0
    assert len(Path("runs.csv").read_text().splitlines()) == 7


def test_seeds_that_have_run_in_part_are_used_and_no_more_is_asked_for(two, capsys):
    end("a/sweep.yaml", "runs", seeds=4, count=7)  # of the second setting, seed 3 has not run
    done = [(0, "done"), (0, "done"), (1, "done"), (1, "done"), (2, "done"), (2, "done"), (3, "done")]
    assert seeds_of(["a/sweep.yaml"], capsys) == done
    assert run(["status", "a/sweep.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == {"done": 7}


def test_a_study_over_the_seed_itself_gets_no_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(STUDY + "  seed: [0, 5]\nfigure: {x: seed}\n")
    end("s.yaml", "runs")
    for point in study.load("s.yaml").points("pico", {"optimizer.lr": 1e-3}):
        assert point.id == point.config.id
    assert {seed for seed, _ in seeds_of(["s.yaml"], capsys)} == {0, 5}


def test_the_packages_record_adds_no_seeds_that_a_study_does_not_ask_for(tmp_path):
    from optstudy.outcomes import recorded

    for name in ("paper/fig1", "paper/fig9"):
        kept = recorded(name, "pico")
        one, other = (
            Session(study.load(name), "pico", tmp_path, kept=kept, all_seeds=x) for x in (True, False)
        )
        assert [p.id for p in one.plan.points] == [p.id for p in other.plan.points]


CLAIM = "claims: {better: {says: It is better., test: \"best('adam') - best('lion') < 0\"}}\n"


def test_seeds_that_a_study_does_not_ask_for_are_shown_and_count_for_no_claim(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(CONTENT.format(title="T", name="adam, lion") + CLAIM)
    end("s.yaml", "runs")
    end("s.yaml", "runs", seeds=3)
    assert run(["report", "s.yaml", "--format", "md"]) == 0
    assert "3 seeds per setting" in Path("report/s/pico/table.md").read_text()
    assert run(["claims", "s.yaml", "--json"]) == 0
    capsys.readouterr()
    (judged,) = findings.open_study("s.yaml").claims()
    assert judged["seeds"] == 1
    (judged,) = findings.open_study("s.yaml", seeds=3).claims()
    assert judged["seeds"] == 3


# What can be recommended


@pytest.mark.parametrize(("ended", "early"), [(1, True), (2, True), (3, False), (4, False)])
def test_nothing_is_recommended_before_half_of_the_runs_and_each_curve(ended, early):
    rows = [sweeps.row(name, lr, 5.0 + lr) for name in ("adam", "lion") for lr in (1e-3, 1e-2)]
    places = [sweeps.place(row.id, row.optimizer, row.lr) for row in rows]
    found = answer(Figure("s", "t", rows[:ended], places, missing=4 - ended))
    said = " ".join((found.sentence, *found.rest, *(value for fact in found.facts for value in fact)))
    assert ("lowest validation loss" not in said and found.facts == ()) == early
    if early:
        assert f"{ended} of 4 runs have ended, {4 - ended} are missing" in found.sentence
        assert found.sentence.endswith("nothing yet of Lion.")


def test_the_live_page_with_one_of_four_runs_recommends_nothing(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text(CONTENT.format(title="T", name="adam, lion"))
    end(file, tmp_path / "runs", count=1)
    session = Session(study.load(str(file)), "pico", tmp_path / "runs")
    _, text = Site(lambda: [figure_of(session)]).get("/")
    assert "1 of 4 runs have ended, 3 are missing" in text
    assert "lowest validation loss" not in text and "<dt>Use</dt>" not in text


# Verdicts


def judged(name, word, number):
    claim = {"name": f"{name}-{number}", "statement": f"Statement {number} of {name}.", "figure": name}
    told = {"estimate": 0.5, "interval": [0.4, 0.6], "seeds": 3, "test": f"less than {number}", "why": ""}
    return {**claim, "scale": "pico", "verdict": word, **told}


@pytest.fixture
def several():
    return [
        sweeps.figure(
            name="paper/a", claims=[judged("paper/a", "holds", 1), judged("paper/a", "not decided", 2)]
        ),
        sweeps.figure(name="paper/b", claims=[judged("paper/b", "does not hold", 3)]),
        sweeps.figure(name="paper/c"),
    ]


def test_an_index_has_a_table_of_all_verdicts_and_a_page_of_all_claims(several, tmp_path):
    written = report.write_index(several, tmp_path, ["html"], "paper at pico")
    assert tmp_path / "claims.html" in written
    for page, long in (("index.html", False), ("claims.html", True)):
        text = (tmp_path / page).read_text()
        for number, word in ((1, "holds"), (2, "not decided"), (3, "does not hold")):
            name = "paper/b" if number == 3 else "paper/a"
            assert f"Statement {number} of {name}." in text and (f"less than {number}" in text) == long
            assert text.count(f">{word}</span>") == 1
        for link in re.findall(r'href="([^"]+)"', text):
            assert (tmp_path / link).exists(), link


def test_a_served_index_has_them_too(several):
    site = Site(lambda: several)
    assert "Statement 3 of paper/b." in site.get("/")[1] and 'href="/paper-a/"' not in site.get("/")[1]
    kind, text = site.get("/claims.html")
    assert kind == "text/html" and "less than 2" in text
    for link in re.findall(r'href="([^"]+)"', site.get("/")[1] + text):
        assert site.get(f"/{link.lstrip('/')}") is not None, link
    assert Site(lambda: [several[2], several[2]]).get("/claims.html") is None


def test_claims_are_written_as_one_page(tmp_path, capsys):
    out = tmp_path / "new" / "claims.html"
    assert run(["claims", "--json", "--out", str(out)]) == 0
    text = out.read_text()
    for claim in json.loads(capsys.readouterr().out)["claims"]:
        assert f"<small>{claim['name']}</small>" in text
        assert claim["test"] and claim["verdict"] in text
