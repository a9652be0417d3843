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

from optstudy import claims, study
from optstudy import report as reports
from optstudy.commands.claims import Loader
from optstudy.commands.sweeps import RECORDED, recorded, sweep_of
from optstudy.labels import cut
from optstudy.record import write_atomically
from optstudy.report import figures, style, tables
from optstudy.report.page import caption
from optstudy.session import Session

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
    verdicts = claims.judge(Loader(chosen.scale, chosen.runs), chosen.scale)
    sections = []
    notes: dict[str, None] = {}
    for name in sorted(study.names(), key=lambda name: not name.startswith("paper/")):
        if name.startswith(RECORDED):
            kept = recorded(name, chosen.scale)
            sweep = sweep_of(Session(study.load(name), chosen.scale, chosen.runs, kept=kept))
            mine = [verdict for verdict in verdicts if verdict.claim.figure == name]
            sections.append(section(name, sweep, mine, chosen.docs, remarks.get(name, ""), notes))
            if name == "beyond/fidelity" and sweep.rows:
                measured(chosen.docs / "fidelity.md", sweep)
    start = opening(verdicts, chosen.scale, remarks.get("all", ""), notes)
    write_atomically(page, "\n".join([start, *sections]))
    sys.stdout.write(f"wrote {page}\n")


def opening(verdicts: list[claims.Verdict], scale: str, remark: str, notes: Iterable[str]) -> str:
    """What the record is, the verdicts counted, and what the tables' columns mean."""
    counted = Counter(verdict.word for verdict in verdicts)
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
of it. Of its {len(verdicts)} statements: {words}. "Does not hold" means at this scale{SIZES.get(scale, "")}.
Thresholds were fixed before the runs; `optstudy claims --scale {scale}` judges again, `make reproduce` runs
everything from nothing. Losses and estimates are in nats per token, intervals are 95 % over seeds.

{held("all", remark)}
The columns of the tables:

{meanings}
"""


def section(
    name: str,
    sweep: reports.Sweep,
    verdicts: list[claims.Verdict],
    docs: Path,
    remark: str,
    notes: dict[str, None],
) -> str:
    """One study: question, figure, verdicts, table; what its columns mean goes into ``notes``."""
    lines = [f"## {name}: {sweep.title}", "", sweep.asks, ""]
    if not sweep.rows:
        return "\n".join(
            [*lines, f"Not run at {sweep.scale} yet: `{sweep.command}`.", "", held(name, remark)]
        )
    image = docs / "figures" / sweep.scale / f"{name.replace('/', '-')}.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(image, figures.draw(sweep, "png"))
    lines += [f"![{sweep.title}]({image.relative_to(docs).as_posix()})", ""]
    if verdicts:
        lines += [
            "| the paper says | here | estimate | interval | seeds | test |",
            "|---|---|---|---|---|---|",
        ]
        lines += [verdict_row(verdict) for verdict in verdicts] + [""]
    lines += [tables.table(sweep, caption(sweep)).partition("\n")[2].strip(), ""]
    notes.update(dict.fromkeys(note for note in tables.meanings(sweep) if not note.endswith(" settings.")))
    return "\n".join([*lines, held(name, remark)])


def verdict_row(verdict: claims.Verdict) -> str:
    """One line of the table of claims."""
    tree = verdict.tree()
    interval = "" if tree["interval"] is None else "{:+.3f} to {:+.3f}".format(*tree["interval"])
    estimate = "" if tree["estimate"] is None else f"{tree['estimate']:+.3f}"
    word = f"**{verdict.word}**" + (f" ({verdict.why_not})" if verdict.why_not else "")
    cells = (verdict.claim.statement, word, estimate, interval, str(tree["seeds"]), verdict.claim.test)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def held(name: str, remark: str) -> str:
    """A place for remarks by hand, with those there were."""
    return f"<!-- remarks: {name} -->\n{remark}<!-- end -->\n"


def measured(page: Path, printed: reports.Sweep) -> None:
    """Put the printed settings' bests beside the released ones' into the page on fidelity."""
    lines = ["| optimizer | best loss, printed | at | best loss, released | at |", "|---|---|---|---|---|"]
    for summary in printed.summaries:
        released = released_of(summary.label, printed)
        found = [summary, *([released] if released else [])]
        cells = [f"{style.nats(s.best.value, s.best.half_width)} | {style.number(s.setting)}" for s in found]
        lines.append(f"| {style.full_name(summary.label)} | {' | '.join(cells)}{' | | ' * (not released)} |")
    table = "\n".join(lines) + "\n"
    write_atomically(page, MEASURED.sub(lambda found: found[1] + table + found[2], page.read_text()))


def released_of(label: str, printed: reports.Sweep):  # type: ignore[no-untyped-def]
    """The same curve as released."""
    for name in ("paper/fig1", "paper/fig9", "paper/fig3"):
        kept = recorded(name, printed.scale)
        runs = printed.runs or Path("runs")
        sweep = sweep_of(Session(study.load(name), printed.scale, runs, kept=kept))
        for summary in sweep.summaries:
            if cut(summary.label)[1] == label:
                return summary
    return None


if __name__ == "__main__":
    main()
