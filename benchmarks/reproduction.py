"""Write docs/reproduction.md, its figures and docs/fidelity.md's table from the committed record.

    python benchmarks/reproduction.py [--scale pico] [--steps 600] [--runs runs]

With ``--steps`` it writes the page of shorter runs, docs/reproduction-600.md. Each figure is shown next to
the paper's statements about it and the verdicts. Text between ``<!-- remarks: NAME -->`` and ``<!-- end -->``
in the file is written by hand and kept.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optstudy.claims.verdict import Verdict
from optstudy.outcomes import LENGTH, RECORDED, figure_of, recorded, verdicts
from optstudy.record import write_atomically
from optstudy.report import figures, style, tables
from optstudy.report.page import caption
from optstudy.results.figure import Figure
from optstudy.results.stats import Summary
from optstudy.scales import SCALES
from optstudy.study import library as study
from optstudy.study.session import Session

DOCS = Path(__file__).parent.parent / "docs"
SHORT = {"pico": 600}
"""Steps of a scale's shorter runs that are also recorded, on a separate page."""
PER_WEIGHT = {"pico": 98_880}
"""Parameters without embedding and head, as the paper counts them."""
LIMIT = (
    "a model of 0.36 million parameters where the paper's smallest has 217, trained on {tokens:.1f} "
    "million tokens, {per:.0f} per parameter (embedding and head not counted), where that has 22"
)
REMARKS = re.compile(r"<!-- remarks: (\S+) -->\n(.*?)<!-- end -->", re.DOTALL)
MEASURED = re.compile(r"(<!-- measured: begin -->\n).*?(<!-- measured: end -->)", re.DOTALL)


@dataclass(frozen=True)
class Length:
    """Runs of one scale and number of steps."""

    scale: str
    steps: int | None = None
    """Number of steps if it differs from the scale's."""

    @property
    def overrides(self) -> dict[str, Any]:
        """The override that sets it on the command line."""
        return {} if self.steps is None else {LENGTH: self.steps}

    @property
    def file(self) -> str:
        """The end of file names."""
        return self.scale if self.steps is None else f"{self.scale}-{self.steps}"

    @property
    def title(self) -> str:
        """The text in a heading."""
        return f"`{self.scale}`" + ("" if self.steps is None else f", {self.steps} steps")

    @property
    def asked(self) -> str:
        """The options on the command line."""
        return f"--scale {self.scale}" + ("" if self.steps is None else f" --set {LENGTH}={self.steps}")

    @property
    def size(self) -> str:
        """The size, which may explain statements that do not hold."""
        if self.scale not in PER_WEIGHT:
            return ""
        training, data = SCALES[self.scale]["training"], SCALES[self.scale]["data"]
        tokens = (self.steps or training["steps"]) * training["batch_size"] * data["sequence_length"]
        return ": " + LIMIT.format(tokens=tokens / 1e6, per=tokens / PER_WEIGHT[self.scale])

    def verdicts(self, runs: Path) -> list[Verdict]:
        """The verdicts on the paper's statements."""
        names = [name for name in study.names() if name.startswith("paper/")]
        return verdicts(self.scale, runs, names=names, overrides=self.overrides)

    def figure(self, name: str, runs: Path) -> Figure:
        """A study's figure."""
        kept = recorded(name, self.scale)
        return figure_of(Session(study.load(name), self.scale, runs, self.overrides, kept=kept))


def main() -> None:
    """Write the pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", default="pico")
    parser.add_argument("--steps", type=int, help="of runs that are shorter than the scale's")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    chosen = parser.parse_args()
    length = Length(chosen.scale, chosen.steps)
    page = chosen.docs / f"reproduction{'' if chosen.steps is None else f'-{chosen.steps}'}.md"
    remarks = dict(REMARKS.findall(page.read_text())) if page.exists() else {}
    judged = length.verdicts(chosen.runs)
    sections = []
    notes: dict[str, None] = {}
    for name in sorted(study.names(), key=lambda name: not name.startswith("paper/")):
        over_lengths = study.load(name).file.figure.kind == "gaps"
        if name.startswith(RECORDED) and not (over_lengths and chosen.steps):
            figure = length.figure(name, chosen.runs)
            mine = [verdict for verdict in judged if verdict.claim.figure == name]
            remark = remarks.get(name, "")
            sections.append(section(name, figure, mine, chosen.docs, length, remark, notes))
            if name == "beyond/fidelity" and figure.rows and chosen.steps is None:
                measured(chosen.docs / "fidelity.md", figure)
    start = opening(judged, length, remarks.get("all", ""), notes)
    if chosen.steps is None and chosen.scale in SHORT:
        shorter = Length(chosen.scale, SHORT[chosen.scale])
        before = shorter.verdicts(chosen.runs)
        start += with_length(before, judged, shorter, length)
    write_atomically(page, "\n".join([start, *sections]))
    sys.stdout.write(f"wrote {page}\n")


def opening(judged: list[Verdict], length: Length, remark: str, notes: Iterable[str]) -> str:
    """Describes the record, counts the verdicts, and explains the columns."""
    counted = Counter[str](verdict.word for verdict in judged)
    words = ", ".join(
        f"{counted[word]} {plural}"
        for word, plural in (
            ("holds", "hold"),
            ("does not hold", "do not hold"),
            ("not decided", "are not decided"),
        )
    )
    lacking = sum(verdict.why_not.startswith("missing") for verdict in judged)
    missing = f" The runs of {lacking} are not in the record yet." if lacking else ""
    if lacking and length.steps is None and length.scale in SHORT:
        missing += f" At {SHORT[length.scale]} steps it [is whole](reproduction-{SHORT[length.scale]}.md)."
    meanings = "\n".join(notes)
    return f"""# What was reproduced{"" if length.steps is None else f" at {length.steps} steps"}

Every figure of the paper at the scale {length.title}, drawn from the committed record, beside what the
paper says of it. Of its {len(judged)} statements: {words}.{missing}
"Does not hold" means at this scale{length.size}.
Thresholds were fixed before the runs; `optstudy claims {length.asked}` judges again, `make reproduce` runs
everything from nothing. Losses and estimates are in nats per token, intervals are 95 % over seeds.

{held("all", remark)}
The columns of the tables:

{meanings}
"""


def with_length(before: list[Verdict], after: list[Verdict], shorter: Length, longer: Length) -> str:
    """Each verdict at two lengths."""
    lines = [
        "\n## How the verdicts change with the length of the runs\n",
        f"| the paper says | figure | {shorter.title} | {longer.title} |",
        "|---|---|---|---|",
    ]
    for one, other in zip(before, after, strict=True):
        cells = [
            one.claim.statement,
            one.claim.figure.removeprefix("paper/"),
            one.short,
            other.short,
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def section(
    name: str,
    figure: Figure,
    judged: list[Verdict],
    docs: Path,
    length: Length,
    remark: str,
    notes: dict[str, None],
) -> str:
    """One study: question, figure, verdicts, table; explanations of its columns go into ``notes``."""
    lines = [f"## {name}: {figure.title}", "", figure.asks, ""]
    if not figure.rows:
        return "\n".join(
            [*lines, f"Not run at {figure.scale} yet: `{figure.command}`.", "", held(name, remark)]
        )
    for file, drawn in figures.pictures(figure, ["png"]).items():
        kind = "" if file == "figure.png" else "-costs"
        image = docs / "figures" / length.file / f"{name.replace('/', '-')}{kind}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(image, drawn)
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
    """A section for remarks by hand, with the existing ones."""
    return f"<!-- remarks: {name} -->\n{remark}<!-- end -->\n"


def measured(page: Path, printed: Figure) -> None:
    """Write the bests of printed and released settings into the page on fidelity."""
    lines = ["| optimizer | best loss, printed | at | best loss, released | at |", "|---|---|---|---|---|"]
    for summary in printed.summaries:
        released = released_of(summary.curve.name, printed)
        cells = [
            f"{style.value(printed.metric, one.best)} | {style.setting(one)}"
            for one in (summary, released)
            if one is not None and one.best is not None
        ]
        lines.append(f"| {style.name(summary.curve)} | {' | '.join(cells)}{' | | ' * (2 - len(cells))} |")
    table = "\n".join(lines) + "\n"
    write_atomically(page, MEASURED.sub(lambda found: found[1] + table + found[2], page.read_text()))


def released_of(name: str, printed: Figure) -> Summary | None:
    """The same curve with released settings, at the same length."""
    length = Length(printed.scale, printed.rows[0].value(LENGTH))
    for study_name in ("paper/fig1", "paper/fig9", "paper/fig3"):
        figure = length.figure(study_name, printed.runs or Path("runs"))
        for summary in figure.summaries:
            if summary.curve.name == name:
                return summary
    return None


if __name__ == "__main__":
    main()
