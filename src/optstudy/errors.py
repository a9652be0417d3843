"""Errors that the user can correct: the command line prints them in one line and exits with 2."""

import difflib
import errno
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Operating-system errors of a full disk."""
MOST_SHOWN = 80
"""Maximum number of characters of a wrong value that an error shows."""
MOST_WHOLE = (1 << 63) - 1
"""The largest integer allowed in input; larger ones fit no array and no generator's seed."""
TOLD = "told"
"""Type of a pydantic error whose message already contains the wrong value."""

M = TypeVar("M", bound=BaseModel)


class UserError(ValueError):
    """A mistake of the user: what came, what was allowed and what to do about it, in one line.

    Args:
        said: the line.
        key: the dotted config key that it is about; used to find its line in a file.
        came: the wrong value.
    """

    def __init__(self, said: str, key: str = "", came: Any = None) -> None:
        super().__init__(said)
        self.key, self.came = key, came


class Strict(BaseModel):
    """Input as a frozen class that refuses unknown keys, NaN, infinities and silent conversions."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def unit(name: str) -> Any:
    """Give the unit of a number, for the reference and the schema."""
    return Field(json_schema_extra={"unit": name})


Count = Annotated[int, Field(gt=0, le=10**9)]


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest allowed name, else the list of allowed names."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; allowed: {', '.join(names)}" if names else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if there is no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def shortened(said: str, most: int) -> str:
    """Return a text cut to at most ``most`` characters."""
    return said if len(said) <= most else f"{said[: most - 3]}..."


def shown(value: Any) -> str:
    """Return a wrong value for an error message: one line of at most :data:`MOST_SHOWN` characters."""
    if isinstance(value, (Mapping, BaseModel)):
        return "a mapping"
    if isinstance(value, int) and abs(value) > MOST_WHOLE:
        return "a whole number beyond 2^63"  # Python refuses to write out long ones
    try:
        return shortened(repr(value), MOST_SHOWN)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__}"


def printable(said: object) -> str:
    """Return a text on one line: line ends, control characters and lone surrogates are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(said))


_said: set[str] = set()


def say_once(message: str) -> None:
    """Print a one-line message on standard error, once per process."""
    if message not in _said:
        _said.add(message)
        sys.stderr.write(f"optstudy: {printable(message)}\n")


def validate(kind: type[M], data: Any, where: str = "") -> M:
    """Validate ``data``; errors become a :class:`UserError` with the key and the nearest valid one."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        prefix = f"{where}: " if where else ""
        found = sorted(_unique(error.errors()), key=lambda e: bool(e["type"] == "missing"))
        said = [explain(e, e["loc"], _fields(kind, e["loc"][:-1])) for e in found]
        key = ".".join(part for part in found[0]["loc"] if isinstance(part, str))
        raise UserError(prefix + "; ".join(said), key, found[0]["input"]) from None


def wrong(place: tuple[str | int, ...], said: str, came: Any, kind: str = "value") -> InitErrorDetails:
    """Return an error of pydantic's; what came is added to the message unless its kind is :data:`TOLD`."""
    return InitErrorDetails(type=PydanticCustomError(kind, said), loc=place, input=came)


def missing(place: tuple[str | int, ...], tree: Any) -> InitErrorDetails:
    """Return pydantic's error of a key that is not given."""
    return InitErrorDetails(type="missing", loc=place, input=tree)


def refuse(errors: list[InitErrorDetails]) -> None:
    """Raise errors, if there are any, inside of a validator."""
    if errors:
        raise ValidationError.from_exception_data("config", errors) from None


def _unique(errors: Iterable[Any]) -> list[Any]:
    return list({".".join(map(str, e["loc"])) + e["type"]: e for e in errors}.values())


def explain(error: Any, loc: Sequence[Any], allowed: Iterable[str], whole: str = "") -> str:
    """Describe a pydantic error in one line: the key, what came, what was allowed.

    Args:
        error: one of ``ValidationError.errors()``.
        loc: the path to the key, from the root.
        allowed: the keys allowed at that place.
        whole: the name of the root, if the message should contain it.
    """
    key = ".".join(map(str, loc)) or whole
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}{nearest(str(loc[-1]), allowed)}"
    if error["type"] == "missing":
        return f"{key}: missing, give it a value"
    if error["type"] == TOLD:
        return f"{key}: {error['msg']}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] in ("dict_type", "model_type"):
        message = "must be a mapping of keys to values"
    came = error["input"]
    of_a_mapping = isinstance(came, (Mapping, BaseModel)) and not error["type"].endswith("_type")
    where = f"{key}: " if key else ""
    return f"{where}{message[:1].lower()}{message[1:]}{'' if of_a_mapping else f', not {shown(came)}'}"


def _fields(kind: type[BaseModel], loc: Sequence[Any]) -> list[str]:
    for part in loc:
        field = kind.model_fields.get(part)
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        kind = annotation
    return list(kind.model_fields)
