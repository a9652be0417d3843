"""The field: every preset is what its entry says, trains and goes on bit by bit; traps of its packages."""

import importlib.metadata
import inspect
import json
import re
import tomllib
from pathlib import Path

import pytest
import torch

import optstudy
from optstudy import presets
from optstudy.commands.optimizers import listed_presets
from optstudy.config import Schedule, resolve
from optstudy.errors import UserError, validate
from optstudy.provenance import installed
from optstudy.recipes import MATRICES, OPTIMIZERS, ROLES, names, spec_of
from optstudy.results import archive
from optstudy.training import checkpoint, outside
from optstudy.training.build import build_optimizer
from optstudy.training.model import Transformer
from optstudy.training.run import Run
from tests.configs import TINY, tiny, tiny_on
from tests.test_cli import optstudy as run_cli

ALL = presets.load()
OTHERS = [name for name, one in ALL.items() if not one.target.startswith("optstudy.")]
CPU = torch.device("cpu")
NEVER_WRITTEN = {"lr", "params", "self", "weight_decay", "wd", "maximize", "foreach",
                 "capturable", "differentiable"}  # fmt: skip
NO_CONFIG_CAN_SAY = {("adopt", "clip_lambda"), ("prodigy", "growth_rate")}
SEMENOV = {"AdamW", "ADOPT", "AdEMAMix", "Lion", "Signum", "Muon", "D-Muon", "SOAP", "Sophia", "SF-AdamW",
           "Prodigy", "MARS", "Adafactor", "LAMB", "Scion", "SGD"}  # fmt: skip
WEN = {"AdamW", "NAdamW", "Lion", "Adam-mini", "Cautious", "MARS", "Scion", "Muon", "SOAP", "Kron", "Sophia"}


def need(name):
    """Skip where the package of a preset is not installed."""
    pytest.importorskip(ALL[name].target.partition(".")[0])


def built(name, **optimizer):
    config = tiny(**{"optimizer": {"name": name, "lr": ALL[name].lr.start, **optimizer}})
    model = Transformer(config.model, seed=0)
    return model, build_optimizer(model, config), config


def parts(optimizer):
    return getattr(optimizer, "optimizers", [optimizer])


def moved(model, optimizer, scale=1.0):
    """How far one step on random gradients moves a matrix."""
    groups = [group for part in parts(optimizer) for group in part.param_groups]
    weight = next(group["params"][0] for group in groups if group["role"] == "mlp_in")
    start = weight.detach().clone()
    for p in model.parameters():
        p.grad = scale * torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    return weight.detach() - start


def the_class(name):
    return outside.load(ALL[name].target, "optimizer", torch.optim.Optimizer)


def part_of(name, optimizer):
    """The part of an optimizer that is the preset's class."""
    kind = the_class(name)
    return next(part for part in parts(optimizer) if type(part) is kind)


def test_every_optimizer_of_both_benchmarks_has_a_name_here():
    assert {key: set(of) for key, of in presets.read().benchmarks.items()} == {"semenov": SEMENOV, "wen": WEN}
    for of in presets.read().benchmarks.values():
        assert set(of.values()) <= set(names())
    assert not ALL.keys() & OPTIMIZERS.keys()


@pytest.mark.parametrize("name", ALL)
def test_a_preset_is_a_config_without_its_package(name):
    preset, config = ALL[name], tiny(**{"optimizer": {"name": name, "lr": 1e-2}})
    for key, value in preset.options.items():
        assert config.optimizer.options[key] == value
    assert config.optimizer.roles.keys() == preset.roles.keys() <= {*ROLES}
    validate(Schedule, preset.schedule)
    written = {"name": preset.target, "options": preset.options, "roles": preset.roles}
    same = resolve(TINY, {"optimizer": {**written, "lr": 1e-2}, "schedule": preset.schedule})
    assert same.id == config.id and preset.target in config.optimizer.targets
    assert preset.extra == (None if preset.package in ("torch", "optstudy") else "field")


@pytest.mark.parametrize("name", OTHERS)
def test_every_argument_is_written_out_so_that_no_default_of_a_package_counts(name):
    need(name)
    arguments = set(inspect.signature(the_class(name).__init__).parameters) - NEVER_WRITTEN
    left_out = arguments - {"kwargs"} - ALL[name].options.keys()
    assert {(name, key) for key in left_out} <= NO_CONFIG_CAN_SAY
    for of, key in NO_CONFIG_CAN_SAY:
        assert any(key in fault for fault in ALL[of].faults)


@pytest.mark.parametrize("name", ALL)
def test_a_preset_trains_every_parameter_and_goes_on_bit_by_bit(name, corpus_slice, tmp_path):
    need(name)
    first, second = (Run(a_run(name, corpus_slice), CPU) for _ in range(2))
    before = [p.detach().clone() for p in first.model.parameters()]
    first.validation_loss()
    for step in range(4):
        if step == 2:
            checkpoint.save(tmp_path, 2, first.state_dict())
        first.step(step)
    assert second.load_state_dict(checkpoint.load(tmp_path, CPU)) == []
    for step in range(2, 4):
        second.step(step)
    assert first.weights_sha256() == second.weights_sha256() and first.unsaved() == []
    assert all(not torch.equal(a, b) for a, b in zip(before, first.model.parameters(), strict=True))
    assert first.validation_loss() == second.validation_loss() < 9


def a_run(name, corpus, **changes):
    return tiny_on(corpus, **{"optimizer.name": name, "optimizer.lr": ALL[name].lr.start, **changes})


@pytest.mark.parametrize("name", OTHERS)
def test_what_an_entry_says_reaches_the_class(name):
    """What neither constructor nor groups know is refused, also where a package star-imports."""
    need(name)
    _, optimizer, _ = built(name, weight_decay=1e-3)
    own = part_of(name, optimizer)
    for group in own.param_groups:
        wanted = {**ALL[name].options, **ALL[name].roles.get(group["role"], {})}
        for key, value in wanted.items():
            if key in group and key not in ("ns_coeffs", "t_alpha_beta3"):
                assert group[key] == value or list(group[key]) == value, key
        assert group["weight_decay"] == pytest.approx(1e-3 / ALL[name].lr.start)
    with pytest.raises(UserError, match="unknown option 'no_such_thing'"):
        built(name, options={"no_such_thing": 1})


@pytest.mark.parametrize("name", [name for name, one in ALL.items() if "embedding" in one.roles])
def test_what_takes_matrices_only_leaves_the_rest_to_adam(name):
    need(name)
    _, optimizer, _ = built(name)
    kinds = {group["role"]: type(part).__name__ for part in parts(optimizer) for group in part.param_groups}
    rates = {group["role"]: group["peak_lr"] for part in parts(optimizer) for group in part.param_groups}
    adams = {role for role, kind in kinds.items() if kind == "Adam"}
    assert adams == {role for role, own in ALL[name].roles.items() if own.get("name") == "adam"}
    assert adams >= {"norm"} and not adams & set(MATRICES) and {rates[role] for role in adams} == {3.16e-3}


@pytest.mark.parametrize("name", ["torch.optim.Muon", "pytorch_optimizer.optimizer.muon.normuon.NorMuon"])
def test_a_full_import_path_takes_keys_of_groups_too(name):
    pytest.importorskip(name.partition(".")[0])
    rules = {"matrix": {"name": name, **({"use_muon": True} if "NorMuon" in name else {})}}
    config = tiny(**{"optimizer": {"name": "adam", "lr": 1e-2, "roles": rules}})
    optimizer = build_optimizer(Transformer(config.model, seed=0), config)
    assert len(parts(optimizer)) == 2


def test_weights_are_switched_for_an_evaluation_and_back_and_not_before_the_first_step(corpus_slice):
    need("splus")
    run = Run(a_run("splus", corpus_slice), CPU)
    start = run.weights_sha256()
    run.validation_loss()  # its eval() alone would fail for want of state
    assert run.weights_sha256() == start
    run.step(0)
    trained = [p.detach().clone() for p in run.model.parameters()]
    with run._evaluated():
        assert any(not torch.equal(a, b) for a, b in zip(trained, run.model.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(trained, run.model.parameters(), strict=True))


def test_schedule_free_keeps_its_rate_unless_another_schedule_is_asked_for():
    free = tiny(**{"optimizer": {"name": "schedule_free", "lr": 1e-2}})
    assert (free.schedule.kind, free.schedule.final) == ("constant", 1.0)
    recorded = tiny(**{"optimizer": {**free.optimizer.model_dump(), "name": ALL["schedule_free"].target},
                       "schedule.final": 1.0})  # fmt: skip
    assert recorded.id == free.id
    linear = tiny(**{"optimizer": {"name": "schedule_free", "lr": 1e-2}, "schedule.kind": "linear"})
    assert (linear.schedule.kind, linear.schedule.final) == ("linear", 0.1)
    assert resolve(free.model_dump(mode="json")) == free


def test_ademamix_warms_up_over_the_runs_own_steps():
    need("ademamix")
    assert ALL["ademamix"].options["t_alpha_beta3"] == "$steps"
    chosen = {"optimizer": {"name": "ademamix", "lr": 1e-2}}
    short, long_ = (tiny(**chosen, **{"training.steps": steps}) for steps in (20, 80))
    model = Transformer(short.model, seed=0)
    for config, steps in ((short, 20), (long_, 80)):
        assert {g["t_alpha_beta3"] for g in build_optimizer(model, config).param_groups} == {steps}
    written = tiny(**{"optimizer": {"name": "ademamix", "lr": 1e-2, "options": {"t_alpha_beta3": 20}}})
    assert written.id == short.id
    with pytest.raises(UserError, match="ademamix takes t_alpha_beta3 from a run: give t_alpha_beta3="):
        optstudy.create_optimizer("ademamix", model, lr=1e-2)
    made = optstudy.create_optimizer("ademamix", model, lr=1e-2, t_alpha_beta3=500)
    assert {g["t_alpha_beta3"] for g in made.param_groups} == {500}


def test_cautious_adamw_is_adamw_without_what_the_gradient_opposes():
    """MARS with gamma 0 on gradients of norm 1 at most, which clipping makes them."""
    need("cautious_adamw")
    chosen = {"name": "cautious_adamw", "lr": 1e-3, "options": {"eps": 0.0}}
    config = tiny(**{"optimizer": chosen})
    model = Transformer(config.model, seed=0).double()
    optimizer, p = build_optimizer(model, config), model.head.weight
    expected, m, v = p.detach().clone(), torch.zeros_like(p), torch.zeros_like(p)
    lr, b1, b2 = 1e-3, 0.9, 0.95
    generator = torch.Generator().manual_seed(0)
    for t in range(1, 6):
        for q in model.parameters():
            q.grad = torch.randn(q.shape, generator=generator).double()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        g = p.grad.clone()
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        mask = (m * g > 0).double()
        update = m * mask * mask.numel() / (mask.sum() + 1) / (1 - b1**t)  # +1 as published
        expected -= lr * update / (v / (1 - b2**t)).sqrt()
        optimizer.step()
    # the package adds 1e-15 to v, which shows where gradients are all but zero
    torch.testing.assert_close(p.detach(), expected, rtol=0, atol=0.05 * lr)


def test_apollos_steps_are_along_the_whole_gradient():
    """Those of pytorch-optimizer 4.1.0 are along the projected one, so the authors' package is used."""
    ranks = {}
    for target, own in (
        ("apollo_mini", {}),
        ("pytorch_optimizer.APOLLO", {"rank": 1, "projection_type": "std"}),
    ):
        if not installed(ALL[target].target if target in ALL else target):
            continue
        options = own and {**own, "update_proj_gap": 200, "scale": 1.0, "scale_type": "tensor"}
        config = tiny(
            **{"optimizer": {"name": "adam", "lr": 1e-3, "roles": {"matrix": {"name": target, **options}}}}
        )
        model = Transformer(config.model, seed=0)
        optimizer = build_optimizer(model, config)
        ranks[target] = int(torch.linalg.matrix_rank(moved(model, optimizer), rtol=1e-3))
    if not ranks:
        pytest.skip("neither package is installed")
    assert ranks.get("apollo_mini", 8) == 8
    if "pytorch_optimizer.APOLLO" in ranks and importlib.metadata.version("pytorch_optimizer") == "4.1.0":
        assert ranks["pytorch_optimizer.APOLLO"] == 1


def test_moonlights_muon_moves_as_far_as_adam():
    need("muon_moonlight")
    far = {}
    for name in ("muon", "muon_moonlight", "nadamw"):
        model, optimizer, _ = built(name)
        far[name] = float(moved(model, optimizer).square().mean().sqrt()) / ALL[name].lr.start
    assert 0.15 < far["muon_moonlight"] < 0.25  # an Adam that has settled: 0.2
    assert far["muon"] != far["muon_moonlight"] < far["nadamw"]


@pytest.mark.parametrize(
    ("name", "at_most"), [("lion", 0), ("signum", 0), ("muon", 0.02), ("adam", 1e-4), ("sgdw", None)]
)
def test_a_gradient_clipped_to_a_tenth_changes_no_step_of_a_sign_and_hardly_one_of_muon(name, at_most):
    far = []
    for scale in (1.0, 0.1):
        config = tiny(**{"optimizer": {"name": name, "lr": 1e-2}})
        model = Transformer(config.model, seed=0)
        far.append(moved(model, build_optimizer(model, config), scale))
    change = float((far[0] - far[1]).norm() / far[0].norm())
    assert change == pytest.approx(0.9) if at_most is None else change <= at_most


def test_no_entry_is_of_a_package_that_compiles_for_minutes_before_its_first_step():
    assert not [name for name, one in ALL.items() if one.target.startswith("heavyball")]


def test_rates_are_swept_where_each_has_its_own_scale():
    for name, preset in ALL.items():
        assert preset.lr.stop / preset.lr.start == pytest.approx(100), name
    assert ALL["prodigy"].lr.start < 1 < ALL["prodigy"].lr.stop
    assert ALL["scion"].lr.stop < ALL["muon"].lr.stop < ALL["racs"].lr.stop


def test_what_is_missing_is_said_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setattr("optstudy.provenance._spec", lambda top: None)
    for name in ("adopt", "schedulefree.AdamWScheduleFree"):
        config = tiny(**{"optimizer": {"name": name, "lr": 1e-2}})
        with pytest.raises(UserError, match=r"is not installed; pip install 'optstudy\[field\]'"):
            build_optimizer(Transformer(config.model, seed=0), config)


def test_the_extra_installs_every_package_and_none_that_brings_a_torch_of_its_own():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    extra = {re.split("[<>=]", one)[0] for one in project["optional-dependencies"]["field"]}
    assert extra == {one.package for one in ALL.values() if one.extra}
    for package in extra:
        try:
            needs = importlib.metadata.requires(package) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        assert not [one for one in needs if re.match("torch(vision|audio)|torch *(==|<|~=)", one)]


def test_the_list_says_what_there_is_and_imports_nothing():
    listed = {one.name: one for one in listed_presets()}
    assert listed.keys() == ALL.keys()
    for name, one in listed.items():
        assert one.installed == installed(ALL[name].target) and one.state_bytes_per_param > 0
    done = run_cli("optimizers", "--json")
    told = {one["name"]: one for one in json.loads(done.stdout)}
    assert list(told) == names() and told["adam"]["package"] == "optstudy" and told["adam"]["installed"]
    assert told["muon"]["lr"] == {"from": 1e-3, "to": 0.1, "per_decade": 2}
    assert {"target", "second_moment", "state_bytes_per_param", "source", "options"} <= told["adopt"].keys()
    assert all(one["second_moment"] for one in told.values() if one["name"] in OPTIMIZERS)


def test_a_name_that_is_nearly_one_is_told():
    with pytest.raises(UserError, match="unknown optimizer 'moun'; did you mean 'muon'"):
        spec_of("moun")


@pytest.mark.parametrize(
    ("name", "target"),
    [("muon", "torch.optim.Muon"), ("soap", "pytorch_optimizer.SOAP"),
     ("schedule_free", "schedulefree.AdamWScheduleFree"), ("adopt", "pytorch_optimizer.ADOPT")],
)  # fmt: skip
def test_presets_are_the_runs_that_the_record_has_under_import_paths(name, target):
    entries = [one for one in archive.load("pico").values() if one.row.config["optimizer"]["name"] == target]
    assert len(entries) >= 5
    own = {"weight_decouple": False} if name == "adopt" else {}
    for entry in entries:
        config = entry.row.config
        roles = {role: {"lr": one["lr"]} for role, one in config["optimizer"]["roles"].items()}
        chosen = {"name": name, "lr": config["optimizer"]["lr"], "options": own, "roles": roles}
        schedule = {} if name == "schedule_free" else config["schedule"]
        again = resolve({**config, "optimizer": chosen, "schedule": schedule})
        assert again.id == entry.row.id


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("    target: torch.optim.NAdam\n", ""), "presets.nadamw.target: missing"),
        (("    about: Adam with", "    abuot: Adam with"), "unknown key 'presets.nadamw.abuot'"),
        (("    lr: {from: 0.1, to: 10}", "    lr: {from: 10, to: 1}"), "'to' .1. must not be below"),
        (("  nadamw:\n", "  NAdamW:\n"), "presets.NAdamW"),
        (("  nadamw:\n", "  nadamw\n"), "presets.yaml:"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_refused_with_its_place(change, said, tmp_path, monkeypatch):
    text = (Path(presets.__file__).with_name(presets.FILE)).read_text()
    assert change[0] in text
    (tmp_path / presets.FILE).write_text(text.replace(*change, 1))
    monkeypatch.setattr(presets.resources, "files", lambda package: tmp_path)
    with pytest.raises(UserError, match=said):
        presets.read.__wrapped__()
