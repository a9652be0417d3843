"""Stores claims as they were when the runs began, so that later changes can be reported. No torch.

The first ``run`` of a study at a scale writes its claims with the time to ``STUDY.claims.json`` in the runs
folder. Later ones append the claims that have changed, with the number of runs that had ended by then.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optstudy.errors import Strict, validate
from optstudy.record import read_json, write_json

if TYPE_CHECKING:
    from optstudy.study.session import Session

FORMAT = 1


class Registration(Strict):
    """All claims of a study at the time of one ``run``."""

    scale: str
    overrides: dict[str, Any] = {}
    """Overriding config values of that ``run``, by dotted key."""
    time: str
    """Time, UTC."""
    runs: int
    """Number of the study's runs in this folder that had ended."""
    claims: dict[str, dict[str, str]]
    """``says`` and ``test`` of each claim, by name."""
    decide: bool = False
    """Seeds are added until the claims are decided, so they are judged at several looks."""


class Register(Strict):
    """The contents of ``STUDY.claims.json``."""

    format: int = FORMAT
    entries: list[Registration] = []


def write(session: "Session", decide: bool = False) -> None:
    """Write a study's claims, and whether they are to be decided, if they are not stored yet."""
    now, register = _claims(session), _read(session)
    mine = _mine(session, register)
    decide = decide or decides(session)
    if not (now or mine) or (mine and (mine[-1].claims, mine[-1].decide) == (now, decide)):
        return
    packaged = not mine and not session.study.path  # these came with the package, before any run
    time = datetime.now(UTC).isoformat(timespec="seconds")
    runs = 0 if packaged else _ended(session)
    entry = Registration(
        scale=session.scale, overrides=session.overrides, time=time, runs=runs, claims=now, decide=decide
    )
    session.runs.mkdir(parents=True, exist_ok=True)
    after = register.model_copy(update={"entries": [*register.entries, entry]})
    write_json(_path(session), after.model_dump())


def decides(session: "Session") -> bool:
    """Whether seeds are added until the claims are decided."""
    return any(entry.decide for entry in _mine(session, _read(session)))


def changes(session: "Session") -> Mapping[str, str]:
    """Return, for each claim changed or added after runs had ended, how many runs had ended.

    Raises:
        UserError: the file is damaged.
    """
    mine = _mine(session, _read(session))
    found = {}
    for name, claim in _claims(session).items() if mine else ():
        written = [entry.claims.get(name) for entry in mine]
        since = written.index(claim) if claim in written else None
        runs = _ended(session) if since is None else mine[since].runs
        if runs:
            word = "changed" if any(written[:since]) else "added"
            found[name] = f"{word} after {runs} run{'s' * (runs != 1)}"
    return found


def _mine(session: "Session", register: Register) -> list[Registration]:
    """The entries for a session's scale and overrides."""
    where = session.scale, session.overrides
    return [entry for entry in register.entries if (entry.scale, entry.overrides) == where]


def _claims(session: "Session") -> dict[str, dict[str, str]]:
    return {one.name: {"says": one.statement, "test": one.test} for one in session.study.claims}


def _ended(session: "Session") -> int:
    return sum((session.runs / row.id).exists() for row in session.rows())


def _path(session: "Session") -> Path:
    return session.runs / f"{session.study.name.replace('/', '-')}.claims.json"


def _read(session: "Session") -> Register:
    path = _path(session)
    tree = read_json(path)
    return Register() if tree is None else validate(Register, tree, str(path))
