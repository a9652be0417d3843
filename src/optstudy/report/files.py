"""A study's report as files, in the formats asked for."""

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import suppress
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from optstudy.errors import UserError, nearest
from optstudy.record import write_atomically
from optstudy.report import figures, tables
from optstudy.report.page import caption, page
from optstudy.results.catalog import expect_many
from optstudy.results.figure import Figure

FORMATS = ("html", "pdf", "svg", "png", "md", "tex")
DEFAULT_FORMATS = ("html", "png", "svg")
TABLES = {"md": tables.markdown, "tex": tables.latex}
"""The formats without a figure."""

MADE_OF = "study.json"
"""In a report's folder: which study it is of, with which settings, over which runs."""

P = ParamSpec("P")
T = TypeVar("T")
Drawn = Callable[[], dict[str, bytes]]
"""Gives a study's figure in the formats it is wanted in."""


def drawing_pool(studies: int) -> Executor:
    """Processes that load matplotlib while this one reads runs, and draw while it writes pages."""
    count = min(studies, os.cpu_count() or 1)
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_prepare)
    pool.submit(int)  # starts them
    return pool


def _prepare() -> None:
    figures.load()
    expect_many()


def draw(figure: Figure, formats: Iterable[str], pool: Executor | None = None) -> Drawn:
    """Have the figure drawn that :func:`write` needs: by the pool at once, else here when it is asked for."""
    pictures = _pictures(figure, formats)
    return later(pool, figures.draw_all, figure, pictures) if pictures else dict


def later(
    pool: Executor | None, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> Callable[[], T]:
    """Have a function called by the pool at once; without one, here when its value is first asked for."""
    call = partial(function, *args, **kwargs)
    if pool is None:
        return cache(call)
    # Pickled here and now: the pool's own thread would do it while this one works on the same objects.
    return pool.submit(_call, pickle.dumps(call)).result


def _call(pickled: bytes) -> Any:
    return pickle.loads(pickled)()


def write(
    figure: Figure,
    out: Path,
    formats: Iterable[str] = DEFAULT_FORMATS,
    home: str = "",
    drawn: Drawn | None = None,
) -> list[Path]:
    """Write a study's report into the folder ``out``, which is made.

    Args:
        home: address of the index it belongs to.
        drawn: what :func:`draw` returned for these formats; None draws here.

    Returns:
        ``index.html``, ``figure.pdf|svg|png``, ``table.md|tex``; without finished runs only the page.

    Raises:
        UserError: an unknown format.
    """
    wanted = check(formats)
    out.mkdir(parents=True, exist_ok=True)
    drawn = drawn or draw(figure, wanted)
    written = []
    for name in wanted:
        if name == "html":
            path, content = out / "index.html", page(figure, home, drawn=lambda: drawn()["svg"]).encode()
        elif not figure.rows:
            continue
        elif name in figures.METADATA:
            path, content = out / f"figure.{name}", drawn()[name]
        else:
            path, content = out / f"table.{name}", TABLES[name](figure, caption(figure)).encode()
        write_atomically(path, content)
        written.append(path)
    return written


def place(folder: Path, made_of: Mapping[str, Any], inside: str = "") -> Path:
    """Return the folder of a report, made: the one asked for, or one beside it where another's is there.

    Args:
        folder: where the report goes.
        made_of: what tells it from others, as JSON; it is kept with it.
        inside: the folder in it, or beside it, that holds the report.
    """
    text = json.dumps(made_of, indent=1, sort_keys=True) + "\n"
    own = folder.parent / f"{folder.resolve().name}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
    for one in (folder / inside, own / inside):
        one.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), (one / MADE_OF).open("x") as file:
            file.write(text)
        if (one / MADE_OF).read_text(errors="replace") == text:
            break
    return one


def _pictures(figure: Figure, formats: Iterable[str]) -> list[str]:
    """Formats of the figure that a report holds; its page holds an SVG."""
    wanted = dict.fromkeys("svg" if name == "html" else name for name in formats)
    return [name for name in wanted if name in figures.METADATA] if figure.rows else []


def check(formats: Iterable[str]) -> list[str]:
    """The formats without repetition.

    Raises:
        UserError: an unknown one.
    """
    wanted = list(dict.fromkeys(formats))
    for name in wanted:
        if name not in FORMATS:
            raise UserError(f"unknown report format {name!r}{nearest(name, FORMATS)}")
    return wanted
