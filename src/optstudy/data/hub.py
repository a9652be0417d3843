"""Rows of the Hugging Face hub, streamed by the library ``datasets`` (an optional extra), and its tokenizers.

What is on the hub may change: all names here have a revision that does not.
"""

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from optstudy.errors import UserError, first_line, printable

PREFIX = "hf:"
_NAME = re.compile(r"hf:([\w.-]+/[\w.-]+)(?::([\w.-]+))?@([0-9a-f]{40})")


@dataclass(frozen=True)
class HubFiles:
    """Numbered files of one revision of a repository."""

    root: str
    """``hf://datasets/OWNER/NAME@REVISION``, or any folder that ``datasets`` reads."""
    builder: str
    """The loader of ``datasets``: ``json`` or ``parquet``."""
    names: dict[str, tuple[str, ...]]
    """Paths under ``root`` by split."""

    def texts(self, name: str) -> Iterator[str]:
        """Yield the column ``text`` of one file.

        Raises:
            UserError: ``datasets`` is not installed, or the file cannot be read.
        """
        url = f"{self.root}/{name}"
        return _texts(_library(name), url, "text", self.builder, data_files=url)


@dataclass(frozen=True)
class HubName:
    """What ``hf:OWNER/NAME@COMMIT`` names: a repository of the hub at one commit."""

    repository: str
    subset: str | None
    """Of a dataset, ``hf:OWNER/NAME:SUBSET@COMMIT``."""
    commit: str

    def texts(self, key: str) -> Iterator[str]:
        """Yield a column of the split ``train`` of a dataset.

        Raises:
            UserError: ``datasets`` is not installed, the dataset cannot be read, or has no such column.
        """
        told = {} if self.subset is None else {"name": self.subset}
        return _texts(
            _library(self.repository), str(self), key, self.repository, revision=self.commit, **told
        )

    def tokenizer(self) -> Path:
        """Return the repository's ``tokenizer.json``, from the hub's own cache once it is there.

        Raises:
            UserError: it cannot be had.
        """
        hub: Any = importlib.import_module("huggingface_hub")
        try:
            return Path(hub.hf_hub_download(self.repository, "tokenizer.json", revision=self.commit))
        except Exception as error:
            raise UserError(
                f"{self}: its tokenizer.json cannot be had ({first_line(error)}); it needs a connection to "
                "the hub, once, or give the file's path"
            ) from None

    def __str__(self) -> str:
        subset = "" if self.subset is None else f":{self.subset}"
        return f"{PREFIX}{self.repository}{subset}@{self.commit}"


def parsed(name: str, kind: str) -> HubName:
    """Return what a name that begins with :data:`PREFIX` names.

    Args:
        name: the name.
        kind: ``dataset`` or ``tokenizer``, for errors.

    Raises:
        UserError: it names no repository at one commit.
    """
    found = _NAME.fullmatch(name)
    if found is None or (kind == "tokenizer" and found[2] is not None):
        subset = "[:SUBSET]" if kind == "dataset" else ""
        raise UserError(
            f"{printable(name)}: a {kind} of the hub is {PREFIX}OWNER/NAME{subset}@COMMIT, with the 40 "
            "digits of a commit, so that it stays the same; its page lists them under 'Files and versions'"
        )
    return HubName(found[1], found[2], found[3])


def numbered(pattern: str, count: int) -> tuple[str, ...]:
    """Return ``pattern.format(i, count)`` for each ``i`` of ``count``."""
    return tuple(pattern.format(i, count) for i in range(count))


def _texts(datasets: ModuleType, place: str, key: str, *what: str, **told: str) -> Iterator[str]:
    """Yield a column of what ``load_dataset`` streams."""
    try:
        for row in datasets.load_dataset(*what, split="train", streaming=True, **told):
            text = row.get(key)
            if not isinstance(text, str):
                keys = ", ".join(name for name, value in row.items() if isinstance(value, str))
                hint = f"; set data.text_key to one of {keys}" if keys else ""
                raise UserError(f"{place}: a row without a text {key!r}{hint}")
            yield text
    except UserError:
        raise
    except Exception as error:  # its layers raise errors without a common base
        raise UserError(
            f"{place} cannot be read ({first_line(error)}); it needs a connection to the hub, "
            "or give local shards as path:FOLDER"
        ) from None


def _library(name: str) -> ModuleType:
    try:
        library = importlib.import_module("datasets")
    except ImportError:
        raise UserError(
            f"{name} comes from the hub through the library datasets: pip install 'optstudy[data]', "
            "or give local shards as path:FOLDER"
        ) from None
    library.disable_progress_bars()
    return library
