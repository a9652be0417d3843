"""Reports of several studies: a page and figures for each, and an index with all answers and verdicts."""

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
from optstudy.report.page import budget, claim_cells, claims_page, render, verdicts
from optstudy.results.figure import Figure

CLAIMS = "claims.html"
"""The page of all claims."""
DPI = 90
"""Resolution of the figures on the index."""


def write_index(
    studies: Sequence[Figure],
    out: Path,
    formats: Iterable[str],
    title: str,
    told: Callable[[Figure], None] = lambda study: None,
    pool: Executor | None = None,
) -> list[Path]:
    """Write ``out/index.html``, a folder per study, and ``claims.html`` if there are any claims.

    Args:
        told: called with each study after its page is written.
        pool: draws the figures, see :func:`optstudy.report.files.drawing_pool`; None draws here.

    Raises:
        UserError: unknown format.
    """
    wanted = check(formats)
    drawn = [draw(study, wanted, pool) for study in studies]
    written: list[Path] = []
    for study, slug, figure in zip(studies, slugs(studies), drawn, strict=True):
        written += write(study, out / slug, wanted, "../index.html", figure)
        told(study)
    page = out / "index.html"
    write_atomically(page, index(studies, title, pool=pool))
    if text := claims(studies, title):
        written.append(out / CLAIMS)
        write_atomically(written[-1], text)
    return [page, *written]


def claims(studies: Sequence[Figure], title: str, tail: str = "/index.html", home: str = "index.html") -> str:
    """The page of all claims of the studies; empty if there are none."""
    found = [claim for study in studies for claim in study.claims]
    return claims_page(found, f"Claims, {title}", _places(studies, tail), home) if found else ""


def _places(studies: Sequence[Figure], tail: str) -> dict[str, str]:
    return {study.name: slug + tail for study, slug in zip(studies, slugs(studies), strict=True)}


def index(
    studies: Sequence[Figure],
    title: str,
    tail: str = "/index.html",
    refresh: int | None = None,
    pool: Executor | None = None,
) -> str:
    """The index page.

    Args:
        tail: what follows a study's folder in its URL.
        refresh: seconds after which a served index reloads.
        pool: draws the figures; None draws here.
    """
    images = [later(pool, figures.draw, study, "png", DPI) if study.rows else bytes for study in studies]
    places = zip(studies, slugs(studies), images, strict=True)
    cards = [_card(study, slug + tail, image) for study, slug, image in places]
    done = sum(len(study.rows) for study in studies)
    missing = sum(study.missing for study in studies)
    shown = [claim_cells(claim) for study in studies for claim in study.claims]
    return render(
        "index.html",
        (),
        refresh=refresh,
        title=title,
        cards=cards,
        done=done,
        missing=missing,
        claims=shown,
        places=_places(studies, tail),
    )


def slugs(studies: Sequence[Figure]) -> list[str]:
    """A folder name per study: letters, digits and hyphens of its name, numbered if two are equal."""
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
        "verdicts": verdicts(study.claims),
        "image": f"data:image/png;base64,{encoded}",
    }
