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
from optstudy.results.figure import Figure

DPI = 90
"""Of the figures on the index."""


def write_index(
    studies: Sequence[Figure],
    out: Path,
    formats: Iterable[str],
    title: str,
    told: Callable[[Figure], None] = lambda study: None,
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
    drawn = [draw(study, wanted, pool) for study in studies]
    written: list[Path] = []
    for study, slug, figure in zip(studies, slugs(studies), drawn, strict=True):
        written += write(study, out / slug, wanted, "../index.html", figure)
        told(study)
    page = out / "index.html"
    write_atomically(page, index(studies, title, pool=pool))
    return [page, *written]


def index(
    studies: Sequence[Figure],
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
    images = [later(pool, figures.draw, study, "png", DPI) if study.rows else bytes for study in studies]
    places = zip(studies, slugs(studies), images, strict=True)
    cards = [_card(study, slug + tail, image) for study, slug, image in places]
    done = sum(len(study.rows) for study in studies)
    missing = sum(study.missing for study in studies)
    return render("index.html", None, refresh=refresh, title=title, cards=cards, done=done, missing=missing)


def slugs(studies: Sequence[Figure]) -> list[str]:
    """A folder name for each study: its name in letters, digits and hyphens, numbered where two are equal."""
    made: list[str] = []
    for study in studies:
        base = re.sub(r"[^a-z0-9]+", "-", study.name.lower()).strip("-") or "study"
        number = sum(re.fullmatch(rf"{base}(-\d+)?", other) is not None for other in made)
        made.append(f"{base}-{number + 1}" if number else base)
    return made


def _card(study: Figure, address: str, image: Callable[[], bytes]) -> dict[str, Any]:
    card = {"address": address, "name": study.name, "title": study.title, "scale": study.scale, "image": ""}
    if not study.rows:
        return {**card, "sentence": "No run has finished yet.", "budget": "", "warnings": 0, "verdicts": ""}
    found = answer(study)
    encoded = base64.b64encode(image()).decode()
    return {
        **card,
        "sentence": found.sentence,
        "budget": budget(study),
        "warnings": len(found.warnings),
        "verdicts": verdicts(study),
        "image": f"data:image/png;base64,{encoded}",
    }
