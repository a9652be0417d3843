"""Prepares a run: completes its config, creates its folder, and checks both. Imports no torch."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optstudy import program, provenance
from optstudy.cache import expanded
from optstudy.config import RunConfig
from optstudy.data import names, text
from optstudy.data.hub import PREFIX
from optstudy.errors import UserError, first_line, printable, say_once, validate
from optstudy.program import AnyConfig, Program
from optstudy.record import ID, ended, read_json, read_result, write_json
from optstudy.scales import with_sizes


def settle(tree: Mapping[str, Any]) -> RunConfig:
    """Fill in the scale's sizes, a model's file and the hashes of text, tokenizer and code; validate.

    Raises:
        UserError: a wrong value, with its key; or a file cannot be read.
    """
    tree = _with_model_file(with_sizes(tree))
    data = tree.get("data")
    if isinstance(data, Mapping):
        corpus, tokenizer = data.get("corpus"), data.get("tokenizer")
        filled: dict[str, Any] = {"tokenizer_fingerprint": tokenizer_fingerprint(tokenizer)}
        if not isinstance(corpus, str):
            filled["fingerprint"] = ""  # one error is enough
        else:
            try:
                column = data.get("text_key", text.TEXT)
                column = column if isinstance(column, str) else text.TEXT
                filled["fingerprint"] = text.fingerprint(corpus, column)
            except UserError as error:
                key = error.key or "data.corpus"
                raise UserError(f"{key}: {error}", key, error.came or corpus) from None
        tree = {**tree, "data": {**data, **filled}}
    config = validate(RunConfig, tree)
    chosen, model = config.optimizer, config.model
    return config.model_copy(
        update={
            "optimizer": chosen.model_copy(update={"code": provenance.fingerprint(chosen.targets)}),
            "model": model.model_copy(update={"code": provenance.fingerprint(model.targets)}),
        }
    )


OF_NO_MODEL = frozenset(
    {
        *("architectures", "auto_map", "dtype", "model_type", "torch_dtype", "transformers_version"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "use_cache", "vocab_size"),
    }
)
"""Keys of a Hugging Face ``config.json`` that say how a model was saved and used, or which pieces it read."""


def _with_model_file(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Put what the file of ``model.config`` says under ``model.options``, so that the config says all."""
    model = tree.get("model")
    if not isinstance(model, Mapping) or not isinstance(model.get("config"), str):
        return tree
    path, options = model["config"], model.get("options", {})
    try:
        found = json.loads(expanded(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        said = getattr(error, "strerror", None) or f"no JSON ({first_line(error)})"
        raise UserError(f"model.config: {printable(path)}: {said}", "model.config", path) from None
    if not isinstance(found, dict):
        raise UserError(f"model.config: {printable(path)}: must be a JSON object", "model.config", path)
    if not isinstance(options, Mapping):  # which is told when all is checked
        return tree
    said = {key: one for key, one in found.items() if key not in OF_NO_MODEL and not key.startswith("_")}
    return {**tree, "model": {**model, "options": {**said, **options}}}


def tokenizer_fingerprint(name: Any) -> str | None:
    """Return a hash of the tokenizer file that ``data.tokenizer`` names; None if it names no file.

    Raises:
        UserError: no tokenizer has that name, or its file cannot be read.
    """
    if not isinstance(name, str):
        return None
    try:
        return names.fingerprint(name)
    except UserError as error:
        raise UserError(f"data.tokenizer: {error}", "data.tokenizer", name) from None


def validated(tree: Mapping[str, Any], where: str = "") -> AnyConfig:
    """Read a config of either kind; that of another training program has a key ``trainer``.

    Raises:
        UserError: names every wrong key.
    """
    return validate(Program, tree, where) if "trainer" in tree else validate(RunConfig, tree, where)


def check_unchanged(config: AnyConfig) -> None:
    """Refuse to continue a run whose text, tokenizer, classes or program have changed since it began.

    Raises:
        UserError: names what has changed or cannot be read.
    """
    if isinstance(config, Program):
        now = program.fingerprint(config.trainer)
        if now != config.trainer.fingerprint:
            raise UserError(
                f"trainer.code: it has changed since this run was made: its fingerprint is {now}, not "
                f"{config.trainer.fingerprint}; restore it, or run the study again, which makes new runs"
            )
        return
    data, chosen, model = config.data, config.optimizer, config.model
    for key, name, now, then in (
        ("data.corpus", data.corpus, text.fingerprint(data.corpus, data.text_key), data.fingerprint),
        ("data.tokenizer", data.tokenizer, tokenizer_fingerprint(data.tokenizer), data.tokenizer_fingerprint),
        ("optimizer.name", chosen.name, provenance.fingerprint(chosen.targets), chosen.code),
        ("model.name", model.name, provenance.fingerprint(model.targets), model.code),
    ):
        if now != then:
            raise UserError(
                f"{key}: {name} has changed since this run was made: its fingerprint is {now}, not {then}; "
                "restore it, or start a new run from a config or study file"
            )


def read_config(folder: Path) -> AnyConfig:
    """Read a run's config.

    Raises:
        UserError: it is missing or damaged, or belongs to another run than the folder's name or its result.
    """
    path = folder / "config.json"
    tree = read_json(path)
    if tree is None:
        raise UserError(f"{folder}: no config.json there; give a run folder or a config file")
    config = validated(tree, str(path))
    name = folder.resolve().name
    result = read_result(folder)
    for run_id in [name] * bool(ID.fullmatch(name)) + ([] if result is None else [result["id"]]):
        if run_id != config.id:
            raise UserError(
                f"{path}: is the config of run {config.id}, not of {run_id}: it was edited, the folder was "
                f"renamed, or an older version began it; undo that, or train it again: optstudy train {path}"
            )
    return config


PLACE = "place.json"
"""File with the folder in which a run of our own trainer was created, if relative paths depend on it."""


def go_home(folder: Path) -> Path:
    """Change to the folder that a run's relative paths and modules refer to, if one is recorded.

    Returns:
        The run's folder, as seen from there.
    """
    home = (read_json(folder / PLACE) or {}).get("folder")
    if not isinstance(home, str) or not Path(home).is_dir() or Path(home) == Path.cwd():
        return folder
    folder = folder.resolve()
    os.chdir(home)
    return folder


def _leans_on_folder(config: RunConfig) -> bool:
    """Whether the files that a run reads depend on the folder in which it starts."""
    data = config.data
    paths = [data.corpus.removeprefix("path:")] if data.corpus.startswith("path:") else []
    if data.tokenizer_fingerprint is not None and not data.tokenizer.startswith(PREFIX):
        paths += [data.tokenizer]
    return program.code_of(config) is not None or not all(Path(path).is_absolute() for path in paths)


def prepare(runs: Path, config: AnyConfig, held: Callable[[Path], object]) -> Path:
    """Return a run's folder with this config in it; it is created if missing.

    Values that are not part of the id (``watch``, ``training.parallel``, the location of the corpus; a
    program's metric and timeout) are updated, even if the run has begun. The config does not change if the
    run has ended or another process is working on it.

    Args:
        runs: the folder that holds the run folders.
        config: the run's config.
        held: returns the process that is working on a folder's run, if any.

    Raises:
        UserError: the folder contains the config of another run.
    """
    folder = runs / config.id
    path = folder / "config.json"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = config.model_dump(mode="json")
    try:
        tree = read_json(path)
        if tree == wanted:
            return folder
        found = None if tree is None else validated(tree, str(path))
    except UserError as error:
        say_once(f"{error}; written again")
        found = None
    if found is not None:
        if found == config or ended(folder) or held(folder):
            return folder
        read_config(folder)
    if isinstance(config, RunConfig) and _leans_on_folder(config) and not (folder / PLACE).exists():
        write_json(folder / PLACE, {"folder": str(Path.cwd())})
    write_json(path, wanted)
    return folder
