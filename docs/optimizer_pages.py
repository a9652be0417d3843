"""A page per optimizer: algorithm, hyperparameters, names, safe windows, text against code, example."""

from collections.abc import Sequence
from pathlib import Path

from measured import NO_RECORD, WINDOW, Found, Load, recorded, table, window_row

from optstudy import optim
from optstudy.commands.optimizers import Listed, described, listing
from optstudy.recipes import CLASSES, OPTIMIZERS, Spec
from optstudy.results.stats import MARGIN

FIDELITY = Path(__file__).parent / "fidelity.md"
SWEEPS = ("fig1", "fig9", "fig3", "fig11", "fig12", "fig14", "fig15", "fig16", "fig17", "fig18")
"""Figures that sweep optimizers under their own names over the learning rate; the first match is used."""
OF_ALL = ("gradient clipping", "warm-up")
DIFFERS = {
    "Adafactor": ("Adafactor on LayerNorms",),
    "Adalayer": ("Adalayer's second moment", "fused query, key, value"),
    "Preconditioned": ("SGD in the hybrids", "Adalayer's second moment", "Adafactor on LayerNorms"),
}
"""Rows of fidelity.md's table about a class, in addition to those about all."""
EXAMPLE = """\
import torch
from optstudy.config import Model
from optstudy.training.model import Transformer
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


def optimizer_pages(load: Load) -> dict[str, str]:
    """A page per class, and the index."""
    by_class: dict[str, list[Listed]] = {}
    for one in listing():
        by_class.setdefault(one.target.rpartition(".")[2], []).append(one)
    found = {name: recorded(load, f"paper/{name}") for name in SWEEPS}
    pages = {f"optimizers/{slug(name)}.md": optimizer(name, own, found) for name, own in by_class.items()}
    rows = [
        (f"`{one.name}`", f"[{name}]({slug(name)}.md)", one.moments, f"{one.state_bytes_per_param:.2f}")
        for name, own in by_class.items()
        for one in own
    ]
    names = "\n".join(map(slug, by_class))
    pages["optimizers/index.md"] = (
        "# Optimizers\n\nWhat `optstudy optimizers` lists: name, class, second moment, and bytes of state\n"
        "per parameter for the shapes of the 150m model. How they compare: [](../../choose.md).\n\n"
        + table(("name", "class", "second moment", "state, bytes/param"), rows)
        + f"\n```{{toctree}}\n:hidden:\n\n{names}\n```\n"
    )
    return pages


def slug(name: str) -> str:
    """The file name of a class's page."""
    return name.lower()


def optimizer(name: str, own: Sequence[Listed], found: Found) -> str:
    """The page of a class: algorithm, hyperparameters, recipes, measurements, text against code, example."""
    cls = getattr(optim, name)
    parts = [f"# {name}\n", f"```{{eval-rst}}\n.. autoclass:: optstudy.optim.{name}\n```\n"]
    if ".. math::" not in (cls.__doc__ or ""):
        base = next(c for c in cls.__mro__[1:] if ".. math::" in (c.__doc__ or ""))
        parts += [f"## The algorithm\n\nA case of [{base.__name__}]({slug(base.__name__)}.md):\n"]
        parts += [f"```{{eval-rst}}\n.. autoclass:: optstudy.optim.{base.__name__}\n   :no-index:\n```\n"]
    parts += ["## Hyperparameters\n", hyperparameters(own[0].target)]
    parts += [
        "## By name\n",
        "Bytes of state per parameter are for the shapes of the 150m model, with float32 weights.\n",
    ]
    rows = [(f"`{one.name}`", one.moments, f"{one.state_bytes_per_param:.2f}", one.source) for one in own]
    parts += [table(("name", "second moment", "state, bytes/param", "source"), rows)]
    parts += ["## Safe windows, measured\n", windows([one.name for one in own], found)]
    parts += ["## Print and released code\n", differences(name)]
    parts += ["## Example\n", f"```python\n{example(name)}```\n", "In a study:\n"]
    parts += [f"```sh\noptstudy run demo --set optimizer.name={own[0].name}\n```\n"]
    return "\n".join(parts)


def hyperparameters(target: str) -> str:
    """Options with their types, defaults and meanings."""
    by_name = [(name, spec) for name, spec in OPTIMIZERS.items() if spec.target == target]
    rows = []
    for option in described(Spec(target)):
        key = option["name"]
        others = [f"{said(spec.options[key])} in `{name}`" for name, spec in by_name if key in spec.options]
        kind = f"{option['type']} `{option['allowed']}`" if option["allowed"] else option["type"]
        meaning = option["meaning"].replace("``", "`")
        rows.append((f"`{key}`", kind, said(option["default"]), meaning, "; ".join(others)))
    return (
        table(("option", "type", "default", "meaning", "recipes that differ"), rows)
        + "\nThe run sets `lr` and `weight_decay`. `optimizer.weight_decay` is independent: a step\n"
        "multiplies weights by 1 - weight_decay * lr_t / lr, so AdamW's coefficient c is c * `optimizer.lr`\n"
        "here; default 0.\n"
    )


def said(value: object) -> str:
    """A default as in a study file; null means that the run determines it."""
    return "from the run" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def windows(names: Sequence[str], found: Found) -> str:
    """Best setting and safe window at each scale of the record, from the first study that sweeps it."""
    rows: dict[tuple[str, str], tuple[str, ...]] = {}
    for study_name, scales in found.items():
        link = f"[{study_name}](../studies/paper-{study_name}.md)"
        for scale, figure in scales:
            for one in figure.summaries:
                if (name := one.curve.name) in names:
                    rows.setdefault((scale, name), (scale, *window_row(figure, one), link))
    if not any(found.values()):
        return f"{NO_RECORD}\n"
    if not rows:
        return "The record has no sweep of these over the learning rate.\n"
    about = f"Learning rates whose loss is within {MARGIN:g} nats of the best.\n\n"
    return about + table(("scale", *WINDOW, "study"), rows.values())


def differences(name: str) -> str:
    """The rows of fidelity.md about a class."""
    heading, *rows = fidelity()
    wanted = (*DIFFERS.get(name, ()), *OF_ALL)
    chosen = [row for row in rows if row[0] in wanted]
    if missing := set(wanted) - {row[0] for row in rows}:
        raise ValueError(f"docs/fidelity.md has no row {missing}")
    return table(heading, chosen) + "\nThe whole table: [](../../fidelity.md).\n"


def fidelity() -> list[list[str]]:
    """The cells of the table in fidelity.md, heading first."""
    lines = FIDELITY.read_text().partition("<!-- measured")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [cells[0], *cells[2:]]


def example(name: str) -> str:
    """A loop that trains a toy of a few thousand weights with the class, at ten times its default rate."""
    rules = '{"head": {"second_moment": "row"}, "rest": {"second_moment": "none", "lr": 0.3}}'
    params = f"param_groups(model, {rules})" if name == "Preconditioned" else "param_groups(model, {})"
    lr = 10 * CLASSES[f"optstudy.optim.{name}"].model_fields["lr"].default
    return EXAMPLE.format(name=name, params=params, lr=lr, more=HESSIAN if name == "Sophia" else "")
