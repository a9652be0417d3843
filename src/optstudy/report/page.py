"""One study as one HTML file: no network, all names escaped, and a policy that only allows its own script."""

import base64
import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import optstudy
from optstudy.record import leaves
from optstudy.report import figures, style
from optstudy.report.answer import answer
from optstudy.report.columns import Column, columns
from optstudy.report.costs import about
from optstudy.report.effective import quantile
from optstudy.report.maps import heats
from optstudy.report.payload import payload
from optstudy.results.figure import Figure
from optstudy.results.table import Row

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("report.js", "training.js", "tables.js")
"""The page's one script, in order."""
POLL = 5
"""Seconds between a served page's checks for new runs."""
OF_A_PROCESS = ("pid", "argv")
"""Keys of a run's environment that are irrelevant for reproducing it."""
HEADINGS = {"optstudy": "Runs made by optstudy", "cpu": "CPU instructions"}
CONFIGURED = {
    "data.corpus": "Corpus",
    "data.fingerprint": "Corpus checksum",
    "data.tokenizer": "Tokenizer",
    "training.precision": "Precision",
}
"""Config keys of our own trainer that the page tells, and their headings."""
FRAGMENT_DPI = 110
EMPTY = {"sentence": "No run has finished yet.", "facts": (), "rest": (), "warnings": ()}


def page(
    figure: Figure, home: str = "", live: str = "", drawn: Callable[[], Mapping[str, bytes]] | None = None
) -> str:
    """The page of a study.

    Args:
        figure: the study's figure.
        drawn: returns :func:`figures.pictures` for a page; None draws them here.
        home: URL of the index that links to it.
        live: version of a served page, which reloads when the version changes; empty for a file.
    """
    made = columns(figure) if figure.rows else []
    data = {**payload(figure), "live": live, "poll": POLL} if figure.rows else None
    series = data["series"] if data else {}
    made_here = partial(figures.pictures, figure, (), page=True)
    pictures = (drawn or made_here)() if figure.rows else {}
    drawings = {name: _inline_svg(content) for name, content in pictures.items() if name.endswith(".svg")}
    slots = style.slots(figure.curves)
    return render(
        "page.html",
        SCRIPTS if data else (),
        refresh=POLL if live and not data else None,
        home=home,
        name=figure.name,
        title=figure.title,
        scale=figure.scale,
        asks=figure.asks,
        axis=figure.axis,
        metric=figure.metric,
        foreign=figure.foreign,
        budget=budget(figure),
        answer=answer(figure) if figure.rows else EMPTY,
        columns=made,
        rows=_table_rows(figure, made, slots),
        count=len(figure.rows),
        chips=_chips(figure, slots),
        heat=heats(figure) if figure.rows and figure.kind == "map" else None,
        swept=figure.swept,
        many=any(len(panel.curves) > style.MANY for panel in figure.panels),
        aligned=any(True in panel.plots for panel in figure.panels),
        referred=style.known(figure.against),
        seeded=any(len(point.rows) > 1 for curve in figure.curves for point in curve.points),
        baselines=any(map(figure.baseline, figure.curves)),
        has_series=bool(series),
        has_pace=bool(data and data["pace"]),
        progress=figure.progress,
        has_effective=any("effective" in curve for curve in series.values()),
        quantiles=_quantiles(series),
        effective_first=figure.kind == "effective",
        claims=list(map(claim_cells, figure.claims)),
        verdicts=verdicts(figure.claims),
        command=figure.command,
        facts=provenance(figure),
        data=script_json(data),
        drawn_first=_drawn_first(figure) if figure.rows else None,
        costs=[svg for name, svg in drawings.items() if name.startswith("cost-")],
        about_costs=about(figure) if figure.rows else (),
        static_training=drawings.get("training.svg", ""),
        static_figure=drawings.get("figure.svg", ""),
    )


def _drawn_first(figure: Figure) -> tuple[str, str] | None:
    """Heading and note of a figure that has a section of its own; None for sweeps and maps."""
    against = style.known(figure.against)
    return {
        "gaps": (
            f"Gaps to {against}",
            f"Each at its own best setting. Bands are 95% intervals over seeds. Left, or alone: nats above "
            f"{against}. Right: the tokens with which {against} would reach the same loss, divided by those "
            "used; points outside its lengths are left out.",
        ),
        "deciles": (
            f"Gaps to {against}, by how common the token is",
            f"Validation loss above {against}'s on each tenth of the text, nats per token, each at its best "
            "setting: left the tenth with the commonest tokens to predict, right the rarest. Bands are 95% "
            "intervals over seeds.",
        ),
        "distances": (
            "Distance of Adam's step",
            "1 − the cosine between Adam's step and the one of its momentum by another rule, over "
            "all weights of a role: 0 is the same direction. Of the best run that recorded them.",
        ),
    }.get(figure.kind)


def render(template: str, scripts: Iterable[str], **values: Any) -> str:
    """Fill a template; ``scripts`` are the only files of script that the page may run, as one."""
    text = "".join((TEMPLATES / script).read_text(encoding="utf-8") for script in scripts)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return (
        _environment()
        .get_template(template)
        .render(
            css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
            script=Markup(text),
            script_hash=Markup(f"'sha256-{digest}'"),
            version=optstudy.__version__,
            **values,
        )
    )


def fragment(figure: Figure) -> str:
    """A short form of a study for notebooks: the answer, the table and the figure, without script."""
    image = ""
    if figure.rows:
        image = base64.b64encode(figures.draw(figure, "png", FRAGMENT_DPI)).decode()
    return (
        _environment()
        .get_template("fragment.html")
        .render(
            title=figure.title,
            caption=caption(figure),
            answer=answer(figure) if figure.rows else EMPTY,
            columns=columns(figure) if figure.rows else [],
            image=image,
        )
    )


def script_json(tree: Any) -> Markup:
    """JSON that cannot close its enclosing script element."""
    text = json.dumps(tree, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def caption(figure: Figure) -> str:
    """Study, scale and budget on one line."""
    return ", ".join(filter(None, (figure.name, figure.scale and f"scale {figure.scale}", budget(figure))))


def budget(figure: Figure) -> str:
    """Number of runs, seeds and tokens."""
    if not figure.rows:
        return "no finished runs"
    counts = sorted({len(p.rows) for c in figure.curves for p in c.points})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    tokens = sorted({row.tokens for row in figure.rows if row.state == "done" and row.tokens is not None})
    each = f", {style.count(tokens[-1])} tokens each" if len(tokens) == 1 else ""
    runs, seed = (noun + "s" * (n != 1) for noun, n in (("run", len(figure.rows)), ("seed", counts[-1])))
    return f"{len(figure.rows)} {runs}{each}, {seeds} {seed} per setting"


def provenance(figure: Figure) -> list[tuple[str, str]]:
    """Where the runs come from: version, corpus, machine, size, time."""
    found = [("Report made by", f"optstudy {optstudy.__version__}")]
    if not figure.rows:
        return found
    if figure.foreign:
        found += _of_program(figure)
    else:
        for key, heading in CONFIGURED.items():
            found.append((heading, _few(_value(row, key) for row in figure.rows)))
    if params := sorted({row.params for row in figure.rows if row.params is not None}):
        found.append(("Parameters", _few(map(style.count, params))))
    if tokens := [row.tokens for row in figure.rows if row.tokens is not None]:
        found.append(("Tokens in all", style.count(sum(tokens))))
    found.append(("Run time in all", _duration(sum(row.seconds for row in figure.rows))))
    return found + environments(figure)


def _of_program(figure: Figure) -> list[tuple[str, str]]:
    """The program that did the runs: its command or function, and the hash of its code."""
    found = []
    for key, heading in {
        "command": "Command",
        "function": "Function",
        "fingerprint": "Code's checksum",
    }.items():
        told = [row.config["trainer"].get(key) for row in figure.rows if row.reported is not None]
        if values := [shlex.join(one) if isinstance(one, list) else str(one) for one in told if one]:
            found.append((heading, _few(values)))
    return found


def environments(figure: Figure) -> list[tuple[str, str]]:
    """Machines and versions that the runs recorded; several values if the runs differ."""
    found: dict[str, dict[str, None]] = {}
    for tree in figure.environments.values():
        for key, value in leaves(tree):
            if key not in OF_A_PROCESS and value:
                found.setdefault(key, {})[_plain(value)] = None
    return [(HEADINGS.get(key, key), _few(values)) for key, values in list(found.items())[:24]]


def _inline_svg(drawn: bytes) -> Markup:
    text = drawn.decode()
    return Markup(text[text.index("<svg") :])


def _table_rows(figure: Figure, made: Iterable[Column], slots: Mapping[str, int]) -> list[dict[str, Any]]:
    return [
        {
            "label": summary.curve.label,
            "slot": slots[summary.curve.label],
            "panel": figure.panel_of(summary.curve).title,
            "name": style.name_in(figure, summary.curve),
            "cells": [{"value": c.cells[k], "note": c.notes[k], "text": c.text} for c in made],
        }
        for k, summary in enumerate(figure.summaries)
    ]


def _chips(figure: Figure, slots: Mapping[str, int]) -> list[dict[str, Any]]:
    named = {style.name_in(figure, curve): slots[curve.label] for curve in figure.curves}
    return [{"name": name, "slot": slot} for name, slot in named.items()]


def _quantiles(series: Mapping[str, Any]) -> str:
    for curve in series.values():
        for _, roles in curve.get("effective", ()):
            return ", ".join(map(quantile, dict.fromkeys(q for role in roles.values() for q in sorted(role))))
    return ""


PLURAL = {"holds": "hold", "does not hold": "do not hold"}


def verdicts(claims: Iterable[Mapping[str, Any]]) -> str:
    """Number of claims by verdict: ``2 claims: 1 holds, 1 not decided``; empty without claims."""
    counts = Counter(str(claim.get("verdict", "")) for claim in claims)
    total = counts.total()
    each = ", ".join(
        f"{n} {verdict if n == 1 else PLURAL.get(verdict, verdict)}" for verdict, n in counts.items()
    )
    return f"{total} claim{'s' * (total != 1)}: {each}" if total else ""


def claims_page(
    claims: Iterable[Mapping[str, Any]], title: str, places: Mapping[str, str], home: str = ""
) -> str:
    """A page of claims with their tests and verdicts.

    Args:
        claims: as in :attr:`optstudy.results.figure.Figure.claims`.
        title: the page's heading.
        places: URLs of the studies' pages, by name.
        home: URL of the index that links to it.
    """
    shown = list(map(claim_cells, claims))
    told = verdicts(shown)
    return render(
        "claims.html", (), refresh=None, title=title, home=home, claims=shown, places=places, verdicts=told
    )


def claim_cells(claim: Mapping[str, Any]) -> dict[str, Any]:
    """The displayed fields of a claim."""
    value, interval = style.measured(claim)
    verdict = str(claim.get("verdict", ""))
    return {
        "statement": claim.get("statement", claim.get("name", "")),
        "name": claim.get("name", ""),
        "figure": claim.get("figure", ""),
        "test": claim.get("test", ""),
        "why": claim.get("why", ""),
        "changed": claim.get("changed", ""),
        "look": style.looked(claim),
        "verdict": verdict,
        "kind": {"holds": "holds", "does not hold": "fails"}.get(verdict, "open"),
        "estimate": value or "–",
        "interval": interval or "–",
        "seeds": _plain(claim.get("seeds")),
    }


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _value(row: Row, key: str) -> str:
    try:
        return str(row.value(key))
    except KeyError:
        return "not recorded"


def _few(values: Iterable[str]) -> str:
    """The first of several values, each once."""
    distinct = list(dict.fromkeys(values))
    return ", ".join(distinct[:4]) + (f" and {len(distinct) - 4} more" if len(distinct) > 4 else "")


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["unbroken"] = _unbroken
    return made


def _unbroken(text: str) -> str:
    """Keep a number with its interval and unit on one line."""
    return text.replace(" ± ", "\u00a0±\u00a0").replace("± ", "±\u00a0").replace(" nats", "\u00a0nats")
