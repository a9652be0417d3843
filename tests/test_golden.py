"""Every golden trajectory of the released research code, replayed with our optimizers."""

from typing import Any

import pytest
import torch
from torch import Tensor

from optstudy import optim
from tests.golden_recipe import LIMITS, NAMES, excess, gradients, initial, read

STATE = {
    "exp_avg": "m", "momentum_buffer": "b", "hessian": "h", "exp_avg_sq": "v",
    "exp_avg_sq_dim0": "r", "exp_avg_sq_dim1": "c", "step": "step",
}  # fmt: skip
"""Golden names of state -> ours."""
CLASSES = {"lion": optim.Lion, "sgdw": optim.SGDW, "sophia_g": optim.Sophia}


def is_norm(name: str) -> bool:
    return "norm" in name or "ln_f" in name


def group_options(algorithm: str, settings: dict[str, Any], name: str) -> dict[str, Any]:
    """The golden settings of one parameter, as options of its group."""
    head, norm = "ff_out_last" in name, is_norm(name)
    embedding, fused_qkv = "wte" in name, "att_proj" in name
    star, first = settings.get("lastlayer_correction"), settings.get("firstlayer_correction")
    rows = (head and star) or (embedding and first)
    if algorithm == "adafactor":
        return {"second_moment": "factored"}
    if algorithm == "hybrid_adafactor":
        adaptive = (head and settings["update_last"]) or (norm and settings["update_norm"])
        return {"second_moment": "factored" if adaptive else "none"}
    if algorithm == "hybrid_adalayer":
        adaptive = "tensor" if norm and settings["update_norm"] else "none"
        return {"second_moment": "row" if rows else adaptive}
    if algorithm != "adalayer":
        return {}
    split = "split-3" if fused_qkv and settings["att_correction"] else "tensor"
    thawed = (
        (head and star and settings["update_last"])
        or (norm and settings["update_norm"])
        or (embedding and first)
    )
    steps = settings["t_freeze"] or 0
    kind = "row" if rows else split
    return {"second_moment": kind, "estimate_steps": steps, "freeze": steps > 0 and not thawed}


def common_options(algorithm: str, settings: dict[str, Any]) -> dict[str, Any]:
    beta1 = settings["beta_0"]
    if algorithm == "sgdw":
        return {"momentum": beta1, "dampening": beta1 if settings["use_dampening"] else 0.0}
    betas = {"betas": (beta1, settings.get("beta_1", beta1))}
    if algorithm == "lion":
        return betas
    if algorithm == "sophia_g":
        return {**betas, "rho": settings["rho"], "batch_tokens": settings["bs"]}
    return {**betas, "eps": settings["eps"]}


def optimizer_of(
    golden: dict[str, Any], params: dict[str, Tensor], **options: Any
) -> tuple[torch.optim.Optimizer, list[list[float]]]:
    """The optimizer of a golden file, and each group's learning rates."""
    algorithm, settings = golden["algorithm"], golden["settings"]
    groups, rates = [], []
    for group in golden["groups"]:
        for name in group["params"]:
            if settings.get("no_norm_training") and is_norm(name):
                continue
            own = group_options(algorithm, settings, name)
            decay = group["weight_decay_coefficient"]
            groups.append({"params": [params[name]], "weight_decay": decay, **own})
            rates.append(group["lr"])
    cls = CLASSES.get(algorithm, optim.Preconditioned)
    return cls(groups, lr=1.0, **common_options(algorithm, settings), **options), rates


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", NAMES)
def test_golden_trajectory_is_replayed(name: str, dtype: str) -> None:
    golden = read(f"{name}.{'f64' if dtype == 'float64' else 'f32'}")
    recipe = golden["recipe"]
    params = initial(recipe, dtype)
    optimizer, rates = optimizer_of(golden, params)
    for step in range(recipe["steps"]):
        set_gradients(params, gradients(recipe, step, dtype))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate[step]
        optimizer.step()
        for parameter, fingerprint in zip(golden["params"], golden["trajectory"][step], strict=True):
            assert excess(params[parameter], fingerprint, dtype) <= 1, (step, parameter)
        if step in golden["settings"].get("hessian_steps", ()):
            set_gradients(params, gradients(recipe, step, dtype, hessian=True))
            optimizer.update_hessian()
    check_state(golden, params, optimizer, dtype)


def set_gradients(params: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, p in params.items():
        p.grad = values[name]


def check_state(
    golden: dict[str, Any], params: dict[str, Tensor], optimizer: torch.optim.Optimizer, dtype: str
) -> None:
    """The golden state; what is constant there (v = 1, or never stepped) is not kept by ours."""
    checked = 0
    for name, state in golden["final_state"].items():
        ours = optimizer.state.get(params[name], {})
        for key, value in state.items():
            kept = ours.get(STATE[key], ours.get("v") if key == "exp_avg_sq_dim0" else None)
            if key == "step":
                assert (ours["step"].item() if ours else 0.0) == value
            elif kept is None:
                assert abs(value[1] - value[0]) < 1e-12 or key == "exp_avg_sq", (name, key)
            else:
                golden_vector = key == "exp_avg_sq_dim0" and kept.numel() == 1
                array = kept.expand(params[name].shape) if golden_vector else kept
                assert excess(array, value, dtype) <= 1, (name, key)
                checked += 1
    assert checked >= len([p for p in optimizer.state if optimizer.state[p]])


def test_golden_recipe_makes_the_recorded_numbers() -> None:
    check = read("recipe_check")
    recipe, tight = check["recipe"], LIMITS["float64"][0]
    arrays = {"initial": initial(recipe, "float64")}
    for tensors, fingerprints in [
        (arrays["initial"], check["initial"]),
        *((gradients(recipe, int(t), "float64"), prints) for t, prints in check["gradient"].items()),
        *(
            (gradients(recipe, int(t), "float64", True), prints)
            for t, prints in check["hessian_gradient"].items()
        ),
    ]:
        for name, fingerprint in zip(check["params"], fingerprints, strict=True):
            assert excess(tensors[name], fingerprint, "float64") * tight < 1e-14


def test_golden_check_notices_a_wrong_setting() -> None:
    golden = read("adafactor_b95_e15.f64")
    params = initial(golden["recipe"], "float64")
    golden["settings"]["beta_1"] = 0.951
    optimizer, rates = optimizer_of(golden, params)
    for step in range(2):
        set_gradients(params, gradients(golden["recipe"], step, "float64"))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate[step]
        optimizer.step()
    assert excess(params["transformer.wte.weight"], golden["trajectory"][1][-1], "float64") > 1e4
