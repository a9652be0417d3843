"""The learning rate over a run, as a share of its peak. Imports no torch."""

import math

from optstudy.config import RunConfig


def factor(config: RunConfig, step: int) -> float:
    """Return the share of the peak learning rate at ``step``, counted from 0.

    The released loop increments its step counter before it computes the rate (OLMo's ``CosWithWarmup`` and
    the paper's ``FreezeCosWithWarmup``). So let s = step + 1, F = ``freeze_steps``, W the warm-up steps,
    S = F + ``training.steps``, and a0 and af the shares at the start of warm-up and the end of the cosine:

        s < F            0
        s < F + W        a0 + (1 - a0) (s - F) / W
        s < S            af + (1 - af) (1 + cos(pi (s - F - W) / (S - F - W))) / 2
        s = S            af

    F - 1 steps have rate 0. Step F, the last one that estimates second moments, has rate a0.
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
