"""Options and arguments that several commands have, as they are spelt on the command line."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from optstudy.errors import UserError, nearest

RUNS = Path("runs")
"""Where run folders are, if nothing else is said. Commands that are told nothing have this very object."""
DEVICES = ("auto", "cpu", "cuda")


def _studies(_: object) -> list[str]:
    """Names that the shell completes."""
    from optstudy.study.library import names

    return names()


StudyName = Annotated[str, Parameter(name="study", completer=_studies)]
Assignments = Annotated[
    tuple[str, ...],
    Parameter(
        name="--set",
        allow_leading_hyphen=True,
        help="A config value over the study's or file's, as `key=value`; may be given several times. "
        'Read as YAML: a number, `true`, `false`, `null`, a `"quoted text"`, a `[list]`, a `{key: value}`. '
        "Anything else is text to the letter, also with ` #` or `: ` in it.",
    ),
]
Axes = Annotated[tuple[str, ...], Parameter(name="--axis", allow_leading_hyphen=True)]
Scale = Annotated[str | None, Parameter(show_default=False)]
Json = Annotated[bool, Parameter(name="--json")]


def known_device(device: str) -> None:
    """Refuse a device that is none.

    Raises:
        UserError: naming those that there are.
    """
    if device not in DEVICES:
        raise UserError(f"--device: unknown device {device!r}{nearest(device, DEVICES)}")


def belong(to: str, there: bool, **given: object) -> None:
    """Refuse options that nothing would come of.

    Args:
        to: what they need beside them.
        there: whether that was given.
        given: the options by name; what is empty, None or false was not given.

    Raises:
        UserError: naming the first of them.
    """
    for name, value in given.items():
        if not there and value not in (None, (), False):
            raise UserError(
                f"--{name.rstrip('_')}: it says nothing without {to}; give that too, or leave it out"
            )


def existing(runs: Path) -> None:
    """Refuse a runs folder that was named and is not there; the default one may be still to come.

    Raises:
        UserError: naming it.
    """
    if runs is not RUNS and not runs.is_dir():
        raise UserError(f"--runs: no run has ended in {runs}: there is no such folder")
