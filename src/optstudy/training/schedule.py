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
        s < S            af + (1 - af) c(s)
        s = S            af

    where c falls from 1 to 0 over the steps D = S - F - W after the warm-up. With x = (s - F - W) / D it is
    (1 + cos(pi x)) / 2 for the kind ``cosine`` and 1 - x for ``linear``. For ``wsd`` it is 1 until the last
    ``decay`` of all steps, and a line down to 0 over these (Hu et al. 2024, arXiv 2404.06395; a line as in
    Haegele et al. 2024, arXiv 2405.18392). A ``constant`` rate has af = 1.

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
    if course.kind == "linear":
        left = 1 - progress
    elif course.kind == "wsd":
        left = min(1.0, (config.training.steps - s) / (course.decay_share * config.training.steps))
    else:
        return course.final + (1 - course.final) * (1 + math.cos(math.pi * progress)) / 2
    return course.final + (1 - course.final) * left
