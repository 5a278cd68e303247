"""A lease on a run in remote storage: one driver writes there at a time.

The lease is a small file with its owner's name and a number that the owner raises every few seconds, its heartbeat. Who
wants the run and finds a lease watches it: when the number changes the run is in use; when it stands still for long
enough the owner is gone, and the lease is taken over. Only the watcher's own clock counts, so clocks may disagree.
Where a process can see that the owner was one of its own machine and is gone, it does not wait.

Leases are numbered, and the highest number holds. To take over is to create the next number, which a storage grants to
one of several who try at the same moment; only then is the former file removed. (To replace a single file would let a
slow taker remove the lease that a quicker one had just written.)
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from ray_rl.config import UserError
from ray_rl.failures import RunError
from ray_rl.storage import storage_errors, write_new, write_whole

if TYPE_CHECKING:
    from upath import UPath

_LEASE = re.compile(r"\.lease-(\d{6})\.json")

BEAT_S = 10.0
"""Seconds between two heartbeats."""
_BEATS_UNTIL_STALE = 4
_SETTLE_BEATS = 0.1
"""Time, in beats, after which one looks whether somebody else wrote the same number, in storages that cannot refuse."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lease.

    Attributes:
        key: Unlike any other owner's.
        host: Name of the machine.
        pid: Number of the process on it.
        pid_space: Where that number means something: the machine since its start, and the container.
    """

    key: str
    host: str
    pid: int
    pid_space: str

    @classmethod
    def this_process(cls) -> Owner:
        """This process, under a new key."""
        return cls(uuid.uuid4().hex, socket.gethostname(), os.getpid(), _pid_space())

    def is_gone(self) -> bool:
        """Whether it can be seen from here that the process has ended."""
        return self.pid_space == _pid_space() != "" and not psutil.pid_exists(self.pid)


class Lease:
    """A lease held by this process, renewed by a thread until `close`.

    Args:
        file: The lease's file.
        owner: This process.
        beat_s: Seconds between two heartbeats.
    """

    def __init__(self, file: UPath, owner: Owner, beat_s: float) -> None:
        self._file = file
        self._owner = owner
        self._beat_s = beat_s
        self._beats = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    @classmethod
    def take(cls, folder: UPath, say: Callable[[str], None], beat_s: float = BEAT_S) -> Lease:
        """Take the lease of a run, from an owner that is gone if need be.

        Args:
            folder: The run's folder.
            say: Told when one has to wait.
            beat_s: Seconds between two heartbeats, those of a former owner included.

        Raises:
            UserError: When somebody else holds it.
            OSError: When the storage fails.
        """
        number = 1
        while (found := held(folder)) is not None:
            if _stands_still(found, say, beat_s):
                number = _number(found) + 1
                break
        owner = Owner.this_process()
        lease = cls(lease_file(folder, number), owner, beat_s)
        lease._create()
        time.sleep(_SETTLE_BEATS * beat_s)
        lease._refuse_other_owner()
        if found is not None:
            _remove(found)
        lease._thread.start()
        return lease

    def check(self) -> None:
        """Look whether the lease is still this process's: it may have slept so long that another took over.

        Raises:
            RunError: When it is not.
            OSError: When the storage fails.
        """
        file = held(self._file.parent)
        if file == self._file and self._is_owner(file):
            return
        by = f" by {_in_words(_owner_in(_read(file)))}" if file is not None else ""
        raise RunError(
            f"{self._file.parent} was taken over{by} while this process gave no sign of life: "
            "it goes on there, this one ends and writes nothing more"
        )

    def close(self) -> None:
        """Give the run free."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(OSError, RunError):
            self.check()
            _remove(self._file)

    def _create(self) -> None:
        """Write the first beat; where the storage can, only when no lease of this number is there."""
        try:
            write_new(self._file, self._content())
        except FileExistsError:
            raise UserError(_in_use(self._file, _owner_in(_read(self._file)))) from None

    def _refuse_other_owner(self) -> None:
        if not self._is_owner(self._file):
            raise UserError(_in_use(self._file, _owner_in(_read(self._file))))

    def _is_owner(self, file: UPath) -> bool:
        """Whether a lease is this process's; one that cannot be read is nobody else's."""
        owner = _owner_in(_read(file))
        return owner is None or owner.key == self._owner.key

    def _renew(self) -> None:
        while not self._closed.wait(self._beat_s):
            self._beats += 1
            # A storage that fails for a moment is tried again at the next beat; `check` tells when it was too long.
            with contextlib.suppress(OSError, RunError):
                self.check()
                write_whole(self._file, self._content())

    def _content(self) -> bytes:
        return json.dumps(asdict(self._owner) | {"beats": self._beats}).encode()


def held(folder: UPath) -> UPath | None:
    """The file of a run's lease; None when nobody holds it.

    Args:
        folder: The run's folder; need not exist.

    Raises:
        OSError: When the storage fails.
    """
    with storage_errors():
        try:
            names = [str(path).rsplit("/", 1)[-1] for path in folder.fs.ls(folder.path, detail=False, refresh=True)]
        except FileNotFoundError:
            return None
    return max((folder / name for name in names if is_lease(name)), key=_number, default=None)


def lease_file(folder: UPath, number: int = 1) -> UPath:
    """The file of a run's lease of some number; the highest holds."""
    return folder / f".lease-{number:06}.json"


def is_lease(name: str) -> bool:
    """Whether a file's name is that of a lease."""
    return _LEASE.fullmatch(name) is not None


def _number(file: UPath) -> int:
    match = _LEASE.fullmatch(file.name)
    assert match is not None
    return int(match[1])


def _stands_still(file: UPath, say: Callable[[str], None], beat_s: float) -> bool:
    """Watch a lease: True once its owner must be gone, False when the lease went away; raise at a sign of life."""
    found = _read(file)
    if found is None:
        return False
    owner = _owner_in(found)
    if owner is not None and owner.is_gone():
        return True
    patience_s = _BEATS_UNTIL_STALE * beat_s
    say(f"{file.parent} was last used by {_in_words(owner)}: waiting {patience_s:.0f} s for a sign of life")
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        time.sleep(beat_s / 4)
        now = _read(file)
        if now is None:
            return False
        if now != found:
            raise UserError(_in_use(file, _owner_in(now)))
    return True


def _in_use(file: UPath, owner: Owner | None) -> str:
    return f"{file.parent} is in use by {_in_words(owner)}: wait for it, or choose another --run-dir"


def _in_words(owner: Owner | None) -> str:
    return "an unknown process" if owner is None else f"process {owner.pid} on {owner.host}"


def _owner_in(content: bytes | None) -> Owner | None:
    """The owner that a lease names; None without a lease, or where it cannot be read."""
    try:
        named: dict[str, Any] = json.loads(content or b"")
        return Owner(named["key"], named["host"], named["pid"], named["pid_space"])
    except (ValueError, KeyError, TypeError):
        return None


def _read(file: UPath) -> bytes | None:
    with storage_errors():
        try:
            content: bytes = file.fs.cat_file(file.path)
        except FileNotFoundError:
            return None
        return content


def _remove(file: UPath) -> None:
    with storage_errors(), contextlib.suppress(FileNotFoundError):
        file.fs.rm_file(file.path)


def _pid_space() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not on Linux
        return ""
