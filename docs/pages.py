"""The pages that follow from the package: optimizers, studies, command line, layers, what was measured.

``python docs/pages.py FOLDER`` writes them; ``make docs`` does so to docs/generated. No number stands here:
what was measured comes from the record in the package, and where there is none the pages say so.
"""

import re
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optstudy import archive, claims, optim, study, yamlfile
from optstudy import report as reports
from optstudy.commands.reports import sweep_of
from optstudy.listing import Listed, listing
from optstudy.optimizers import OF_THE_CONFIG, OPTIMIZERS
from optstudy.report import style
from optstudy.scales import SCALES
from optstudy.session import Session
from optstudy.signature import signature
from optstudy.stats import MARGIN, Summary

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
Load = Callable[[str], archive.Archive]
"""A scale -> its record."""
Found = Mapping[str, Sequence[tuple[str, list[Summary]]]]
"""A figure -> its summaries at each scale that has a record."""

LR = {
    "Adam": 1e-2, "Adafactor": 1e-2, "AdafactorBigVision": 1e-2, "Lion": 3e-3, "Signum": 3e-3, "SGDW": 0.3,
    "Sophia": 3e-3, "Adalayer": 1e-2, "Preconditioned": 1e-2,
}  # fmt: skip
"""Learning rates of the examples, good for a toy of a few thousand weights."""
SWEEPS = ("fig1", "fig9", "fig3", "fig11", "fig12", "fig14", "fig15", "fig16", "fig17", "fig18")
"""Figures that sweep optimizers under their own names over the learning rate; the first with one counts."""
OF_ALL = ("gradient clipping", "warm-up")
DIFFERS = {
    "Adafactor": ("Adafactor on LayerNorms",),
    "Adalayer": ("Adalayer's second moment", "fused query, key, value"),
    "Preconditioned": ("SGD in the hybrids", "Adalayer's second moment", "Adafactor on LayerNorms"),
}
"""Rows of fidelity.md's table that concern a class, besides those of all."""
NO_RECORD = (
    "**Nothing has been measured for this page yet.** The record of runs is not part of this version. "
    "`make record` makes it; the next build of this page shows it."
)
EXAMPLE = """\
import torch
from optstudy.config import Model
from optstudy.model import Transformer
from optstudy.optim import {name}
from optstudy.roles import param_groups

torch.manual_seed(0)
model = Transformer(Model(vocab_size=64, d_model=16, n_layers=1, n_heads=2), seed=0)
optimizer = {name}({params}, lr={lr:g})
x = torch.randint(64, (4, 16))


def loss_of(targets):
    logits = model.head(model(x))
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets)


losses = []
for step in range(30):
    loss = loss_of(x[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item()){more}
assert losses[-1] < losses[0] - 0.1
"""
HESSIAN = """
    if step % 10 == 9:  # the gradient on labels that the model itself draws
        with torch.no_grad():
            logits = model.head(model(x))[:, :-1].flatten(0, 1)
            drawn = torch.distributions.Categorical(logits=logits).sample()
        optimizer.zero_grad()
        loss_of(drawn).backward()
        optimizer.update_hessian()"""


def write(folder: Path, load: Load = archive.load) -> None:
    """Write every generated page into a folder.

    Args:
        folder: where; its pages link to those of its parent.
        load: the record of a scale.
    """
    for name in ("optimizers", "studies", "parts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    pages = {"cli.md": command_line(), "citing.md": citing(), "parts/layers.md": layers()}
    pages["parts/choose.md"] = choosing(load)
    pages |= {"parts/tree.md": tree(), "parts/reproduced.md": reproduced()}
    pages |= optimizer_pages(load) | study_pages(load)
    for name, content in pages.items():
        path = folder / name
        if not path.exists() or path.read_text() != content:  # sphinx builds anew what is newer
            path.write_text(content)


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A pipe table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def recorded(load: Load, name: str = "paper/fig1") -> list[tuple[str, list[Summary]]]:
    """The summaries of a study's curves at each scale that has a record, smallest first."""
    found = []
    for scale in SCALES:
        if kept := load(scale):
            sweep = swept(name, scale, kept)
            if sweep.rows:
                found.append((scale, sweep.summaries))
    return found


def swept(name: str, scale: str, kept: archive.Archive) -> reports.Sweep:
    """A study as the record has it."""
    return sweep_of(Session(study.load(name), scale, Path("no-runs"), kept=kept))


# Optimizers


def optimizer_pages(load: Load) -> dict[str, str]:
    """A page per class, and their index."""
    by_class: dict[str, list[Listed]] = {}
    for one in listing():
        by_class.setdefault(one.target.rpartition(".")[2], []).append(one)
    found = {name: recorded(load, f"paper/{name}") for name in SWEEPS}
    pages = {f"optimizers/{slug(name)}.md": optimizer(name, own, found) for name, own in by_class.items()}
    rows = [
        (f"`{one.name}`", f"[{name}]({slug(name)}.md)", moments(one), f"{one.state_bytes_per_param:.2f}")
        for name, own in by_class.items()
        for one in own
    ]
    names = "\n".join(map(slug, by_class))
    pages["optimizers/index.md"] = (
        "# Optimizers\n\nWhat `optstudy optimizers` lists: name, class, second moment, and bytes of state\n"
        "per parameter on the shapes of the 150m model. How they compare: [](../../choose.md).\n\n"
        + table(("name", "class", "second moment", "state, bytes/param"), rows)
        + f"\n```{{toctree}}\n:hidden:\n\n{names}\n```\n"
    )
    return pages


def slug(name: str) -> str:
    """A class's page."""
    return name.lower()


def moments(one: Listed) -> str:
    """The commonest granularity, then the roles that differ."""
    common, _ = Counter(one.second_moment.values()).most_common(1)[0]
    return ", ".join([common, *(f"{r} {k}" for r, k in one.second_moment.items() if k != common)])


def optimizer(name: str, own: Sequence[Listed], found: Found) -> str:
    """One class: algorithm, hyperparameters, recipes, what was measured, print against code, example."""
    cls = getattr(optim, name)
    parts = [f"# {name}\n", f"```{{eval-rst}}\n.. autoclass:: optstudy.optim.{name}\n```\n"]
    if ".. math::" not in (cls.__doc__ or ""):
        base = next(c for c in cls.__mro__[1:] if ".. math::" in (c.__doc__ or ""))
        parts += [f"## The algorithm\n\nA case of [{base.__name__}]({slug(base.__name__)}.md):\n"]
        parts += [f"```{{eval-rst}}\n.. autoclass:: optstudy.optim.{base.__name__}\n   :no-index:\n```\n"]
    parts += ["## Hyperparameters\n", hyperparameters(own[0].target)]
    parts += [
        "## By name\n",
        "Bytes of state per parameter are on the shapes of the 150m model, weights in float32.\n",
    ]
    rows = [(f"`{one.name}`", moments(one), f"{one.state_bytes_per_param:.2f}", one.source) for one in own]
    parts += [table(("name", "second moment", "state, bytes/param", "source"), rows)]
    parts += ["## Safe windows, measured\n", windows([one.name for one in own], found)]
    parts += ["## Print and released code\n", differences(name)]
    parts += ["## Example\n", f"```python\n{example(name)}```\n", "In a study:\n"]
    parts += [f"```sh\noptstudy run demo --set optimizer.name={own[0].name}\n```\n"]
    return "\n".join(parts)


def hyperparameters(target: str) -> str:
    """Options with their defaults and what they may be."""
    known = signature(target)
    assert known is not None
    by_name = [(name, spec) for name, spec in OPTIMIZERS.items() if spec.target == target]
    rows = []
    for key in known.names:
        if key in OF_THE_CONFIG:
            continue
        others = [f"{spec.options[key]} in `{name}`" for name, spec in by_name if key in spec.options]
        default = str(known.defaults.get(key, "")).replace("None", "from the run")
        others = [text.replace("None", "from the run") for text in others]
        rows.append(
            (f"`{key}`", default, f"`{known.limits[key]}`" if key in known.limits else "", "; ".join(others))
        )
    said = table(("option", "default", "allowed", "recipes that differ"), rows)
    return (
        said
        + "\nThe run sets `lr` and `weight_decay` (decoupled): `optimizer.lr`, `optimizer.weight_decay`.\n"
    )


def windows(names: Sequence[str], found: Found) -> str:
    """Best setting and safe window at each scale of the record, each from the first study that sweeps it."""
    rows: dict[tuple[str, str], tuple[str, ...]] = {}
    for study_name, scales in found.items():
        link = f"[{study_name}](../studies/paper-{study_name}.md)"
        for scale, summaries in scales:
            for one in summaries:
                if (name := one.label.split(style.SEPARATOR)[-1]) in names:
                    rows.setdefault((scale, name), (scale, *window_row(one), link))
    if not any(found.values()):
        return f"{NO_RECORD}\n"
    if not rows:
        return "The record has no sweep of these over the learning rate.\n"
    about = f"Learning rates whose loss is within {MARGIN:g} nats of the best.\n\n"
    return about + table(("scale", *WINDOW, "study"), rows.values())


WINDOW = ("optimizer", "best loss", "seeds", "at", "safe window", "decades")


def window_row(summary: Summary) -> tuple[str, ...]:
    """One curve of a sweep: best loss, setting, safe window."""
    best, safe = summary.best, summary.safe
    ends = f"{style.number(safe.low)} to {style.number(safe.high)}" if safe else ""
    decades = f"{'≥ ' if safe.open_low or safe.open_high else ''}{safe.decades:.1f}" if safe else ""
    loss, setting = style.nats(best.value, best.half_width), style.number(summary.setting)
    return style.full_name(summary.label), loss, str(summary.seeds), setting, ends, decades


def differences(name: str) -> str:
    """The rows of fidelity.md that concern a class."""
    heading, *rows = fidelity()
    wanted = (*DIFFERS.get(name, ()), *OF_ALL)
    chosen = [row for row in rows if row[0] in wanted]
    if missing := set(wanted) - {row[0] for row in rows}:
        raise ValueError(f"docs/fidelity.md has no row {missing}")
    return table(heading, chosen) + "\nThe whole table: [](../../fidelity.md).\n"


def fidelity() -> list[list[str]]:
    """The cells of the table in fidelity.md, heading first."""
    lines = (ROOT / "docs" / "fidelity.md").read_text().partition("<!-- measured")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [cells[0], *cells[2:]]


def example(name: str) -> str:
    """A loop that trains a toy with the class."""
    rules = '{"head": {"second_moment": "row"}, "rest": {"second_moment": "none", "lr": 0.3}}'
    params = f"param_groups(model, {rules})" if name == "Preconditioned" else "param_groups(model, {})"
    return EXAMPLE.format(name=name, params=params, lr=LR[name], more=HESSIAN if name == "Sophia" else "")


# Studies


def study_pages(load: Load) -> dict[str, str]:
    """A page per study, and their index."""
    pages, rows = {}, []
    for name in study.names():
        page = name.replace("/", "-")
        pages[f"studies/{page}.md"] = one_study(name, load)
        rows.append((f"[{name}]({page}.md)", study.load(name).file.title))
    names = "\n".join(name.replace("/", "-") for name in study.names())
    pages["studies/index.md"] = (
        "# Studies\n\nWhat `optstudy studies` lists. `optstudy show NAME`: what one would run and cost.\n\n"
        + table(("study", "title"), rows)
        + f"\n```{{toctree}}\n:hidden:\n\n{names}\n```\n"
    )
    return pages


def one_study(name: str, load: Load) -> str:
    """One study: question, file, runs, the claims judged on it, what was measured."""
    chosen = study.load(name)
    source = Path(study.__file__).parent / "studies" / f"{name}.yaml"
    counts = [(scale, str(len({point.id for point in chosen.points(scale)}))) for scale in ("pico", "150m")]
    parts = [f"# {name}: {chosen.file.title}\n", f"{chosen.file.asks}\n", f"{chosen.file.notes}\n"]
    parts += [f"```sh\noptstudy show {name} --scale pico\noptstudy run {name} --scale pico\n```\n"]
    parts += [
        "Runs that are known before any has ended (extensions of a grid, further seeds and points around\n"
    ]
    parts[-1] += (
        "another study's best come with the results; some stand in other studies too and are run once):\n"
    )
    parts += [table(("scale", "runs"), counts), "## File\n", f"```yaml\n{source.read_text()}```\n"]
    mine = [(claim.statement, claim.test) for claim in claims.CLAIMS if claim.figure == name]
    if mine:
        parts += ["## What the paper says of it\n", "`optstudy claims` judges these by what has been run.\n"]
        parts += [table(("statement", "test"), mine)]
    parts += ["## Measured\n", *measured(name, load)]
    return "\n".join(parts)


def measured(name: str, load: Load) -> list[str]:
    """The record's table of a study, scale by scale."""
    found = recorded(load, name) if name.startswith(("paper/", "beyond/")) else []
    if not found:
        return [
            f"{NO_RECORD}\n"
            if name != "demo"
            else "`make demo` measures it; the picture in the README is its.\n"
        ]
    return [f"At {scale}:\n\n{table(WINDOW, map(window_row, summaries))}" for scale, summaries in found]


# How to choose, the command line, layers, citing


def choosing(load: Load) -> str:
    """The table of Figure 1 at each recorded scale."""
    found = recorded(load)
    if not found:
        return f"{NO_RECORD}\n"
    state = {one.name: f"{one.state_bytes_per_param:.2f}" for one in listing()}
    parts = []
    for scale, summaries in found:
        rows = [(*window_row(one), state.get(one.label.split(style.SEPARATOR)[-1], "")) for one in summaries]
        parts.append(f"### At {scale}\n\n{table((*WINDOW, 'state, bytes/param'), rows)}")
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
    """One contract in words."""
    short = [f"`{name.strip().removeprefix('optstudy.')}`" for name in one.get("source_modules", [])]
    if one["type"] == "forbidden":
        forbidden = ", ".join(f"`{name}`" for name in one["forbidden_modules"])
        return f"### {one['name']}\n\n{', '.join(short)}: never, not even through another, {forbidden}.\n"
    rows = []
    for number, layer in enumerate(one["layers"], 1):
        names = [f"`{name.strip().removeprefix('optstudy.')}`" for name in layer.split(":")]
        rows.append((str(number), ", ".join(names)))
    said = "Each may import those on its own line and below it, none above it.\n"
    return f"### {one['name']}\n\n{said}\n{table(('layer', 'modules'), rows)}"


def reproduced() -> str:
    """Where the page of what was reproduced is, or what makes it."""
    if (ROOT / "docs" / "reproduction.md").exists():
        return "[What was reproduced](/reproduction.md)\n\n```{toctree}\n:hidden:\n\n/reproduction\n```\n"
    return "What was reproduced: there is no record yet; `make record` makes it and writes its page.\n"


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
