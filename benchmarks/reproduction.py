"""Write docs/reproduction.md, its figures and docs/fidelity.md's table from the committed record.

    python benchmarks/reproduction.py [--scale pico] [--runs runs]

Every figure beside what the paper says of it and the verdicts. What stands between ``<!-- remarks: NAME -->``
and ``<!-- end -->`` in the file is written by hand and kept.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from optstudy.claims.verdict import Verdict
from optstudy.findings import RECORDED, figure_of, recorded, verdicts
from optstudy.record import write_atomically
from optstudy.report import figures, style, tables
from optstudy.report.page import caption
from optstudy.results.figure import Figure
from optstudy.results.stats import Summary
from optstudy.study import library as study
from optstudy.study.session import Session

DOCS = Path(__file__).parent.parent / "docs"
SIZES = {
    "pico": ": a model of 0.36 million parameters where the paper's smallest has 217, on 0.6 million tokens "
    "where that has 3.3 billion"
}
REMARKS = re.compile(r"<!-- remarks: (\S+) -->\n(.*?)<!-- end -->", re.DOTALL)
MEASURED = re.compile(r"(<!-- measured: begin -->\n).*?(<!-- measured: end -->)", re.DOTALL)


def main() -> None:
    """Write the pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", default="pico")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    chosen = parser.parse_args()
    page = chosen.docs / "reproduction.md"
    remarks = dict(REMARKS.findall(page.read_text())) if page.exists() else {}
    judged = verdicts(chosen.scale, chosen.runs, names=[n for n in study.names() if n.startswith("paper/")])
    sections = []
    notes: dict[str, None] = {}
    for name in sorted(study.names(), key=lambda name: not name.startswith("paper/")):
        if name.startswith(RECORDED):
            kept = recorded(name, chosen.scale)
            figure = figure_of(Session(study.load(name), chosen.scale, chosen.runs, kept=kept))
            mine = [verdict for verdict in judged if verdict.claim.figure == name]
            sections.append(section(name, figure, mine, chosen.docs, remarks.get(name, ""), notes))
            if name == "beyond/fidelity" and figure.rows:
                measured(chosen.docs / "fidelity.md", figure)
    start = opening(judged, chosen.scale, remarks.get("all", ""), notes)
    write_atomically(page, "\n".join([start, *sections]))
    sys.stdout.write(f"wrote {page}\n")


def opening(judged: list[Verdict], scale: str, remark: str, notes: Iterable[str]) -> str:
    """What the record is, the verdicts counted, and what the tables' columns mean."""
    counted = Counter(verdict.word for verdict in judged)
    words = ", ".join(
        f"{counted[word]} {plural}"
        for word, plural in (
            ("holds", "hold"),
            ("does not hold", "do not hold"),
            ("not decided", "are not decided"),
        )
    )
    meanings = "\n".join(notes)
    return f"""# What was reproduced

Every figure of the paper at the scale `{scale}`, drawn from the committed record, beside what the paper says
of it. Of its {len(judged)} statements: {words}. "Does not hold" means at this scale{SIZES.get(scale, "")}.
Thresholds were fixed before the runs; `optstudy claims --scale {scale}` judges again, `make reproduce` runs
everything from nothing. Losses and estimates are in nats per token, intervals are 95 % over seeds.

{held("all", remark)}
The columns of the tables:

{meanings}
"""


def section(
    name: str,
    figure: Figure,
    judged: list[Verdict],
    docs: Path,
    remark: str,
    notes: dict[str, None],
) -> str:
    """One study: question, figure, verdicts, table; what its columns mean goes into ``notes``."""
    lines = [f"## {name}: {figure.title}", "", figure.asks, ""]
    if not figure.rows:
        return "\n".join(
            [*lines, f"Not run at {figure.scale} yet: `{figure.command}`.", "", held(name, remark)]
        )
    image = docs / "figures" / figure.scale / f"{name.replace('/', '-')}.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(image, figures.draw(figure, "png"))
    lines += [f"![{figure.title}]({image.relative_to(docs).as_posix()})", ""]
    if judged:
        lines += [
            "| the paper says | here | estimate | interval | seeds | test |",
            "|---|---|---|---|---|---|",
        ]
        lines += [verdict_row(verdict) for verdict in judged] + [""]
    lines += [tables.table(figure, caption(figure)).partition("\n")[2].strip(), ""]
    notes.update(dict.fromkeys(note for note in tables.meanings(figure) if not note.endswith(" tried.")))
    return "\n".join([*lines, held(name, remark)])


def verdict_row(verdict: Verdict) -> str:
    """One line of the table of claims."""
    tree = verdict.tree()
    interval = "" if tree["interval"] is None else "{:+.3f} to {:+.3f}".format(*tree["interval"])
    estimate = "" if tree["estimate"] is None else f"{tree['estimate']:+.3f}"
    word = f"**{verdict.word}**" + (f" ({verdict.why_not})" if verdict.why_not else "")
    cells = (verdict.claim.statement, word, estimate, interval, str(tree["seeds"]), f"`{verdict.claim.test}`")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def held(name: str, remark: str) -> str:
    """A place for remarks by hand, with those there were."""
    return f"<!-- remarks: {name} -->\n{remark}<!-- end -->\n"


def measured(page: Path, printed: Figure) -> None:
    """Put the printed settings' bests beside the released ones' into the page on fidelity."""
    lines = ["| optimizer | best loss, printed | at | best loss, released | at |", "|---|---|---|---|---|"]
    for summary in printed.summaries:
        released = released_of(summary.curve.name, printed)
        found = [one for one in (summary, released) if one is not None and one.best is not None]
        cells = [f"{style.nats(one.best)} | {style.setting(one)}" for one in found]
        lines.append(f"| {style.name(summary.curve)} | {' | '.join(cells)}{' | | ' * (2 - len(found))} |")
    table = "\n".join(lines) + "\n"
    write_atomically(page, MEASURED.sub(lambda found: found[1] + table + found[2], page.read_text()))


def released_of(name: str, printed: Figure) -> Summary | None:
    """The same curve as released."""
    for study_name in ("paper/fig1", "paper/fig9", "paper/fig3"):
        kept = recorded(study_name, printed.scale)
        runs = printed.runs or Path("runs")
        figure = figure_of(Session(study.load(study_name), printed.scale, runs, kept=kept))
        for summary in figure.summaries:
            if summary.curve.name == name:
                return summary
    return None


if __name__ == "__main__":
    main()
