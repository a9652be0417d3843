"""The learning rate's course over a run, as a share of its peak. Imports no torch."""

import math

from optstudy.config import RunConfig


def factor(config: RunConfig, step: int) -> float:
    """Share of the peak learning rate at ``step``, counted from 0.

    Zero while second moments are estimated (F steps), then linear from ``warmup_start`` over the W warm-up
    steps, then a cosine down to ``final`` over the rest. The released loop advances its counter before it
    asks for the rate, so with s = step + 1 and S = F + steps (semantics of OLMo's ``CosWithWarmup``):

        s < F            0
        s < F + W        a0 + (1 - a0) (s - F) / W
        s < S            af + (1 - af) (1 + cos(pi (s - F - W) / (S - F - W))) / 2
        s = S            af
    """
    course = config.schedule
    warmup_steps = round(course.warmup * config.training.steps)
    s = step + 1 - course.freeze_steps
    if s < 0:
        return 0.0
    if s < warmup_steps:
        return course.warmup_start + (1 - course.warmup_start) * s / warmup_steps
    if s >= config.training.steps:
        return course.final
    progress = (s - warmup_steps) / (config.training.steps - warmup_steps)
    return course.final + (1 - course.final) * (1 + math.cos(math.pi * progress)) / 2
