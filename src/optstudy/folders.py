"""Run folders before a run: made, checked, and told what the command says. Imports no torch."""

from collections.abc import Callable
from pathlib import Path

from optstudy.config import RunConfig
from optstudy.errors import UserError, say_once, validate
from optstudy.record import ID, read_json, read_result, write_json


def read_config(folder: Path) -> RunConfig:
    """Read a run's config.

    Raises:
        UserError: there is none, it is damaged, or it is that of another run than the folder's name or
            result says.
    """
    path = folder / "config.json"
    tree = read_json(path)
    if tree is None:
        raise UserError(f"{folder}: no config.json there; give a run folder or a config file")
    config = validate(RunConfig, tree, str(path))
    name = folder.resolve().name
    result = read_result(folder)
    for run_id in [name] * bool(ID.fullmatch(name)) + ([] if result is None else [result["id"]]):
        if run_id != config.id:
            raise UserError(
                f"{path}: is the config of run {config.id}, not of {run_id}: it was edited, the folder was "
                f"renamed, or an older version began it; undo that, or train it anew: optstudy train {path}"
            )
    return config


def prepare(runs: Path, config: RunConfig, held: Callable[[Path], object]) -> Path:
    """Return a run's folder, made if need be, with the command's config in it.

    What is no part of the id (``watch``, ``training.parallel``, where the corpus lies) is the command's, also
    where the run has begun. The config of a run that has ended, or that another process works on, stays.

    Args:
        runs: where run folders are.
        config: the run's.
        held: says which process works on a folder's run, if any.

    Raises:
        UserError: the folder's config is that of another run.
    """
    folder = runs / config.id
    path = folder / "config.json"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = config.model_dump(mode="json")
    try:
        tree = read_json(path)
        if tree == wanted:
            return folder
        found = None if tree is None else validate(RunConfig, tree, str(path))
    except UserError as error:
        say_once(f"{error}; written again")
        found = None
    if found is not None:
        if found == config or (folder / "result.json").exists() or held(folder):
            return folder
        read_config(folder)
    write_json(path, wanted)
    return folder
