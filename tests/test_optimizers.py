"""The registry: what may be asked for, what is filled in, and what is built from it."""

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from optstudy import optim
from optstudy.build import build_optimizer
from optstudy.config import RunConfig, resolve
from optstudy.errors import UserError
from optstudy.listing import listing, options_by_role, state_bytes
from optstudy.model import Transformer
from optstudy.optimizers import OPTIMIZERS, complete
from optstudy.roles import assign_roles
from optstudy.signature import outside, signature
from optstudy.size import shapes_by_role
from tests.configs import TINY
from tests.device import DEVICE

FREEZE = {"schedule": {"freeze_steps": 3}}


def config_of(name: str, **optimizer: Any) -> RunConfig:
    frozen = FREEZE if name.startswith("frozen") else {}
    return resolve(TINY, frozen, {"optimizer": {"name": name, "lr": 1e-2, **optimizer}})


def built(name: str, **optimizer: Any) -> tuple[Transformer, torch.optim.Optimizer]:
    config = config_of(name, **optimizer)
    model = Transformer(config.model, seed=0).to(DEVICE)
    return model, build_optimizer(model, config)


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator).to(p)
        optimizer.step()


def group_of(optimizer: torch.optim.Optimizer, role: str) -> dict[str, Any]:
    return next(group for group in optimizer.param_groups if group["role"] == role)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_recipe_is_built_steps_and_continues_bit_by_bit(name: str) -> None:
    model, optimizer = built(name, weight_decay=1e-3)
    assert all(group["peak_lr"] == group["lr"] > 0 for group in optimizer.param_groups)
    steps(model, optimizer, range(4))
    other_model, other = built(name, weight_decay=1e-3)
    other_model.load_state_dict(model.state_dict())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(model, optimizer, range(4, 8))
    steps(other_model, other, range(4, 8))
    for a, b in zip(model.parameters(), other_model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_options_are_complete_and_the_classes_own(name: str) -> None:
    options, roles = complete(name, {}, {})
    again, roles_again = complete(name, options, roles)
    assert (again, roles_again) == (options, roles)
    _, optimizer = built(name)
    cls = getattr(optim, OPTIMIZERS[name].target.rpartition(".")[2])
    assert type(optimizer) is cls
    assert options.keys() <= optimizer.defaults.keys()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("adam", {"betas": [0.9, 0.95], "eps": 1e-15}),
        ("adafactor", {"betas": [0.9, 0.95], "eps": 1e-15, "second_moment": "factored"}),
        ("adalayer", {"betas": [0.9, 0.95], "eps": 1e-15, "second_moment": "tensor"}),
        ("lion", {"betas": [0.9, 0.95]}),
        ("signum", {"beta": 0.9}),
        ("sgdw", {"momentum": 0.98, "dampening": 0.0, "nesterov": False}),
        ("sophia", {"betas": [0.965, 0.99], "rho": 0.04}),
    ],
)
def test_defaults_are_the_papers(name: str, expected: dict[str, Any]) -> None:
    assert expected.items() <= complete(name, {}, {})[0].items()


def test_signatures_read_from_source_are_those_of_the_classes() -> None:
    for name in optim.__all__:
        cls = getattr(optim, name)
        if not issubclass(cls, optim.Preconditioned.__mro__[1]):
            continue
        known = signature(f"optstudy.optim.{name}")
        made = cls([torch.zeros(2, requires_grad=True)])
        assert known is not None
        assert known.limits == cls.limits
        assert set(known.names) - {"params"} == set(made.defaults)
        defaults = {k: list(v) if isinstance(v, tuple) else v for k, v in made.defaults.items()}
        assert known.defaults == defaults


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("torch.optim.Muon", {"params", "lr", "momentum", "nesterov", "ns_steps"}),
        ("torch.optim.AdamW", {"params", "lr", "betas", "eps", "amsgrad"}),
        ("tests.test_optimizers.Mine", {"params", "lr", "speed"}),
    ],
)
def test_signatures_of_other_classes_are_found_where_they_are_defined(target: str, names: set[str]) -> None:
    known = signature(target)
    assert known is not None
    assert names <= set(known.names)


def test_no_signature_of_what_does_not_exist() -> None:
    assert signature("no_such_package.Thing") is None
    assert signature("torch.optim.Nothing") is None


class Mine(torch.optim.SGD):
    """A user's own class."""

    def __init__(self, params: Any, lr: float = 0.1, speed: float = 2.0) -> None:
        super().__init__(params, lr=lr * speed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "adm"}, "unknown optimizer 'adm'; did you mean 'adam'"),
        ({"options": {"beta": [0.9, 0.9]}}, "unknown option 'beta' of adam; did you mean 'betas'"),
        ({"options": {"betas": [0.9, 1.0]}}, r"betas of adam must be in \[0, 1\), not \[0.9, 1.0\]"),
        ({"options": {"eps": -1.0}}, "eps of adam must be"),
        ({"options": {"eps": float("nan")}}, "eps of adam must be"),
        ({"options": {"eps": "small"}}, "eps of adam must be a number"),
        ({"options": {"lr": 0.1}}, "'lr' is no option"),
        ({"options": {"second_moment": "rows"}}, "second_moment of adam must be one of"),
        ({"roles": {"heads": {}}}, "unknown role 'heads'; did you mean 'head'"),
        ({"roles": {"head": {"lr": -1.0}}}, "lr of role 'head'"),
        ({"roles": {"head": {"train": "no"}}}, "train of role 'head' must be true or false"),
        ({"roles": {"head": {"epsilon": 1.0}}}, "unknown option 'epsilon'"),
        ({"roles": {"head": 1}}, "must be a mapping"),
        ({"roles": {"head": {"name": "lyon"}}}, "unknown optimizer 'lyon'; did you mean 'lion'"),
        ({"name": "torch.optim.AdamW", "options": {"beta": 1}}, "unknown option 'beta' of torch.optim.AdamW"),
    ],
)
def test_what_cannot_be_is_refused_before_torch_is_imported(change: dict[str, Any], message: str) -> None:
    whole = {"name": "adam", "options": {}, "roles": {}, **change}
    with pytest.raises(ValueError, match=message):
        complete(**whole)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"name": "no_such_package.Thing"}, "there is no module .no_such_package."),
        ({"name": "torch.nn.Linear"}, "no torch.optim.Optimizer"),
        ({"name": "torch.optim.Muon"}, "2D"),
        ({"name": "torch.optim.AdamW", "options": {"betas": [0.9, 2.0]}}, "beta"),
        ({"name": "tests.test_optimizers.Mine", "weight_decay": 0.1}, "takes no weight_decay"),
        ({"name": "adam", "roles": {"rest": {"train": False}}}, "nothing is left to train"),
    ],
)
def test_what_only_building_shows_is_the_users_mistake_too(optimizer: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        built(**optimizer)


def test_a_users_class_is_built_with_its_options() -> None:
    _, optimizer = built("tests.test_optimizers.Mine", options={"speed": 3.0})
    assert type(optimizer).__name__ == "Mine"
    assert optimizer.defaults["lr"] == pytest.approx(3e-2)


def test_roles_may_have_optimizers_of_their_own() -> None:
    muon = {"name": "torch.optim.Muon", "lr": 2e-2}
    model, optimizer = built("adam", roles={"matrix": muon, "head": {"name": "lion", "betas": [0.8, 0.8]}})
    assert isinstance(optimizer, optim.Together)
    kinds = {type(part).__name__: part for part in optimizer.optimizers}
    assert kinds.keys() == {"Adam", "Muon", "Lion"}
    assert {group["peak_lr"] for group in kinds["Muon"].param_groups} == {2e-2}
    assert kinds["Lion"].param_groups[0]["betas"] == [0.8, 0.8]
    before = [p.detach().clone() for p in model.parameters()]
    steps(model, optimizer, range(1))
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_weight_decay_is_independent_of_a_groups_own_peak() -> None:
    _, optimizer = built("hybrid_last_norm", weight_decay=1e-3)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {1e-3 / 1e-2}
    assert group_of(optimizer, "head")["peak_lr"] == 3.16e-3
    assert group_of(optimizer, "qkv")["peak_lr"] == 1e-2


def test_untrained_norms_are_left_out() -> None:
    model, optimizer = built("hybrid_last_norms_off")
    roles = assign_roles(model)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert {name for name, p in model.named_parameters() if id(p) not in held} == {
        name for name, role in roles.items() if role == "norm"
    }


@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        ({}, {}, "schedule.freeze_steps must be above 0"),
        ({"freeze_steps": 3}, {"estimate_steps": 4}, r"estimate_steps \(4\) and schedule.freeze_steps \(3\)"),
    ],
)
def test_a_freeze_estimates_for_as_long_as_the_schedule_waits(
    schedule: dict[str, int], options: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        config = resolve(
            TINY,
            {"schedule": schedule, "optimizer": {"name": "frozen_all", "lr": 1e-2, "options": options}},
        )
        build_optimizer(Transformer(config.model, seed=0), config)


def test_a_frozen_recipe_takes_its_steps_from_the_schedule() -> None:
    _, optimizer = built("frozen_keep_last_norm")
    assert {group["estimate_steps"] for group in optimizer.param_groups} == {3}
    frozen = {group["role"]: group["freeze"] for group in optimizer.param_groups}
    assert {role for role, is_frozen in frozen.items() if not is_frozen} == {"head", "norm"}


def test_sophia_counts_the_tokens_of_a_batch() -> None:
    _, optimizer = built("sophia")
    assert optimizer.param_groups[0]["batch_tokens"] == 4 * 16


def test_listed_state_is_the_state_there_is() -> None:
    names = {entry.name for entry in listing()}
    assert names == set(OPTIMIZERS)
    for name in OPTIMIZERS:
        model, optimizer = built(name)
        steps(model, optimizer, range(1))
        real = sum(v.nbytes for state in optimizer.state.values() for v in state.values())
        config = config_of(name)
        shapes = shapes_by_role(config.model)
        listed = sum(
            state_bytes(OPTIMIZERS[name].target, options, shape)
            for role, options in options_by_role(name).items()
            if options is not None
            for shape in shapes[role]
        )
        assert listed == real, name


def test_listed_bytes_per_parameter_at_150m() -> None:
    per_param = {entry.name: entry.state_bytes_per_param for entry in listing()}
    assert per_param["adam"] == pytest.approx(8, abs=1e-4)
    assert per_param["lion"] == pytest.approx(4, abs=1e-4)
    assert per_param["adafactor"] == pytest.approx(4.005, abs=1e-3)
    assert per_param["adafactor_bigvision"] == pytest.approx(2.006, abs=1e-3)


@pytest.mark.parametrize(
    ("value", "limit", "ok"),
    [
        (0.0, "[0, 1)", True), (1.0, "[0, 1)", False), (0, "(0, inf)", False), (True, "[0, 1]", False),
        (float("inf"), "[0, inf)", False), (float("inf"), "[0, inf]", True), ([0.1, 0.2], "[0, 1)", True),
        ([0.1, 2], "[0, 1)", False), ("row", "row|tensor", True), ("rows", "row|tensor", False),
    ],
)  # fmt: skip
def test_limits(value: Any, limit: str, ok: bool) -> None:
    assert (outside(value, limit) == "") == ok


def test_the_registry_imports_no_torch() -> None:
    code = (
        "import sys\nfrom optstudy import listing, optimizers, config\nlisting.listing()\n"
        "optimizers.complete('torch.optim.Muon', {}, {})\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
