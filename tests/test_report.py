"""Reports as files: self-contained, escaped, stable to the byte, honest about what is not known."""

import dataclasses
import io
import itertools
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from optstudy import report
from optstudy.errors import UserError
from optstudy.record import leaves
from optstudy.report import figures, maps, page, payload, style
from optstudy.report.answer import answer
from optstudy.report.columns import columns
from optstudy.results.curves import Curve
from optstudy.results.figure import Figure
from tests import sweeps

HOSTILE = (
    """</script><script>alert(1)</script><img src=x onerror=alert(2)>"'`${7*7}{{7*7}}$x^$\\_<!--\u2028&amp;"""
)


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag == "script"
        if self._inside:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])


def with_runs(sweep: Figure, folder: Path, **extra: Any) -> Figure:
    """The sweep with a metrics file for each run."""
    for row in sweep.rows:
        (folder / row.id).mkdir(parents=True)
        metrics = [{"step": k, "tokens": 4096 * k, "loss": 8.0 - 0.01 * k, "lr": 1e-3} for k in range(300)]
        metrics += [{"step": 299, "tokens": 4096 * 299, "val_loss": 5.5, **extra}]
        lines = "".join(json.dumps(line) + "\n" for line in metrics)
        (folder / row.id / "metrics.jsonl").write_text(lines + '{"step": 300, "tok')
        (folder / row.id / "env.json").write_text('{"torch": "2.13.0", "machine": {"cpu": "Z80"}}')
    return dataclasses.replace(sweep, runs=folder)


def printed(sweep: Figure, **options: Any) -> str:
    console = Console(file=io.StringIO(), **options)
    report.show(sweep, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_report_is_made_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from tests import sweeps; from optstudy import report;"
        f"report.write(sweeps.figure(seeds=1, points=3), pathlib.Path({str(tmp_path)!r}), report.FORMATS);"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
    assert len(list(tmp_path.iterdir())) == len(report.FORMATS)


def test_the_table_off_a_terminal_is_plain_lines_with_every_column() -> None:
    head, *rows = printed(sweeps.figure()).splitlines()
    for name in ("optimizer", "best loss", "best lr", "decades ≤0.1", "state B/param", "step ms", "diverged"):
        assert name in head
    assert re.search(r"^Adam +5\.\d{3} ± 0\.\d{3} +3\.2e-3 ", rows[0])
    assert [line.split()[0] for line in rows[:5]] == ["Adam", "Adafactor", "Lion", "Signum", "SGD"]
    assert "\x1b" not in "".join(rows)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_table_fits_the_terminal_and_keeps_what_matters(width: int) -> None:
    text = printed(sweeps.figure(seeds=1), width=width, force_terminal=True, color_system=None)
    table = text[: text.index("lowest validation loss")]
    assert max(map(len, table.splitlines())) <= width
    settings = [style.setting(summary) for summary in sweeps.figure(seeds=1).summaries]
    for value in ("Adafactor", "8", "31", *settings):
        assert value in table


def test_the_answer_says_what_to_use_where_how_sure_and_what_a_wrong_setting_costs() -> None:
    found = answer(sweeps.figure())
    assert re.fullmatch(
        r"Adam at learning rate 3\.\d+e-3 has the lowest validation loss: 5\.\d{3} ± 0\.\d{3} nats "
        r"\(95% interval, 3 seeds; run: 5\.\d{3} at 3\.2e-3\)\. "
        r"A learning rate 3× too low costs 0\.\d{3} ± 0\.\d{3} nats, 3× too high 0\.\d{3} ± 0\.\d{3} nats\.",
        found.sentence,
    )
    assert found.warnings == ()
    assert "Behind it: Adafactor" in found.rest[0]
    assert "within ±1 decade" in found.rest[1]


def test_one_seed_is_said_to_give_no_interval() -> None:
    found = answer(sweeps.figure(seeds=1))
    assert "(one seed: no interval; run: " in found.sentence
    assert found.rest[0].startswith("Not decided with one seed: Adafactor (+0.")
    assert not any("Behind" in text for text in found.rest)
    assert any("One seed everywhere" in text for text in found.warnings)
    assert "±" not in found.sentence


def test_an_interval_that_rests_on_the_seeds_of_other_settings_says_so() -> None:
    rows = [sweeps.row(lr=1e-3, loss=5.0)] + [
        sweeps.row(lr=3e-3, loss=5.2 + s / 10, seed=s) for s in range(3)
    ]
    assert (
        "(95% interval from the seeds of nearby settings, one seed here)"
        in answer(sweeps.figure(rows=rows)).sentence
    )


def test_a_single_setting_claims_nothing_of_others() -> None:
    found = answer(sweeps.figure(rows=[sweeps.row(loss=5.0)]))
    assert [heading for heading, _, _ in found.facts] == ["Use", "At learning rate"]
    assert found.facts[1][2] == "the only one tried" and "3×" not in found.sentence


def test_curves_within_the_noise_are_said_to_be_indistinguishable() -> None:
    rows = [
        sweeps.row("adam", lr, 5.0 + noise, seed)
        for lr in (1e-3, 1e-2)
        for seed, noise in enumerate((0.1, 0))
    ]
    rows += [
        sweeps.row("lion", lr, 5.02 + noise, seed)
        for lr in (1e-3, 1e-2)
        for seed, noise in enumerate((0, 0.1))
    ]
    found = answer(sweeps.figure(rows=rows, labels={row.id: row.optimizer for row in rows}))
    assert any(text.startswith("Not distinguishable") and "Lion" in text for text in found.rest)


def test_an_optimum_at_the_edge_is_said_loudly_in_every_form(tmp_path: Path) -> None:
    rows = [row for row in sweeps.figure(seeds=1).rows if row.optimizer != "adam" or row.lr < 4e-3]
    sweep = sweeps.figure(rows=rows)
    text = "Optimum at the edge of the grid: highest learning rate tried for Adam"
    assert "3× too high an unknown amount (not tried)" in answer(sweep).sentence
    assert text in printed(sweep)
    report.write(sweep, tmp_path, ["html", "md"])
    assert text in (tmp_path / "index.html").read_text()
    assert text in (tmp_path / "table.md").read_text()
    assert "edge of the grid</small>" in (tmp_path / "index.html").read_text()


def test_missing_runs_are_counted() -> None:
    assert answer(sweeps.figure(seeds=1, missing=4)).warnings[0].startswith("4 of 39 runs have no result")


def test_a_study_in_which_nothing_trained_recommends_nothing() -> None:
    rows = [sweeps.row(lr=lr, loss=None) for lr in (0.1, 1.0)]
    found = answer(sweeps.figure(rows=rows, labels={row.id: "adam" for row in rows}))
    assert "nothing to recommend" in found.sentence
    assert found.facts == ()


@pytest.mark.parametrize("seeds", [1, 3])
def test_every_format_is_written_and_read_back(tmp_path: Path, seeds: int) -> None:
    written = report.write(sweeps.figure(seeds=seeds), tmp_path, report.FORMATS)
    assert [path.name for path in written] == [
        "index.html",
        "figure.pdf",
        "figure.svg",
        "figure.png",
        "table.md",
        "table.tex",
    ]
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "table.tex").read_text().count(r"\\") == 6
    assert len(re.findall(r"^\| ", (tmp_path / "table.md").read_text(), re.M)) == 6


def test_an_unknown_format_is_the_users_mistake_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'htm'.*did you mean 'html'"):
        report.write(sweeps.figure(seeds=1), tmp_path / "out", ["png", "htm"])
    assert not (tmp_path / "out").exists()


def test_without_finished_runs_there_is_a_page_and_no_figure(tmp_path: Path) -> None:
    written = report.write(sweeps.figure(rows=[], missing=9), tmp_path)
    assert [path.name for path in written] == ["index.html"]
    assert "No run has finished yet" in written[0].read_text()
    assert "no finished runs" in printed(sweeps.figure(rows=[]))


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_figures_are_stable_to_the_byte(kind: str) -> None:
    one, other = (figures.draw(sweeps.figure(seeds=2, points=5), kind) for _ in range(2))
    assert one == other


def test_text_stays_text_in_svg_and_truetype_in_pdf() -> None:
    sweep = sweeps.figure(seeds=1)
    texts = [
        node.text
        for node in ET.fromstring(figures.draw(sweep, "svg")).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert {"Adam", "Adafactor", "Lion", "Signum", "SGD", "learning rate", "diverged"} <= set(texts)
    pdf = figures.draw(sweep, "pdf")
    assert b"/CIDFontType2" in pdf or b"/TrueType" in pdf
    assert b"/Type3" not in pdf


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    text = page.page(with_runs(sweeps.figure(), tmp_path))
    assert len(text.encode()) < 3_000_000
    elements = Elements(text)
    fetched = [a for _, a in elements.tags if {"src", "srcset", "data", "poster"} & a.keys()]
    assert fetched == []
    assert not [
        tag for tag, _ in elements.tags if tag in ("link", "iframe", "object", "embed", "base", "form")
    ]
    assert not re.findall(r"url\((?!#)|@import", text)
    policy = next(
        a["content"] for tag, a in elements.tags if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "script-src 'sha256-" in policy


def test_the_page_says_how_to_reproduce_it(tmp_path: Path) -> None:
    text = page.page(with_runs(sweeps.figure(seeds=1), tmp_path))
    for value in ("optstudy run paper/fig1 --scale pico", "enwik8", "f00d5eed", "2.13.0", "Z80", "0.1.0"):
        assert value in text


def test_every_run_is_on_the_page_with_id_seed_and_config(tmp_path: Path) -> None:
    sweep = sweeps.figure()
    data = Elements(page.page(sweep)).data
    assert {run[0] for run in data["runs"]} == {row.id for row in sweep.rows}
    placed = sorted(k for curve in data["curves"] for point in curve["points"] for k in point[3])
    assert placed == list(range(len(sweep.rows)))
    assert data["keys"] == ["optimizer.name", "optimizer.lr"]
    assert sum(run[3] == "diverged" for run in data["runs"]) == sum(r.state == "diverged" for r in sweep.rows)


def hostile() -> Figure:
    """Five curves in which every text that can come from a file is hostile."""
    rows = []
    for k, lr in enumerate((1e-3, 1e-2, 1e-1)):
        row = sweeps.row(
            HOSTILE, lr, 5.0 + k if k < 2 else None, id=f"{HOSTILE.replace('/', '_')}{k}", reason=HOSTILE
        )
        for branch in ("data", "model", "training", "schedule"):
            row.config[branch][HOSTILE] = f"{HOSTILE}{k}"
        row.config["data"].update(corpus=HOSTILE, fingerprint=HOSTILE, tokenizer=HOSTILE)
        rows.append(row)
    claim = dict.fromkeys(("name", "statement", "verdict", "estimate", "seeds"), HOSTILE)
    return sweeps.figure(
        rows=rows,
        labels={row.id: HOSTILE for row in rows},
        claims=[{**claim, "interval": [HOSTILE, HOSTILE]}],
        **dict.fromkeys(("name", "title", "asks", "scale", "command"), HOSTILE),
    )


def test_a_page_of_hostile_names_has_the_same_elements_and_the_names_as_text(tmp_path: Path) -> None:
    sweep = hostile()
    folder = tmp_path / "runs"
    effective = {"effective_lr": {HOSTILE: {HOSTILE: 1.0}}}
    sweep = with_runs(sweep, folder, **effective)
    (folder / sweep.rows[0].id / "env.json").write_text(json.dumps({HOSTILE: HOSTILE}))
    text = page.page(sweep)
    elements = Elements(text)
    assert len([tag for tag, _ in elements.tags if tag == "script"]) == 2
    assert not [tag for tag, _ in elements.tags if tag == "img"]
    assert not [a for _, a in elements.tags if any(name.startswith("on") for name in a)]
    assert HOSTILE in json.dumps(elements.data, ensure_ascii=False).replace('\\"', '"').replace("\\\\", "\\")
    assert "49" not in re.sub(
        r"<style>.*?</style>|<script.*?</script>|<noscript>.*?</noscript>", "", text, flags=re.S
    )


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_figures_take_hostile_names_as_text(kind: str) -> None:
    drawn = figures.draw(hostile(), kind)
    if kind == "svg":
        texts = [node.text or "" for node in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
        assert any("<script>alert(1)</script>" in text and "{{7*7}}$x^$\\_" in text for text in texts)


def test_control_characters_and_underscores_do_not_break_a_figure() -> None:
    rows = [sweeps.row("_\x00\x1b[31m$", lr, 5.0) for lr in (1e-3, 1e-2)]
    sweep = sweeps.figure(rows=rows, labels={row.id: row.optimizer for row in rows})
    texts = [
        n.text for n in ET.fromstring(figures.draw(sweep, "svg")).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert "_\ufffd\ufffd[31m$" in texts
    assert "\x1b" not in printed(sweep)


def test_tables_take_hostile_names_as_text(tmp_path: Path) -> None:
    report.write(hostile(), tmp_path, ["md", "tex"])
    markdown, latex = ((tmp_path / f"table.{kind}").read_text() for kind in ("md", "tex"))
    assert "<script" not in markdown and "<img" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert r"\$x\textasciicircum{}\$\textbackslash{}\_" in latex
    assert r"\{\{7*7\}\}" in latex


def test_markup_in_names_is_no_markup_on_the_terminal() -> None:
    rows = [sweeps.row("[bold red]x[/bold red]", 1e-3, 5.0)]
    sweep = sweeps.figure(rows=rows, labels={rows[0].id: rows[0].optimizer}, name="[blink]n")
    text = printed(sweep, width=150, force_terminal=True, color_system=None)
    assert "[bold red]x[/bold red]" in text and "[blink]n" in text


SIGHT = {
    "normal": np.eye(3),
    "deutan": np.array(
        [(0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)]
    ),
    "protan": np.array(
        [(0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)]
    ),
}
"""Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB."""


def lab(colour: str, sight: str) -> Any:
    part = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([(0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)])
    xyz = to_xyz @ np.clip(SIGHT[sight] @ linear, 0, 1) / (0.9505, 1, 1.089)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
def test_the_papers_five_optimizers_are_told_apart_by_the_colour_blind(sight: str) -> None:
    for one, other in itertools.combinations(style.COLOURS[:5], 2):
        assert np.linalg.norm(lab(one, sight) - lab(other, sight)) > 15, (one, other)


def test_colours_stand_out_from_both_backgrounds_and_each_has_its_own_marker() -> None:
    for colour, background in itertools.product(style.COLOURS, (style.LIGHT, style.DARK)):
        assert style.contrast(colour, background) >= 3, (colour, background)
    assert len({repr(marker) for marker in style.MARKERS}) == len(style.MARKERS) == len(style.COLOURS)
    assert style.contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("marker", style.MARKERS)
def test_markers_have_equal_areas(marker: tuple[tuple[float, float], ...]) -> None:
    turned = zip(marker, marker[1:] + marker[:1], strict=True)
    area = abs(sum(x * v - u * y for (x, y), (u, v) in turned)) / 2
    assert area == pytest.approx(style.AREA, rel=1e-3)


def named(*labels: str) -> list[Curve]:
    """Curves of these labels, without points."""
    places = [sweeps.place("", label, 0.0) for label in labels]
    return [Curve(place.curve, (), True, place.panel) for place in places]


def test_an_optimizer_has_one_colour_and_marker_in_every_study() -> None:
    assert (
        style.slots(named("sgdw", "adam"))["adam"]
        == style.slots(named("150m / adam", "x"))["150m / adam"]
        == 0
    )
    known = [slot for _, slot in style.KNOWN.values()]
    assert len({(style.colour(slot), style.marker(slot)) for slot in known}) == len(known)
    assert len({name for name, _ in style.KNOWN.values()}) == len(known)


@pytest.mark.parametrize("count", [3, 9, 40])
def test_curves_of_one_figure_never_look_alike(count: int) -> None:
    found = style.slots(named("adam", "adam_tied_betas", *(f"optimizer {k}" for k in range(count)))).values()
    assert len({(style.colour(slot), style.marker(slot)) for slot in found}) == count + 2
    if count + 1 <= len(style.COLOURS):
        assert len({style.colour(slot) for slot in found}) == count + 1


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (3.16e-3, "3.16e-3"),
        (1e-4, "1e-4"),
        (0.1, "0.1"),
        (31.6, "31.6"),
        (0, "0"),
        (25000, "25000"),
        (True, "True"),
    ],
)
def test_numbers_are_short_and_exact(x: float, text: str) -> None:
    assert style.number(x) == text


def test_a_page_of_two_thousand_runs_is_small(tmp_path: Path) -> None:
    rows = [
        sweeps.row(f"optimizer {k % 20}", 10 ** (k // 20 % 50 / 12 - 4), 5.0, k // 1000) for k in range(2000)
    ]
    sweep = sweeps.figure(rows=rows, labels={row.id: row.optimizer for row in rows})
    text = page.page(with_runs(sweep, tmp_path))
    assert 300_000 < len(text.encode()) < 5_000_000
    assert len(Elements(text).data["runs"]) == 2000


def test_training_curves_are_thinned_and_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    sweep = with_runs(sweeps.figure(seeds=1), tmp_path)
    found = payload.payload(sweep)["series"]
    assert len(found) == len(sweep.rows)
    assert found["0"]["loss"][0] == (0, 8.0) and found["0"]["loss"][-1] == (4096 * 299, 5.01)
    assert len(found["0"]["loss"]) == 200
    assert found["0"]["val_loss"] == [(4096 * 299, 5.5)]
    assert "effective" not in found["0"]


def test_effective_learning_rates_cost_nothing_where_they_are_not_recorded(tmp_path: Path) -> None:
    recorded = {"effective_lr": {"head": {"q05": 1e-3, "q50": 1e-2}}}
    with_them = page.page(with_runs(sweeps.figure(seeds=1, points=3), tmp_path / "a", **recorded))
    without = page.page(with_runs(sweeps.figure(seeds=1, points=3), tmp_path / "b"))
    assert 'id="effective"' in with_them and 'id="effective"' not in without
    assert Elements(with_them).data["series"]["0"]["effective"] == [[4096 * 299, recorded["effective_lr"]]]


def test_effective_learning_rates_are_drawn_with_a_panel_for_each_role(tmp_path: Path) -> None:
    recorded = {
        "effective_lr": {role: {"q05": 1e-3, "q50": 1e-2, "q95": 1e-1} for role in ("head", "norm", "qkv")}
    }
    sweep = with_runs(sweeps.figure(seeds=1, points=3, kind="effective"), tmp_path, **recorded)
    texts = [
        node.text
        for node in ET.fromstring(figures.draw(sweep, "svg")).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert {"head", "norm", "qkv", "effective learning rate"} <= set(texts)
    assert figures.draw(dataclasses.replace(sweep, runs=None), "png").startswith(b"\x89PNG")


def test_a_role_whose_effective_learning_rates_were_not_finite_is_left_out(tmp_path: Path) -> None:
    recorded = {"head": {"q05": 1e-3, "q50": None}, "norm": {"q05": 1e-3, "q50": 1e-2}}
    sweep = sweeps.figure(seeds=1, points=3, kind="effective")
    some = with_runs(sweep, tmp_path / "some", effective_lr=recorded)
    data = Elements(page.page(some)).data["series"]["0"]
    assert data["effective"] == [[4096 * 299, {"norm": recorded["norm"]}]]
    none = with_runs(sweep, tmp_path / "none", effective_lr={"head": recorded["head"]})
    for one in (some, none):
        assert figures.draw(one, "png").startswith(b"\x89PNG") and answer(one)


def test_the_answer_on_effective_learning_rates_is_how_far_apart_they_are(tmp_path: Path) -> None:
    recorded = {"head": {"q05": 1e-5, "q50": 1e-3, "q95": 1e-1}, "norm": {"q05": 1e-3, "q95": 2e-3}}
    row = sweeps.row("adalayer_star", loss=5.0)
    sweep = with_runs(
        sweeps.figure(rows=[row], labels={row.id: "adalayer_star"}, kind="effective"),
        tmp_path,
        effective_lr=recorded,
    )
    found = answer(sweep)
    assert "over 4.0 decades in head, over 0.3 in norm" in found.sentence
    assert found.facts[0] == ("head", "4.0 decades", "from the 5 % to the 95 % quantile")
    text = page.page(sweep)
    assert "5 %, median, 95 %" in text
    assert text.index('id="effective"') < text.index("Side by side")
    assert 'id="figure"' not in text and "one higher" not in text


def subplots(sweep: Figure) -> list[Any]:
    """Axes that the sweep's figure draws on."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    figures._panels(figure, sweep)
    return [axis for axis in figure.axes if axis.axison]


def test_several_panels_stand_side_by_side_aligned_on_top_and_dash_what_other_studies_ran() -> None:
    rows = sweeps.figure(seeds=1).rows
    places = [
        sweeps.place(row.id, f"{size} / {row.optimizer}", row.lr) for size in ("150m", "300m") for row in rows
    ]
    sweep = Figure("paper/fig4", "t", rows, places, baselines=frozenset({("", "sgdw")}))
    axes = subplots(sweep)
    assert [axis.get_title(loc="left") for axis in axes] == ["150m", "300m"] * 2
    assert [axis.get_xlabel().endswith("relative to each best") for axis in axes] == [True] * 2 + [False] * 2
    for axis in axes:
        assert sum(line.get_linestyle() == "--" for line in axis.lines) == 1
        assert axis.get_ylim() == axes[0].get_ylim()
    drawn = Elements(page.page(sweep)).data["curves"]
    assert {curve["label"] for curve in drawn if curve["dashed"]} == {"150m / sgdw", "300m / sgdw"}


def test_panels_over_different_settings_have_loss_axes_of_their_own() -> None:
    rows = [sweeps.row(lr=lr, loss=5 + lr) for lr in (1e-3, 1e-2)] + [sweeps.row(lr=0.5, loss=7.0)]
    places = [sweeps.place(row.id, "decay / adam", row.lr) for row in rows]
    places += [sweeps.place(row.id, "warm-up / adam", row.lr) for row in rows[:2]]
    axes = {"decay": "optimizer.weight_decay", "warm-up": "schedule.warmup"}
    decay, warm_up = subplots(Figure("s", "t", rows, places, axes=axes))
    assert decay.get_ylim()[1] > 6.5 and warm_up.get_ylim()[1] < 5.1


def test_more_than_eight_curves_are_drawn_apart_on_the_same_axes_with_the_reference_behind() -> None:
    rows = [
        sweeps.row(name, 10.0**at, 5 + k / 20 + (at + 2) ** 2)
        for k, name in enumerate(["optimizer_7", "adam", *(f"optimizer_{k}" for k in range(7))])
        for at in range(-4, 1)
    ]
    figure = sweeps.figure(rows=rows)
    axes = [axis for axis in figures.drawing(figure).axes if axis.axison]
    assert [axis.get_title(loc="left") for axis in axes][:3] == ["optimizer_7", "Adam", "optimizer_0"]
    assert len(axes) == 9 and len({(axis.get_ylim(), axis.get_xlim()) for axis in axes}) == 1
    behind = [axis.lines[0].get_xydata().tolist() for axis in axes]
    assert all(one == behind[1] for one in behind)
    fewer = dataclasses.replace(figure, rows=[row for row in rows if row.optimizer != "optimizer_3"])
    assert len(figures.drawing(fewer).axes) == 2  # as swept and aligned, together


def test_the_script_is_short_and_our_own() -> None:
    for name in page.SCRIPTS:
        script = (page.TEMPLATES / name).read_text()
        assert len(script.splitlines()) < 300
        assert "innerHTML" not in script and "eval(" not in script and "document.write" not in script


def adaptivity_map() -> Figure:
    rows, labels = [], {}
    for panel, role, block in itertools.product(("Adam down", "SGD up"), ("head", "norm"), ("row", "none")):
        for k in range(3):
            row = sweeps.row(
                f"{panel}{role}{block}", 10.0 ** (k - 4), 5 + (k - 1) ** 2 + 0.5 * (block == "none")
            )
            rows.append(row)
            labels[row.id] = " / ".join((panel, role, block))
    del labels[rows[-1].id], labels[rows[-2].id], labels[rows[-3].id]
    return sweeps.figure(rows=rows[:-3], labels=labels, kind="map")


def test_a_map_has_the_best_of_every_cell_and_a_gap_where_nothing_ran(tmp_path: Path) -> None:
    down, up = maps.heats(adaptivity_map())
    assert (down.title, down.rows, down.columns) == ("Adam down", ("head", "norm"), ("row", "none"))
    assert down.cells["head", "row"].excess == 0 and down.cells["head", "none"].excess == pytest.approx(0.5)
    assert ("norm", "none") not in up.cells
    assert all(style.contrast(cell.shade, cell.ink) > 4.5 for cell in down.cells.values())
    report.write(adaptivity_map(), tmp_path, report.FORMATS)
    assert 'class="heat"' in (tmp_path / "index.html").read_text()
    assert "+0.500" in (tmp_path / "figure.svg").read_text()


@pytest.mark.parametrize(
    ("times", "zero", "excess"), [(1, "Adam's best", -0.2), (2, "the best of the panel", 0)]
)
def test_zero_of_a_map_is_the_reference_in_runs_of_as_many_tokens(times, zero, excess) -> None:
    row = sweeps.row(lr=1e-3, loss=5.2)
    row.config["training"]["steps"] *= times
    reference = sweeps.figure(rows=[row], labels={row.id: "steps / adam"})
    for heat in maps.heats(dataclasses.replace(adaptivity_map(), lengths=reference)):
        assert heat.zero == zero and heat.cells["head", "row"].excess == pytest.approx(excess)


def test_panels_are_compared_within_themselves() -> None:
    rows = [
        sweeps.row(name, lr, loss)
        for name, loss in (("adam", 5.0), ("lion", 5.5))
        for lr in (1e-3, 1e-2, 1e-1)
    ]
    labels = {row.id: f"{'150m' if row.lr < 0.05 else '300m'} / {row.optimizer}" for row in rows}
    found = answer(sweeps.figure(rows=rows, labels=labels))
    assert found.sentence.startswith("In “150m”, Adam")
    assert any(text.startswith("In “300m”, Adam") for text in found.rest)
    text = page.page(sweeps.figure(rows=rows, labels=labels))
    headings = [tag for tag in Elements(text).tags if tag[1].get("scope") == "rowgroup"]
    assert len(headings) == 2 and "150m / Adam" not in re.sub("<script.*</script>", "", text, flags=re.S)
    assert not any("300m" in text for text in found.rest if text.startswith("Behind"))


def test_a_run_lies_on_every_curve_that_shares_it_and_panels_have_their_own_axes(tmp_path: Path) -> None:
    shared, other = sweeps.row(lr=1e-3, loss=5.0), sweeps.row(lr=1e-2, loss=5.2)
    places = [
        sweeps.place(shared.id, "decay / adam", 0.0),
        sweeps.place(other.id, "decay / adam", 0.1),
        sweeps.place(shared.id, "warm-up / adam", 0.1),
        sweeps.place(other.id, "warm-up / adam", 0.5),
    ]
    axes = {"decay": "optimizer.weight_decay", "warm-up": "schedule.warmup"}
    sweep = Figure("paper/fig7", "Other settings", [shared, other], places, axes=axes)
    assert [[point.x for point in curve.points] for curve in sweep.curves] == [[0.0, 0.1], [0.1, 0.5]]
    assert [(panel.name, panel.plots) for panel in sweep.panels] == [("decay", [False]), ("warm-up", [False])]
    found = answer(sweep)
    assert "at weight decay 0 has" in found.sentence and "at warm-up 0.1" in found.rest[0]
    data = Elements(page.page(sweep)).data
    assert [panel["axis"] for panel in data["panels"]] == ["weight decay", "warm-up, share of the steps"]
    assert [point[3] for curve in data["curves"] for point in curve["points"]] == [[0], [1], [0], [1]]
    texts = [
        n.text for n in ET.fromstring(figures.draw(sweep, "svg")).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert {"weight decay", "warm-up, share of the steps"} <= set(texts)
    assert columns(sweep)[2].heading == "Best setting"


def test_windows_that_differ_between_panels_are_told_in_their_cells() -> None:
    rows = [
        sweeps.row(lr=lr, loss=5 + abs(k - 2) / 10)
        for k, lr in enumerate((1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2))
    ]
    places = [sweeps.place(row.id, "lr / adam", row.lr) for row in rows]
    places += [
        sweeps.place(row.id, "eps / adam", eps)
        for row, eps in zip(rows, (1e-15, 1e-12, 1e-8, 1e-5, 1e-2), strict=True)
    ]
    sweep = Figure("s", "t", rows, places, axes={"eps": "optimizer.options.eps"})
    (cells,) = [column for column in columns(sweep) if column.heading == "Sensitivity"]
    assert "of each panel's window: within ±1 decade or over the whole grid" in cells.about
    assert cells.cells == ("0.120", "0.120") and cells.notes == ("within ±1 decade", "over the whole grid")
    assert [(panel.name, panel.plots) for panel in sweep.panels] == [("lr", [False, True]), ("eps", [False])]


def test_a_short_axis_is_labelled_with_its_settings() -> None:
    rows = [sweeps.row(lr=lr, loss=5.0 + lr) for lr in (0.02, 0.05, 0.1, 0.4)]
    places = [sweeps.place(row.id, "adam", row.lr) for row in rows]
    drawn = figures.draw(Figure("s", "t", rows, places, x="schedule.warmup"), "svg")
    texts = [node.text or "" for node in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
    assert {"0.02", "0.05", "0.1", "0.4"} <= set(texts)
    assert drawn.count(b'id="xtick_') == 4


def test_a_place_of_a_run_that_has_not_ended_is_left_out() -> None:
    row = sweeps.row(loss=5.0)
    places = [sweeps.place(row.id, "adam", 1e-3), sweeps.place("absent", "lion", 1e-3)]
    assert [curve.label for curve in Figure("s", "t", [row], places).curves] == ["adam"]


def test_every_column_says_what_it_means_and_sensitivity_its_window() -> None:
    made = {column.heading.replace("\u00a0", " "): column for column in columns(sweeps.figure())}
    assert all(column.about for heading, column in made.items() if heading != "Optimizer")
    assert "Sensitivity, ±1 dec." in made and "within ±1 decade," in made["Sensitivity, ±1 dec."].about
    assert all(len(column.cells) == 5 for column in made.values())


def test_a_best_at_the_edge_of_an_unfinished_curve_is_no_advice_to_widen_the_grid() -> None:
    rows = [sweeps.row(lr=lr, loss=loss) for lr, loss in ((1e-3, 5.2), (1e-2, 5.0), (1e-1, 5.1))]
    places = [sweeps.place(row.id, "adam", row.lr) for row in rows]
    whole, part = (Figure("s", "t", some, places) for some in (rows, rows[:2]))
    assert [figure.unfinished(figure.curves[0]) for figure in (whole, part)] == [False, True]
    assert not any("edge" in text for text in answer(part).warnings)
    assert answer(part).facts[1][2] == "the highest tried so far"
    assert columns(part)[2].notes == ("edge so far",)
    told = answer(Figure("s", "t", rows[:2], places[:2])).warnings
    assert any("widen the grid" in text for text in told)


def test_claims_are_shown_with_their_verdicts_where_there_are_any() -> None:
    claim = {"name": "sgd-worse", "statement": "SGD is worse.", "figure": "paper/fig1", "scale": "pico"}
    judged = [
        {**claim, "verdict": "holds", "estimate": 1.16, "interval": [1.15, 1.17], "seeds": 3},
        {**claim, "verdict": "holds", "estimate": 0.2, "interval": [0.1, 0.3], "seeds": 3},
        {**claim, "verdict": "not decided", "estimate": None, "interval": None, "seeds": 1},
    ]
    text = page.page(sweeps.figure(claims=judged))
    assert "3 claims: 2 hold, 1 not decided" in text and text.count('class="verdict holds"') == 2
    assert "1.150 to 1.170" in text and "sgd-worse" in text
    assert "Claims</h2>" not in page.page(sweeps.figure())


def test_the_answer_of_a_map_is_what_matters_most_and_least() -> None:
    found = answer(adaptivity_map())
    assert found.sentence.startswith(
        "In “Adam down”, the choice for head moves the loss most: row is 0.500 nats"
    )
    assert ("norm", "0.500 nats", "from row to none") in found.facts
    assert found.rest[0].startswith("In “SGD up”, the choice for head") and "norm" not in found.rest[0]
    assert "has the lowest validation loss" in found.rest[-1]


def test_many_seeds_are_one_picture_in_a_vector_figure_and_the_rest_stays_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweep = sweeps.figure(seeds=5, points=7)
    image, use = "{http://www.w3.org/2000/svg}image", "{http://www.w3.org/2000/svg}use"

    def drawn() -> tuple[int, int]:
        tree = ET.fromstring(figures.draw(sweep, "svg"))
        return len(list(tree.iter(image))), len(list(tree.iter(use)))

    images, marks = drawn()
    assert images == 0
    monkeypatch.setattr(figures, "MANY", 20)
    pictures, left = drawn()
    assert pictures == 2
    assert 0 < left < marks


def test_formats_asked_for_together_are_those_asked_for_alone() -> None:
    sweep = sweeps.figure(seeds=2, points=5)
    together = figures.draw_all(sweep, ["png", "svg", "pdf"])
    assert together == {kind: figures.draw(sweep, kind) for kind in together}


def test_settings_that_differ_are_those_of_whole_configs() -> None:
    rows = sweeps.figure(seeds=2, points=3).rows
    odd = [
        sweeps.row(config={**rows[0].config, "watch": {"norms": True}}, id="a"),
        sweeps.row(config={k: v for k, v in rows[0].config.items() if k != "schedule"}, id="b"),
        sweeps.row(config={**rows[0].config, "seed": 9, "training": {"steps": 7}}, id="c"),
    ]
    for some in (rows, [*rows, *odd], [*odd, *rows]):
        flat = [dict(leaves(row.config)) for row in some]
        every = dict.fromkeys(key for one in flat for key in one if key != "seed")
        wanted = {key for key in every if any(one.get(key) != flat[0].get(key) for one in flat)}
        sent = payload.payload(Figure("s", "t", some, [sweeps.place(r.id, r.optimizer, r.lr) for r in some]))
        assert set(sent["keys"]) == wanted
        assert [run[6] for run in sent["runs"]] == [[one.get(k) for k in sent["keys"]] for one in flat]
