"""Leases: which process is working on a run, by a file with a heartbeat, for any number of machines.

Leases are numbered files, ``lease-000001.json``, ``lease-000002.json`` ... in the run's folder. The highest
number is valid. A number can be created only once, so if several processes find a stale lease, exactly one
takes over. Taking over locks and deletes nothing. It works on network file systems (no flock); all times are
the file system's.
"""

import json
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from optstudy.errors import UserError, say_once
from optstudy.record import ended, read_json, write_json

_NAME = re.compile(r"lease-\d{6,}\.json")
STALE_SECONDS = 60.0
"""Seconds without a heartbeat after which a lease of another machine may be taken over."""
BEAT_SECONDS = 5.0


class LeaseLost(Exception):
    """Another process took over the run because this one sent no heartbeat for too long."""


class Lease:
    """The right to work on a run, renewed by a thread until :meth:`release`."""

    def __init__(self, path: Path, on_loss: Callable[[], None]) -> None:
        self.path = path
        self._on_loss = on_loss
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Return if the lease is still valid.

        Raises:
            LeaseLost: it is not; nothing more may be written to the folder.
        """
        if _newest(self.path.parent) != self.path:
            raise LeaseLost(f"{self.path.parent}: taken over by another process")

    def release(self, done: bool) -> None:
        """Give up the run; if it has a result, remove the lease files."""
        self._ended.set()
        self._thread.join()
        if _newest(self.path.parent) != self.path:
            return
        if done:
            _remove(_numbered(self.path.parent))
        else:
            with suppress(OSError):  # full disk: the lease ends with this process
                write_json(self.path, {"released": True})

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                if _newest(self.path.parent) is None:
                    self._put_back()
                self.check()
                os.utime(self.path)
            except (LeaseLost, FileNotFoundError):
                self._on_loss()
                return
            except OSError:  # temporary file system error: the next heartbeat decides
                continue

    def _put_back(self) -> None:
        """Write the lease again after a program has emptied its run's folder."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not _created(self.path):
            raise LeaseLost(f"{self.path.parent}: taken over by another process")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release(done=ended(self.path.parent))


def claim(folder: Path, on_loss: Callable[[], None]) -> Lease | None:
    """Claim a run; return None if another process is working on it.

    Args:
        folder: the run's folder.
        on_loss: called by the heartbeat if another process has taken over.
    """
    newest = _newest(folder)
    if newest is not None and _held(newest):
        return None
    path = folder / f"lease-{_number(newest) + 1:06d}.json"
    if not _created(path):
        return None
    if _newest(folder) != path:
        path.unlink(missing_ok=True)
        return None
    _remove(_numbered(folder)[:-1])
    return Lease(path, on_loss)


def _created(path: Path) -> bool:
    """Create a lease of this process, whole or not at all; return whether there was none of this number."""
    descriptor, temporary = tempfile.mkstemp(prefix=".lease.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump({**identity(), "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}, file)
        Path(temporary).chmod(0o644)  # other users' launchers read it in a shared folder
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        Path(temporary).unlink()
    return True


def _remove(leases: Iterable[Path]) -> None:
    for path in leases:
        with suppress(FileNotFoundError, IsADirectoryError, PermissionError):  # anything but a file stays
            path.unlink()


def holder(folder: Path) -> dict[str, Any] | None:
    """Return host, pid and start time of the process that is working on a run, or None."""
    newest = _newest(folder)
    return _held(newest) if newest is not None else None


def ahead(folder: Path) -> float:
    """Return how many seconds the newest heartbeat is in the future; 0 if it is not."""
    newest = _newest(folder)
    try:
        return 0.0 if newest is None else max(0.0, newest.lstat().st_mtime - _now(folder))
    except FileNotFoundError:
        return 0.0


def identity() -> dict[str, Any]:
    """Identify this process, so that others on the same machine can tell whether it is alive."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "machine": _machine(), "pid": pid, "started": _started(pid)}


def _held(path: Path) -> dict[str, Any] | None:
    try:
        beat = path.lstat().st_mtime
    except FileNotFoundError:
        return None
    try:
        owner = read_json(path)
        if owner is not None and not owner.get("released") and not _tells(owner):
            raise UserError(f"{path}: damaged: it does not say which process holds it")
    except UserError as error:
        say_once(f"{error}; it is free {STALE_SECONDS:.0f} s after its last heartbeat")
        owner = {"machine": None, "host": "an unknown machine", "pid": "unknown", "started": None}
    if owner is None or owner.get("released"):
        return None
    if owner["machine"] == _machine() and owner["machine"]:
        return owner if _started(owner["pid"]) == owner["started"] is not None else None
    age = _now(path.parent) - beat
    if -age > STALE_SECONDS:
        say_once(
            f"{path}: dated {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(beat))}, in the future, by a "
            "clock that is or was wrong; until then the run counts as running: check the clocks, or delete "
            "this file if no process works on it"
        )
    return owner if age < STALE_SECONDS else None


def _tells(owner: dict[str, Any]) -> bool:
    """Whether a lease identifies the process that holds it."""
    names = all(isinstance(owner.get(key), str) for key in ("machine", "host"))
    return names and type(owner.get("pid")) is int and isinstance(owner.get("started"), (str, type(None)))


def _now(folder: Path) -> float:
    """Current time of the folder's file system, which may differ from this machine's."""
    with tempfile.NamedTemporaryFile(prefix=".now.", dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime


def _machine() -> str:
    """Boot id and pid namespace, within which process ids are unique; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Start time of a live process, in clock ticks since boot; None for a dead one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _numbered(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("lease-*.json") if _NAME.fullmatch(path.name))


def _newest(folder: Path) -> Path | None:
    found = _numbered(folder)
    return found[-1] if found else None


def _number(path: Path | None) -> int:
    return 0 if path is None else int(path.stem.rpartition("-")[2])
