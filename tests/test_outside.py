"""Optimizers of others: imported only to run, checked against what their classes really take."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from optstudy import cli
from optstudy.config import resolve
from optstudy.errors import UserError
from optstudy.training import outside
from optstudy.training.build import build_optimizer
from optstudy.training.model import Transformer
from optstudy.training.train import train
from tests.configs import TINY, folder_of, tiny_on
from tests.test_cli import OPTSTUDY

NUMBERS = itertools.count()
HEAD = "import torch\nfrom torch.optim import Optimizer\n"
PLAIN = """
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.state[p].setdefault("k", 0)
                    p.sub_(group["lr"] * p.grad)
"""
CLASSES = {
    "Dotted": "class X(torch.optim.AdamW):\n    pass\n",
    "Keywords": "class X(torch.optim.AdamW):\n    def __init__(self, params, lr=1e-3, **kwargs):\n"
    "        super().__init__(params, lr=lr, **kwargs)\n",
    "Fixed": "class X(torch.optim.AdamW):\n    def __init__(self, params, lr=1e-3, betas=(0.9, 0.99)):\n"
    "        super().__init__(params, lr=lr, betas=betas)\n",
    "Hidden": "class X(Optimizer):\n    def __init__(self, params, lr=1e-3):\n"
    f"        super().__init__(params, dict(lr=lr, weight_decay=0.3))\n{PLAIN}",
    "Wd": "class X(Optimizer):\n    def __init__(self, params, lr=1e-3, wd=0.3):\n"
    f"        super().__init__(params, dict(lr=lr, wd=wd))\n{PLAIN}",
    "WdBelow": "class Y(Optimizer):\n    def __init__(self, params, lr=1e-3, wd=0.3):\n"
    f"        super().__init__(params, dict(lr=lr, wd=wd))\n{PLAIN}\nclass X(Y):\n    pass\n",
    "Muon": "class X(Optimizer):\n    def __init__(self, param_groups):\n"
    "        for group in param_groups:\n            assert 'use_muon' in group\n"
    "            own = 'momentum' if group['use_muon'] else 'eps'\n"
    "            assert set(group) == {'params', 'lr', 'weight_decay', 'use_muon', own}\n"
    f"        super().__init__(param_groups, dict())\n{PLAIN}",
    "Rank": "class X(torch.optim.AdamW):\n    def step(self, closure=None):\n"
    "        self.ranks = [g.get('rank') for g in self.param_groups]\n        return super().step(closure)\n",
    "Wide": "class X(Optimizer):\n    def __init__(self, params, lr=1e-3, width=3, speed=1.0, **kwargs):\n"
    f"        self.width = width\n        super().__init__(params, dict(lr=lr, speed=speed))\n{PLAIN}",
}  # fmt: skip


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes a module of a name of its own, and returns that name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source, suffix=".py"):
        name = f"own_{next(NUMBERS)}"
        path = tmp_path / f"{name}{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(source if isinstance(source, bytes) else source.encode())
        return name

    return write


def built(target, **optimizer):
    config = resolve(TINY, {"optimizer": {"name": target, "lr": 1e-2, **optimizer}})
    return build_optimizer(Transformer(config.model, seed=0), config)


def values(optimizer, key):
    return {group[key] for group in optimizer.param_groups}


@pytest.mark.parametrize("kind", ["Dotted", "Keywords", "Fixed", "Hidden"])
def test_weight_decay_is_the_configs_whatever_the_class_has_for_a_default(written, kind):
    target = written(HEAD + CLASSES[kind]) + ".X"
    assert values(built(target), "weight_decay") == {0.0}
    assert values(built(target, weight_decay=1e-3), "weight_decay") == {0.1}


@pytest.mark.parametrize("kind", ["Wd", "WdBelow"])
def test_wd_is_weight_decay_too(written, kind):
    target = written(HEAD + CLASSES[kind]) + ".X"
    assert values(built(target), "wd") == {0.0}
    assert values(built(target, weight_decay=1e-3), "wd") == {0.1}
    with pytest.raises(UserError, match=r"'wd' is not an option of .*: set optimizer.weight_decay"):
        built(target, options={"wd": 0.1})


@pytest.mark.parametrize("kind", ["Dotted", "Fixed", "Hidden", "Wd"])
def test_weight_decay_is_a_roles_own(written, kind):
    target, key = written(HEAD + CLASSES[kind]) + ".X", "wd" if kind == "Wd" else "weight_decay"
    off = {"embedding": {"weight_decay": 0.0}, "norm": {"weight_decay": 0.002}}
    decays = {g["role"]: g[key] for g in built(target, weight_decay=1e-3, roles=off).param_groups}
    assert (decays["embedding"], decays["norm"]) == (0.0, 0.2)
    assert {decays[role] for role in ("head", "qkv", "mlp_in")} == {0.1}


def test_no_weight_decay_is_refused_where_there_is_none():
    with pytest.raises(UserError, match="takes no weight_decay"):
        built("torch.optim.Rprop", weight_decay=0.1)


@pytest.mark.parametrize("kind", ["Dotted", "Keywords", "Fixed"])
def test_options_reach_the_constructor_of_the_base(written, kind):
    target = written(HEAD + CLASSES[kind]) + ".X"
    groups = built(target, options={"betas": [0.8, 0.9]}).param_groups
    assert all(list(group["betas"]) == [0.8, 0.9] for group in groups)
    with pytest.raises(UserError, match=r"unknown option 'betsa' of own_\d+.X; did you mean 'betas'\?"):
        built(target, options={"betsa": [0.8, 0.9]})
    with pytest.raises(UserError, match="beta"):
        built(target, options={"betas": [0.8, 2.0]})


def test_keys_that_only_groups_know_stay_in_their_groups(written):
    muon = written(HEAD + CLASSES["Muon"]) + ".X"
    matrix = {"use_muon": True, "momentum": 0.95}
    optimizer = built(muon, options={}, roles={"matrix": matrix, "rest": {"use_muon": False, "eps": 1e-8}})
    assert {g["role"]: g["use_muon"] for g in optimizer.param_groups} == {
        "embedding": False, "head": False, "norm": False,
        "qkv": True, "attention_out": True, "mlp_in": True, "mlp_out": True,
    }  # fmt: skip
    with pytest.raises(UserError, match="unknown option 'momentun'"):
        built(muon, roles={"rest": {"use_muon": True, "momentun": 0.9}})
    rank = built(written(HEAD + CLASSES["Rank"]) + ".X", roles={"matrix": {"rank": 4}})
    assert {g["role"]: g.get("rank") for g in rank.param_groups}["qkv"] == 4
    assert "rank" not in next(g for g in rank.param_groups if g["role"] == "head")


def test_a_roles_options_are_no_other_roles(written):
    target = written(HEAD + CLASSES["Wide"]) + ".X"
    optimizer = built(target, roles={"embedding": {"speed": 7.0}})
    assert {g["role"]: g["speed"] for g in optimizer.param_groups}["embedding"] == 7.0
    assert values(optimizer, "speed") == {7.0, 1.0}
    assert built(target, options={"width": 5}).width == 5
    with pytest.raises(UserError, match=r"'width' of .* must be the same for all parameters"):
        built(target, roles={"embedding": {"width": 5}})
    with pytest.raises(UserError, match=r"unknown option 'with' of .*; did you mean 'width'"):
        built(target, options={"with": 5})


def test_classes_are_found_where_a_package_gathers_them(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / f"own_{next(NUMBERS)}"
    package.mkdir()
    (package / "inner.py").write_text(HEAD + CLASSES["Keywords"])
    (package / "__init__.py").write_text("from .inner import *\n")
    assert values(built(f"{package.name}.X", options={"amsgrad": True}), "amsgrad") == {True}


@pytest.mark.parametrize(
    ("source", "name", "said"),
    [
        (HEAD + "class X(Optimizer)\n    pass\n", "X", r"own_\d+.py:3: "),
        (b"'caf\xe9'\nclass X: pass\n", "X", r"own_\d+.py.*(utf-8|encoding)"),
        (HEAD + "raise RuntimeError('no licence')\n", "X", r"own_\d+.py:3: RuntimeError: no licence"),
        (HEAD + "raise SystemExit(3)\n", "X", r"own_\d+.py:3: SystemExit"),
        ("import no_such\n", "X", r"own_\d+.py:1: ModuleNotFoundError: No module named 'no_such'"),
        (HEAD + "class X: pass\n", "X", "is not a torch.optim.Optimizer, but another class"),
        (HEAD + "def X(params): pass\n", "X", "is not a torch.optim.Optimizer, but of type function"),
        (HEAD + "X = 3\n", "X", "is not a torch.optim.Optimizer, but of type int"),
        (HEAD + "class Xs(Optimizer): pass\n", "X", r"own_\d+ has no 'X'; did you mean 'Xs'"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_one_line_with_its_place(written, source, name, said):
    target = f"{written(source)}.{name}"
    with pytest.raises(UserError, match=said) as error:
        outside.load(target, "optimizer", torch.optim.Optimizer)
    assert "\n" not in str(error.value)


def test_source_in_another_encoding_that_says_so_is_fine(written):
    name = written(b"# -*- coding: latin-1 -*-\n# caf\xe9\nimport torch\nclass X(torch.optim.SGD): pass\n")
    assert outside.load(f"{name}.X", "optimizer", torch.optim.Optimizer).__name__ == "X"


def test_an_optimizer_that_cannot_evaluate_before_its_first_step_is_trained(corpus_slice, tmp_path, written):
    """As some Schedule-Free ones: ``eval`` and ``train`` look for the state of the first step."""
    source = HEAD + (
        "class X(Optimizer):\n    def __init__(self, params, lr=1e-3):\n"
        f"        super().__init__(params, dict(lr=lr))\n{PLAIN}"
        "    def eval(self):\n"
        "        assert all('k' in self.state[p] for g in self.param_groups for p in g['params'])\n"
        "    train = eval\n"
    )
    config = tiny_on(corpus_slice, **{"optimizer.name": f"{written(source)}.X", "optimizer.lr": 1e-2})
    assert train(folder_of(config, tmp_path / "runs"))["state"] == "done"


STUDY = """\
title: Mine
asks: What?
axes:
  optimizer.name: [noisy.X]
  optimizer.lr: [0.01]
base:
  optimizer.options: {betas: [0.8, 0.9]}
"""


def test_only_commands_that_run_import_what_a_study_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("noisy.py").write_text("open('imported', 'w')\n" + HEAD + CLASSES["Dotted"])
    Path("s.yaml").write_text(STUDY)
    runs = ["--runs", "r"]
    Path("r").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    for command in (["show"], ["show", "--json"], ["status"], ["status", "--json"], ["export"]):
        code = cli.run([command[0], "s.yaml", *command[1:], *runs])
        said = capsys.readouterr().err
        assert code == 0 or "export: no run of s.yaml has ended" in said, said
    assert cli.run(["claims", "--help"]) == 0
    assert not Path("imported").exists() and "noisy" not in sys.modules
    ended = subprocess.run(
        [OPTSTUDY, "run", "s.yaml", "--dry-run", *runs], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert Path("imported").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("noisy.X", "noisy.Y"), "noisy has no 'Y'"),
        (("noisy.X", "noisy.torch"), "is not a torch.optim.Optimizer"),
        (("noisy.X", "absent.X"), "there is no module 'absent'"),
        (("betas:", "betsa:"), "s.yaml:7: unknown option 'betsa' of noisy.X; did you mean 'betas'?"),
        (("[0.8, 0.9]", "[0.8, 9]"), "s.yaml:4: optimizer 'noisy.X': Invalid beta"),
    ],
)
def test_a_dry_run_refuses_what_could_not_be_run(change, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "noisy", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    Path("noisy.py").write_text(HEAD + CLASSES["Dotted"])
    Path("s.yaml").write_text(STUDY.replace(*change))
    assert cli.run(["run", "s.yaml", "--dry-run", "--runs", "r"]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1 and not Path("r").exists()
    monkeypatch.delitem(sys.modules, "noisy", raising=False)


def test_nothing_is_imported_for_classes_of_ours():
    code = (
        "import sys; from optstudy.study import library as study\n"
        "from optstudy.commands.importing import try_code\n"
        "try_code(p.config for p in study.load('demo').points('pico'))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
