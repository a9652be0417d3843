"""Documents of local files: plain text, and JSON lines with a ``text`` key, each also gzipped.

JSON lines hold one document each. Plain text is cut into documents at the first blank line after 4,096
bytes, or the first line end after 65,536 bytes. UTF-8 only; nothing is skipped: what cannot be read is an
error that names file and line.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from optstudy import cache, record
from optstudy.errors import UserError

READING = 1
"""Raised whenever a change here alters the documents that come out of the same files."""

TEXT = (".txt", ".text", ".md", ".txt.gz")
LINES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
PARAGRAPHS_END = 4_096
LINES_END = 65_536


def listing(root: Path) -> list[Path]:
    """Return the files to read, in order: ``root`` itself, or the text below it, by relative path.

    Files with other endings, and hidden ones, are no text.
    """
    try:
        if not root.is_dir():
            root.open("rb").close()
            return [root]
        found = [path for path in root.rglob("*") if path.name.endswith(TEXT + LINES) and path.is_file()]
    except OSError as error:
        raise UserError(f"{error.filename or root}: {error.strerror}") from None
    found = [path for path in found if not any(p.startswith(".") for p in path.relative_to(root).parts)]
    if not found:
        raise UserError(f"{root}: no text in this folder; files must end in {', '.join(TEXT + LINES)}")
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def documents(path: Path) -> Iterator[str]:
    """Yield the documents of one file."""
    return _json_lines(path) if path.name.endswith(LINES) else _plain(path)


def _lines(path: Path) -> Iterator[bytes]:
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for line in file:
                number += 1
                yield line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: truncated or damaged gzip after line {number:,} ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def _decode(data: bytes, path: Path, line: int) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        raise UserError(
            f"{path}, line {line:,}: not UTF-8 ({error.reason} 0x{data[error.start]:02x})"
        ) from None


def _json_lines(path: Path) -> Iterator[str]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            tree = json.loads(_decode(line, path, number))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number:,}: not JSON ({error.msg})") from None
        text = tree.get("text") if isinstance(tree, dict) else None
        if not isinstance(text, str):
            raise UserError(f'{path}, line {number:,}: must be an object whose "text" is a string')
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError(f"{path}, line {number:,}: a lone surrogate, which is no Unicode text") from None
        yield text


def _plain(path: Path) -> Iterator[str]:
    held: list[bytes] = []
    size, first = 0, 1
    for number, line in enumerate(_lines(path), 1):
        held.append(line)
        size += len(line)
        if size >= LINES_END or (size >= PARAGRAPHS_END and not line.strip()):
            yield _decode(b"".join(held), path, first).strip("\r\n")
            held, size, first = [], 0, number + 1
    if held:
        yield _decode(b"".join(held), path, first).strip("\r\n")


def digests(root: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of :func:`listing` by relative path.

    Remembered by size and modification time, so that large files are read once.
    """
    paths = listing(root)
    memory = cache.folder("files") / f"{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]}.json"
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError):
        known = {}
    now = {}
    for path in paths:
        name = path.relative_to(root).as_posix()
        try:
            status = path.stat()
            stamp = [status.st_size, status.st_mtime_ns]
            if known.get(name, [])[:2] == stamp:
                now[name] = known[name]
            else:
                with path.open("rb") as file:
                    now[name] = [*stamp, hashlib.file_digest(file, "sha256").hexdigest()]
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
    if now != known:
        record.write_json(memory, now)
    return {name: entry[2] for name, entry in now.items()}
