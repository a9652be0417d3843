"""Errors that are the user's to mend: the command line prints them in one line and exits with 2."""

import difflib
import errno
import sys
from collections.abc import Iterable

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Operating-system errors of a full disk."""


class UserError(ValueError):
    """What came, what was allowed and what to do about it, in one line."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest allowed name, else the list of what is allowed."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; allowed: {', '.join(names)}" if names else ""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def shortened(said: str, most: int) -> str:
    """Return a text of at most so many characters."""
    return said if len(said) <= most else f"{said[: most - 3]}..."


def printable(said: object) -> str:
    """Return a text on one line: line ends, control characters and half characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(said))


_said: set[str] = set()


def say_once(message: str) -> None:
    """Tell the user something on standard error, in one line, once per process."""
    if message not in _said:
        _said.add(message)
        sys.stderr.write(f"optstudy: {message}\n")
