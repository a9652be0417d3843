"""Several studies together: a page and figures for each, and an index with the answer and figure of all."""

import base64
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from optstudy.record import write_atomically
from optstudy.report import figures
from optstudy.report.answer import answer
from optstudy.report.files import check, draw, later, write
from optstudy.report.page import budget, render, verdicts
from optstudy.report.sweep import Sweep

DPI = 90
"""Of the figures on the index."""


def write_index(
    sweeps: Sequence[Sweep],
    out: Path,
    formats: Iterable[str],
    title: str,
    told: Callable[[Sweep], None] = lambda sweep: None,
    pool: Executor | None = None,
) -> list[Path]:
    """Write ``out/index.html`` and one folder per study beside it.

    Args:
        told: is given every study when its page is written.
        pool: draws, see :func:`optstudy.report.files.drawing_pool`; None draws here.

    Raises:
        UserError: an unknown format.
    """
    wanted = check(formats)
    drawn = [draw(sweep, wanted, pool) for sweep in sweeps]
    written: list[Path] = []
    for sweep, slug, figure in zip(sweeps, slugs(sweeps), drawn, strict=True):
        written += write(sweep, out / slug, wanted, "../index.html", figure)
        told(sweep)
    page = out / "index.html"
    write_atomically(page, index(sweeps, title, pool=pool))
    return [page, *written]


def index(
    sweeps: Sequence[Sweep],
    title: str,
    tail: str = "/index.html",
    refresh: int | None = None,
    pool: Executor | None = None,
) -> str:
    """The index page.

    Args:
        tail: what follows a study's folder in its address.
        refresh: seconds after which a served index loads itself again.
        pool: draws; None draws here.
    """
    images = [later(pool, figures.draw, sweep, "png", DPI) if sweep.rows else bytes for sweep in sweeps]
    places = zip(sweeps, slugs(sweeps), images, strict=True)
    cards = [_card(sweep, slug + tail, image) for sweep, slug, image in places]
    done = sum(len(sweep.rows) for sweep in sweeps)
    missing = sum(sweep.missing for sweep in sweeps)
    return render("index.html", None, refresh=refresh, title=title, cards=cards, done=done, missing=missing)


def slugs(sweeps: Sequence[Sweep]) -> list[str]:
    """A folder name for each study: its name in letters, digits and hyphens, numbered where two are equal."""
    made: list[str] = []
    for sweep in sweeps:
        base = re.sub(r"[^a-z0-9]+", "-", sweep.name.lower()).strip("-") or "study"
        number = sum(re.fullmatch(rf"{base}(-\d+)?", other) is not None for other in made)
        made.append(f"{base}-{number + 1}" if number else base)
    return made


def _card(sweep: Sweep, address: str, image: Callable[[], bytes]) -> dict[str, Any]:
    card = {"address": address, "name": sweep.name, "title": sweep.title, "scale": sweep.scale, "image": ""}
    if not sweep.rows:
        return {**card, "sentence": "No run has finished yet.", "budget": "", "warnings": 0, "verdicts": ""}
    found = answer(sweep)
    encoded = base64.b64encode(image()).decode()
    return {
        **card,
        "sentence": found.sentence,
        "budget": budget(sweep),
        "warnings": len(found.warnings),
        "verdicts": verdicts(sweep),
        "image": f"data:image/png;base64,{encoded}",
    }
