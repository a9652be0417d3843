"""When a run has certainly diverged and need not go on. Imports no torch.

The rule: some loss is not finite, or the smoothed training loss stays above twice the first step's for a
tenth of the steps, counted after any freeze and the warm-up. Runs that it stops ended above the loss before
training when they were let go on, and that is what the table counts them as anyway.
"""

import math

FACTOR = 2.0
"""How far above the first step's loss, as a multiple of it."""
SHARE = 0.1
"""Of the steps after the freeze: how long in a row."""
SMOOTHING = 0.01
"""Of the same: time constant of the exponential mean."""


class DivergenceRule:
    """Takes the training loss of every step, in order.

    Args:
        steps: optimizer steps after any freeze.
        freeze_steps: steps before them that estimate second moments.
        warmup: share of ``steps`` spent warming up.
    """

    def __init__(self, steps: int, freeze_steps: int = 0, warmup: float = 0.0) -> None:
        self.patience = max(1, math.ceil(SHARE * steps))
        self._counted_from = freeze_steps + round(warmup * steps)
        self._keep = 1 - 1 / max(1.0, SMOOTHING * steps)
        self._steps = 0
        self._above = 0
        self._start = self._smoothed = math.nan

    def update(self, loss: float) -> str | None:
        """Take the next step's loss; return the reason why the run has diverged, or None."""
        step = self._steps
        self._steps += 1
        if not math.isfinite(loss):
            return f"loss was {loss} at step {step}"
        if step == 0:
            self._start = self._smoothed = loss
        self._smoothed = self._keep * self._smoothed + (1 - self._keep) * loss
        high = self._smoothed > FACTOR * self._start
        self._above = self._above + 1 if high and step >= self._counted_from else 0
        if self._above < self.patience:
            return None
        return f"loss stayed above {FACTOR:g} times its start ({self._start:.3f}) up to step {step}"
