"""The registry: what may be asked for, what is filled in, and what is built from it."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import optstudy
from optstudy import optim
from optstudy.commands.optimizers import listing, options_by_role, state_bytes
from optstudy.config import RunConfig, resolve, shapes_by_role
from optstudy.errors import UserError
from optstudy.recipes import MATRICES, OPTIMIZERS, complete
from optstudy.roles import assign_roles
from optstudy.study import library as study
from optstudy.training.build import build_optimizer
from optstudy.training.model import Transformer
from tests import oracles
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


class Mine(torch.optim.SGD):
    """A user's own class."""

    def __init__(self, params: Any, lr: float = 0.1, speed: float = 2.0) -> None:
        super().__init__(params, lr=lr * speed)


OPTIONS, ROLE = "optimizer.options", "optimizer.roles"
KINDS = "must be weight, factored, factored-textbook, tensor, row, column, split-N, split-A-B-C, "
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": "adm"}, "optimizer.name: unknown optimizer 'adm'; did you mean 'adam'?"),
    ({"name": "optstudy.optim.Adm"}, "optimizer.name: unknown optimizer 'optstudy.optim.Adm'; did you mean"),
    ({"name": ".adam"}, "optimizer.name: unknown optimizer '.adam'"),
    ({"options": {"beta": [0.9, 0.9]}},
     f"{OPTIONS}.beta: unknown option 'beta' of adam; did you mean 'betas'?"),
    ({"options": {"betas": 0.9}}, f"{OPTIONS}.betas: must be two numbers, not 0.9"),
    ({"options": {"betas": [0.9]}}, f"{OPTIONS}.betas: must be two numbers, not [0.9]"),
    ({"options": {"betas": [0.9, 0.9, 0.9]}}, f"{OPTIONS}.betas: must be two numbers, not [0.9, 0.9, 0.9]"),
    ({"options": {"betas": {"a": 1}}}, f"{OPTIONS}.betas: must be two numbers"),
    ({"options": {"betas": [[0.9], 0.9]}}, f"{OPTIONS}.betas.0: input should be a valid number, not [0.9]"),
    ({"options": {"betas": [0.9, 1.0]}}, f"{OPTIONS}.betas.1: input should be less than 1, not 1.0"),
    ({"options": {"betas": None}}, f"{OPTIONS}.betas: must be two numbers, not None"),
    ({"options": {"eps": -1.0}}, f"{OPTIONS}.eps: input should be greater than or equal to 0, not -1.0"),
    ({"options": {"eps": float("nan")}}, f"{OPTIONS}.eps: input should be a finite number, not nan"),
    ({"options": {"eps": float("inf")}}, f"{OPTIONS}.eps: input should be a finite number, not inf"),
    ({"options": {"eps": "1e-3"}}, f"{OPTIONS}.eps: input should be a valid number, not '1e-3'"),
    ({"options": {"eps": True}}, f"{OPTIONS}.eps: input should be a valid number, not True"),
    ({"options": {"eps": [1e-8, 1]}}, f"{OPTIONS}.eps: input should be a valid number, not [1e-08, 1]"),
    ({"options": {"eps": None}}, f"{OPTIONS}.eps: input should be a valid number, not None"),
    ({"options": {"eps": 10**400}}, f"{OPTIONS}.eps: input should be a valid number, not a whole number"),
    ({"options": {"freeze": "no"}}, f"{OPTIONS}.freeze: input should be a valid boolean, not 'no'"),
    ({"options": {"freeze": "false"}}, f"{OPTIONS}.freeze: input should be a valid boolean, not 'false'"),
    ({"options": {"freeze": 0}}, f"{OPTIONS}.freeze: input should be a valid boolean, not 0"),
    ({"options": {"freeze": True}}, f"{OPTIONS}.freeze: must be false where estimate_steps is 0, not True"),
    ({"options": {"estimate_steps": 1.5}},
     f"{OPTIONS}.estimate_steps: input should be a valid integer, not 1.5"),
    ({"options": {"estimate_steps": True}},
     f"{OPTIONS}.estimate_steps: input should be a valid integer, not True"),
    ({"options": {"estimate_steps": None}},
     f"{OPTIONS}.estimate_steps: input should be a valid integer, not None"),
    ({"options": {"estimate_steps": 2}},
     f"{OPTIONS}.estimate_steps: must be schedule.freeze_steps (0), not 2"),
    ({"options": {"lr": 0.1}}, f"{OPTIONS}.lr: no option of adam: set optimizer.lr"),
    ({"options": {"second_moment": "rows"}}, f"{OPTIONS}.second_moment: {KINDS}"),
    ({"options": {"second_moment": "split-0"}}, f"{OPTIONS}.second_moment: {KINDS}"),
    ({"options": {"second_moment": "split-7"}},
     f"{OPTIONS}.second_moment: 'split-7': 7 does not divide the rows"),
    ({"options": [1]}, f"{OPTIONS}: must be a mapping such as {{eps: 1e-8}}, not [1]"),
    ({"options": 0}, f"{OPTIONS}: must be a mapping such as {{eps: 1e-8}}, not 0"),
    ({"options": None}, f"{OPTIONS}: must be a mapping such as {{eps: 1e-8}}, not None"),
    ({"roles": [1]}, f"{ROLE}: must be a mapping such as {{head: {{lr: 1e-3}}}}, not [1]"),
    ({"roles": "head"}, f"{ROLE}: must be a mapping such as {{head: {{lr: 1e-3}}}}, not 'head'"),
    ({"roles": {"heads": {}}}, f"{ROLE}.heads: unknown role 'heads'; did you mean 'head'?"),
    ({"roles": {"head": 1}}, f"{ROLE}.head: must be a mapping such as {{lr: 1e-3}}, not 1"),
    ({"roles": {"head": None}}, f"{ROLE}.head: must be a mapping such as {{lr: 1e-3}}, not None"),
    ({"roles": {"head": {"lr": -1.0}}}, f"{ROLE}.head.lr: input should be greater than 0, not -1.0"),
    ({"roles": {"head": {"lr": "1e-3"}}}, f"{ROLE}.head.lr: input should be a valid number, not '1e-3'"),
    ({"roles": {"head": {"train": "no"}}}, f"{ROLE}.head.train: input should be a valid boolean, not 'no'"),
    ({"roles": {"head": {"epsilon": 1.0}}}, f"{ROLE}.head.epsilon: unknown option 'epsilon' of adam"),
    ({"roles": {"head": {"freeze": True}}}, f"{ROLE}.head.freeze: must be false where estimate_steps is 0"),
    ({"roles": {"head": {"name": "lyon"}}},
     f"{ROLE}.head.name: unknown optimizer 'lyon'; did you mean 'lion'?"),
    ({"roles": {"head": {"name": ""}}}, f"{ROLE}.head.name: unknown optimizer ''"),
    ({"roles": {"head": {"name": 3}}}, f"{ROLE}.head.name: input should be a valid string, not 3"),
    ({"roles": {"head": {"name": "lion", "eps": 1.0}}}, f"{ROLE}.head.eps: unknown option 'eps' of lion"),
    ({"roles": {"matrix": {"name": "lion"}, "qkv": {"eps": 1.0}}},
     f"{ROLE}.qkv.eps: unknown option 'eps' of lion"),
    ({"roles": {"qkv": {"second_moment": "split-5"}}},
     f"{ROLE}.qkv.second_moment: 'split-5': 5 does not divide"),
    ({"roles": {"matrix": {"second_moment": "split-5"}}},
     f"{ROLE}.matrix.second_moment: 'split-5': 5 does not"),
    ({"name": "sgdw", "options": {"nesterov": "no"}},
     f"{OPTIONS}.nesterov: input should be a valid boolean, not 'no'"),
    ({"name": "sgdw", "options": {"nesterov": True, "dampening": 0.5}},
     f"{OPTIONS}.nesterov: needs a momentum above 0"),
    ({"name": "sophia", "options": {"batch_tokens": 0}},
     f"{OPTIONS}.batch_tokens: input should be greater than 0"),
    ({"name": "torch.optim.AdamW", "options": {"lr": 1.0}},
     f"{OPTIONS}.lr: no option of torch.optim.AdamW: set"),
    ({"name": "torch.optim.AdamW", "options": {"a": [float("nan")]}},
     f"{OPTIONS}.a: must be finite, not [nan]"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), WRONG, ids=repr)
def test_what_cannot_be_is_refused_with_its_key(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        config_of(**{"name": "adam", **change})
    assert str(error.value).startswith(said) and "\n" not in str(error.value)


def test_everything_wrong_is_named_at_once() -> None:
    with pytest.raises(UserError, match=r"optimizer.options.eps: .*; optimizer.options.freeze: "):
        config_of("adam", options={"eps": "x", "freeze": 3})


FILE = """\
title: T
asks: Q?
base:
  optimizer.options:
    betas: [0.9, 0.95]
axes:
  optimizer.name: [adam]
  optimizer.lr: [0.01]
panels:
  first:
    base: {optimizer.options.eps: 1e-8}
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "key"),
    [
        ("[0.9, 0.95]", "0.9", 5, "optimizer.options.betas"),
        ("eps: 1e-8", "eps: small", 11, "optimizer.options.eps"),
        ("eps: 1e-8", "freeze: no", 11, "optimizer.options.freeze"),
        ("optimizer.options.eps: 1e-8", "optimizer.roles: {qkv: {second_moment: split-5}}", 11, "optimizer"),
        ("[0.01]", "[0.01, true]", 8, "optimizer.lr"),
        ("[adam]", "[adm]", 7, "optimizer.name"),
        ("betas: [0.9, 0.95]", "betsa: [0.9, 0.95]", 5, "optimizer.options.betsa"),
        ("\n    betas: [0.9, 0.95]", " 0", 10, "optimizer.options"),
        ("lr: [0.01]", "lr: [0.01]\n  optimizer.options.eps: [1e-8, 1e-3, '1e-3']", 9, "optimizer"),
    ],
)  # fmt: skip
def test_a_study_file_is_refused_with_the_line_of_the_wrong_value(
    old: str, new: str, line: int, key: str
) -> None:
    content = FILE.replace(old, new)
    if "axes" in content and "'1e-3'" in new:
        content = content.replace("base: {optimizer.options.eps: 1e-8}", "base: {}")
    with pytest.raises(UserError) as error:
        study.Study("s", study.parse(content, "s.yaml"), "s.yaml").points("150m")
    assert str(error.value).startswith(f"s.yaml:{line}: {key}"), str(error.value)


def test_a_config_file_and_the_command_line_are_named_too(tmp_path: Path, corpus_slice: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        f"data.corpus: {corpus_slice}\noptimizer:\n  name: sgdw\n  lr: 1\n  options:\n    nesterov: no\n"
    )
    with pytest.raises(UserError, match=r"run.yaml:6: optimizer.options.nesterov: .*boolean, not 'no'"):
        study.single(file, {})
    with pytest.raises(
        UserError, match=r"run.yaml: --set: optimizer.options.nesterov: .*boolean, not 'false'"
    ):
        study.single(file, {"optimizer.options.nesterov": "false"})
    assert study.single(file, {"optimizer.options.nesterov": False}).optimizer.options["nesterov"] is False


def test_the_papers_models_fused_qkv_cannot_be_cut_in_five() -> None:
    with pytest.raises(UserError, match=r"5 does not divide the rows of shape \(3072, 1024\) \(qkv\)"):
        overrides = {"optimizer.roles": {"qkv": {"second_moment": "split-5"}}}
        study.load("paper/fig1").points("150m", overrides)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"name": "no_such_package.Thing"}, "there is no module 'no_such_package'"),
        ({"name": "torch.nn.Linear"}, "not a torch.optim.Optimizer"),
        ({"name": "torch.optim.Muon"}, "2D"),
        ({"name": "torch.optim.AdamW", "options": {"betas": [0.9, 2.0]}}, "beta"),
        ({"name": "tests.test_optimizers.Mine", "options": {"spede": 3.0}}, "unknown option 'spede'"),
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


def test_weight_decay_may_be_on_matrices_alone() -> None:
    off: dict[str, Any] = {role: {"weight_decay": 0.0} for role in ("embedding", "head", "norm")}
    model, optimizer = built("adam", weight_decay=1e-3, roles=off)
    decays = {group["role"]: group["weight_decay"] for group in optimizer.param_groups}
    assert {role for role, decay in decays.items() if decay} == set(MATRICES)
    assert {decays[role] for role in MATRICES} == {0.1}
    made = optstudy.create_optimizer(
        "adam", model, lr=1e-2, weight_decay=0.1, roles={"head": {"weight_decay": 0.3}}
    )
    assert group_of(made, "head")["weight_decay"] == pytest.approx(0.3)
    assert group_of(made, "norm")["weight_decay"] == pytest.approx(0.1)
    plain, one = config_of("adam"), config_of("adam", roles={"head": {"weight_decay": 0.0}})
    assert plain.id != one.id


def test_untrained_norms_are_left_out() -> None:
    model, optimizer = built("hybrid_last_norms_off")
    roles = assign_roles(model)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert {name for name, p in model.named_parameters() if id(p) not in held} == {
        name for name, role in roles.items() if role == "norm"
    }


def test_a_freeze_estimates_for_as_long_as_the_schedule_waits() -> None:
    with pytest.raises(UserError, match=r"schedule.freeze_steps: must be above 0"):
        resolve(TINY, {"optimizer": {"name": "frozen_all", "lr": 1e-2}})
    with pytest.raises(UserError, match=r"estimate_steps: must be schedule.freeze_steps \(3\), not 4"):
        config_of("frozen_all", options={"estimate_steps": 4})


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
            state_bytes(options, shape)
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


def test_the_registry_imports_no_torch() -> None:
    code = (
        "import sys\nfrom optstudy import recipes\n"
        "from optstudy.commands.optimizers import listing\nlisting()\n"
        "recipes.complete('torch.optim.Muon', {}, {})\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_options_are_described_by_their_class() -> None:
    (betas, eps, *_) = next(one for one in listing() if one.name == "adam").options
    assert betas == {
        "name": "betas", "type": "2 numbers", "default": [0.9, 0.95], "allowed": "[0, 1)",
        "meaning": "Decay of the first and of the second moment; without momentum, (0, ...), there is no "
        "state m.",
    }  # fmt: skip
    assert (eps["type"], eps["default"], eps["allowed"]) == ("number", 1e-15, "[0, inf)")
    assert all(option["meaning"] and option["type"] for one in listing() for option in one.options)


class Plain(nn.Module):
    """A model that says nothing of roles."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 4)
        self.frozen = nn.Parameter(torch.zeros(2), requires_grad=False)


NEEDS = {
    "sophia": {"batch_tokens": 64},
    **{name: {"estimate_steps": 2} for name in OPTIMIZERS if name.startswith("frozen")},
}


@pytest.mark.parametrize("name", [*OPTIMIZERS, "torch.optim.NAdam"])
def test_any_optimizer_is_made_for_any_model(name: str) -> None:
    model = Transformer(config_of("adam").model, seed=0)
    if name in NEEDS:
        (key,) = NEEDS[name]
        with pytest.raises(UserError, match=f"{name} takes {key} from a run: give {key}="):
            optstudy.create_optimizer(name, model, lr=1e-2)
    made = optstudy.create_optimizer(name, model, lr=1e-2, weight_decay=0.1, **NEEDS.get(name, {}))
    expected, _ = complete(name, NEEDS.get(name, {}), {})
    for group in made.param_groups:
        assert group["weight_decay"] == pytest.approx(0.1)
        assert name == "torch.optim.NAdam" or group.keys() >= expected.keys()
    steps(model, made, range(2))


def test_a_model_without_roles_takes_what_asks_for_none() -> None:
    model = Plain()
    made = optstudy.create_optimizer("lion", model, lr=1e-2, betas=[0.8, 0.9])
    (group,) = made.param_groups
    assert len(group["params"]) == 2 and list(group["betas"]) == [0.8, 0.9] and group["weight_decay"] == 0
    with pytest.raises(UserError, match="' has no role"):
        optstudy.create_optimizer("adalayer_star", model, lr=1e-2)


@pytest.mark.parametrize("name", ["slim_adam", "adam_mini", "scale_like"])
def test_recipes_of_later_papers_are_their_restatements(name: str) -> None:
    """Sharded: test_parallel.py."""
    config = config_of(name)
    model = Transformer(config.model, seed=0).double()
    roles, gradients = assign_roles(model), {name: [] for name, _ in model.named_parameters()}
    before = {key: p.detach().numpy().copy() for key, p in model.named_parameters()}
    optimizer = optstudy.create_optimizer(name, model, lr=1e-2)
    for number in range(5):
        steps(model, optimizer, range(number, number + 1))
        for key, p in model.named_parameters():
            gradients[key].append(p.grad.numpy().copy())
    for key, p in model.named_parameters():
        heads = config.model.n_heads
        expected = oracles.of_a_later_paper(name, roles[key], before[key], gradients[key], 1e-2, heads)
        np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-12, atol=1e-12, err_msg=key)


def test_a_recipe_is_made_with_its_roles_and_with_those_asked_for() -> None:
    model = Transformer(config_of("adam").model, seed=0)
    made = optstudy.create_optimizer("adalayer_star", model, lr=1e-2, roles={"norm": {"lr": 1e-3}})
    assert group_of(made, "head")["second_moment"] == "row"
    assert group_of(made, "norm")["lr"] == 1e-3
    for wrong in ({"eps": "x"}, {"lr": True}, {"weight_decay": -1.0}, {"roles": [1]}, {"betsa": 1}):
        with pytest.raises(UserError):
            optstudy.create_optimizer("adalayer_star", model, **{"lr": 1e-2, **wrong})
