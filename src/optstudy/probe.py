"""What is measured inside a run besides its losses."""

import torch
from torch.optim.optimizer import Optimizer

from optstudy.errors import UserError

QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
MOST_VALUES = 1_000_000
"""Of one tensor; of larger ones every n-th value is taken."""


def effective_lrs(optimizer: Optimizer) -> dict[str, dict[str, float]]:
    """Return quantiles over blocks of eta_t / (sqrt(v) + eps) by role, v bias-corrected (Figure 2).

    Raises:
        UserError: the optimizer divides by no second moment.
    """
    measure = getattr(optimizer, "effective_lr", None)
    if measure is None:
        raise UserError(
            f"training.effective_lr: {type(optimizer).__name__} divides by no second moment; set it to false"
        )
    by_role: dict[str, list[torch.Tensor]] = {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p in optimizer.state:
                values = measure(p, group).float().flatten()
                by_role.setdefault(group["role"], []).append(values[:: 1 + len(values) // MOST_VALUES].cpu())
    at = torch.tensor(list(QUANTILES.values()))
    quantiles = {role: torch.cat(found).quantile(at).tolist() for role, found in by_role.items()}
    return {role: dict(zip(QUANTILES, values, strict=True)) for role, values in quantiles.items()}
