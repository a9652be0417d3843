"""What every test shares: one thread, no deadline, and a slice of the real corpus."""

import itertools
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from optstudy.data import text

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts behind its back ignores Ctrl-C

SLICE_BYTES = {"train": 400_000, "validation": 60_000}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Keep a test to one thread and to all floats; torch is not imported for those that do not use it."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_flush_denormal(False)
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)


def articles(split: str, size: int) -> Iterator[str]:
    """The first articles of enwik8, ``size`` bytes or a little more; fetched once per machine."""
    for article in text.documents("enwik8", split):
        yield article
        size -= len(article.encode())
        if size <= 0:
            return


def write_lines(path: Path, documents: list[str]) -> Path:
    """Write JSON lines as C4's files have them."""
    rows = ({"text": d, "timestamp": "2019-04-25T12:57:54Z", "url": "https://example.org"} for d in documents)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def corpus_slice(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Some 460 kB of the cleaned enwik8 as a ``path:`` corpus with a validation split of its own."""
    folder = tmp_path_factory.mktemp("slice")
    for split, size in SLICE_BYTES.items():
        write_lines(folder / f"{split}.jsonl", list(articles(split, size)))
    return f"path:{folder}"


@pytest.fixture(scope="session")
def some_articles() -> list[str]:
    """Forty articles of enwik8."""
    return list(itertools.islice(text.documents("enwik8", "train"), 40))


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("OPTSTUDY_CACHE", str(folder))
    return folder
