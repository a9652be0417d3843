"""Rows of files on the Hugging Face hub, streamed with the library ``datasets`` (an optional extra)."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from optstudy.errors import UserError, first_line


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
        datasets = _library(name)
        url = f"{self.root}/{name}"
        try:
            stream = datasets.load_dataset(self.builder, data_files=url, split="train", streaming=True)
            for row in stream:
                yield _text(row, url)
        except UserError:
            raise
        except Exception as error:  # its layers raise errors without a common base
            raise UserError(
                f"{url} cannot be read ({first_line(error)}); it needs a connection to the hub, "
                "or give local shards as path:FOLDER"
            ) from None


def numbered(pattern: str, count: int) -> tuple[str, ...]:
    """Return ``pattern.format(i, count)`` for each ``i`` of ``count``."""
    return tuple(pattern.format(i, count) for i in range(count))


def _text(row: dict[str, Any], url: str) -> str:
    text = row.get("text")
    if not isinstance(text, str):
        raise UserError(f"{url}: a row without text")
    return text


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
