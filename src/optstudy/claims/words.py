"""What the paper's words mean in its claims: margins, and where its curves are found. No torch.

The paper shows curves and says "comparable", "worse", "almost recovers"; it gives no numbers. What these
words mean here was fixed before the runs that judge them:

- comparable, recovers: within :data:`SAME` nats in best loss (5 % in perplexity), :data:`FLAT` in
  sensitivity;
- almost, nearly recovers: not more than twice that behind;
- not as good, less stable, improves: a difference of that sign, the whole interval beyond 0;
- SGD is *worse*, does *not recover stability*: behind by more than what counts as the same.
"""

from collections.abc import Callable, Sequence

from optstudy.claims.evidence import Of
from optstudy.claims.verdict import Claim, Rule

SAME = 0.05
"""Nats between best losses that count as the same."""
FLAT = 0.1
"""Nats between sensitivities that count as the same: the margin of the safe window, on average over it."""
HALF = 0.52
"""Decades: one step of the half-decade grid."""

NON_SGD = ("adam", "adafactor", "lion", "signum")
ALL = (*NON_SGD, "sgdw")


def standard(name: str) -> Of:
    """Return a sweep of Figure 1."""
    return Of("paper/fig1", name)


def variant(name: str) -> Of:
    """Return a sweep without QK-norm and z-loss."""
    return Of("paper/fig4", name)


def longer(name: str) -> Of:
    """Return a sweep over longer runs, one seed: its noise is that of Figure 1."""
    return Of("paper/fig5", name, "standard", standard(name))


def momentum(name: str, least: float = 0.0, most: float = 1.0) -> Of:
    """Return a momentum sweep of Figure 6 in a range."""
    return Of("paper/fig6", name, "150m", standard(name), least, most)


def betas(name: str, least: float = 0.0, most: float = 1.0) -> Of:
    """Return a momentum sweep of Figure 8 in a range."""
    noise = standard("adam" if name == "adam_tied_betas" else name)
    return Of("paper/fig8", name, "150m", noise, least, most)


def other(panel: str, name: str) -> Of:
    """Return a sweep of Figure 7."""
    return Of("paper/fig7", name, panel, standard(name))


def against(names: Sequence[str], reference: str, of: Callable[[str], Of] = standard) -> list[tuple[Of, Of]]:
    """Pair each optimizer's curve with the reference's."""
    return [(of(name), of(reference)) for name in names]


def claim(name: str, figure: str, statement: str, test: str, rule: Rule) -> Claim:
    """Make a claim on a figure of the paper."""
    return Claim(name, statement, f"paper/{figure}", test, rule)


SGD, ADAM, SIGNUM = standard("sgdw"), standard("adam"), standard("signum")
