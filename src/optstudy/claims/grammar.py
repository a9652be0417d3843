"""The language that tests of claims are written in. A test is parsed and checked, never evaluated as code.

    test      = "all" "(" test {"," test} ")" | relation
    relation  = side op side | number op side op number          op = "<" | "<=" | ">" | ">="
    side      = ["-"] term {("+" | "-") term}
    term      = number [unit] | measure | "average" "(" side {"," side} ")" | "excess" "(" side "," side ")"
    measure   = function "(" curve {"," argument} ")"            argument = number | name
    curve     = name ["in" name]                                 name = identifier | "quoted" | 'quoted'

The numbers of a relation become the range that the measured quantity must be in.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, NoReturn, TypeVar

from optstudy.claims.measures import (
    AXIS,
    FUNCTIONS,
    OVER_A_RUN,
    SHARE,
    Measure,
    Quantity,
    Relation,
    Where,
    Wrong,
    checked,
)
from optstudy.errors import nearest

AROUND = ("all", "average", "excess")
"""Words that stand around tests or measures."""
MOST_NESTED = 20
MOST_SHARE = 10.0
"""A larger share is assumed to be a percentage without its sign."""
UNITS = {"nats": 1.0, "decades": 1.0, "%": 0.01}
"""Units that may follow a number, and their factors."""

T = TypeVar("T")
Resolve = Callable[[str, str | None], Where]
"""Maps a curve and a panel, as written, to their place; raises :class:`Wrong` if there is none."""


def parse(text: str, resolve: Resolve) -> tuple[Relation, ...]:
    """Parse a test into the relations that must all hold.

    Raises:
        Wrong: the test is not allowed; the text gives the nearest name or what is allowed.
    """
    return tuple(_Parser(text, resolve).whole())


_TOKEN = re.compile(
    r"""\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])
    |(?P<word>[^\W\d]\w*)|"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<sign><=|>=|[-<>(),+%])|(?P<wrong>[^\s(),<>]+|\S))""",
    re.VERBOSE,
)
_END = ("end", "")
NAMELIKE = re.compile(r"\w|['\"]")


class _Side(NamedTuple):
    """One side of a relation: signed measures, and the sum of its numbers."""

    terms: list[tuple[int, tuple[Quantity, ...]]]
    number: float
    units: set[str]


class _Parser:
    def __init__(self, text: str, resolve: Resolve) -> None:
        self._resolve = resolve
        self._tokens = [(m.lastgroup or "", m[m.lastgroup or 0]) for m in _TOKEN.finditer(text.strip())]
        self._next = 0
        self._depth = 0
        for kind, value in self._tokens:
            if kind == "wrong":
                hint = "a name that is not only letters, digits and _ is quoted: 'mine.Tiger'"
                raise Wrong(
                    f"unexpected {value!r}; {hint if re.search(NAMELIKE, value) else 'compare by < <= > >='}"
                )

    def whole(self) -> list[Relation]:
        found = self._test()
        if self._peek() != _END:
            self._unexpected("the end; several comparisons go into all(..., ...)")
        return found

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._next] if self._next < len(self._tokens) else _END

    def _take(self, *signs: str) -> str | None:
        """Consume and return the next sign or bare word if it is one of those given."""
        kind, value = self._peek()
        if kind in ("sign", "word") and value in signs:
            self._next += 1
            return value
        return None

    def _expect(self, sign: str) -> None:
        if self._take(sign) is None:
            self._unexpected(repr(sign))

    def _unexpected(self, wanted: str) -> NoReturn:
        kind, value = self._peek()
        came = "the end" if kind == "end" else repr(value)
        raise Wrong(f"expected {wanted}, not {came}")

    def _word(self, wanted: str) -> str:
        """Consume and return a name, bare or quoted."""
        kind, value = self._peek()
        if kind not in ("word", "double", "single") or not value.strip():
            self._unexpected(wanted)
        self._next += 1
        return value

    def _test(self) -> list[Relation]:
        if self._take("all") is None:
            return [self._relation()]
        return [relation for some in self._several(self._test) for relation in some]

    def _several(self, one: Callable[[], T]) -> list[T]:
        """Parse a list in parentheses, separated by commas."""
        self._depth += 1
        if self._depth > MOST_NESTED:
            raise Wrong("nested too deeply")
        self._expect("(")
        found = [one()]
        while self._take(","):
            if self._peek() == ("sign", ")"):
                break
            found.append(one())
        self._expect(")")
        self._depth -= 1
        return found

    def _relation(self) -> Relation:
        sides, signs = [self._side()], []
        while (sign := self._take("<", "<=", ">", ">=")) is not None:
            signs.append(sign[0])
            sides.append(self._side())
        if not signs:
            self._unexpected("one of < <= > >=, such as in best(a) - best(b) < 0")
        if len(sides) == 2:
            left, right = sides
            sign = signs[0]
            if not left.terms:
                left, right, sign = right, left, "<" if sign == ">" else ">"
            return _relation(left, right, sign)
        if len(sides) != 3 or len(set(signs)) > 1 or sides[0].terms or sides[2].terms:
            raise Wrong("a chain is a number, a measure and a number: -0.05 <= best(a) - best(b) <= 0.05")
        low, high = (sides[0], sides[2]) if signs[0] == "<" else (sides[2], sides[0])
        return _relation(sides[1], high, "<", low)

    def _side(self) -> _Side:
        found = _Side([], 0.0, set())
        sign = -1 if self._take("-") else 1
        while True:
            if self._peek()[0] == "number":
                number, unit = self._number()
                found = found._replace(number=found.number + sign * number)
                found.units.update({unit} if unit else ())
            else:
                found.terms.append((sign, self._term()))
            following = self._take("+", "-")
            if following is None:
                return found
            sign = 1 if following == "+" else -1

    def _number(self) -> tuple[float, str]:
        kind, text = self._peek()
        number = float(text) if kind == "number" else math.nan
        if not math.isfinite(number):
            self._unexpected("a number")
        self._next += 1
        unit = self._take(*UNITS) or ""
        if self._peek()[0] == "word" and self._peek()[1] != "in":
            raise Wrong(f"unknown unit {self._peek()[1]!r}{nearest(self._peek()[1], UNITS)}")
        return number * UNITS.get(unit, 1.0), unit

    def _term(self) -> tuple[Quantity, ...]:
        if (name := self._take("average", "excess")) is not None:
            found = [_quantity(name, side) for side in self._several(self._side)]
            if len({one.unit for one in found}) > 1:
                raise Wrong(f"{name}: of one unit, not of {_listed({one.unit for one in found})}")
            for one in found:
                if one.one.function in OVER_A_RUN:
                    raise Wrong(f"{name}: not of {one.one.function}, which is a range over one run")
            if name == "excess" and len(found) != 2:
                raise Wrong(f"excess: of the first of two over the second, not of {len(found)}")
            weights = (1.0, -1.0) if name == "excess" else (1 / len(found),) * len(found)
            return tuple(replace(one, weight=weight) for one, weight in zip(found, weights, strict=True))
        kind, name = self._peek()
        if kind != "word":
            self._unexpected("a function of a curve, such as best(adam), or a number")
        if name == "all":
            raise Wrong("all takes whole tests and stands outside of them: all(best(a) < 5, best(b) < 5)")
        if name not in FUNCTIONS:
            raise Wrong(f"unknown function {name!r}{nearest(name, [*FUNCTIONS, *AROUND])}")
        self._next += 1
        self._expect("(")
        curve = self._curve(name)
        arguments: list[float | str] = []
        while self._take(","):
            arguments.append(self._argument())
        self._expect(")")
        return (Quantity(checked(Measure(name, curve, tuple(arguments)))),)

    def _curve(self, function: str) -> Where:
        name = self._word(f"a curve, quoted unless it is an identifier: {FUNCTIONS[function].forms}")
        panel = self._word("a panel") if self._take("in") else None
        return self._resolve(name, panel)

    def _argument(self) -> float | str:
        sign = -1 if self._take("-") else 1
        if sign < 0 or self._peek()[0] == "number":
            return sign * self._number()[0]
        return self._word("a number or a name")


def _quantity(name: str, side: _Side) -> Quantity:
    """The single quantity of a side that has no number."""
    sign, quantities = _single(side.terms)
    if sign < 0 or len(quantities) > 1 or side.number or side.units:
        raise Wrong(f"{name}: each part is a measure or a difference of two")
    return quantities[0]


def _single(terms: Sequence[tuple[int, tuple[Quantity, ...]]]) -> tuple[int, tuple[Quantity, ...]]:
    """Combine signed measures into one, a difference or an average; return it with its overall sign."""
    if len(terms) == 1:
        return terms[0]
    if not terms:
        raise Wrong("it measures no curve: a test compares, such as best(a) - best(b) < 0")
    plus = [some for sign, some in terms if sign > 0]
    minus = [some for sign, some in terms if sign < 0]
    if not len(plus) == len(minus) == 1 or len(plus[0]) > 1 or len(minus[0]) > 1:
        raise Wrong("at most two measures are compared, one less the other; all(..., ...) takes more")
    one, other = plus[0][0].one, minus[0][0].one
    if plus[0][0].other or minus[0][0].other:
        raise Wrong(
            "an average stands alone, an excess too: average(best(a) - best(b), best(c) - best(b)) < 0"
        )
    if one.unit != other.unit:
        raise Wrong(f"{one.function} is in {one.unit}, {other.function} in {other.unit}")
    if one.function != other.function:
        raise Wrong(f"a difference is of two by one function, not of {one.function} and {other.function}")
    if one.function == "sensitivity" and bool(one.arguments) != bool(other.arguments):
        raise Wrong("sensitivity: both around the best, or both over settings that are named (or whole)")
    if one == other:
        raise Wrong(f"{one.function} of {one.curve} less itself")
    return 1, (Quantity(one, other),)


def _relation(measured: _Side, other: _Side, sign: str, below: _Side | None = None) -> Relation:
    """Move all measures to one side and all numbers to the other.

    Args:
        sign: ``<`` or ``>``.
        below: the left end of a chain, a number that the measures must exceed as well.
    """
    turned, quantities = _single([*measured.terms, *((-one, some) for one, some in other.terms)])
    unit, units = quantities[0].unit, measured.units | other.units | (below.units if below else set())
    allowed = {"nats": {"nats"}, "decades": {"decades"}, SHARE: {"%"}}.get(unit, set())
    if units - allowed:
        raise Wrong(f"{quantities[0].one.function} is in {unit} here, but the number is in {_listed(units)}")
    end = other.number - measured.number
    low, high = (-math.inf, end) if sign == "<" else (end, math.inf)
    if below is not None:
        low = below.number - measured.number
    if turned < 0:
        low, high = 0.0 - high, 0.0 - low
    if unit == SHARE and max(end for end in (low, high, 0.0) if math.isfinite(end)) > MOST_SHARE:
        raise Wrong(f"{quantities[0].one.function} is a share: 0.8 or 80 %, not 80")
    if low > high:
        raise Wrong(f"no number is between {low:g} and {high:g}")
    if unit == AXIS:
        low, high = (_log(end, quantities[0]) for end in (low, high))
    return Relation(quantities, low, high)


def _log(end: float, quantity: Quantity) -> float:
    if math.isinf(end):
        return end
    if end <= 0:
        raise Wrong(f"{quantity.one.function} alone is compared with a setting above 0, not with {end:g}")
    return math.log10(end)


def _listed(units: set[str]) -> str:
    return " and ".join(sorted(units))
