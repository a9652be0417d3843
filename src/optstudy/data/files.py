"""Documents of local files: plain text, and JSON lines whose text has a key, each also gzipped.

A JSON line holds one document. Plain text is split into documents at the first blank line after 4,096 bytes,
or at the first line end after 65,536 bytes. The text is UTF-8; a byte order mark at the start is removed.
Nothing is skipped: unreadable text is an error that names file and line.
"""

import gzip
import hashlib
import json
import os
import re
import stat
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import IO, cast

from optstudy import cache, record
from optstudy.errors import UserError, printable

READING = 1
"""Increased when a change here alters the documents read from the same files."""

TEXT = (".txt", ".text", ".md")
LINES = (".jsonl", ".json", ".ndjson", ".jsonlines", ".jl")
"""File name extensions, in upper or lower case; ``.gz`` may follow."""
PARAGRAPHS_END = 4_096
LINES_END = 65_536
LONGEST_LINE = 1 << 27
"""Maximum bytes of a line: it is held in memory whole, and a few MB of gzip can expand to gigabytes."""
MARK = b"\xef\xbb\xbf"
"""UTF-8's byte order mark."""

_ROWS = (
    "write its text column as JSON lines, for example with pandas: "
    "table[['text']].to_json('text.jsonl', orient='records', lines=True)"
)
_UNPACK = "unpack it, and name the file or folder that comes out"
_CONVERT = "convert it to plain text or JSON lines"
_TABLE, _ARCHIVE, _COMPRESSED = "a table", "an archive", "compressed with something other than gzip"
_DOCUMENT, _ARRAYS = "a document with layout", "binary data"
_UNNAMED_GZIP, _WIDE = "compressed with gzip", "UTF-16 or UTF-32"
_ADVICE = {
    _TABLE: _ROWS,
    _ARCHIVE: _UNPACK,
    _COMPRESSED: _UNPACK,
    _DOCUMENT: _CONVERT,
    _ARRAYS: _CONVERT,
    _UNNAMED_GZIP: "let its name end in .gz",
    _WIDE: "write it as UTF-8",
}
_ENDINGS = {
    _TABLE: ".csv .tsv .tab .psv .parquet .pq .arrow .feather .ipc .orc .avro .xls .xlsx .xlsm .xlsb .ods "
    ".dta .sav .sas7bdat .rds .sqlite .sqlite3 .duckdb .h5 .hdf5",
    _ARCHIVE: ".zip .tar .tgz .tbz2 .txz .7z .rar",
    _COMPRESSED: ".bz2 .xz .lzma .zst .zstd .lz4 .br .lz .z .gzip .sz .snappy",
    _DOCUMENT: ".pdf .doc .docx .odt .rtf .epub .mobi .ppt .pptx",
    _ARRAYS: ".npy .npz .pkl .pickle .pt .pth .bin .safetensors .tfrecord .mds",
}
_KINDS = {ending: kind for kind, endings in _ENDINGS.items() for ending in endings.split()}
_HOLD_ROWS = (_TABLE, _ARCHIVE, _COMPRESSED)
"""Kinds of files that make a folder invalid, because they may be half of the corpus."""
_BEGINNINGS = {
    rb"PAR1\x15|ARROW1\0|Obj\x01|SQLite format 3\0|\x89HDF": _TABLE,
    rb"PK\x03\x04|7z\xbc\xaf|Rar!\x1a": _ARCHIVE,
    rb"\x28\xb5\x2f\xfd|\xfd7zXZ\0|BZh[1-9]1AY&SY": _COMPRESSED,
    rb"%PDF-": _DOCUMENT,
    rb"\x93NUMPY": _ARRAYS,
    rb"\x1f\x8b": _UNNAMED_GZIP,
    rb"\xff\xfe|\xfe\xff": _WIDE,
}
_LIKE_JSON = re.compile(rb'\s*\[?\s*\{\s*"[^"\\]*"\s*:')
_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def ending(path: PurePath) -> str:
    """Return a name's extension in lower case, such as ``.jsonl``, ignoring a ``.gz`` after it."""
    return PurePath(path.name.lower().removesuffix(".gz")).suffix


def listing(root: Path) -> list[Path]:
    """Return the files to read, in order: ``root`` itself, or the text files below it, by relative path.

    Hidden files and files with unknown extensions are skipped. Linked folders are not followed.

    Raises:
        UserError: nothing is there, a file is not text (a table, a pipe), or a folder has no text.
    """
    if not stat.S_ISDIR(_status(root).st_mode):
        _check_single(root)
        return [root]
    found = [path for path in _below(root) if ending(path) in TEXT + LINES or _holds_rows(path)]
    if not found:
        raise UserError(
            f"{printable(root)}: no text in this folder; files must end in {', '.join(TEXT + LINES)}, "
            "and .gz may follow"
        )
    for path in found:
        _refuse_ending(path)
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def regular(path: Path) -> os.stat_result:
    """Return the status of a regular file, without opening it: a pipe would wait for its writer.

    Raises:
        UserError: it does not exist, or is something else.
    """
    status = _status(path)
    if not stat.S_ISREG(status.st_mode):
        kind = _SPECIAL.get(stat.S_IFMT(status.st_mode), "something else")
        raise UserError(f"{printable(path)}: {kind}, where a regular file is needed")
    return status


def documents(path: Path, key: str = "text") -> Iterator[str]:
    """Yield the documents of one file.

    Args:
        path: the file.
        key: of JSON lines, the key of the text.

    Raises:
        UserError: it cannot be read, is not UTF-8, or a line is too long or not an object with a text.
    """
    _refuse_ending(path)
    return _json_lines(path, key) if ending(path) in LINES else _plain(path)


def digests(root: Path) -> dict[str, str]:
    """Return what identifies the contents of each file of :func:`listing`, by relative path.

    It is the SHA-256, with a remark if a byte order mark of plain text is removed. It is cached by size and
    times of change, so that large files are read once.

    Raises:
        UserError: a file cannot be read.
    """
    memory = cache.folder("files") / f"{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]}.json"
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        known = None
    now = {}
    for path in listing(root):
        name = path.relative_to(root).as_posix()
        status = regular(path)
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        entry = known.get(name) if isinstance(known, dict) else None
        if not (isinstance(entry, list) and len(entry) == 4 and entry[:3] == stamp):
            entry = [*stamp, _digest(path)]
        now[name] = entry
    if now != known:
        record.write_json(memory, now)
    return {name: str(entry[3]) for name, entry in now.items()}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a regular file's bytes.

    Raises:
        UserError: it does not exist, or cannot be read.
    """
    regular(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{printable(path)}: {error.strerror}") from None


def _digest(path: Path) -> str:
    with _opened(path) as file:
        marked = _first_bytes(path, file).startswith(MARK)
    return sha256(path) + (" without its mark" if marked and ending(path) not in LINES else "")


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except (OSError, ValueError) as error:  # for a name that no file can have
        raise UserError(f"{printable(path)}: {getattr(error, 'strerror', error)}") from None


def _below(root: Path) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders, except hidden ones."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{printable(error.filename)}: {error.strerror}") from None

    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def _holds_rows(path: Path) -> bool:
    return _KINDS.get(ending(path)) in _HOLD_ROWS


def _refuse_ending(path: Path) -> None:
    kind = _KINDS.get(ending(path))
    if kind:
        raise _refusal(path, kind)


def _refusal(path: Path, kind: str) -> UserError:
    return UserError(f"{printable(path)}: {kind}, which is not read as text; {_ADVICE[kind]}")


def _check_single(path: Path) -> None:
    """Refuse a file whose name or first bytes show that it is neither plain text nor JSON lines."""
    _refuse_ending(path)
    with _opened(path) as file:
        beginning = _first_bytes(path, file)
    if ending(path) not in TEXT + LINES and _LIKE_JSON.match(beginning.removeprefix(MARK)):
        raise UserError(
            f"{printable(path)}: it begins like JSON; let its name end in .jsonl, one "
            "object per line, or in .txt to read it as plain text"
        )


def _first_bytes(path: Path, file: IO[bytes]) -> bytes:
    try:
        beginning = file.read(4096)
    except (EOFError, zlib.error, OSError) as error:
        raise _unreadable(path, 0, error) from None
    _refuse_beginning(path, beginning)
    return beginning


def _refuse_beginning(path: Path, beginning: bytes) -> None:
    for sign, kind in _BEGINNINGS.items():
        if re.match(sign, beginning):
            raise _refusal(path, kind)


def _opened(path: Path) -> IO[bytes]:
    """Open a file, decompressed."""
    status = regular(path)
    packed = path.name.lower().endswith(".gz")
    if packed and not status.st_size:
        raise UserError(f"{printable(path)}: empty, and no gzip file is; fetch it again, or remove it")
    try:
        return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")
    except OSError as error:
        raise UserError(f"{printable(path)}: {error.strerror}") from None


def _unreadable(path: Path, lines: int, error: Exception) -> UserError:
    if isinstance(error, OSError) and error.errno is not None:
        return UserError(f"{printable(path)}: {error.strerror}")
    return UserError(f"{printable(path)}: truncated or damaged gzip after line {lines:,} ({error})")


def _lines(path: Path) -> Iterator[bytes]:
    number = 0
    try:
        with _opened(path) as file:
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    raise UserError(
                        f"{_place(path, number)}: more than {LONGEST_LINE:,} bytes without a line end; "
                        "cut it into several documents"
                    )
                if number == 1:
                    _refuse_beginning(path, line)
                    line = line.removeprefix(MARK)
                yield line
    except (EOFError, zlib.error, OSError) as error:
        raise _unreadable(path, number, error) from None


def _place(path: Path, line: int) -> str:
    return f"{printable(path)}, line {line:,}"


def _decode(data: bytes, path: Path, line: int) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        raise UserError(
            f"{_place(path, line)}: not UTF-8 ({error.reason} 0x{data[error.start]:02x})"
        ) from None


def _json_lines(path: Path, key: str) -> Iterator[str]:
    for number, line in enumerate(_lines(path), 1):
        line = line.removeprefix(MARK)  # from concatenated files
        if line.strip():
            yield _text(_decode(line, path, number), _place(path, number), key)


def _text(line: str, place: str, key: str) -> str:
    """Return the text of one JSON line."""
    try:
        tree = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: not JSON ({error.msg}); each line must be one object") from None
    except RecursionError:
        raise UserError(f"{place}: JSON that is nested too deeply") from None
    except ValueError:
        most = sys.get_int_max_str_digits()
        raise UserError(f"{place}: JSON with an integer of more than {most:,} digits") from None
    text = tree.get(key) if isinstance(tree, dict) else None
    if not isinstance(text, str):
        texts = (
            [name for name, value in tree.items() if isinstance(value, str)] if isinstance(tree, dict) else []
        )
        hint = f"; set data.text_key to one of {', '.join(map(printable, texts[:9]))}" if texts else ""
        raise UserError(f'{place}: must be an object whose "{printable(key)}" is a string{hint}')
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{place}: a lone surrogate, which is not Unicode text") from None
    return text


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
