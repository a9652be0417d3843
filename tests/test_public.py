"""Names that users may rely on: changing this file is changing a promise."""

import importlib
import re

import optstudy
from optstudy import optim
from optstudy.recipes import CLASSES
from tests.pages import DOCS

PUBLIC = {
    "optstudy": ["__version__", "create_optimizer", "open_study", "trial"],
    "optstudy.optim": [
        "Adafactor", "AdafactorBigVision", "Adalayer", "Adam", "Lion", "Preconditioned", "SGDW", "Signum",
        "Sophia", "Together",
    ],
    "optstudy.roles": ["USES", "assign_roles", "param_groups"],
    "optstudy.config": ["Model", "RunConfig", "resolve"],
    "optstudy.training.model": ["Transformer"],
    "optstudy.study.library": ["load", "names"],
    "optstudy.results.table": ["Row", "read_row", "read_rows"],
    "optstudy.errors": ["UserError"],
}  # fmt: skip
ARGUMENTS = {
    "Adam": "lr betas eps weight_decay second_moment estimate_steps freeze maximize compile",
    "Preconditioned": "lr betas eps weight_decay second_moment estimate_steps freeze maximize compile",
    "Adafactor": "lr betas eps weight_decay second_moment estimate_steps freeze maximize compile",
    "Adalayer": "lr betas eps weight_decay second_moment estimate_steps freeze maximize compile",
    "AdafactorBigVision": "lr beta1 beta2_cap decay_rate eps min_dim weight_decay maximize compile",
    "Lion": "lr betas weight_decay maximize compile",
    "Signum": "lr beta weight_decay maximize compile",
    "SGDW": "lr momentum dampening nesterov weight_decay maximize compile",
    "Sophia": "lr betas rho batch_tokens weight_decay maximize compile",
}


def test_public_names_are_there():
    for module, names in PUBLIC.items():
        found = importlib.import_module(module)
        assert all(hasattr(found, name) for name in names), module
    assert set(optim.__all__) >= set(PUBLIC["optstudy.optim"])


def test_the_page_of_public_names_has_the_same():
    lines = re.findall(r"^\| `(optstudy[.\w]*)` \| (.*) \|$", (DOCS / "public.md").read_text(), re.MULTILINE)
    assert {module: re.findall(r"`(\w+)`", names) for module, names in lines} == PUBLIC


def test_optimizers_take_what_they_took():
    for name, options in ARGUMENTS.items():
        assert set(CLASSES[f"optstudy.optim.{name}"].model_fields) == set(options.split()), name


def test_the_version_is_one():
    assert re.fullmatch(r"\d+\.\d+\.\d+", optstudy.__version__)
