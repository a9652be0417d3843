"""Names that users may rely on: changing this file is changing a promise."""

import importlib
import inspect
import re

import optstudy
from optstudy import optim
from tests.pages import DOCS

PUBLIC = {
    "optstudy": ["__version__", "open_study"],
    "optstudy.optim": [
        "Adafactor", "AdafactorBigVision", "Adalayer", "Adam", "Lion", "Preconditioned", "SGDW", "Signum",
        "Sophia", "Together",
    ],
    "optstudy.roles": ["USES", "assign_roles", "param_groups"],
    "optstudy.config": ["Model", "RunConfig", "resolve"],
    "optstudy.model": ["Transformer"],
    "optstudy.study": ["load", "names"],
    "optstudy.table": ["Row", "read_row", "read_rows"],
    "optstudy.errors": ["UserError"],
}  # fmt: skip
ARGUMENTS = {
    "Adam": "lr betas eps weight_decay second_moment estimate_steps freeze maximize compile",
    "Preconditioned": "lr betas eps weight_decay second_moment estimate_steps freeze maximize compile",
    "Adafactor": "lr second_moment options",
    "Adalayer": "lr second_moment options",
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
    assert sorted(optim.__all__) == PUBLIC["optstudy.optim"]


def test_the_page_of_public_names_has_the_same():
    lines = re.findall(r"^\| `(optstudy[.\w]*)` \| (.*) \|$", (DOCS / "public.md").read_text(), re.MULTILINE)
    assert {module: re.findall(r"`(\w+)`", names) for module, names in lines} == PUBLIC


def test_optimizers_take_what_they_took():
    for name in optim.__all__:
        if name != "Together":
            arguments = list(inspect.signature(getattr(optim, name)).parameters)
            assert arguments == ["params", *ARGUMENTS[name].split()], name


def test_the_version_is_one():
    assert re.fullmatch(r"\d+\.\d+\.\d+", optstudy.__version__)
