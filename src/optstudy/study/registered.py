"""Claims as they were when the runs began, written beside these, so that later changes can be told. No torch.

The first ``run`` of a study at a scale writes its claims with the time into the runs folder, in
``STUDY.claims.json``; a later one adds what it finds changed, with the number of runs that had ended by then.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from optstudy.errors import Strict, validate
from optstudy.record import read_json, write_json
from optstudy.study.session import Session

FORMAT = 1


class Entry(Strict):
    """All claims of a study as one ``run`` found them."""

    scale: str
    time: str
    """UTC."""
    runs: int
    """Runs of the study that had ended, in this folder."""
    claims: dict[str, dict[str, str]]
    """``says`` and ``test`` by name."""


class Register(Strict):
    """The file."""

    format: int = FORMAT
    entries: list[Entry] = []


def write(session: Session) -> None:
    """Write a study's claims where they are not written yet; those of an overridden config are not judged."""
    now = _claims(session)
    register = _read(session)
    mine = [entry for entry in register.entries if entry.scale == session.scale]
    if session.overrides or not (now or mine) or (mine and mine[-1].claims == now):
        return
    packaged = not mine and not session.study.path  # these came with the package, before any run
    time = datetime.now(UTC).isoformat(timespec="seconds")
    entry = Entry(scale=session.scale, time=time, runs=0 if packaged else _ended(session), claims=now)
    session.runs.mkdir(parents=True, exist_ok=True)
    after = register.model_copy(update={"entries": [*register.entries, entry]})
    write_json(_path(session), after.model_dump())


def changes(session: Session) -> Mapping[str, str]:
    """Say of each claim that was changed or added after runs had ended, after how many.

    Raises:
        UserError: the file is damaged.
    """
    mine = [entry for entry in _read(session).entries if entry.scale == session.scale]
    found = {}
    for name, claim in _claims(session).items() if mine else ():
        runs = next((entry.runs for entry in mine if entry.claims.get(name) == claim), None)
        runs = _ended(session) if runs is None else runs
        if runs:
            word = "changed" if any(name in entry.claims for entry in mine) else "added"
            found[name] = f"{word} after {runs} run{'s' * (runs != 1)}"
    return found


def _claims(session: Session) -> dict[str, dict[str, str]]:
    return {one.name: {"says": one.statement, "test": one.test} for one in session.study.claims}


def _ended(session: Session) -> int:
    return sum((session.runs / row.id).exists() for row in session.rows())


def _path(session: Session) -> Path:
    return session.runs / f"{session.study.name.replace('/', '-')}.claims.json"


def _read(session: Session) -> Register:
    path = _path(session)
    tree = read_json(path)
    return Register() if tree is None else validate(Register, tree, str(path))
