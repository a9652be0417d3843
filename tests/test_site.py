"""The built documentation: what a browser shows of it. ``make test-long`` builds it."""

import importlib.util
import re
import subprocess
import sys

import pytest

from tests import pages
from tests.pages import ROOT
from tests.test_report_browser import MISSING

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(importlib.util.find_spec("sphinx_copybutton") is None, reason="needs optstudy[docs]"),
]
CUT = """
const width = document.documentElement.clientWidth;
const scrolls = (e) => e && e !== document.body
  && (["auto", "scroll"].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
const beyond = [...document.querySelectorAll("article *, footer *")].filter((e) => {
  const box = e.getBoundingClientRect();
  return box.width && box.right > width + 1 && !scrolls(e);
});
const code = [...document.querySelectorAll("pre")].filter((e) => e.scrollWidth > e.clientWidth + 1);
const cut = [...beyond, ...code].map((e) => e.textContent.slice(0, 60));
return [document.documentElement.scrollWidth > width, ...cut];
"""  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        ROOT / "docs",
        folder,
    ]
    subprocess.run(command, check=True, timeout=290)
    return folder


def test_pages_have_copy_buttons_and_a_footer_that_says_who(built):
    for name in ("index", "own-loop", "generated/config"):
        text = (built / f"{name}.html").read_text()
        assert "copybutton.js" in text
        (copyright,) = re.findall(r'<div class="copyright">\s*Copyright &#169; ([^<]*?)\s*<', text)
        assert "optstudy developers" in copyright


def test_pages_link_the_repository_once_it_has_an_address(built):
    import tomllib

    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {})
    text = (built / "index.html").read_text()
    assert ("Repository" in urls) == (urls.get("Repository", "no address") in text)


@pytest.mark.skipif(bool(MISSING), reason=f"no {MISSING} here; as root: make install-browser")
@pytest.mark.parametrize("width", [1400, 390])
def test_nothing_is_cut_on_a_wide_and_on_a_narrow_screen(built, width):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    try:
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        found = {}
        for page in sorted(built.rglob("*.html")):
            driver.get(page.as_uri())
            found[page.relative_to(built).as_posix()] = driver.execute_script(CUT)
    finally:
        driver.quit()
    assert len(found) > 40 and not {page: cut for page, cut in found.items() if cut != [False]}


def test_figures_have_a_white_card_behind_them(built):
    assert "pages.css" in (built / "index.html").read_text()
    css = (built / "_static" / "pages.css").read_text()
    assert re.search(r"article img \{[^}]*background: #ffffff", css)
    assert pages.DOCS.joinpath("static", "pages.css").exists()
