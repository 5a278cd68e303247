"""Copies the files of a run that grow (metrics, TensorBoard events) from this machine to a remote storage.

An object store cannot append. The files grow in a temporary folder here, and a thread sends those that have changed,
whole, at most every few seconds.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ray_rl.failures import RunError
from ray_rl.storage import write_whole

if TYPE_CHECKING:
    from upath import UPath

EVERY_S = 15.0
"""Shortest time between two rounds, in seconds."""
_SHARE = 0.05
"""Largest share of the time that the rounds take: files that have grown large are sent less often."""


class Mirror:
    """Keeps a remote folder like a local one, until `close`; files that disappear here stay there.

    Args:
        source: The local folder; its subfolders are left out.
        target: The remote one.
        check: Asked before each round; raises when this process may not write there any more.
        every_s: Shortest time between two rounds, in seconds.
    """

    def __init__(self, source: Path, target: UPath, check: Callable[[], None], every_s: float = EVERY_S) -> None:
        self._source = source
        self._target = target
        self._check = check
        self._every_s = every_s
        self._sent: dict[str, tuple[int, int]] = {}
        self._turn = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
        self._thread.start()

    def send(self) -> None:
        """Send what has changed since it was last sent.

        Raises:
            OSError: When the storage fails.
            RunError: When this process may not write there any more.
        """
        with self._turn:
            self._check()
            for path in sorted(p for p in self._source.iterdir() if p.is_file()):
                about = path.stat()
                state = (about.st_size, about.st_mtime_ns)
                if self._sent.get(path.name) != state:
                    write_whole(self._target / path.name, path.read_bytes())
                    self._sent[path.name] = state

    def close(self) -> None:
        """End the thread; nothing more is sent."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        pause_s = self._every_s
        while not self._closed.wait(pause_s):
            started = time.monotonic()
            # The next round sends it, and the next checkpoint says so if it cannot.
            with contextlib.suppress(OSError, RunError):
                self.send()
            pause_s = max(self._every_s, (time.monotonic() - started) / _SHARE)
