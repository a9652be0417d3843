"""Optimizers against independent numpy formulas, and the identities between them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optstudy import optim
from tests import oracles
from tests.device import DEVICE

STEPS = 24
SHAPES = [(7,), (1,), (6, 5), (5, 11), (40, 33)]
PRECONDITIONED = [
    {"kind": kind, "betas": betas, "eps": eps, **more}
    for kind in ("weight", "factored", "factored-textbook", "tensor", "row", "column", "none")
    for betas, eps in (((0.9, 0.95), 1e-15), ((0.0, 0.999), 1e-8), ((0.95, 0.5), 1e-3))
    for more in ({}, {"estimate_steps": 6}, {"estimate_steps": 6, "freeze": True})
]


def data(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, list[np.ndarray], list[float]]:
    """Parameter, gradients over four decades with one of them zero, learning rates with zeros first."""
    random = np.random.default_rng(seed)
    gradients = [10.0 ** random.uniform(-4, 0) * random.standard_normal(shape) for _ in range(STEPS)]
    gradients[9] = np.zeros(shape)
    return random.standard_normal(shape), gradients, [0.0] * 3 + list(random.uniform(0, 0.1, STEPS - 3))


def trajectory(
    make: Callable[[list[torch.Tensor]], torch.optim.Optimizer],
    p: np.ndarray,
    gradients: list[np.ndarray],
    rates: list[float],
    after: Callable[[int, torch.Tensor, Any], None] = lambda *_: None,
) -> list[np.ndarray]:
    """Parameters after each step of an optimizer."""
    parameter = torch.tensor(p, requires_grad=True, device=DEVICE)
    optimizer = make([parameter])
    result = []
    for k, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        parameter.grad = torch.tensor(g, device=DEVICE)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        result.append(parameter.detach().cpu().numpy().copy())
        after(k, parameter, optimizer)
    return result


def assert_close(ours: list[np.ndarray], expected: list[np.ndarray], tolerance: float = 1e-12) -> None:
    for k, (a, b) in enumerate(zip(ours, expected, strict=True), 1):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=f"step {k}")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", PRECONDITIONED, ids=str)
def test_preconditioned_is_its_formula(options: dict[str, Any], shape: tuple[int, ...]) -> None:
    p, gradients, rates = data(shape)
    kwargs = {k: v for k, v in options.items() if k != "kind"}
    ours = trajectory(
        lambda ps: optim.Preconditioned(ps, second_moment=options["kind"], weight_decay=0.1, **kwargs),
        p, gradients, rates,
    )  # fmt: skip
    assert_close(ours, oracles.preconditioned(p, gradients, rates, weight_decay=0.1, **options))


def test_without_momentum_there_is_no_state_of_it() -> None:
    """The gradient over the root mean square of its column: SGD with normalised gradients."""
    p, gradients, rates = data((6, 5))
    plain = optim.Preconditioned(
        [w := torch.zeros(6, 5, requires_grad=True)], betas=(0, 0), second_moment="none"
    )
    w.grad = torch.ones(6, 5)
    plain.step()
    assert plain.state[w].keys() == {"step"}
    ours = trajectory(
        lambda ps: optim.Preconditioned(ps, betas=(0, 0), eps=0.0, second_moment="column"),
        p, gradients[:9], rates[:9],
    )  # fmt: skip
    for lr, g, before, after in zip(rates[:9], gradients, [p, *ours], ours, strict=False):
        assert_close([after], [before - lr * g / np.sqrt((g**2).mean(0))])


@pytest.mark.parametrize("shape", [(6,), (6, 5), (12, 4)], ids=str)
@pytest.mark.parametrize("parts", [1, 2, 3, 6])
def test_split_is_one_block_for_each_part(shape: tuple[int, ...], parts: int) -> None:
    p, gradients, rates = data(shape)
    ours = trajectory(lambda ps: optim.Adalayer(ps, second_moment=f"split-{parts}"), p, gradients, rates)
    options = {"betas": (0.9, 0.95), "eps": 1e-15, "weight_decay": 0.0, "kind": f"split-{parts}"}
    assert_close(ours, oracles.preconditioned(p, gradients, rates, **options))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.9, 0.99), (0.0, 0.5), (0.95, 0.0)])
def test_lion_is_its_formula(shape: tuple[int, ...], betas: tuple[float, float]) -> None:
    p, gradients, rates = data(shape)
    ours = trajectory(lambda ps: optim.Lion(ps, betas=betas, weight_decay=0.2), p, gradients, rates)
    assert_close(ours, oracles.lion(p, gradients, rates, betas=betas, weight_decay=0.2))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.98])
@pytest.mark.parametrize(("dampening", "nesterov"), [(0.0, False), (0.9, False), (1.0, False), (0.0, True)])
def test_sgdw_is_its_formula(
    shape: tuple[int, ...], momentum: float, dampening: float, nesterov: bool
) -> None:
    if nesterov and not momentum:
        return
    p, gradients, rates = data(shape)
    options = {"momentum": momentum, "dampening": dampening, "nesterov": nesterov, "weight_decay": 0.2}
    ours = trajectory(lambda ps: optim.SGDW(ps, **options), p, gradients, rates)
    assert_close(ours, oracles.sgdw(p, gradients, rates, **options))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("rho", "batch_tokens"), [(0.04, 131_072), (0.04, 60), (0.0, 7)])
def test_sophia_is_its_formula(shape: tuple[int, ...], rho: float, batch_tokens: int) -> None:
    p, gradients, rates = data(shape)
    options = {"betas": (0.965, 0.99), "rho": rho, "batch_tokens": batch_tokens, "weight_decay": 0.2}
    sampled = [(k, gradients[-k]) for k in (4, 8, 20)]

    def refresh(k: int, parameter: torch.Tensor, optimizer: optim.Sophia) -> None:
        if k in dict(sampled):
            parameter.grad = torch.tensor(dict(sampled)[k], device=DEVICE)
            optimizer.update_hessian()

    ours = trajectory(lambda ps: optim.Sophia(ps, **options), p, gradients, rates, after=refresh)
    assert_close(ours, oracles.sophia(p, gradients, rates, sampled=sampled, **options), 1e-11)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("min_dim", [1, 32])
def test_big_vision_adafactor_is_its_formula(shape: tuple[int, ...], min_dim: int) -> None:
    p, gradients, rates = data(shape)
    options = {
        "beta1": 0.9, "beta2_cap": 0.9, "decay_rate": 0.8, "eps": 1e-30,
        "min_dim": min_dim, "weight_decay": 0.2,
    }  # fmt: skip
    ours = trajectory(lambda ps: optim.AdafactorBigVision(ps, **options), p, gradients, rates)
    assert_close(ours, oracles.adafactor_bigvision(p, gradients, rates, **options))


def test_big_vision_adafactor_stores_momentum_in_bfloat16() -> None:
    parameter = torch.zeros(40, 33, requires_grad=True)
    optimizer = optim.AdafactorBigVision([parameter])
    parameter.grad = torch.randn(40, 33, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    assert optimizer.state[parameter]["m"].dtype == torch.bfloat16
    torch.testing.assert_close(-parameter / 1e-3, optimizer.state[parameter]["m"].float(), rtol=2**-8, atol=0)


def test_adam_is_torchs() -> None:
    p, gradients, rates = data((6, 5))
    options = {"betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    ours = trajectory(lambda ps: optim.Adam(ps, **options), p, gradients, rates)
    assert_close(ours, trajectory(lambda ps: torch.optim.AdamW(ps, **options), p, gradients, rates))


SEEDS = st.integers(0, 2**32 - 1)
BETAS = st.floats(0, 0.99)
SIZES = st.tuples(st.integers(1, 8), st.integers(1, 8))


def same(
    first: Callable[..., torch.optim.Optimizer], second: Callable[..., torch.optim.Optimizer],
    shape: tuple[int, ...], seed: int, tolerance: float = 0.0,
) -> None:  # fmt: skip
    """Two optimizers go the same way; at tolerance 0 bit by bit."""
    p, gradients, rates = data(shape, seed)
    a, b = trajectory(first, p, gradients, rates), trajectory(second, p, gradients, rates)
    if tolerance == 0:
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    else:
        assert_close(a, b, tolerance)


@settings(max_examples=25, deadline=None)
@given(SEEDS, BETAS, SIZES)
def test_signum_is_lion_with_equal_betas(seed: int, beta: float, shape: tuple[int, int]) -> None:
    same(
        lambda ps: optim.Signum(ps, beta=beta, weight_decay=0.1),
        lambda ps: optim.Lion(ps, betas=(beta, beta), weight_decay=0.1),
        shape, seed,
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(SEEDS, BETAS, SIZES)
def test_sophia_with_rho_zero_is_signum(seed: int, beta: float, shape: tuple[int, int]) -> None:
    p, gradients, rates = data(shape, seed)
    gradients = [g + 1e-6 * np.sign(g) for g in gradients]
    sophia = trajectory(lambda ps: optim.Sophia(ps, betas=(beta, 0.99), rho=0.0), p, gradients, rates)
    momenta, m = [], np.zeros(shape)
    for g in gradients:
        m = beta * m + (1 - beta) * g
        momenta.append(np.abs(m).min())
    signum = trajectory(lambda ps: optim.Signum(ps, beta=beta), p, gradients, rates)
    for k in range(STEPS):
        if momenta[k] < 1e-15:
            break
        assert np.array_equal(sophia[k], signum[k]), k


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from(["row", "tensor", "split"]), st.integers(1, 6))
def test_blocks_of_one_weight_are_adam(seed: int, kind: str, size: int) -> None:
    shape, kind = {
        "row": ((size, 1), "row"), "tensor": ((1, 1), "tensor"), "split": ((size, 1), f"split-{size}")
    }[kind]  # fmt: skip
    same(lambda ps: optim.Adalayer(ps, second_moment=kind), optim.Adam, shape, seed)


@settings(max_examples=25, deadline=None)
@given(SEEDS, SIZES)
def test_factored_is_adam_where_squares_have_rank_one(seed: int, shape: tuple[int, int]) -> None:
    random = np.random.default_rng(seed)
    size = np.sqrt(np.outer(random.uniform(0.1, 1, shape[0]), random.uniform(0.1, 1, shape[1])))
    gradients = [size * random.choice([-1, 1], shape) for _ in range(STEPS)]
    p, _, rates = data(shape, seed)
    ours = trajectory(optim.Adafactor, p, gradients, rates)
    assert_close(ours, trajectory(optim.Adam, p, gradients, rates), 1e-11)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.floats(0.01, 0.9), SIZES)
def test_no_second_moment_is_damped_sgd_with_bias_correction(
    seed: int, beta: float, shape: tuple[int, int]
) -> None:
    p, gradients, rates = data(shape, seed)
    ours = trajectory(
        lambda ps: optim.Preconditioned(ps, betas=(beta, 0.9), second_moment="none"), p, gradients, rates
    )
    gradients[0] = (1 - beta) * gradients[0]  # the heavy ball's first buffer is undamped
    corrected = [lr / (1 - beta**k) for k, lr in enumerate(rates, 1)]
    damped = trajectory(lambda ps: optim.SGDW(ps, momentum=beta, dampening=beta), p, gradients, corrected)
    assert_close(ours, damped, 1e-10)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.floats(0.01, 0.9), SIZES)
def test_heavy_ball_is_damped_sgd_at_a_smaller_rate(seed: int, beta: float, shape: tuple[int, int]) -> None:
    p, gradients, rates = data(shape, seed)
    heavy = trajectory(
        lambda ps: optim.SGDW(ps, momentum=beta), p, gradients, [lr * (1 - beta) for lr in rates]
    )
    corrected = [lr * (1 - beta**k) for k, lr in enumerate(rates, 1)]  # undoes the bias correction
    damped = trajectory(
        lambda ps: optim.Preconditioned(ps, betas=(beta, 0.9), second_moment="none"), p, gradients, corrected
    )
    assert_close(heavy, damped, 1e-10)
