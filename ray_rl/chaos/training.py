"""A training in a process of its own, watched through what it records, killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ray_rl.config import TrainConfig
from ray_rl.failures import RunError

_LOOK_S = 0.05
_STALL_S = 600.0
"""Longest time without a new update, in seconds."""


class GrowingFile:
    """A text file that somebody else appends to, and now and then replaces by another.

    Args:
        path: The file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity: tuple[int, int] | None = None
        self._offset = 0

    def read(self) -> tuple[list[str], bool]:
        """Complete lines that came since the last call, and whether they are all of a file that was not seen before."""
        try:
            with self._path.open("rb") as file:
                about = os.fstat(file.fileno())
                identity = (about.st_dev, about.st_ino)
                is_new = identity != self._identity or about.st_size < self._offset
                self._identity, self._offset = identity, 0 if is_new else self._offset
                file.seek(self._offset)
                complete = file.read().rpartition(b"\n")[0]
        except FileNotFoundError:
            return [], False
        if complete:
            self._offset += len(complete) + 1
        return complete.decode().splitlines(), is_new


class Training:
    """``ray-rl train --resume auto`` in a process group of its own, and when its updates were first seen recorded.

    Args:
        config: The training.
        run_dir: Its folder; configuration and log lie beside it.
        flags: Further flags of the command.
        meanwhile: Called again and again while one waits, with the number of the driver's process.
    """

    def __init__(
        self,
        config: TrainConfig,
        run_dir: Path,
        flags: Sequence[str],
        meanwhile: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._meanwhile = meanwhile
        self._metrics = GrowingFile(run_dir / "metrics.jsonl")
        self._rows: list[dict[str, Any]] = []
        self._n_updates = config.n_updates
        file = run_dir.with_suffix(".yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(config.to_yaml(), encoding="utf-8")
        self._command = [sys.executable, "-m", "ray_rl", "train", "--config", str(file), "--run-dir", str(run_dir)]
        self._command += ["--resume", "auto", *flags]
        self._log = run_dir.with_suffix(".log").open("w", encoding="utf-8")
        self._seen_at: dict[int, float] = {}
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True)

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        self._log.close()

    def _kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def kill_and_resume(self) -> str:
        """Kill the driver as a power cut would, and give the same command again."""
        pid = self._process.pid
        self._kill()
        self._process = self._start()
        return f"process {pid}"

    def rows(self) -> list[dict[str, Any]]:
        """What is recorded so far."""
        lines, is_new = self._metrics.read()
        if is_new:
            self._rows = []
        self._rows += map(json.loads, lines)
        return self._rows

    def wait_for_update(self, update: int) -> None:
        """Wait until an update is recorded."""
        while not self._look(update):
            if self._process.poll() is not None:
                raise RunError(self._end())
            self._meanwhile(self._process.pid)
            time.sleep(_LOOK_S)

    def wait(self) -> None:
        """Wait until the training is over."""
        self.wait_for_update(self._n_updates)
        if self.wait_for_end():
            raise RunError(self._end())

    def wait_for_end(self) -> int:
        """Wait until the driver ends by itself; returns its exit code."""
        return self._process.wait(_STALL_S)

    def _look(self, update: int) -> bool:
        now = time.monotonic()
        for row in self.rows():
            if "train/policy_loss" in row:
                self._seen_at.setdefault(int(row["update"]), now)
        if self._seen_at and now - max(self._seen_at.values()) > _STALL_S:
            raise RunError(f"the training stands still since {_STALL_S:g} s; see {self._log.name}")
        return update in self._seen_at

    def _end(self) -> str:
        said = Path(self._log.name).read_text(encoding="utf-8").strip().splitlines()
        return f"the training ended with {self._process.returncode}: {said[-1] if said else ''} ({self._log.name})"

    def usual_update_s(self, disturbed_at: Sequence[float] = ()) -> float:
        """Median time from one update to the next, those left out in which something happened, in seconds."""
        times = [self._seen_at[update] for update in sorted(self._seen_at)]
        gaps = [
            end - start for start, end in pairwise(times) if not any(start <= moment <= end for moment in disturbed_at)
        ]
        return statistics.median(gaps) if gaps else 0.0

    def cost(self, happened_at: float, usual_s: float) -> tuple[int, float]:
        """The last update before a moment, and what the moment cost: see `Disturbance`."""
        before = max((u for u, at in self._seen_at.items() if at <= happened_at), default=0)
        after = min(before + 2, max(self._seen_at))
        span_s = self._seen_at[after] - self._seen_at.get(before, happened_at)
        return before, max(0.0, span_s - (after - before) * usual_s)
