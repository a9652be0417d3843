"""Grids of values that are evenly spaced in the logarithm. Imports no torch."""

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from optstudy.errors import Count, Strict, unit

FINE = 100
"""Values per decade from which neighbours of three digits can hardly be distinguished."""
MOST_VALUES = 1_000
"""Maximum number of values on one axis."""


class HalfDecades(Strict):
    """Values spaced evenly in the logarithm, rounded to three digits: 1e-3, 3.16e-3, 1e-2 ..."""

    start: Annotated[float, Field(alias="from", gt=0), unit("the axis's")]
    """The first value."""
    stop: Annotated[float, Field(alias="to", gt=0), unit("the axis's")]
    """The last value, if the spacing meets it."""
    per_decade: Annotated[Count, unit("values")] = 2
    """Values per factor of ten."""

    @model_validator(mode="after")
    def _some_values(self) -> Self:
        if self.stop < self.start:
            raise ValueError(f"'to' ({self.stop:g}) must not be below 'from' ({self.start:g})")
        if math.log10(self.stop / self.start) * self.per_decade > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES} values")
        if repeats(self.values()):
            raise ValueError(f"'per_decade' ({self.per_decade}) is too fine for values of three digits")
        return self

    def values(self) -> list[float]:
        """All values, including both ends."""
        steps = math.log10(self.stop / self.start) * self.per_decade
        count = math.floor(steps + min(0.5, max(0.01, 0.002 * self.per_decade)))  # both ends are rounded
        return [spaced(self.start, i, self.per_decade) for i in range(count + 1)]


def spaced(start: float, steps: int, per_decade: float) -> float:
    """Return the value ``steps`` steps above ``start``, to three significant digits.

    Grids that start at different values of the same grid give the same numbers. If ``start`` is the rounded
    value of a grid through a number of one or two digits, as 3.16e-3 is for the grid through 1e-2, the exact
    value is used.
    """
    number, k = _exact(start, per_decade)
    return rounded(number * 10 ** ((steps - k) / per_decade))


@lru_cache(maxsize=1024)
def _exact(start: float, per_decade: float) -> tuple[float, int]:
    """Return a round number of the grid through ``start``, and its distance in steps above ``start``.

    It is a power of ten if there is one, else a number of one digit, else of two, else ``start`` itself.
    """
    steps = range(math.ceil(per_decade)) if per_decade < FINE else ()
    near = [(rounded(start * 10 ** (k / per_decade), n), k, n) for n, k in itertools.product((1, 2), steps)]
    found = [one for one in near if rounded(one[0] * 10 ** (-one[1] / per_decade)) == start]
    number, k, _ = min(found, key=lambda one: (f"{one[0]:.1e}"[:3] != "1.0", one[2]), default=(start, 0, 3))
    return number, k


def rounded(value: float, digits: int = 3) -> float:
    """Return a number rounded to this many significant digits."""
    return float(f"{value:.{digits}g}")


def repeats(values: Sequence[Any]) -> bool:
    """Whether a number is repeated: the spacing of an axis that grows depends on the number of values."""
    numbers = [value for value in values if type(value) in (int, float)]
    return len(set(numbers)) < len(numbers)
