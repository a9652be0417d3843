"""Compiled steps are plain steps: one step from one state, with bounds that follow from the arithmetic."""

import copy
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from optstudy import optim
from tests.device import DEVICE

FAMILIES: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "Preconditioned": (
        optim.Preconditioned,
        [
            *({"second_moment": kind} for kind in ("weight", "factored", "factored-textbook", "tensor")),
            *(
                {"second_moment": kind}
                for kind in ("row", "column", "split-2", "none", "tensor-printed", "row-printed")
            ),
            {"second_moment": "row", "estimate_steps": 9},
            {"second_moment": "tensor", "estimate_steps": 2, "freeze": True},
            {"betas": (0.2, 0.3), "eps": 1e-3, "maximize": True},
        ],
    ),
    "Lion": (optim.Lion, [{}, {"betas": (0.3, 0.4)}, {"maximize": True}]),
    "Signum": (optim.Signum, [{}, {"beta": 0.2}]),
    "SGDW": (optim.SGDW, [{}, {"nesterov": True}, {"momentum": 0.0}, {"dampening": 0.5, "maximize": True}]),
    "Sophia": (optim.Sophia, [{}, {"rho": 0.0}, {"batch_tokens": 1}]),
    "AdafactorBigVision": (optim.AdafactorBigVision, [{"min_dim": 2}, {"min_dim": 99}, {"beta2_cap": 0.2}]),
}
SHAPES = [(64, 12), (4,), (4, 3, 5)]
"""The last is that of one parameter only: compiling takes time."""
ROUNDINGS = 24
"""Operations that a number passes through in one step, at most, each with a relative error of half a unit."""


@pytest.fixture
def compiler() -> None:
    """Leave a test out where there is no C++ compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception:
        pytest.skip("no C++ compiler")


def parameters(dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=generator).to(DEVICE, dtype).requires_grad_() for s in SHAPES]


def make(name: str, dtype: torch.dtype, **common: Any) -> tuple[torch.optim.Optimizer, list[Tensor]]:
    """One optimizer with a group for each setting, over parameters of all shapes."""
    cls, settings = FAMILIES[name]
    groups = [{"params": parameters(dtype)[: 2 + (i == 1)], **o} for i, o in enumerate(settings)]
    params = [p for group in groups for p in group["params"]]
    return cls(groups, lr=0.3, weight_decay=0.1, **common), params


def step(optimizer: torch.optim.Optimizer, params: list[Tensor], seed: int) -> None:
    """Take a step. All gradients are positive, so that nothing cancels and each rounding stays small."""
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = (0.5 + torch.rand(p.shape, generator=generator)).to(p)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_one_compiled_step_is_a_plain_step(name: str, dtype: torch.dtype, compiler: None) -> None:
    plain, params = make(name, dtype, compile=False)
    for seed in range(3):
        step(plain, params, seed)
        if hasattr(plain, "update_hessian"):
            plain.update_hessian()
    compiled, others = make(name, dtype, compile=True)
    compiled.load_state_dict(copy.deepcopy(plain.state_dict()))
    for group in compiled.param_groups:
        group["compile"] = True
    for p, q in zip(params, others, strict=True):
        q.data.copy_(p.data)
    before = [p.detach().clone() for p in params]
    step(plain, params, 9)
    step(compiled, others, 9)
    for p, q, old in zip(params, others, before, strict=True):
        scale = torch.maximum(torch.maximum(p.abs(), old.abs()), (p - old).abs())
        assert_within(q, p, scale)
        for key, value in plain.state[p].items():
            assert_within(compiled.state[q][key], value, value.abs())


def assert_within(found: Tensor, expected: Tensor, scale: Tensor) -> None:
    """A sum of n positive numbers has, in whatever order, a relative error of n - 1 units at most."""
    wide = torch.promote_types(found.dtype, torch.float32)
    units = ROUNDINGS + max(math.prod(shape) for shape in SHAPES) / 2
    bound = units * torch.finfo(wide).eps / 2 * scale.to(wide)
    if found.dtype != wide and found.dtype.is_floating_point:  # both are rounded, perhaps to neighbours
        bound = bound + torch.finfo(found.dtype).eps * scale.to(wide)
    excess = ((found.to(wide) - expected.to(wide)).abs() - bound).max().item()
    assert excess <= 0, f"beyond the bound by {excess}"


def test_compiled_steps_follow_what_groups_are_set_to(compiler: None) -> None:
    pairs = []
    for compile_ in (False, True):
        params = parameters(torch.float64)[:2]
        pairs.append((optim.Adam([{"params": [p]} for p in params], compile=compile_), params))
    changes = [{}, {"lr": 1e-2}, {"betas": (0.9, 0.5)}, {"eps": 1e-2}, {"weight_decay": 0.5}]
    for seed, options in enumerate(changes):
        for optimizer, params in pairs:
            optimizer.param_groups[1].update(options)
            step(optimizer, params, seed)
        for p, q in zip(pairs[0][1], pairs[1][1], strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", FAMILIES)
def test_torch_compile_around_a_step_traces_it_whole(name: str) -> None:
    plain, params = make(name, torch.float32, compile=False)
    traced, others = make(name, torch.float32)
    whole = torch.compile(traced.step, fullgraph=True, backend="eager")
    for seed in range(4):
        step(plain, params, seed)
        for p, q in zip(params, others, strict=True):
            q.grad = p.grad.clone()
        whole()
    for p, q in zip(params, others, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
        assert traced.state[q]["step"].item() == 4


def test_sets_of_gradients_that_come_and_go_do_not_compile_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiled.append(function) or function)
    params, others = parameters(torch.float32), parameters(torch.float32)
    params, others = params * 1, others * 1
    one, other = optim.Lion(params, betas=(0.4, 0.6)), optim.Lion(others, betas=(0.4, 0.6), compile=True)
    for seed in range(15):
        for optimizer, own in ((one, params), (other, others)):
            step(optimizer, own, seed)
            for i, p in enumerate(own):
                p.grad = p.grad if seed >> i & 1 else None
            optimizer.step()
    assert 1 <= len(compiled) <= 4
    for p, q in zip(params, others, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("no memory")], ids=repr
)
def test_running_out_of_memory_is_not_taken_for_a_missing_compiler(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_(*_: Any, **__: Any) -> Any:
        def call(*_: Any) -> None:
            raise error

        return call

    monkeypatch.setattr(torch, "compile", compile_)
    optimizer, params = make("Lion", torch.float32, compile=True)
    optimizer.param_groups[0]["betas"] = (0.11, 0.12)
    with pytest.raises(type(error)):
        step(optimizer, params[:3], 0)


WITHOUT_COMPILER = """
import warnings, torch
from optstudy import optim
p, q = (torch.ones(8, 4, requires_grad=True) for _ in range(2))
one, other = optim.Lion([p], compile=True), optim.Lion([q], compile=False)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for _ in range(3):
        p.grad, q.grad = torch.ones(8, 4), torch.ones(8, 4)
        one.step(), other.step()
assert torch.equal(p, q)
assert len([w for w in said if "optimizer steps are not compiled" in str(w.message)]) == 1
assert int(one.state[p]["step"]) == 3
"""


def test_without_a_compiler_the_plain_loop_runs_and_says_so_once(tmp_path: Path) -> None:
    environment = {**os.environ, "CXX": "/nonexistent/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", WITHOUT_COMPILER], env=environment, check=True, timeout=200)
