"""Pages derived from the package: optimizers, studies, command line, layers, measurements.

``python docs/pages.py FOLDER`` writes them; ``make docs`` writes them to docs/generated. No numbers are
written
here: measurements come from the record in the package, and without a record the pages say so.
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from measured import NO_RECORD, WINDOW, Load, recorded, table, window_row
from optimizer_pages import optimizer_pages
from reference import reference_pages

from optstudy import presets
from optstudy.commands.optimizers import listed_presets, listing
from optstudy.outcomes import LENGTH, RECORDED, verdicts
from optstudy.results import archive
from optstudy.study import library as study
from optstudy.study import yamlfile
from optstudy.study.expansion import Plans
from optstudy.study.plan import Plan

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PLANS: Plans = {}
"""Plans of studies without results, shared by their pages."""


def write(folder: Path, load: Load = archive.load) -> None:
    """Write every generated page into a folder.

    Args:
        folder: the output folder; its pages link to those of its parent.
        load: reads the record of a scale.
    """
    for name in ("optimizers", "studies", "parts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    pages = {"cli.md": command_line(), "citing.md": citing(), "parts/layers.md": layers()}
    pages |= {"parts/choose.md": choosing(load, "paper/fig1"), "parts/field.md": field()}
    pages["parts/rivals.md"] = choosing(load, "beyond/rivals", already="paper/fig1")
    pages["parts/adaptivity.md"] = adaptivity()
    pages |= {"parts/tree.md": tree(), "parts/reproduced.md": reproduced()}
    pages |= optimizer_pages(load) | study_pages(load) | reference_pages() | {"gallery.md": gallery()}
    for name, content in pages.items():
        path = folder / name
        if not path.exists() or path.read_text() != content:  # sphinx rebuilds newer files
            path.write_text(content)


# The field


def field() -> str:
    """A row per preset, and what benchmarks call those that have no preset."""
    rows = []
    for name, one in presets.load().items():
        adams = [role for role, own in one.roles.items() if own.get("name") == "adam"]
        elsewhere = "" if not adams else f"; Adam {'elsewhere' if len(adams) > 1 else 'on ' + adams[0]}"
        asked = "".join(f"; schedule {value}" for value in one.schedule.values())
        said = [one.about + elsewhere + asked, one.source, f"{one.package} {one.tried}"]
        state, faults = f"{one.state_bytes_per_param:.2f}", "; ".join(one.faults)
        rates = f"{one.lr.start:g} to {one.lr.stop:g}"
        rows.append((f"`{name}`", *said, state, rates, one.published, faults))
    heading = (
        "name",
        "what it is",
        "source",
        "tried with",
        "state, B/param",
        "rates",
        "published",
        "known faults",
    )
    ours = sorted(
        {
            f"{called} is `{name}`"
            for of in presets.read().benchmarks.values()
            for called, name in of.items()
            if name not in presets.load()
        }
    )
    return f"{table(heading, rows)}\nThe benchmarks' others are this project's own: {', '.join(ours)}.\n"


# Studies


def study_pages(load: Load) -> dict[str, str]:
    """A page per study, and the index."""
    pages, rows = {}, []
    for name in study.names():
        page = name.replace("/", "-")
        pages[f"studies/{page}.md"] = one_study(name, load)
        rows.append((f"[{name}]({page}.md)", study.load(name).file.title))
    names = "\n".join(name.replace("/", "-") for name in study.names())
    pages["studies/index.md"] = (
        "# Studies\n\nWhat `optstudy studies` lists. `optstudy show NAME`: its runs and their cost.\n\n"
        + table(("study", "title"), rows)
        + f"\n```{{toctree}}\n:hidden:\n\n{names}\n```\n"
    )
    return pages


def least(plan: Plan) -> int:
    """Number of runs of a study before grids grow, as ``optstudy show`` counts them."""
    return len({point.id for point in (*plan.first, *plan.points)}) + len(plan.pending)


def one_study(name: str, load: Load) -> str:
    """One study: question, file, runs, judged claims, measurements."""
    chosen = study.load(name)
    source = ROOT / "src" / "optstudy" / "studies" / f"{name}.yaml"
    counts = [(scale, str(least(chosen.plan(scale, others=PLANS)))) for scale in ("pico", "150m")]
    parts = [f"# {name}: {chosen.file.title}\n", f"{chosen.file.asks}\n", f"{chosen.file.notes}\n"]
    found = [picture(name), picture(name, "-costs")]
    parts += [f"![{chosen.file.title}](../../{one})\n" for one in found if one]
    parts += [f"```sh\noptstudy show {name} --scale pico\noptstudy run {name} --scale pico\n```\n"]
    parts += [
        "Minimum number of runs, including those of other studies that it needs first (shared runs are\n"
        "run once); growing grids and further seeds add to it:\n"
    ]
    parts += [table(("scale", "runs"), counts), "## File\n", f"```yaml\n{source.read_text()}```\n"]
    mine = [(claim.statement, f"`{claim.test}`") for claim in chosen.claims]
    if mine:
        parts += ["## Claims\n", f"`optstudy claims {name}` judges these from the finished runs.\n"]
        parts += [table(("statement", "test"), mine)]
    parts += ["## Measured\n", *results(name, load)]
    return "\n".join(parts)


def results(name: str, load: Load) -> list[str]:
    """The record's tables of a study, scale by scale."""
    found = recorded(load, name) if name.startswith(RECORDED) else []
    if not found:
        return [
            f"{NO_RECORD}\n" if name != "demo" else "`make demo` measures it; the README shows its figure.\n"
        ]
    return [
        f"At {scale}:\n\n{table(WINDOW, (window_row(figure, one) for one in figure.summaries))}"
        for scale, figure in found
    ]


def picture(name: str, kind: str = "") -> str:
    """The path of a study's figure, or of its ``-costs``, relative to docs; empty if none has been drawn."""
    if name == "demo" and not kind:
        return "demo.png"
    paths = [f"figures/{of}/{name.replace('/', '-')}{kind}.png" for of in ("pico-600", "pico")]
    return next((path for path in paths if (ROOT / "docs" / path).exists()), "")


def gallery() -> str:
    """The figures of all studies, each with a link to its page."""
    cards = []
    for name in study.names():
        if found := picture(name):
            page, title = f"studies/{name.replace('/', '-')}.md", study.load(name).file.title
            told = f":alt: {title}\n:target: {page.replace('.md', '.html')}\n\n[{name}]({page}): {title}"
            cards.append(f":::{{figure}} ../{found}\n{told}\n:::\n")
    return (
        "# Gallery\n\nThe studies that were run at `pico`, most of them for 600 steps, "
        "as drawn by `optstudy report`. "
        "Click a figure to open the study.\n\n"
        "::::{container} gallery\n" + "\n".join(cards) + "::::\n"
    )


# How to choose, where adaptivity is needed, the command line, layers, citing

_PAPER = "Zhao et al. ([2407.07972](https://arxiv.org/abs/2407.07972)), 150M and 600M"
_SLIM = "Kalra et al. ([2503.01843](https://arxiv.org/abs/2503.01843)), 124M"
_SCALE = "Glentis et al. ([2506.16659](https://arxiv.org/abs/2506.16659)), 60M to 1B"
_SAUCE = "Orvieto and Gower ([2505.21829](https://arxiv.org/abs/2505.21829)), 160M"
_MINI = "Zhang et al. ([2406.16793](https://arxiv.org/abs/2406.16793)), 125M to 7B"
_RARE = (
    "Kunstner et al. ([2402.19449](https://arxiv.org/abs/2402.19449)), small transformers and linear models"
)
_OWN = "asked here"
ASKED = {
    "Which layers": [
        (_PAPER, "paper/fig9", "star-almost-adam"),
        (_PAPER, "paper/fig9", "star-improves-adalayer"),
        (_PAPER, "paper/fig9", "first-layer-no-matter"),
        (_PAPER, "paper/fig3", "last-layer-improves"),
        (_PAPER, "paper/fig3", "last-layer-unstable"),
        (_PAPER, "paper/fig3", "last-norm-loss"),
        (_PAPER, "paper/fig3", "last-norm-stable"),
        (_PAPER, "paper/fig11", "matrices-only"),
        (_PAPER, "paper/fig14", "frozen-recovers"),
        (_PAPER, "paper/fig15", "frozen-all-fails"),
    ],
    "Along which axis": [
        (_SLIM, "beyond/axes", "slim-costs-nothing"),
        (_SLIM, "beyond/axes", "tokens-need-rows"),
        (_SLIM, "beyond/axes", "slim-axis-of-matrices"),
        (_SLIM, "beyond/axes", "norms-resist"),
        (_MINI, "beyond/rivals", "adam-mini-level"),
    ],
    "Rare tokens": [
        (_RARE, "beyond/rare-tokens", "sgd-lags-on-rare-tokens"),
        (_OWN, "beyond/rare-tokens", "common-tokens-alike"),
        (_OWN, "beyond/rare-tokens", "gap-grows-with-vocabulary"),
        (_OWN, "beyond/rare-tokens", "last-layer-is-for-rare-tokens"),
        (_OWN, "beyond/rare-tokens", "norms-are-not"),
    ],
    "Adaptivity, or a rate for each role": [
        (_OWN, "beyond/rates-per-role", "adam-gains"),
        (_OWN, "beyond/rates-per-role", "adam-is-tuned-elsewhere"),
        (_OWN, "beyond/rates-per-role", "scale-is-not-enough"),
    ],
    "Signs and momentum in its place": [
        (_PAPER, "paper/fig1", "non-sgd-same-loss"),
        (_SAUCE, "beyond/secret-sauce", "equal-betas"),
        (_SAUCE, "beyond/secret-sauce", "signum-slower"),
        (_SCALE, "beyond/momentum-where", "normalising-helps"),
        (_SCALE, "beyond/momentum-where", "last-layer-enough"),
        (_SCALE, "beyond/momentum-where", "reaches-adam"),
        (_OWN, "beyond/distances", "signs-in-matrices"),
        (_OWN, "beyond/distances", "layers-in-matrices"),
        (_OWN, "beyond/distances", "rows-in-the-last-layer"),
    ],
}
"""Claims about where adaptivity is needed, by question: who stated it at which scale, study, claim."""


def choosing(load: Load, name: str, already: str = "") -> str:
    """The table of a study at each recorded scale and length, best loss first.

    Args:
        load: reads the record of a scale.
        name: the study.
        already: a study whose tables the page has: those with none but its runs are left out.
    """
    shown = {row.id for _, figure in (recorded(load, already) if already else ()) for row in figure.rows}
    found = [
        (label, figure)
        for label, figure in recorded(load, name)
        if len(figure.summaries) > 1 and not shown.issuperset(row.id for row in figure.rows)
    ]
    if not found:
        return f"{NO_RECORD}\n"
    state = {one.name: f"{one.state_bytes_per_param:.2f}" for one in (*listing(), *listed_presets())}
    parts = []
    for scale, figure in found:
        rows = [(*window_row(figure, one), state.get(one.curve.name, "")) for one in figure.summaries]
        parts.append(f"### At {scale}\n\n{table((*WINDOW, 'state, bytes/param'), rows)}")
    return "\n".join(parts)


def adaptivity() -> str:
    """What others and the paper say of where adaptivity is needed, with the verdicts of the record."""
    names = sorted({name for asked in ASKED.values() for _, name, _ in asked})
    lengths: dict[str, dict[str, Any]] = {"2,400 steps": {}, "600 steps": {LENGTH: 600}}
    found = {
        (length, one.claim.figure, one.claim.name): one
        for length, overrides in lengths.items()
        for one in verdicts("pico", Path("no-runs"), names=names, overrides=overrides)
    }
    parts = []
    for question, asked in ASKED.items():
        rows = [
            (
                found["600 steps", name, claim].claim.statement,
                source,
                f"[{name}](generated/studies/{name.replace('/', '-')}.md)",
                *(found[length, name, claim].short for length in lengths),
            )
            for source, name, claim in asked
        ]
        parts.append(f"## {question}\n\n{table(('statement', 'by', 'study', *lengths), rows)}")
    return "\n".join(parts)


def command_line() -> str:
    """The help of every command."""
    from optstudy.cli import app

    text = app.generate_docs()
    opening, _, rest = text.partition("## Table of Contents")
    _, heading, rest = rest.partition("**Commands**")
    return (
        opening.replace("# optstudy", "# The command line", 1)
        + heading
        + rest.replace("```console", "```text")
    )


def layers() -> str:
    """The import contracts of pyproject.toml, lowest layer last."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return "\n".join(contract(one) for one in contracts)


def contract(one: dict[str, Any]) -> str:
    """One contract as text."""
    short = [f"`{name.strip().removeprefix('optstudy.')}`" for name in one.get("source_modules", [])]
    if one["type"] == "forbidden":
        forbidden = ", ".join(f"`{name}`" for name in one["forbidden_modules"])
        return f"### {one['name']}\n\n{', '.join(short)}: never import, even indirectly, {forbidden}.\n"
    rows = []
    for number, layer in enumerate(one["layers"], 1):
        names = [f"`{name.strip().removeprefix('optstudy.')}`" for name in layer.split(":")]
        rows.append((str(number), ", ".join(names)))
    said = "Each module may import those on its own line and below, none above.\n"
    return f"### {one['name']}\n\n{said}\n{table(('layer', 'modules'), rows)}"


def reproduced() -> str:
    """Links to the reproduction pages, or the command that creates them."""
    if (ROOT / "docs" / "reproduction.md").exists():
        links = "[What was reproduced](/reproduction.md), and [at 600 steps](/reproduction-600.md)"
        return f"{links}\n\n```{{toctree}}\n:hidden:\n\n/reproduction\n/reproduction-600\n```\n"
    return "What was reproduced: there is no record yet; `make record` creates it and writes its page.\n"


def tree() -> str:
    """The README's tree of the source."""
    (found,) = re.findall(r"^```text\nsrc/optstudy/\n.*?^```\n", README.read_text(), re.DOTALL | re.MULTILINE)
    return str(found)


def citing() -> str:
    """CITATION.cff as BibTeX."""
    path = ROOT / "CITATION.cff"
    tree = yamlfile.plain(yamlfile.parse(path.read_text(), str(path)), str(path))
    paper = tree["preferred-citation"]
    names = [f"{one['family-names']}, {one['given-names']}" for one in paper["authors"]]
    return f"""# How to cite

Cite the paper, and the version of the program that made your numbers (every run's `env.json` has it).

```bibtex
@inproceedings{{zhao{paper["year"]}deconstructing,
  title     = {{{paper["title"]}}},
  author    = {{{" and ".join(names)}}},
  booktitle = {{{paper["collection-title"]}}},
  year      = {{{paper["year"]}}},
  url       = {{{paper["url"]}}},
}}

@software{{optstudy,
  title   = {{{tree["title"]}}},
  author  = {{{{{tree["authors"][0]["name"]}}}}},
  version = {{{tree["version"]}}},
}}
```
"""


if __name__ == "__main__":
    write(Path(sys.argv[1]))
