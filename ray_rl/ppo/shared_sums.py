"""Sums over processes of one machine, in memory that they share.

Sockets wake a thread of each process for every message, and where all cores are at work it must first get one: a sum
takes milliseconds. Here whoever waits looks at the others' counters until they have caught up, some microseconds where
each process has a core.
"""

from __future__ import annotations

import mmap
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

_MEMORY = Path("/dev/shm")
_SLOT_BYTES = 2**20
"""Room for the numbers of one process; what is larger is summed in pieces."""
_LOOKS = 2000
"""How often to look without a pause, which takes a millisecond or so, before it is done with one."""
_PAUSE_S = 2e-4
_CHECK_S = 0.05
"""How often to see whether the others are alive, in seconds."""
_LINE = 8
"""What is told lies in a line of the cache for each process: whole numbers of 8 bytes."""


def can_share() -> bool:
    """Whether this machine has such memory, and its processors show each other what they write in the order of writing.

    Those of Intel and AMD do. On others a counter might be seen before the numbers that it is about.
    """
    return _MEMORY.is_dir() and platform.machine() in ("x86_64", "AMD64")


def make_memory(size: int) -> Path:
    """Make what so many processes share; the file may be unlinked once all have opened it.

    Raises:
        OSError: When there is no room.
    """
    handle, name = tempfile.mkstemp(prefix="ray-rl-sums-", dir=_MEMORY)
    try:
        # Taken at once: where memory ends later, the process that writes there is killed.
        os.posix_fallocate(handle, 0, 8 * _head(size) + 2 * size * _SLOT_BYTES)
    except OSError:
        os.unlink(name)
        raise
    finally:
        os.close(handle)
    return Path(name)


def _head(size: int) -> int:
    """Whole numbers before the slots: a line for each process's counter, number, and whether it has left."""
    return 3 * size * _LINE


class BrokenSumError(Exception):
    """Another process is gone, has left, or does not come."""


class SharedSums:
    """One process's side of the memory.

    All processes call the same sums in the same order. Each writes its numbers to one of two slots in turn, says so by
    its counter, and adds up everybody's in the order of their ranks once all have said so: the same bits for all. Two
    slots are enough: who says that it has written for the next sum has read all of this one.

    Args:
        path: The file; the process of rank 0 has made it, by `make_memory`.
        rank: Number of this process, from 0.
        size: Number of processes.
        silence_s: How long to wait for the others, in seconds.

    Raises:
        OSError: When there is no such file, as on another machine.
    """

    def __init__(self, path: Path, rank: int, size: int, silence_s: float) -> None:
        self._rank, self._silence_s = rank, silence_s
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        told = np.frombuffer(self._memory, np.int64, _head(size)).reshape(3, size, _LINE)[:, :, 0]
        self._counters: NDArray[np.int64] = told[0]
        self._pids: NDArray[np.int64] = told[1]
        self._has_left: NDArray[np.int64] = told[2]
        self._slots = np.frombuffer(self._memory, np.uint8, offset=8 * _head(size)).reshape(2, size, _SLOT_BYTES)
        self._n_sums = 0
        self._pids[rank] = os.getpid()

    def combine(self, numbers: Tensor, largest: bool) -> None:
        """Replace numbers by their sums over the processes, or by the largest of each.

        Args:
            numbers: Of the CPU; alike in shape and type for all processes.
            largest: Whether the largest is wanted.

        Raises:
            BrokenSumError: When another process does not answer.
        """
        flat = numbers.view(-1)
        for piece in torch.split(flat, _SLOT_BYTES // flat.element_size()):
            self._combine(piece, largest)

    def _combine(self, piece: Tensor, largest: bool) -> None:
        slots = self._slots[self._n_sums % 2, :, : piece.numel() * piece.element_size()]
        everybodys = [torch.from_numpy(slot).view(piece.dtype) for slot in slots]
        everybodys[self._rank].copy_(piece)
        self._n_sums += 1
        self._counters[self._rank] = self._n_sums
        self._wait()
        piece.copy_(everybodys[0])
        for others in everybodys[1:]:
            if largest:
                torch.maximum(piece, others, out=piece)
            else:
                piece.add_(others)

    def _wait(self) -> None:
        """Wait until all have written as often as this process."""
        counters, wanted = self._counters, self._n_sums
        for _ in range(_LOOKS):
            if counters.min() >= wanted:
                return
            os.sched_yield()  # lets the other threads of this process go on
        deadline = time.monotonic() + self._silence_s
        check_at = 0.0
        while counters.min() < wanted:
            missing = counters < wanted
            if self._has_left[missing].any():
                raise BrokenSumError("it has left")
            now = time.monotonic()
            if now > check_at:
                check_at = now + _CHECK_S
                if not all(_is_alive(int(pid)) for pid in self._pids[missing]):
                    raise BrokenSumError("its process is gone")
            if now > deadline:
                raise BrokenSumError(f"it has been silent for {self._silence_s:g} s")
            time.sleep(_PAUSE_S)

    def close(self) -> None:
        """Tell the others that this process has left; safe to call twice."""
        self._has_left[self._rank] = 1


def _is_alive(pid: int) -> bool:
    if pid == 0:  # it has not joined yet
        return True
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
