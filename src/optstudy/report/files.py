"""A study's report as files, in the requested formats."""

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
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
"""File in a report's folder that records its study, settings and runs."""

P = ParamSpec("P")
T = TypeVar("T")
Drawn = Callable[[], dict[str, bytes]]
"""Returns a report's pictures by file name."""


def drawing_pool(studies: int) -> Executor:
    """Processes that load matplotlib and draw while this process reads runs and writes pages."""
    count = min(studies, os.cpu_count() or 1)
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_prepare)
    pool.submit(int)  # starts them
    return pool


def _prepare() -> None:
    figures.load()
    expect_many()


def draw(figure: Figure, formats: Sequence[str], pool: Executor | None = None) -> Drawn:
    """Start drawing what :func:`write` needs in the pool; without a pool, draw when it is needed."""
    pictures = [name for name in formats if name in figures.METADATA]
    page = "html" in formats
    some = figure.rows and (page or pictures)
    return later(pool, figures.pictures, figure, pictures, page) if some else dict


def later(
    pool: Executor | None, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> Callable[[], T]:
    """Start a function in the pool; without a pool, call it when its value is first needed."""
    call = partial(function, *args, **kwargs)
    if pool is None:
        return cache(call)
    # Pickle now: the pool's own thread would pickle while this thread uses the same objects.
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
    """Write a study's report into the folder ``out``, which is created.

    Args:
        home: URL of the index that links to it.
        drawn: the result of :func:`draw` for these formats; None draws here.

    Returns:
        ``index.html``, ``figure.pdf|svg|png``, ``table.md|tex``, and ``costs.pdf|svg|png`` if the study draws
        costs; without finished runs only the page.

    Raises:
        UserError: unknown format.
    """
    wanted = check(formats)
    out.mkdir(parents=True, exist_ok=True)
    drawn = drawn or draw(figure, wanted)
    written = []
    for name in wanted:
        if name == "html":
            path, content = out / "index.html", page(figure, home, drawn=drawn).encode()
        elif not figure.rows:
            continue
        elif name in figures.METADATA:
            path, content = out / f"figure.{name}", drawn()[f"figure.{name}"]
            if f"costs.{name}" in drawn():
                written.append(out / f"costs.{name}")
                write_atomically(written[-1], drawn()[written[-1].name])
        else:
            path, content = out / f"table.{name}", TABLES[name](figure, caption(figure)).encode()
        write_atomically(path, content)
        written.append(path)
    return written


def place(folder: Path, made_of: Mapping[str, Any], inside: str = "") -> Path:
    """Create and return the folder of a report: the given one, or one next to it if another report is there.

    Args:
        folder: the requested folder.
        made_of: JSON that distinguishes the report from others; stored in its folder.
        inside: the subfolder that contains the report.
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


def check(formats: Iterable[str]) -> list[str]:
    """The formats without duplicates.

    Raises:
        UserError: unknown format.
    """
    wanted = list(dict.fromkeys(formats))
    for name in wanted:
        if name not in FORMATS:
            raise UserError(f"unknown report format {name!r}{nearest(name, FORMATS)}")
    return wanted
