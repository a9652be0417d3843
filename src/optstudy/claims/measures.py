"""What can be measured of a curve, and the numbers that claims are about. No torch."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from optstudy.config import DECILES
from optstudy.errors import nearest
from optstudy.recipes import RULES

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of effective learning rates that runs record."""
RULES_FROM = ("signum", "adalayer_star")
"""Rules from whose steps ``distance`` is."""
ROLES = tuple(rule for rule in RULES if rule != "rest")
"""Arguments of ``rate`` and ``distance``: a role, or ``matrix`` for all four kinds of matrix together."""
OVER_A_RUN = ("rate", "distance")
"""Functions whose value is a range over one run."""
WHOLE = "whole"
"""The argument of ``sensitivity`` that means all settings."""


class Function(NamedTuple):
    """Something that can be measured of a curve."""

    forms: str
    """The forms in which it may be written."""
    unit: str
    """Unit of its value."""
    difference: str
    """Unit of a difference of two."""
    about: str


AXIS, SHARE = "the axis's own unit", "a share"
FUNCTIONS = {
    "best": Function("best(C)", "nats", "nats", "the lowest loss, between the settings tried or at one"),
    "sensitivity": Function(
        "sensitivity(C), sensitivity(C, whole), sensitivity(C, FROM, TO)", "nats", "nats",
        "the mean loss above the best, a decade (or half a decade) to either side of it; over all settings; "
        "over those from FROM to TO",
    ),
    "at": Function("at(C, SETTING)", "nats", "nats", "the loss at a setting that was tried"),
    "mean": Function(
        "mean(C), mean(C, FROM, TO)", "nats", "nats", "the mean loss over all settings, or from FROM to TO"
    ),
    "gain": Function("gain(C, SETTING)", "nats", "nats", "the loss at a setting above the best one tried"),
    "setting": Function("setting(C)", AXIS, "decades", "where the loss is lowest"),
    "rate": Function(
        "rate(C, ROLE), rate(C, ROLE, LOW, HIGH)", f"{AXIS}; decades", "decades",
        "the median effective learning rate of a role; the distance between its quantiles LOW and HIGH; over "
        "the best run, without its first tenth",
    ),
    "decile": Function(
        "decile(C, K), decile(C, FROM, TO)", "nats", "nats",
        "the loss on the tokens of decile K by frequency, from 1, the rarest, to 10; the mean over several; "
        "at the best setting, of runs with watch.deciles",
    ),
    "distance": Function(
        "distance(C, ROLE, signum), distance(C, ROLE, adalayer_star)", "1 - cosine", "1 - cosine",
        "how far Adam's step is from that of its momentum by another rule, over all weights of a role; over "
        "the best run with watch.moments, without its first tenth",
    ),
    "tokens": Function(
        "tokens(C)", SHARE, SHARE, "the tokens that the reference needs for C's best loss, divided by C's own"
    ),
}  # fmt: skip
"""All functions that a test may use, by name."""


class Wrong(ValueError):
    """A test is not allowed; the text says why."""


@dataclass(frozen=True)
class Where:
    """The place of a curve: study, panel and name."""

    study: str
    curve: str
    panel: str | None = None
    """None, or a panel that is not run at this scale: the first panel with the curve is used."""

    def __str__(self) -> str:
        where = self.study.rpartition("/")[2]
        return f"{self.curve} ({where}{f', {self.panel}' if self.panel else ''})"


@dataclass(frozen=True)
class Measure:
    """One function of one curve."""

    function: str
    curve: Where
    arguments: tuple[float | str, ...] = ()

    @property
    def unit(self) -> str:
        """Unit of its value."""
        if self.function == "rate":
            return AXIS if len(self.arguments) == 1 else "decades"
        return FUNCTIONS[self.function].unit


@dataclass(frozen=True)
class Quantity:
    """A measure, or the difference of two by the same function."""

    one: Measure
    other: Measure | None = None
    weight: float = 1.0
    """Its factor in the sum that a relation is about."""

    @property
    def unit(self) -> str:
        """Unit of its value."""
        return self.one.unit if self.other is None else FUNCTIONS[self.one.function].difference


@dataclass(frozen=True)
class Relation:
    """The range that a quantity, or the weighted sum of several, must be in."""

    quantities: tuple[Quantity, ...]
    low: float = -math.inf
    high: float = math.inf
    """The limits; those of settings and rates are log10, like the measured values."""


def checked(measure: Measure) -> Measure:
    """Return a measure whose arguments its function takes.

    Raises:
        Wrong: the function does not take them; the text gives what it takes.
    """
    name, given = measure.function, measure.arguments
    if name in OVER_A_RUN and given and given[0] not in ROLES:
        raise Wrong(f"{name}: unknown role {given[0]!r}{nearest(str(given[0]), ROLES)}")
    if name == "rate" and any(one not in QUANTILES for one in given[1:]):
        raise Wrong(f"rate: quantiles are of {', '.join(map(str, QUANTILES))}")
    if name == "decile" and any(
        isinstance(k, float) and not (1 <= k <= DECILES and k % 1 == 0) for k in given
    ):
        raise Wrong(f"decile: whole numbers from 1, the rarest tokens, to {DECILES}")
    if not _has_a_form(name, given):
        shown = ", ".join(["C", *(f"{one:g}" if isinstance(one, float) else one for one in given)])
        raise Wrong(f"no such form as {name}({shown}); allowed: {FUNCTIONS[name].forms}")
    return measure


def _has_a_form(name: str, given: tuple[float | str, ...]) -> bool:
    """Whether a function has a form with these arguments after the curve, see :attr:`Function.forms`."""
    numbers = [one for one in given if isinstance(one, float)]
    rising, only_numbers = numbers == sorted(numbers), len(numbers) == len(given)
    if name in ("best", "setting", "tokens"):
        return not given
    if name in ("at", "gain"):
        return len(given) == 1
    if name == "distance":
        return len(given) == 2 and given[1] in RULES_FROM
    if name == "rate":
        return len(given) in (1, 3) and rising
    if name == "decile":
        return len(given) in (1, 2) and only_numbers and rising
    if name == "sensitivity" and given == (WHOLE,):
        return True
    return not given or (len(given) == 2 and only_numbers and rising)
