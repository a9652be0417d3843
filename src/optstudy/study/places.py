"""The folder in which a study was first run; relative paths of its program always start there.

It is stored in ``.studies.json`` in the runs folder, by the study file's path. No torch.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from optstudy.errors import UserError, say_once
from optstudy.record import read_json, write_json
from optstudy.study.library import Study

NAME = ".studies.json"


def in_first_folder(study: Study, runs: Path) -> Study:
    """Return a program's study with the folder of its first run; without a record, the current folder."""
    if study.file.trainer is None:
        return study
    folder = Path(str(_recorded(runs).get(_key(study), "")) or ".")
    return replace(study, folder=(folder if folder.is_dir() else Path()).resolve())


def remember(study: Study, runs: Path) -> None:
    """Store the folder of a study that starts to run."""
    known = _recorded(runs)
    if study.file.trainer is not None and known.get(_key(study)) != str(study.folder):
        runs.mkdir(parents=True, exist_ok=True)
        write_json(runs / NAME, {**known, _key(study): str(study.folder)})


def _key(study: Study) -> str:
    return str(Path(study.path or study.name).resolve())


def _recorded(runs: Path) -> dict[str, Any]:
    try:
        return read_json(runs / NAME) or {}
    except UserError as error:
        say_once(f"{error}; left out")
        return {}
