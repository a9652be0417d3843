"""Measurements during a run in addition to losses: norms, effective learning rates, second moments."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from optstudy.config import RunConfig
from optstudy.errors import UserError
from optstudy.optim.blocks import Blocks, second_moment
from optstudy.optim.sharded import whole
from optstudy.recipes import OPTIMIZERS

QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
MOST_VALUES = 1 << 18
"""Maximum number of values read per role; with more, every n-th value of each tensor is used."""


class Probe:
    """Takes the measurements that a run's config requests, to be added to its rows.

    Norms are those of one step. :meth:`expect` must announce that step if a row will end with it.

    Raises:
        UserError: effective learning rates are requested, but the optimizer has no second moment; or second
            moments are, but none is per weight.
    """

    def __init__(self, config: RunConfig, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._effective_lr = config.training.effective_lr
        if self._effective_lr and not hasattr(optimizer, "effective_lr"):
            name = type(optimizer).__name__
            raise UserError(f"training.effective_lr: {name} divides by no second moment; set it to false")
        self._norms = Norms(optimizer) if config.watch.norms else None
        self._moments = config.watch.moments
        if self._moments and not any(map(_is_adam, optimizer.param_groups)):
            raise UserError(
                "watch.moments: no parameter has momentum and a second moment per weight, as Adam's"
            )

    def expect(self, due: bool) -> None:
        """Set whether to measure the next step."""
        if self._norms is not None:
            self._norms.due = due

    def __call__(self) -> dict[str, Any]:
        """Return the measurements; numbers may be infinite or NaN."""
        found: dict[str, Any] = {}
        if self._effective_lr:
            found["effective_lr"] = effective_lrs(self._optimizer)
        if self._moments:
            found["moments"] = moments(self._optimizer)
        if self._norms is not None and (norms := self._norms.take()):
            found["norms"] = norms
        return found


class Norms:
    """Euclidean norms over all parameters of a role, for announced steps.

    ``gradient`` is the norm of the clipped gradient that the optimizer gets, ``update`` that of the
    parameters' change in the step, weight decay included, ``weight`` that of the parameters after it. Hooks
    around the optimizer's step measure them and keep a copy of the parameters meanwhile. Nothing is copied
    from the device before :meth:`take`.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.due = False
        self._by_role: dict[str, list[Tensor]] = {}
        for group in optimizer.param_groups:
            self._by_role.setdefault(group["role"], []).extend(group["params"])
        self._before: dict[str, list[Tensor]] = {}
        self._found: dict[str, dict[str, Tensor]] = {}
        optimizer.register_step_pre_hook(self._measure_before)
        optimizer.register_step_post_hook(self._measure_after)

    def take(self) -> dict[str, dict[str, float]]:
        """Return the norms of the last measured step and clear them; empty if there are none."""
        kinds = [(role, kind) for role, found in self._found.items() for kind in found]
        if not kinds:
            return {}
        values = torch.stack([self._found[role][kind] for role, kind in kinds]).tolist()
        self._found = {}
        result: dict[str, dict[str, float]] = {}
        for (role, kind), value in zip(kinds, values, strict=True):
            result.setdefault(role, {})[kind] = value
        return result

    @torch.no_grad()
    def _measure_before(self, *_: Any) -> None:
        if not self.due:
            return
        for role, params in self._by_role.items():
            gradients = [p.grad for p in params if p.grad is not None]
            self._before[role] = [p.detach().clone() for p in params]
            self._found[role] = {"gradient": _norm(gradients)}

    @torch.no_grad()
    def _measure_after(self, *_: Any) -> None:
        for role, before in self._before.items():
            params = self._by_role[role]
            torch._foreach_sub_(before, params)
            self._found[role] |= {"update": _norm(before), "weight": _norm([p.detach() for p in params])}
        self._before = {}


def _norm(tensors: list[Tensor]) -> Tensor:
    """Return the norm of all tensors together; sharded tensors count as a whole."""
    norm = torch.nn.utils.get_total_norm(tensors)
    whole = getattr(norm, "full_tensor", None)
    return norm if whole is None else whole()


def effective_lrs(optimizer: Optimizer) -> dict[str, dict[str, float]]:
    """Return quantiles over blocks of eta_t / (sqrt(v) + eps) by role, v bias-corrected (Figure 2)."""
    measure: Callable[..., Tensor] = optimizer.effective_lr  # type: ignore[attr-defined]
    of_role: dict[str, list[tuple[Tensor, Any]]] = {}
    for group in optimizer.param_groups:
        found = [(p, group) for p in group["params"] if p in optimizer.state]
        of_role.setdefault(group["role"], []).extend(found)
    return {
        role: _quantiles([measure(p, group) for p, group in found])
        for role, found in of_role.items()
        if found
    }


def _quantiles(tensors: list[Tensor]) -> dict[str, float]:
    stride = -(-sum(t.numel() for t in tensors) // MOST_VALUES)
    stride += stride % 2 == 0 and stride > 0  # odd, so that every column of a matrix is sampled
    values = torch.cat([t.flatten()[::stride] for t in tensors]).float().cpu().numpy()
    with np.errstate(invalid="ignore"):  # between two infinities
        at = np.quantile(values, list(QUANTILES.values()), overwrite_input=True)
    return dict(zip(QUANTILES, at.tolist(), strict=True))


def _is_adam(group: dict[str, Any]) -> bool:
    return group.get("second_moment") == "weight" and group["betas"][0] > 0


@torch.no_grad()
def moments(optimizer: Optimizer) -> dict[str, dict[str, float]]:
    """Return, by role, what Adam's second moments v say of coarser ones.

    ``row``, ``column``, ``tensor``: the signal-to-noise ratio of v along that axis, E[v]^2 / Var[v] over the
    weights that would share one value, averaged over these values and over the role's tensors (SlimAdam,
    Kalra et al. 2025, arXiv 2503.01843, section 3: where it is well above 1, they may share it). Values of 0,
    such as of tokens not seen yet, are left out.

    ``from_signum``, ``from_adalayer_star``: 1 - cosine between Adam's step m / sqrt(v) and sign(m), or m over
    the root of v averaged over Adalayer*'s blocks, over all of the role's weights (the paper's Lemma 1 is
    about such distances). 0: the same direction.
    """
    star = OPTIMIZERS["adalayer_star"].roles
    ratios: dict[str, dict[str, list[float]]] = {}
    steps: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
    for group in filter(_is_adam, optimizer.param_groups):
        for p in (p for p in group["params"] if p in optimizer.state):
            m, v = (whole(optimizer.state[p][name]) for name in ("m", "v"))
            kind, layout = star.get(group["role"], {}).get("second_moment", "tensor"), group.get("layout", "")
            adam = m / (v.sqrt() + group["eps"])
            steps.setdefault(group["role"], []).append((adam, m.sign(), m / _blocks(kind, v, layout)))
            if v.ndim > 1:
                for axis in ("row", "column", "tensor"):
                    ratios.setdefault(group["role"], {}).setdefault(axis, []).append(_ratio(axis, v, layout))
    return {
        role: {
            **{axis: float(np.mean(found)) for axis, found in ratios.get(role, {}).items()},
            "from_signum": _distance([(adam, sign) for adam, sign, _ in some]),
            "from_adalayer_star": _distance([(adam, layer) for adam, _, layer in some]),
        }
        for role, some in steps.items()
    }


def _blocks(kind: str, v: Tensor, layout: str) -> Tensor:
    """Return the root of V of coarser blocks from v; of the whole tensor where it cannot be cut so."""
    try:
        moment = second_moment(kind, tuple(v.shape), layout)
    except ValueError:
        moment = second_moment("tensor", tuple(v.shape), layout)
    assert moment is not None
    return moment.root(*moment.means(v))


def _ratio(axis: str, v: Tensor, layout: str) -> float:
    moment = second_moment(axis, tuple(v.shape), layout)
    assert isinstance(moment, Blocks)
    mean = moment.means(v)[0]
    variance = moment.means((v / mean - 1).square())[0]  # of v over its mean: v^2 is below what float32 holds
    ratio = 1 / variance[mean > 0].double().clamp_min(torch.finfo(torch.float32).tiny)
    return float(ratio.mean())


def _distance(pairs: list[tuple[Tensor, Tensor]]) -> float:
    dot, one, other = (
        sum(float(a.flatten() @ b.flatten()) for a, b in some)
        for some in (pairs, [(a, a) for a, _ in pairs], [(b, b) for _, b in pairs])
    )
    return 1 - dot / (one * other) ** 0.5 if one and other else 0.0
