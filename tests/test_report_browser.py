"""The page in a real browser: Debian's chromium, driven by selenium; skipped where any of them is missing."""

import csv
import dataclasses
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from optstudy.report import figures, page, style, write, write_index
from optstudy.results.figure import Figure
from tests import sweeps
from tests.test_report import HOSTILE, adaptivity_map, hostile, with_runs

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
MISSING = " and ".join(
    name for name, found in (("chromium", CHROMIUM), ("chromedriver", DRIVER)) if not found
)
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"no {MISSING} here; as root: make install-browser"),
    pytest.mark.xdist_group("browser"),
]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
SIZES = {"desktop": (1400, 900), "phone": (390, 844)}

SIDEWAYS = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
OVERLAPS = """
const boxes = [...document.querySelectorAll(arguments[0])]
  .filter((e) => e.textContent.trim() && e.checkVisibility({contentVisibilityAuto: true})).map((e) => {
  const b = e.getBoundingClientRect();
  return [e.textContent, b.left, b.top, b.right, b.bottom];
}).filter(([, l, t, r, b]) => r > l && b > t);
const found = [];
boxes.forEach((p, k) => boxes.slice(k + 1).forEach((q) => {
  if (p[1] < q[3] - 1 && q[1] < p[3] - 1 && p[2] < q[4] - 1 && q[2] < p[4] - 1) found.push([p[0], q[0]]);
}));
return found;
"""
"""Pairs of texts that a selector finds and whose boxes overlap by more than a pixel."""


CONTRASTS = """
const shade = (text) => {
  const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
  return {c: [r, g, b], a};
};
const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const light = (c) => c.map((v) => linear(v / 255))
  .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
const behind = (e) => {
  for (; e; e = e.parentElement) {
    const s = shade(getComputedStyle(e).backgroundColor);
    if (s.a > 0) return s.c;
  }
  return [255, 255, 255];
};
return [...document.querySelectorAll(arguments[0])]
  .filter((e) => e.textContent.trim() && e.checkVisibility({contentVisibilityAuto: true}))
  .map((e) => {
    const style = getComputedStyle(e);
    const [p, q] = [light(shade(e.closest("svg") ? style.fill : style.color).c), light(behind(e))];
    return [(Math.max(p, q) + 0.05) / (Math.min(p, q) + 0.05), e.textContent];
  });
"""
"""Contrast of every text that a selector finds with what is behind it."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def visit(browser: Any, path: Path, size: str = "desktop", scheme: str = "light") -> None:
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get("about:blank")
    browser.get_log("browser")  # what a served page said after its server had ended is another test's
    browser.get(path.as_uri())
    browser.execute_async_script(
        "const done = arguments[0]; requestAnimationFrame(() => setTimeout(done, 50))"
    )


def all_of(browser: Any, selector: str) -> list[Any]:
    return list(browser.find_elements("css selector", selector))


def console_of(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Figure:
    """Five optimizers, three seeds, diverged runs, training curves, effective learning rates and claims."""
    runs = tmp_path_factory.mktemp("runs")
    claim = {
        "name": "c",
        "statement": "SGD is worse.",
        "estimate": 1.16,
        "interval": [1.15, 1.17],
        "seeds": 3,
    }
    sweep = sweeps.figure(
        runs=runs,
        claims=[{**claim, "verdict": "holds"}, {**claim, "verdict": "not decided"}],
        costs=["state_bytes_per_param", "step_ms"],
    )
    quantiles = {"q05": 1e-4, "q50": 1e-3, "q95": 1e-2}
    for row in sweep.rows:
        (runs / row.id).mkdir()
        lines: list[dict[str, Any]] = []
        for k in range(0, 401, 4):
            loss = 5.0 + 3.3 * math.exp(-k / 80)
            lines.append({"step": k, "tokens": 4096 * k, "loss": loss})
            if k % 40 == 0:
                lines.append({"step": k, "tokens": 4096 * k, "val_loss": loss})
                lines.append(
                    {"step": k, "tokens": 4096 * k, "effective_lr": {"head": quantiles, "norm": quantiles}}
                )
        (runs / row.id / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return sweep


@pytest.fixture(scope="module")
def path(study: Figure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(study, tmp_path_factory.mktemp("report"), ["html"])[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_a_page_opens_without_errors_overlap_or_sideways_scrolling(
    browser: Any, path: Path, size: str, scheme: str
) -> None:
    visit(browser, path, size, scheme)
    assert console_of(browser) == []
    assert browser.execute_script(SIDEWAYS) == 0
    for selector in (
        "svg text",
        "h1, h2, p, dt, dd, button, label, pre",
        "table.summary th, table.summary td",
    ):
        assert browser.execute_script(OVERLAPS, selector) == [], selector
    charts = all_of(browser, "#figure svg")
    assert len(charts) == 2
    assert all(chart.size["width"] > 300 and chart.size["height"] > 200 for chart in charts)
    assert (charts[0].location["y"] == charts[1].location["y"]) == (size == "desktop")


@pytest.mark.parametrize("size", SIZES)
def test_the_first_screen_answers_which_optimizer_where_and_what_being_off_by_3x_costs(
    browser: Any, path: Path, size: str
) -> None:
    """The checklist of a reader who has not read the paper, without scrolling."""
    visit(browser, path, size)
    height = SIZES[size][1]
    sentence = browser.find_element("css selector", ".sentence")
    facts = {
        fact.find_element("tag name", "dt").text: (
            fact,
            [dd.text for dd in fact.find_elements("tag name", "dd")],
        )
        for fact in all_of(browser, ".answer .facts > div")
    }
    assert list(facts) == ["Use", "At learning rate", "If 3× too low", "If 3× too high"]
    assert facts["Use"][1][0] == "Adam"
    assert "95% interval, 3 seeds" in facts["Use"][1][1]
    assert facts["At learning rate"][1][0] == "3.2e-3"
    for side in ("If 3× too low", "If 3× too high"):
        value, remark = facts[side][1]
        assert 0.05 < float(value) < 0.15
        assert "nats above its best" in remark and "±" in remark
    for element in (sentence, *(fact for fact, _ in facts.values())):
        assert element.rect["y"] >= 0 and element.rect["y"] + element.rect["height"] <= height
    if size == "desktop":
        table = browser.find_element("css selector", "table.summary")
        last = table.find_elements("css selector", "tbody tr")[-1]
        assert last.rect["y"] + last.rect["height"] <= height


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_both_themes(browser: Any, path: Path, scheme: str) -> None:
    visit(browser, path, "desktop", scheme)
    found = browser.execute_script(CONTRASTS, "p, h1, h2, td, th, dt, dd, small, button, label, svg text")
    assert len(found) > 50
    assert min(found)[0] >= 4.5, min(found)


def test_every_run_is_drawn_once_and_diverged_ones_on_top_only(
    browser: Any, path: Path, study: Figure
) -> None:
    visit(browser, path)
    chart = all_of(browser, "#figure svg")[0]

    def count(kind: str, mark: str) -> int:
        paths = chart.find_elements("css selector", f"path.{kind}")
        return sum((element.get_attribute("d") or "").count(mark) for element in paths)

    diverged = sum(row.state == "diverged" for row in study.rows)
    assert count("cross", "l5 5") == diverged > 0
    assert count("dots", "h0") + count("cross", "M") == len(study.rows)


def test_clicking_an_optimizer_hides_it_everywhere_and_brings_it_back(browser: Any, path: Path) -> None:
    visit(browser, path)

    def drawn() -> list[int]:
        return [len(all_of(browser, f"#{name} path.line")) for name in ("figure", "training")]

    before = drawn()
    chip = browser.find_element("css selector", '.chips button[data-curve="SGD"]')
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"
    assert drawn() == [before[0] - 2, before[1] - 2]
    assert [row.text.split()[0] for row in all_of(browser, "tr.off")] == ["SGD"]
    chip.click()
    assert drawn() == before
    assert console_of(browser) == []


def at_run(browser: Any, state: str) -> tuple[Any, float, float]:
    """The first chart and the place of one of Adam's runs of a given state on it, from its centre."""
    chart = all_of(browser, "#figure svg")[0]
    selector = f"path.{'dots' if state == 'done' else 'cross'}[stroke='{style.COLOURS[0]}']"
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    x, y = browser.execute_script(
        """
        const mark = arguments[0].querySelector(arguments[1]).getAttribute("d");
        const [x, y] = mark.slice(1).split(/[ a-zA-Z]/).map(Number);
        const box = arguments[0].viewBox.baseVal, size = arguments[0].getBoundingClientRect();
        return [(x / box.width - 0.5) * size.width, (y / box.height - 0.5) * size.height];
        """,
        chart,
        selector,
    )
    return chart, x, y


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("state", ["done", "diverged"])
def test_hovering_a_run_shows_its_id_seed_and_config(
    browser: Any, path: Path, study: Figure, size: str, state: str
) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    visit(browser, path, size)
    chart, x, y = at_run(browser, state)
    ActionChains(browser).move_to_element_with_offset(chart, round(x), round(y)).perform()
    tip = browser.find_element("css selector", "#tip")
    assert tip.is_displayed()
    row = next(row for row in study.rows if row.id in tip.text)
    assert row.state == state
    assert f"seed {row.seed}, run {row.id}" in tip.text
    assert f"optimizer.lr\n{row.lr:g}" in tip.text or str(row.lr) in tip.text
    assert (f"diverged at step {row.step}" in tip.text) == (state == "diverged")
    box = tip.rect
    assert box["x"] >= 0 and box["x"] + box["width"] <= SIZES[size][0]
    ActionChains(browser).move_to_element(browser.find_element("css selector", "h1")).perform()
    assert not tip.is_displayed()


def test_clicking_a_run_adds_its_training_curve(browser: Any, path: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    visit(browser, path)
    chart, x, y = at_run(browser, "done")
    before = len(all_of(browser, "#training path.line"))
    ActionChains(browser).move_to_element_with_offset(chart, round(x), round(y)).click().perform()
    assert len(all_of(browser, "#training path.line")) == before + 2
    assert len(all_of(browser, '#training path.line[stroke-dasharray="5 3"]')) == 1


def test_the_choice_of_runs_changes_the_training_curves(browser: Any, path: Path) -> None:
    visit(browser, path)
    script = "return [...document.querySelectorAll('#effective h3')].map((e) => e.textContent)"
    assert browser.execute_script(script)[0] == "Adam, learning rate 3.2e-3"
    browser.find_element("xpath", "//label[contains(., 'one higher')]").click()
    assert browser.execute_script(script)[0] == "Adam, learning rate 0.0101"


def axis_of(browser: Any) -> tuple[str, list[str]]:
    """The name of the training curves' horizontal axis, and the labels of its ticks."""
    script = """
      const texts = [...document.querySelectorAll('#training svg text')];
      const name = texts.find((e) => e.classList.contains('title')).textContent;
      const middle = texts.filter((e) => e.getAttribute('text-anchor') === 'middle');
      return [name, middle.map((e) => e.textContent)];
    """
    name, texts = browser.execute_script(script)
    return name, [text for text in texts if text not in (name, "loss, nats")]


def press(browser: Any, text: str) -> None:
    browser.find_element("xpath", f"//label[contains(., '{text}')]").click()


def test_training_curves_are_over_tokens_or_time_on_logarithmic_or_linear_axes(
    browser: Any, path: Path
) -> None:
    visit(browser, path)
    assert axis_of(browser) == ("tokens", ["100 k", "1 M"])
    press(browser, "linear")
    assert axis_of(browser)[1] == ["0", "500 k", "1 M", "1.5 M"]
    press(browser, "over time")  # 400 steps of 26 to 35 ms
    assert axis_of(browser) == ("time, seconds", ["0", "2", "4", "6", "8", "10", "12", "14"])
    address = browser.current_url
    browser.get("about:blank")
    browser.get(address)
    assert axis_of(browser)[0] == "time, seconds"
    assert console_of(browser) == []


@pytest.mark.parametrize("size", SIZES)
def test_dragging_over_training_curves_zooms_in_and_a_button_shows_all_again(
    browser: Any, path: Path, size: str
) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    visit(browser, path, size)
    whole, reset = axis_of(browser), browser.find_element("css selector", "#unzoom")
    chart = browser.find_element("css selector", "#training svg")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    assert not reset.is_displayed()
    half = chart.size["width"] // 2
    drag = ActionChains(browser).move_to_element_with_offset(chart, half // 2, 0)
    drag.click_and_hold().move_by_offset(half // 4, 20).release().perform()
    name, near = axis_of(browser)
    assert name == "tokens" and near != whole[1] and len(near) > 1
    assert all("k" in text or "M" in text for text in near)
    assert browser.execute_script(OVERLAPS, "#training svg text") == []
    address = browser.current_url
    browser.get("about:blank")
    browser.get(address)
    assert axis_of(browser)[1] == near
    browser.find_element("css selector", "#unzoom").click()
    assert axis_of(browser) == whole and console_of(browser) == []


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of eleven curves, one of them with a long name."""
    names = ["adam", "hybrid_adafactor_last_norm", *(f"optimizer_{k}" for k in range(9))]
    rows = [
        sweeps.row(name, 10.0**at, 5 + k / 20 + (at + 2) ** 2 if at or k else None, state_bytes_per_param=k)
        for k, name in enumerate(names)
        for at in range(-4, 1)
    ]
    figure = sweeps.figure(rows=rows, costs=["state_bytes_per_param"])
    return write(figure, tmp_path_factory.mktemp("crowd"), ["html", "svg"])[0]


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
def test_many_curves_have_small_charts_with_the_reference_behind_them(
    browser: Any, crowd: Path, size: str, scheme: str
) -> None:
    visit(browser, crowd, size, scheme)
    charts = all_of(browser, "#multiples svg")
    assert len(charts) == 11 and len(all_of(browser, "#multiples path.behind")) == 10
    assert len({(chart.size["width"], chart.size["height"]) for chart in charts}) == 1
    assert len({chart.location["x"] for chart in charts}) == (6 if size == "desktop" else 2)
    ticks = {chart.text for chart in charts}
    assert len(ticks) == 1  # the same axes everywhere
    assert browser.execute_script(SIDEWAYS) == 0
    assert browser.execute_script(OVERLAPS, "svg text, #multiples h4, h2, h3, p") == []
    browser.find_element("css selector", '.chips button[data-curve="optimizer_3"]').click()
    assert len(all_of(browser, "#multiples svg")) == 10 and console_of(browser) == []


def test_on_paper_nothing_overlaps_and_a_figure_of_its_own_follows_a_dark_screen(
    browser: Any, crowd: Path
) -> None:
    visit(browser, crowd)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script(OVERLAPS, "svg text, #multiples h4, h2, h3, p, td, dd, dt") == []
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    for name in ("figure.svg", "costs.svg"):
        for scheme, ink, paper in (("light", "(22, 24, 29)", "(255,"), ("dark", "(233, 235, 239)", "(20,")):
            visit(browser, crowd.parent / name, scheme=scheme)
            script = "const s = getComputedStyle(arguments[0]); return [s.fill, s.backgroundColor]"
            text = browser.find_element("css selector", "text")
            assert ink in browser.execute_script(script, text)[0]
            assert paper in browser.execute_script(script, browser.find_element("css selector", "svg"))[1]


def test_the_loss_axis_is_that_of_the_figures_and_closes_in_on_what_is_shown(
    browser: Any, path: Path, study: Figure
) -> None:
    visit(browser, path)
    assert browser.execute_script("return lossRange()") == pytest.approx(
        figures.loss_range(study.curves), abs=1e-3
    )
    browser.find_element("css selector", '.chips button[data-curve="SGD"]').click()
    shown = [curve for curve in study.curves if curve.label != "sgdw"]
    assert browser.execute_script("return lossRange()") == pytest.approx(figures.loss_range(shown), abs=1e-3)


def test_the_theme_button_switches_the_theme(browser: Any, path: Path) -> None:
    visit(browser, path, scheme="light")
    script = "return getComputedStyle(document.body).backgroundColor"
    before = browser.execute_script(script)
    browser.find_element("css selector", "#theme").click()
    assert browser.execute_script(script) != before
    browser.find_element("css selector", "#theme").click()
    assert browser.execute_script(script) == before


@pytest.mark.parametrize("size", SIZES)
def test_a_page_of_hostile_names_is_inert(browser: Any, tmp_path: Path, size: str) -> None:
    visit(browser, write(hostile(), tmp_path, ["html"])[0], size)
    assert console_of(browser) == []
    assert all_of(browser, "img") == []
    assert browser.execute_script("return document.scripts.length") == 2
    assert browser.find_element("css selector", "h1").get_attribute("textContent") == HOSTILE
    assert browser.execute_script(SIDEWAYS) == 0


def test_the_policy_of_a_page_refuses_a_script_that_is_not_its_own(
    browser: Any, study: Figure, tmp_path: Path
) -> None:
    text = page.page(study).replace("</main>", "<script>window.pwned = true</script></main>")
    (tmp_path / "x.html").write_text(text)
    visit(browser, tmp_path / "x.html")
    assert browser.execute_script("return window.pwned") is None
    assert any("Content Security Policy" in message for message in console_of(browser))


@pytest.mark.parametrize("size", SIZES)
def test_a_map_an_index_and_panels_fit_the_screen(browser: Any, tmp_path: Path, size: str) -> None:
    rows = [sweeps.row(name, 1e-3, 5.0 + k / 10) for k, name in enumerate(("adam", "lion", "sgdw"))]
    for k, row in enumerate(rows):
        row.config["training"]["batch_size"] = 128 << k
    labels = {row.id: f"{'150m, no QK norm or z-loss' if k else '150m'} / adam" for k, row in enumerate(rows)}
    panels = sweeps.figure(rows=rows, labels=labels, x="training.batch_size")
    recorded = {"effective_lr": {role: {"q05": 1e-4, "q50": 1e-3, "q95": 1e-2} for role in style.ROLES}}
    one = [sweeps.row("adalayer_star", loss=5.0)]
    alone = sweeps.figure(rows=one, labels={one[0].id: "adalayer_star"}, kind="effective")
    effective = with_runs(alone, tmp_path / "runs", **recorded)
    pages = write_index([adaptivity_map(), panels, effective], tmp_path, ["html"], "The paper")
    assert len(pages) == 4
    for written in pages:
        visit(browser, written, size)
        assert console_of(browser) == []
        assert browser.execute_script(SIDEWAYS) == 0
        for details in all_of(browser, "details.sweeps > summary"):
            details.click()
        assert browser.execute_script(OVERLAPS, "svg text, h1, h2, h3, .cards p, dt, dd") == []


@pytest.mark.parametrize("size", SIZES)
def test_claims_stand_on_the_page_with_their_verdicts_and_are_counted_on_the_index(
    browser: Any, study: Figure, tmp_path: Path, size: str
) -> None:
    index, page, *_ = write_index([study, adaptivity_map()], tmp_path, ["html"], "The paper")
    visit(browser, page, size)
    assert [mark.text for mark in all_of(browser, ".claims .verdict")] == ["holds", "not decided"]
    assert all(mark.is_displayed() for mark in all_of(browser, ".claims td:first-child"))
    seen = browser.find_element("css selector", "section:has(.claims)").text
    assert "2 claims: 1 holds, 1 not decided" in seen
    assert browser.execute_script(OVERLAPS, ".claims th, .claims td") == []
    visit(browser, index, size)
    cards = [card.text for card in all_of(browser, ".cards > *")]
    assert ["2 claims: 1 holds, 1 not decided" in card for card in cards] == [True, False]
    assert console_of(browser) == []


def test_a_page_of_two_thousand_runs_draws_them_all(browser: Any, tmp_path: Path) -> None:
    rows = []
    for k in range(2000):
        curve, at, seed = k % 20, k // 20 % 50, k // 1000
        loss = 5.0 + curve / 20 + (at - 25) ** 2 / 900
        rows.append(sweeps.row(f"optimizer {curve}", 10 ** (at / 12 - 4), loss, seed))
    sweep = sweeps.figure(rows=rows, labels={row.id: row.optimizer for row in rows})
    visit(browser, write(sweep, tmp_path, ["html"])[0])
    dots = [mark.get_attribute("d") for mark in all_of(browser, "#figure path.dots")]
    assert sum(path.count("M") for path in dots) == 2 * 2000
    assert console_of(browser) == []


def test_every_line_is_drawn_to_its_end_however_often_the_page_is_drawn(browser: Any, path: Path) -> None:
    visit(browser, path)
    browser.execute_script("drawTraining(); drawAll(); drawTraining()")
    clips = [clip.get_attribute("id") for clip in all_of(browser, "clipPath")]
    assert len(clips) == len(set(clips)) >= 3


def test_a_page_prints_without_its_buttons(browser: Any, path: Path) -> None:
    visit(browser, path, scheme="dark")
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": dark})
    script = "return [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    assert browser.execute_script(script) == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]
    assert not any(one.is_displayed() for one in all_of(browser, "button, .screen"))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_without_script_the_static_figure_is_shown(browser: Any, path: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(path.as_uri())
        figures = all_of(browser, "noscript svg")
        assert len(figures) == 2  # the sweep and the training curves
        assert all(figure.size["width"] > 300 for figure in figures)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_served_page_loads_itself_again_when_a_run_ends_and_keeps_what_is_hidden(
    browser: Any, study: Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.support.ui import WebDriverWait

    from tests.test_report_sets import served

    monkeypatch.setattr(page, "POLL", 0.2)
    rows = list(study.rows[:-1])
    with served(
        lambda: [dataclasses.replace(study, rows=tuple(rows), missing=len(study.rows) - len(rows))]
    ) as port:
        browser.get(f"http://127.0.0.1:{port}/")
        browser.find_element("css selector", '.chips button[data-curve="Lion"]').click()
        said = "return document.querySelector('.answer').textContent"
        pressed = "return document.querySelector('.chips [data-curve=Lion]').getAttribute('aria-pressed')"
        assert "1 of 105 runs have no result" in browser.execute_script(said)
        rows.append(study.rows[-1])
        wait = WebDriverWait(browser, 60, ignored_exceptions=[WebDriverException])
        wait.until(lambda b: "have no result" not in b.execute_script(said))
        wait.until(lambda b: b.execute_script(pressed) == "false")
        assert console_of(browser) == []


def cells(browser: Any, selector: str, column: int) -> list[str]:
    rows = [row for row in all_of(browser, f"{selector} tbody tr") if row.is_displayed()]
    return [all_of_row(row)[column].text.split("\n")[0] for row in rows]


def all_of_row(row: Any) -> list[Any]:
    return list(row.find_elements("css selector", "th, td"))


def heading(browser: Any, selector: str, text: str) -> Any:
    return next(h for h in all_of(browser, f"{selector} thead th") if h.text.startswith(text))


@pytest.mark.parametrize("size", SIZES)
def test_a_heading_sorts_a_table_and_again_the_other_way(browser: Any, path: Path, size: str) -> None:
    visit(browser, path, size)
    names = cells(browser, "table.summary", 0)
    column = [h.text for h in all_of(browser, "table.summary thead th")].index("State, bytes/param")
    head = heading(browser, "table.summary", "State, bytes/param")
    for direction, down in (("ascending", False), ("descending", True)):
        browser.execute_script("arguments[0].scrollIntoView({inline: 'center', block: 'center'})", head)
        head.find_element("css selector", ".sort").click()
        assert head.get_attribute("aria-sort") == direction
        values = [float(text) for text in cells(browser, "table.summary", column)]
        assert values == sorted(values, reverse=down) and len(set(values)) > 1
    assert sorted(cells(browser, "table.summary", 0)) == sorted(names)
    assert console_of(browser) == [] and browser.execute_script(SIDEWAYS) == 0


def test_a_word_filters_table_and_list_of_runs(browser: Any, path: Path, study: Figure) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    visit(browser, path)
    browser.find_element("css selector", "#runs summary").click()
    WebDriverWait(browser, 30).until(lambda _: cells(browser, "#runs", 0))  # it is filled after the click
    assert sorted(cells(browser, "#runs", 0)) == sorted(row.id for row in study.rows)
    find = browser.find_element("css selector", ".tools input")
    find.send_keys("lion")
    assert cells(browser, "table.summary", 0) == ["Lion"]
    mine = [row.id for row in study.rows if row.optimizer == "lion"]
    assert sorted(cells(browser, "#runs", 0)) == sorted(mine) and mine
    find.clear()
    find.send_keys("no such thing")
    assert cells(browser, "table.summary", 0) == []
    assert console_of(browser) == []


def test_the_address_of_a_page_is_a_link_to_what_is_shown(browser: Any, path: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    visit(browser, path)
    browser.find_element("css selector", '.chips button[data-curve="SGD"]').click()
    heading(browser, "table.summary", "State").find_element("css selector", ".sort").click()
    browser.find_element("css selector", ".tools input").send_keys("a")
    browser.find_element("css selector", "#runs summary").click()
    drawn = len(all_of(browser, "#figure path.line"))
    shown, address = cells(browser, "table.summary", 0), browser.current_url
    browser.get("about:blank")
    browser.get(address)
    assert cells(browser, "table.summary", 0) == shown
    assert browser.find_element("css selector", ".tools input").get_attribute("value") == "a"
    assert [row.text.split()[0] for row in all_of(browser, "tr.off") if row.is_displayed()] in ([], ["SGD"])
    chip = browser.find_element("css selector", '.chips button[data-curve="SGD"]')
    assert chip.get_attribute("aria-pressed") == "false"
    assert len(all_of(browser, "#figure path.line")) == drawn
    WebDriverWait(browser, 30).until(lambda _: cells(browser, "#runs", 0))
    assert console_of(browser) == []


def test_what_a_page_shows_is_saved_as_tables_and_data(
    browser: Any, path: Path, study: Figure, tmp_path: Path
) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    visit(browser, path)
    browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    for one in all_of(browser, ".tools button"):
        one.click()
    WebDriverWait(browser, 30).until(lambda _: {p.suffix for p in tmp_path.iterdir()} == {".csv", ".json"})
    WebDriverWait(browser, 30).until(lambda _: len(list(tmp_path.iterdir())) == 3)
    texts = [next(tmp_path.glob(f"*-{name}.csv")).read_text() for name in ("table", "runs")]
    table, runs = (list(csv.DictReader(text.splitlines())) for text in texts)
    assert [row["Optimizer"] for row in table] == cells(browser, "table.summary", 0)
    assert {row["run"] for row in runs} == {row.id for row in study.rows}
    losses = {row.id: row.loss for row in study.rows}
    assert all(float(row["validation loss"]) == pytest.approx(losses[row["run"]], abs=1e-3) for row in runs)
    data = json.loads(next(tmp_path.glob("*-data.json")).read_text())
    assert len(data["runs"]) == len(study.rows) and console_of(browser) == []
