"""Processes that must not outlive the one that started them, whatever ends it: a kill, a crash, the memory's end.

A small process holds handles of them and waits for the end of a pipe, which the kernel closes with whoever holds its
other end. It is run as a file of its own and imports the standard library alone, so that it starts in no time and
needs little memory.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def guarded(pids: Sequence[int]) -> Iterator[None]:
    """Kill processes when this one has ended, or at the end of the block at the latest.

    Args:
        pids: Processes that run now. Their handles do not follow a number that is given away again.
    """
    if not hasattr(os, "pidfd_open"):  # pragma: no cover (not Linux)
        yield
        return
    command = [sys.executable, "-I", "-S", __file__, *map(str, pids)]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    assert guard.stdin is not None
    try:
        yield
    finally:
        guard.stdin.close()
        guard.wait()


def _guard(pids: Sequence[int]) -> None:
    handles = []
    for pid in pids:
        with contextlib.suppress(OSError):  # it is gone already
            handles.append(os.pidfd_open(pid))
    sys.stdin.buffer.read()
    for handle in handles:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)


if __name__ == "__main__":
    _guard([int(word) for word in sys.argv[1:]])
