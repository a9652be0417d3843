"""How far each optimizer's best is from the reference's, over a setting such as a run's length. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optstudy.record import at_key
from optstudy.results.curves import Curve
from optstudy.results.equivalents import LENGTHS, Ratio, read
from optstudy.results.estimate import Estimate
from optstudy.results.figure import Figure
from optstudy.results.stats import difference


@dataclass(frozen=True)
class Gap:
    """One curve compared with the reference's at the same setting."""

    x: float
    """The setting; for a run's length, its tokens."""
    curve: Curve
    nats: Estimate | None
    """Its best loss minus the reference's; None if there is no reference to compare with."""
    tokens: Ratio | None
    """Its token-equivalent, if there is a horizon."""


@dataclass(frozen=True)
class Series:
    """One optimizer's gaps, by setting."""

    curve: Curve
    """The series' first curve."""
    apart: tuple[tuple[str, Any], ...]
    """Config keys and values that distinguish it from other series of its name."""
    gaps: tuple[Gap, ...]


def gaps(figure: Figure) -> list[Series]:
    """Return one series per optimizer, including the reference, in the order of curves.

    Each panel is one setting; without panels, ``figure.over`` separates the settings. Curves that differ
    otherwise form separate series.
    """
    found: dict[Any, dict[float, Curve]] = {}
    for curve in figure.curves:
        x = _at(figure, curve)
        if x is not None:
            found.setdefault((curve.name, _rest(figure, curve)), {}).setdefault(x, curve)
    made = []
    for (_, rest), curves in found.items():
        against = found.get((figure.against, rest), {})
        series = [
            Gap(x, curve, _gap(curve, against.get(x)), figure.equivalents.get(curve.label))
            for x, curve in sorted(curves.items())
        ]
        made.append(Series(series[0].curve, tuple(rest), tuple(series)))
    return made


def beside(figure: Figure) -> dict[str, Estimate | None]:
    """Each curve's best loss minus the reference's at the same setting, by the curve's label."""
    return {gap.curve.label: gap.nats for series in gaps(figure) for gap in series.gaps}


def _gap(curve: Curve, reference: Curve | None) -> Estimate | None:
    if reference is None:
        return None
    return Estimate(0.0, 0.0) if curve is reference else difference(curve, reference)


def _at(figure: Figure, curve: Curve) -> float | None:
    if figure.over in LENGTHS:
        return read(curve)
    values = [at_key(row.config, figure.over) for row in curve.rows]
    value = values[0] if all(one == values[0] for one in values) else None
    return float(value) if isinstance(value, (int, float)) else None


def _rest(figure: Figure, curve: Curve) -> Sequence[tuple[str, Any]]:
    """What distinguishes a curve besides the setting; the number of steps follows the batch size."""
    return tuple((key, value) for key, value in curve.apart if key != figure.over and key not in LENGTHS)
