"""The paper's statements, each a predicate over the study table with a verdict. No torch."""

from optstudy.claims.adaptivity import ADALAYER, FREEZING, HYBRIDS, SOPHIA_CLAIMS
from optstudy.claims.evidence import Evidence, Load, Missing, Of
from optstudy.claims.optimizers import HYPERPARAMETERS, SWEEPS
from optstudy.claims.verdict import Claim, Part, Verdict

__all__ = [
    "CLAIMS",
    "Claim",
    "Evidence",
    "Load",
    "Missing",
    "Of",
    "Part",
    "Verdict",
    "judge",
]

CLAIMS: tuple[Claim, ...] = (*SWEEPS, *HYPERPARAMETERS, *ADALAYER, *HYBRIDS, *FREEZING, *SOPHIA_CLAIMS)
"""Every statement of the paper, by topic."""


def judge(load: Load, scale: str) -> list[Verdict]:
    """Return the verdict on every claim of the paper, in the order of its figures' topics.

    Args:
        load: reads a study's figure.
        scale: where it ran, for the record.
    """
    evidence = Evidence(load)
    return [claim.judge(evidence, scale) for claim in CLAIMS]
