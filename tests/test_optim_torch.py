"""What users of torch expect of an optimizer, for every one of ours. Torch's own checks are among them."""

import copy
import io
import pickle
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optstudy import optim
from tests.device import DEVICE

Maker = Callable[..., torch.optim.Optimizer]


def _together(params: Any, **options: Any) -> optim.Together:
    params = list(params)
    return optim.Together([optim.Lion(params[:1], **options), optim.Adam(params[1:], **options)])


RULES: dict[str, tuple[Maker, dict[str, Any]]] = {
    "Adam": (optim.Adam, {}),
    "Adafactor": (optim.Adafactor, {}),
    "Adafactor, textbook": (optim.Adafactor, {"second_moment": "factored-textbook"}),
    "Adalayer": (optim.Adalayer, {}),
    "rows": (optim.Adalayer, {"second_moment": "row"}),
    "parts": (optim.Adalayer, {"second_moment": "split-2"}),
    "SGD trunk": (optim.Preconditioned, {"second_moment": "none"}),
    "estimated": (optim.Adalayer, {"estimate_steps": 3}),
    "frozen": (optim.Adalayer, {"estimate_steps": 3, "freeze": True}),
    "Lion": (optim.Lion, {}),
    "Signum": (optim.Signum, {}),
    "SGDW": (optim.SGDW, {}),
    "SGDW, nesterov": (optim.SGDW, {"nesterov": True}),
    "SGDW, no momentum": (optim.SGDW, {"momentum": 0.0}),
    "SGDW, damped": (optim.SGDW, {"dampening": 0.5}),
    "Sophia": (optim.Sophia, {}),
    "AdafactorBigVision": (optim.AdafactorBigVision, {"min_dim": 2}),
}
SHAPES = [(6, 4), (6,), (4, 3, 2)]
every_rule = pytest.mark.parametrize("name", RULES)


def parameters(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=generator).to(DEVICE, dtype).requires_grad_() for s in SHAPES]


def make(name: str, params: Any, **options: Any) -> torch.optim.Optimizer:
    maker, own = RULES[name]
    return maker(params, **{"lr": 1e-2, **own, **options})


def run(optimizer: torch.optim.Optimizer, params: list[Tensor], steps: range) -> None:
    """Take steps with gradients that depend on the step alone."""
    for step in steps:
        generator = torch.Generator().manual_seed(1000 + step)
        for p in params:
            p.grad = 0.1 * torch.randn(p.shape, generator=generator).to(p)
        optimizer.step()
        if step % 3 == 2 and hasattr(optimizer, "update_hessian"):
            optimizer.update_hessian()


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def state_tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [value for state in optimizer.state.values() for value in state.values()]


@every_rule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("at", [1, 2, 4])
def test_saved_and_loaded_it_continues_bit_by_bit(name: str, dtype: torch.dtype, at: int) -> None:
    params = parameters(dtype)
    optimizer = make(name, params, weight_decay=0.1)
    run(optimizer, params, range(at))
    file = io.BytesIO()
    torch.save([optimizer.state_dict(), params], file)
    file.seek(0)
    saved, copies = torch.load(file, weights_only=True)
    copies = [p.detach().requires_grad_() for p in copies]
    other = make(name, copies, lr=1.0)
    other.load_state_dict(saved)
    for a, b in zip(state_tensors(optimizer), state_tensors(other), strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    run(optimizer, params, range(at, 7))
    run(other, copies, range(at, 7))
    assert equal(params, copies)


@every_rule
def test_copied_and_pickled_it_continues_bit_by_bit(name: str) -> None:
    for duplicate in (copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))):
        params = parameters()
        optimizer = make(name, params)
        run(optimizer, params, range(3))
        other, copies = duplicate((optimizer, params))
        run(optimizer, params, range(3, 6))
        run(other, copies, range(3, 6))
        assert equal(params, copies)


@every_rule
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_a_float32_step_rounded_once(name: str, dtype: torch.dtype) -> None:
    params = parameters(dtype)
    wide = [p.detach().float().requires_grad_() for p in params]
    half, full = make(name, params, weight_decay=0.1), make(name, wide, weight_decay=0.1)
    for step in range(3):
        run(half, params, range(step, step + 1))
        for p, q in zip(params, wide, strict=True):
            q.grad = p.grad.float()
        full.step()
        for p, q in zip(params, wide, strict=True):
            assert torch.equal(p, q.to(dtype))
            q.data.copy_(p.data)
        if hasattr(half, "update_hessian") and step == 2:
            full.update_hessian()
    for tensor in state_tensors(half):
        assert tensor.dtype in (
            (torch.float32,) if name != "AdafactorBigVision" else (torch.float32, torch.bfloat16)
        )


@every_rule
def test_float64_has_float64_state(name: str) -> None:
    params = parameters(torch.float64)
    optimizer = make(name, params)
    run(optimizer, params, range(1))
    for state in optimizer.state.values():
        assert all(value.dtype == torch.float64 for key, value in state.items() if key != "step")


@every_rule
def test_tensor_lr_is_float_lr_and_schedulers_set_both(name: str) -> None:
    outcomes = []
    for lr in (1e-2, torch.tensor(1e-2, dtype=torch.float64), torch.tensor([1e-2], dtype=torch.float64)):
        params = parameters(torch.float64)
        optimizer = make(name, params, lr=lr, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        for step in range(4):
            run(optimizer, params, range(step, step + 1))
            schedule.step()
        outcomes.append(params)
    for other in outcomes[1:]:
        for a, b in zip(outcomes[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-14, atol=1e-15)


@every_rule
def test_maximizing_is_minimizing_the_negative(name: str) -> None:
    up, down = parameters(), parameters()
    ascending, descending = make(name, up, maximize=True), make(name, down)
    for step in range(4):
        run(ascending, up, range(step, step + 1))
        for p, q in zip(up, down, strict=True):
            q.grad = -p.grad
        descending.step()
        if step % 3 == 2 and hasattr(descending, "update_hessian"):
            descending.update_hessian()
    assert equal(up, down)


@every_rule
def test_parameters_without_gradient_or_entries_are_left_alone(name: str) -> None:
    frozen, empty, moved = (torch.ones(shape, device=DEVICE) for shape in ((4, 2), (0, 4), (4, 2)))
    for p in (frozen, empty, moved):
        p.requires_grad_()
    optimizer = make(name, [frozen, empty, moved], weight_decay=0.5)
    empty.grad, moved.grad = torch.ones_like(empty), torch.ones_like(moved)
    optimizer.step()
    assert torch.equal(frozen, torch.ones_like(frozen))
    assert not torch.equal(moved, torch.ones_like(moved))
    assert not optimizer.state[frozen]


@every_rule
def test_zero_gradients_without_decay_move_nothing(name: str) -> None:
    params = parameters()
    before = [p.detach().clone() for p in params]
    optimizer = make(name, params)
    for _ in range(3):
        for p in params:
            p.grad = torch.zeros_like(p)
        optimizer.step()
    assert equal([p.detach() for p in params], before)


@every_rule
def test_decay_alone_multiplies_by_one_minus_lr_decay(name: str) -> None:
    params = parameters(torch.float64)
    before = [p.detach().clone() for p in params]
    optimizer = make(name, params, weight_decay=0.5)
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for p, b in zip(params, before, strict=True):
        torch.testing.assert_close(p.detach(), b * (1 - 1e-2 * 0.5), rtol=1e-15, atol=0)


@every_rule
def test_a_step_does_not_touch_gradients(name: str) -> None:
    params = parameters()
    optimizer = make(name, params, maximize=True)
    for p in params:
        p.grad = torch.randn_like(p)
    kept = [p.grad.clone() for p in params]
    optimizer.step()
    assert equal([p.grad for p in params], kept)


@every_rule
def test_a_closure_is_called_once_with_gradients_on_and_its_loss_returned(name: str) -> None:
    params, calls = parameters(), []
    optimizer = make(name, params)

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = sum((p**2).sum() for p in params)
        loss.backward()
        return loss

    before = sum(float((p.detach() ** 2).sum()) for p in params)
    assert optimizer.step(closure).item() == pytest.approx(before)
    assert calls == [True]


@every_rule
def test_step_hooks_are_called(name: str) -> None:
    params, calls = parameters(), []
    optimizer = make(name, params)
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    run(optimizer, params, range(1))
    assert calls == ["before", "after"]


@every_rule
def test_each_option_can_be_set_by_group(name: str) -> None:
    params, alone = parameters(), parameters()
    options = {"lr": 5e-2, "weight_decay": 0.3}
    optimizer = make(name, [{"params": params[:1], **options}, {"params": params[1:]}])
    run(optimizer, params, range(3))
    run(make(name, alone[:1], **options), alone, range(3))
    assert torch.equal(params[0], alone[0])


@every_rule
def test_a_group_can_be_added_and_named_parameters_given(name: str) -> None:
    params, alone = parameters(), parameters()
    optimizer = make(name, [("first", params[0])])
    optimizer.add_param_group({"params": [("second", params[1]), ("third", params[2])]})
    assert optimizer.param_groups[1]["param_names"] == ["second", "third"]
    run(optimizer, params, range(3))
    run(make(name, alone), alone, range(3))
    assert equal(params, alone)


@every_rule
def test_sparse_and_complex_gradients_are_refused(name: str) -> None:
    sparse = torch.ones(4, 2, requires_grad=True)
    sparse.grad = torch.ones(4, 2).to_sparse()
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        make(name, [sparse]).step()
    complex_ = torch.ones(4, 2, dtype=torch.complex64, requires_grad=True)
    complex_.grad = torch.ones(4, 2, dtype=torch.complex64)
    with pytest.raises(RuntimeError, match="does not support complex gradients"):
        make(name, [complex_]).step()


@every_rule
@pytest.mark.parametrize(
    "options",
    [
        {"lr": -1.0}, {"lr": float("nan")}, {"weight_decay": -0.1}, {"betas": (1.0, 0.9)},
        {"betas": (0.9, -0.1)}, {"eps": -1e-8}, {"momentum": 1.0}, {"dampening": 2.0}, {"beta": 1.5},
        {"rho": -1.0}, {"batch_tokens": 0},
        {"second_moment": "rows"}, {"estimate_steps": -1}, {"beta1": 1.0}, {"nope": 1},
    ],
    ids=str,
)  # fmt: skip
def test_bad_options_are_refused_with_their_value(name: str, options: dict[str, Any]) -> None:
    (key,), params = options, parameters()
    known = make(name, params).defaults
    if key in known:
        with pytest.raises(ValueError, match=rf"Invalid {key}.*: .*, not "):
            make(name, params, **options)
    with pytest.raises(ValueError, match=key):
        make(name, [{"params": params, **options}])


def test_a_freeze_needs_an_estimate_and_nesterov_a_plain_momentum() -> None:
    with pytest.raises(ValueError, match="freeze"):
        optim.Adalayer(parameters(), freeze=True)
    with pytest.raises(ValueError, match="nesterov"):
        optim.SGDW(parameters(), nesterov=True, dampening=0.5)
    with pytest.raises(ValueError, match="split-4"):
        params = parameters()
        run(optim.Adalayer(params, second_moment="split-4"), params, range(1))


@every_rule
def test_scalars_and_strided_parameters_step_like_others(name: str) -> None:
    if name == "parts":
        return
    scalar = torch.tensor(0.5, requires_grad=True, device=DEVICE)
    strided = torch.randn(4, 6, device=DEVICE).T.requires_grad_()
    plain = strided.detach().contiguous().requires_grad_()
    run(make(name, [strided]), [strided], range(3))
    run(make(name, [plain]), [plain], range(3))
    torch.testing.assert_close(strided, plain)
    run(make(name, [scalar]), [scalar], range(3))
    assert scalar.shape == ()
    assert scalar.item() != 0.5


@every_rule
def test_it_prints_its_options(name: str) -> None:
    assert "lr: 0.01" in repr(make(name, parameters()))


@every_rule
def test_torchs_own_checks_of_wrong_inputs(name: str) -> None:
    pytest.importorskip("expecttest")
    if name == "parts":
        pytest.skip("torch's parameters of one row cannot be split")
    from torch.testing._internal.common_optimizers import get_error_inputs_for_all_optims

    for error in get_error_inputs_for_all_optims("cpu", torch.float32):
        params = error.optimizer_error_input.params
        params = parameters() if params is None else params
        if error.error_type is UserWarning:
            with pytest.warns(UserWarning, match=error.error_regex):
                make(name, params, **error.optimizer_error_input.kwargs)
        else:
            with pytest.raises(error.error_type, match=error.error_regex):
                make(name, params, **error.optimizer_error_input.kwargs)


def test_together_is_its_parts_in_turn() -> None:
    params, alone = parameters(), parameters()
    both = _together(params, lr=1e-2)
    parts = [optim.Lion(alone[:1], lr=1e-2), optim.Adam(alone[1:], lr=1e-2)]
    for group in both.param_groups:
        group["lr"] = 3e-2
    for part in parts:
        part.param_groups[0]["lr"] = 3e-2
    run(both, params, range(2))
    saved = both.state_dict()
    both = pickle.loads(pickle.dumps((both, params)))
    both, params = both
    other_params = [p.detach().clone().requires_grad_() for p in params]
    other = _together(other_params, lr=1.0)
    other.load_state_dict(saved)
    run(both, params, range(2, 5))
    run(other, other_params, range(2, 5))
    for step in range(5):
        for part, own in zip(parts, (alone[:1], alone[1:]), strict=True):
            generator = torch.Generator().manual_seed(1000 + step)
            for p in alone:
                p.grad = 0.1 * torch.randn(p.shape, generator=generator).to(p)
            part.step()
            assert own
    assert equal(params, alone)
    assert equal(other_params, alone)
    assert not hasattr(both, "update_hessian")
    assert hasattr(optim.Together([optim.Sophia(parameters())]), "update_hessian")


def test_steps_are_counted_for_each_parameter() -> None:
    params = parameters()[:3]
    optimizer = make("Lion", params)

    def step(optimizer: torch.optim.Optimizer, params: list[Tensor], taking: set[int]) -> list[float]:
        for index, p in enumerate(params):
            p.grad = torch.ones_like(p) if index in taking else None
        optimizer.step()
        return [optimizer.state[p]["step"].item() if p in optimizer.state else 0 for p in params]

    everyone = {0, 1, 2}
    assert [step(optimizer, params, taking) for taking in ({0, 1}, everyone, {2}, everyone, everyone)] == [
        [1, 1, 0], [2, 2, 1], [2, 2, 2], [3, 3, 3], [4, 4, 4]
    ]  # fmt: skip
    saved = io.BytesIO()
    torch.save(optimizer.state_dict(), saved)
    saved.seek(0)
    others = parameters()[:3]
    loaded = make("Lion", others)
    loaded.load_state_dict(torch.load(saved, weights_only=True))
    assert step(loaded, others, {1, 2}) == [4, 5, 5]
    assert step(optimizer, params, {0}) == [5, 4, 4]
    assert step(loaded, others, everyone) == [5, 6, 6]
    assert step(optimizer, params, everyone) == [6, 5, 5]


def test_small_models_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("compiled"))
    params = parameters()
    run(make("Lion", params), params, range(1))


def test_an_optimizer_trains_a_module() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Linear(8, 1), torch.randn(64, 8), torch.randn(64, 1)
    for name in RULES:
        if name in ("parts", "Sophia"):
            continue
        twin = copy.deepcopy(model)
        optimizer = make(name, twin.parameters())
        first = last = None
        for _ in range(60):
            loss = nn.functional.mse_loss(twin(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            first, last = first or loss.item(), loss.item()
        assert last < first, name


@pytest.mark.parametrize("compile_", [False, True])
def test_at_beta_0_averages_are_the_last_gradients(compile_: bool) -> None:
    p = torch.zeros(4, requires_grad=True, device=DEVICE)
    optimizer = optim.Adam([p], lr=1.0, betas=(0.0, 0.0), compile=compile_)
    for g in (torch.full((4,), 1.0), torch.tensor([1e-9, 1e-6, -1e-3, 0.5])):
        before = p.detach().clone()
        p.grad = g = g.to(DEVICE)
        optimizer.step()
    torch.testing.assert_close(p.detach(), before - g.sign())


@every_rule
def test_steps_are_counted_whatever_the_default_dtype(name: str) -> None:
    outcomes = []
    for default in (torch.float32, torch.bfloat16, torch.float64):
        params = [torch.ones(4, 2, dtype=torch.float32, requires_grad=True)]
        torch.set_default_dtype(default)
        try:
            optimizer = make(name, params)
            for step in range(6):
                params[0].grad = torch.linspace(-1, 2, 8, dtype=torch.float32).view(4, 2)
                optimizer.step()
                if step == 2:
                    optimizer.state[params[0]]["step"] += 297
        finally:
            torch.set_default_dtype(torch.float32)
        assert optimizer.state[params[0]]["step"].item() == 303
        outcomes.append(params)
    assert equal(outcomes[0], outcomes[1])
    assert equal(outcomes[0], outcomes[2])


@every_rule
def test_hooks_of_a_load_may_add_rename_and_cast(name: str) -> None:
    params = parameters()
    optimizer = make(name, params[:2])
    run(optimizer, params[:2], range(3))
    others = [p.detach().clone().requires_grad_() for p in params]
    other = make(name, others)
    kept = {"saved": [], "seen": []}

    def grow(_: Any, saved: dict[str, Any]) -> dict[str, Any]:
        (group,) = saved["param_groups"]
        return {**saved, "param_groups": [{**group, "params": [*group["params"], 99]}]}

    def widen(_: Any, saved: dict[str, Any]) -> dict[str, Any]:
        state = {
            i: {k: x.double() if k != "step" else x for k, x in own.items()}
            for i, own in saved["state"].items()
        }
        return {**saved, "state": state}

    other.register_load_state_dict_pre_hook(grow)
    other.register_load_state_dict_pre_hook(widen)
    other.register_load_state_dict_post_hook(lambda o: kept["seen"].extend(state_tensors(o)))
    other.load_state_dict(optimizer.state_dict())
    wide = [x.dtype for own in other.state.values() for key, x in own.items() if key != "step"]
    assert set(wide) <= {torch.float64}
    assert [x.dtype for x in kept["seen"]] == [x.dtype for x in state_tensors(other)]
    other.load_state_dict({**optimizer.state_dict()})
    run(other, others, range(1))
    assert [int(other.state[p]["step"]) for p in others] == [4, 4, 1]


def test_torchs_adamw_is_loaded_by_a_hook_that_renames() -> None:
    params = parameters()
    theirs = torch.optim.AdamW(params, lr=1e-2, betas=(0.9, 0.95), eps=1e-15, weight_decay=0.0)
    run(theirs, params, range(3))
    others = [p.detach().clone().requires_grad_() for p in params]
    ours = optim.Adam(others, lr=1e-2)
    names = {"exp_avg": "m", "exp_avg_sq": "v", "step": "step"}

    def rename(optimizer: Any, saved: dict[str, Any]) -> dict[str, Any]:
        state = {i: {names[k]: x for k, x in own.items()} for i, own in saved["state"].items()}
        return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}

    ours.register_load_state_dict_pre_hook(rename)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    run(theirs, params, range(3, 5))
    run(ours, others, range(3, 5))
    for p, q in zip(params, others, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "taken", "why"),
    [
        (torch.optim.AdamW, optim.Adam, "it has no option 'compile'"),
        (torch.optim.SGD, optim.SGDW, "it has no option 'compile'"),
        (optim.Lion, optim.Adam, "it has no option 'eps'"),
        (optim.Adam, optim.Lion, "it has a tensor 'v'"),
    ],
)
def test_the_state_of_another_optimizer_is_refused_and_nothing_changes(
    given: Any, taken: Any, why: str
) -> None:
    params = parameters()
    ours, theirs = taken(params, lr=1e-2), given(params, lr=1e-3)
    run(theirs, params, range(1))
    run(ours, params, range(1))
    before = copy.deepcopy(ours.state_dict())
    with pytest.raises(ValueError, match=f"{taken.__name__}: the state is another optimizer's: {why}"):
        ours.load_state_dict(theirs.state_dict())
    assert str(ours.state_dict()) == str(before)


def test_together_refuses_a_parameter_of_two_optimizers() -> None:
    params = parameters()
    with pytest.raises(ValueError, match="more than one of Together's optimizers"):
        optim.Together([optim.Adam(params), optim.Lion(params[:1])])


def test_together_is_an_optimizer_like_others() -> None:
    params = parameters()
    both = _together(params, lr=1e-2)
    with pytest.raises(ValueError, match="the one of Together"):
        both.add_param_group({"params": [torch.zeros(2, requires_grad=True)]})
    both.optimizers[0].add_param_group({"params": [extra := torch.zeros(2, requires_grad=True)]})
    extra.grad = torch.ones(2)
    both.step()
    assert torch.equal(extra.detach(), torch.full((2,), -1e-2))
    run(both, params, range(2))
    saved = both.state_dict()
    assert sorted(saved["state"]) == [0, 1, 2, 3]
    assert [group["params"] for group in saved["param_groups"]] == [[0], [1], [2, 3]]
    for reset in (lambda: both.state.clear(), lambda: setattr(both, "state", defaultdict(dict))):
        reset()
        assert all(not part.state for part in both.optimizers)
        both.load_state_dict(saved)
        assert all(both.state[p]["step"].item() == 2 for p in params)
    del both.state[params[0]]
    assert params[0] not in both.optimizers[0].state
    called = []
    both.register_load_state_dict_pre_hook(lambda *_: called.append("pre"))
    both.register_load_state_dict_post_hook(lambda *_: called.append("post"))
    both.register_state_dict_post_hook(lambda *_: called.append("saved"))
    both.load_state_dict(both.state_dict())
    assert called == ["saved", "pre", "post"]
    torch.optim.lr_scheduler.OneCycleLR(both, max_lr=1e-2, total_steps=5)
    with pytest.raises(ValueError, match="no optimizers"):
        optim.Together([])


def test_together_is_saved_by_torchs_distributed_checkpoint() -> None:
    from torch.distributed.checkpoint import state_dict as dcp

    def trained(steps: range) -> tuple[nn.Module, optim.Together]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        both = optim.Together([optim.Adam(net[0].parameters()), optim.SGDW(net[1].parameters(), lr=1e-2)])
        run(both, list(net.parameters()), steps)
        return net, both

    for flat in (False, True):
        options = dcp.StateDictOptions(flatten_optimizer_state_dict=flat)
        net, both = trained(range(4))
        state = copy.deepcopy(dcp.get_optimizer_state_dict(net, both, options=options))
        other_net, other = trained(range(1))
        other_net.load_state_dict(net.state_dict())
        dcp.set_optimizer_state_dict(other_net, other, state, options=options)
        run(both, list(net.parameters()), range(4, 6))
        run(other, list(other_net.parameters()), range(4, 6))
        assert equal(list(net.parameters()), list(other_net.parameters()))


def test_schedulers_may_note_what_they_like_in_a_group() -> None:
    params = parameters()
    optimizer = optim.Lion(params)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=5)
    torch.optim.swa_utils.SWALR(optimizer, swa_lr=1e-3)
    run(optimizer, params, range(2))
    again = optim.Lion([dict(group) for group in optimizer.param_groups])
    run(again, params, range(2))
    with pytest.raises(ValueError, match=r"Lion: there is no option 'lr_scale'"):
        optim.Lion([{"params": params, "lr_scale": 0.1}])


@pytest.mark.parametrize(("cls", "options"), [(optim.Adam, {"nope": 1}), (optim.Signum, {"betas": 1})])
def test_errors_name_the_class_that_was_called(cls: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{cls.__name__}: there is no option"):
        cls(parameters(), **options)
    with pytest.raises(
        TypeError, match=f"{cls.__name__} takes params and lr by position; give 0.9 by its name"
    ):
        cls(parameters(), 1e-3, 0.9)
    with pytest.raises(ValueError, match=f"{cls.__name__}: Invalid lr: .*, not -1.0"):
        cls(parameters(), -1.0)


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (optim.SGDW, {"nesterov": "no"}), (optim.SGDW, {"nesterov": 1}),
        (optim.Adalayer, {"freeze": "false"}),
        (optim.Adam, {"betas": 0.9}), (optim.Adam, {"betas": [0.9]}),
        (optim.Adam, {"betas": (0.9, 0.9, 0.9)}),
        (optim.Adam, {"betas": {0.9, 0.8}}), (optim.Adam, {"betas": ("0.9", 0.9)}),
        (optim.Adam, {"eps": "1e-8"}),
        (optim.Adam, {"eps": [1e-8, 1]}), (optim.Adam, {"eps": True}), (optim.Adam, {"eps": float("inf")}),
        (optim.Adam, {"eps": None}), (optim.Adam, {"compile": "yes"}), (optim.Adam, {"maximize": 0}),
        (optim.Adalayer, {"estimate_steps": 1.5}), (optim.AdafactorBigVision, {"min_dim": 2.5}),
        (optim.Adalayer, {"second_moment": "split-4"}), (optim.Adalayer, {"second_moment": None}),
        (optim.Adalayer, {"second_moment": "row\n"}), (optim.Adam, {"weight_decay": "0"}),
        (optim.Adam, {"lr": "1"}),
    ],
    ids=str,
)  # fmt: skip
def test_values_of_a_wrong_type_are_refused_when_made(cls: Any, options: dict[str, Any]) -> None:
    (key,) = options
    with pytest.raises(ValueError, match=f"^{cls.__name__}: .*{key}"):
        cls(parameters(), **options)
    with pytest.raises(ValueError, match=f"^{cls.__name__}: .*{key}"):
        cls([{"params": parameters(), **options}])
