"""Options and arguments shared by several commands."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from optstudy.errors import UserError, nearest

RUNS = Path("runs")
"""Default folder of the run folders. Commands without ``--runs`` get this very object."""
DEVICES = ("auto", "cpu", "cuda")


def _studies(_: object) -> list[str]:
    """Names for the shell's completion."""
    from optstudy.study.library import names

    return names()


StudyName = Annotated[str, Parameter(name="study", completer=_studies)]
Assignments = Annotated[
    tuple[str, ...],
    Parameter(
        name="--set",
        allow_leading_hyphen=True,
        help="A config value that overrides the study's or file's, as `key=value`; may be repeated. "
        'Read as YAML: a number, `true`, `false`, `null`, a `"quoted text"`, a `[list]`, a `{key: value}`. '
        "Anything else is literal text, even with ` #` or `: ` in it.",
    ),
]
Axes = Annotated[tuple[str, ...], Parameter(name="--axis", allow_leading_hyphen=True)]
Scale = Annotated[str | None, Parameter(show_default=False)]
Json = Annotated[bool, Parameter(name="--json")]


def known_device(device: str) -> None:
    """Refuse an unknown device.

    Raises:
        UserError: lists the known ones.
    """
    if device not in DEVICES:
        raise UserError(f"--device: unknown device {device!r}{nearest(device, DEVICES)}")


def belong(to: str, there: bool, **given: object) -> None:
    """Refuse options that would have no effect.

    Args:
        to: the option that they require.
        there: whether it was given.
        given: the options by name; empty, None or false means not given.

    Raises:
        UserError: names the first of them.
    """
    for name, value in given.items():
        if not there and value not in (None, (), False):
            raise UserError(
                f"--{name.rstrip('_')}: it says nothing without {to}; give that too, or leave it out"
            )


def existing(runs: Path) -> None:
    """Refuse a given runs folder that does not exist; the default one may not exist yet.

    Raises:
        UserError: names it.
    """
    if runs is not RUNS and not runs.is_dir():
        raise UserError(f"--runs: no run has ended in {runs}: there is no such folder")
