"""What every test shares: one thread, and a slice of the real corpus."""

import json
import sys
from pathlib import Path

import pytest

from optstudy import text

SLICE_BYTES = 400_000


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Keep a test that uses torch to one thread, without importing it for those that do not."""
    if (torch := sys.modules.get("torch")) is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def corpus_slice(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The first 400 kB of the cleaned enwik8 as a ``path:`` corpus; fetched once per machine."""
    path: Path = tmp_path_factory.mktemp("corpus") / "slice.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for document in text.documents("enwik8", "train"):
            file.write(json.dumps({"text": document}, ensure_ascii=False) + "\n")
            if file.tell() > SLICE_BYTES:
                break
    return f"path:{path}"
