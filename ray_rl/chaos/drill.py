"""Runs a training twice, once in one process and undisturbed, once on a cluster while faults happen, and compares.

The disturbed one must end with the same bits, and every update of it must have consumed exactly its episodes.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ray_rl.chaos.plan import Event, FaultName
from ray_rl.checkpoint import find_checkpoint, load_checkpoint
from ray_rl.config import TrainConfig
from ray_rl.failures import RunError

_LOOK_S = 0.05
_STALL_S = 600.0
"""Longest time without a new update, in seconds."""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """A fault that happened.

    Attributes:
        fault: Its name.
        whom: The process or node that it hit.
        update: Number of the last update recorded before it.
        cost_s: By how much the update under way and the next one took longer than two undisturbed ones, in seconds.
    """

    fault: FaultName
    whom: str
    update: int
    cost_s: float


@dataclass
class Drill:
    """What came of it.

    Attributes:
        n_updates: Updates of the training.
        episodes_per_update: Episodes that each consumes.
        disturbances: In the order in which they happened.
        usual_update_s: Median duration of an undisturbed update on the cluster, in seconds.
        wrong_updates: Updates recorded never, twice, or with other episodes than their own.
        differing_arrays: Arrays of the last checkpoint that differ from those of the undisturbed run in any bit.
    """

    n_updates: int
    episodes_per_update: int
    disturbances: list[Disturbance] = field(default_factory=list)
    usual_update_s: float = 0.0
    wrong_updates: list[int] = field(default_factory=list)
    differing_arrays: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, counted twice or changed."""
        return not (self.wrong_updates or self.differing_arrays)


def run_drill(
    config: TrainConfig,
    plan: Sequence[Event],
    folder: Path,
    address: str,
    cause: Callable[[FaultName], str],
    say: Callable[[str], None],
) -> Drill:
    """Run the drill.

    Args:
        config: The training; where it runs is decided here.
        plan: What happens to it.
        folder: Where both runs are kept.
        address: Of the cluster.
        cause: Causes a fault on the cluster, and says whom it hit; a killed driver is this function's own affair.
        say: Takes a line about what is going on.

    Raises:
        RunError: When a training ends or stands still, which it should not.
    """
    say("undisturbed training, in one process")
    with _Training(config, folder / "undisturbed", ["--collector", "sequential"]) as undisturbed:
        undisturbed.wait()
    say("disturbed training, on the cluster")
    drill = Drill(config.n_updates, config.ppo.episodes_per_update)
    moments: list[tuple[Event, str, float]] = []
    with _Training(config, folder / "disturbed", ["--collector", "ray-tasks", "--address", address]) as training:
        for event in plan:
            training.wait_for_update(event.after_update)
            time.sleep(event.delay * training.usual_update_s())
            happened_at = time.monotonic()
            whom = training.kill_and_resume() if event.fault == "driver" else cause(event.fault)
            say(f"after update {event.after_update}: {event.fault}, {whom}")
            moments.append((event, whom, happened_at))
        training.wait()
    drill.usual_update_s = training.usual_update_s([at for _, _, at in moments])
    for event, whom, happened_at in moments:
        update, cost_s = training.cost(happened_at, drill.usual_update_s)
        drill.disturbances.append(Disturbance(event.fault, whom, update, cost_s))
    drill.wrong_updates = wrong_updates(training.rows(), config.n_updates, config.ppo.episodes_per_update)
    drill.differing_arrays = differing_arrays(folder / "undisturbed", folder / "disturbed")
    return drill


def wrong_updates(rows: Sequence[Mapping[str, Any]], n_updates: int, episodes_per_update: int) -> list[int]:
    """Updates that are not recorded exactly once with exactly their episodes; the learner takes none of these twice.

    Args:
        rows: Of the run's ``metrics.jsonl``.
        n_updates: Updates that there should be.
        episodes_per_update: Episodes of each.
    """
    found: dict[int, list[tuple[int, int]]] = {update: [] for update in range(1, n_updates + 1)}
    for row in rows:
        if "data/first_episode" in row:
            consumed = (int(row["data/first_episode"]), int(row["data/last_episode"]))
            found.setdefault(int(row["update"]), []).append(consumed)
    n = episodes_per_update
    right = {update: [((update - 1) * n, update * n - 1)] for update in range(1, n_updates + 1)}
    return [update for update, consumed in found.items() if consumed != right.get(update)]


def differing_arrays(run: Path, other: Path) -> list[str]:
    """Names of the arrays in the last checkpoints of two runs that differ in any bit, or are in one of them alone."""
    a, b = (load_checkpoint(find_checkpoint(path)).arrays for path in (run, other))
    return [
        name for name in sorted(a.keys() | b.keys()) if name not in a or name not in b or not _same(a[name], b[name])
    ]


def _same(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


class _Training:
    """``ray-rl train`` in a process group of its own, and when its updates were first seen to be recorded."""

    def __init__(self, config: TrainConfig, run_dir: Path, flags: Sequence[str]) -> None:
        self._run_dir = run_dir
        self._n_updates = config.n_updates
        file = run_dir.with_suffix(".yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(config.to_yaml(), encoding="utf-8")
        self._command = [sys.executable, "-m", "ray_rl", "train", "--config", str(file), "--run-dir", str(run_dir)]
        self._command += flags
        self._log = run_dir.with_suffix(".log").open("w", encoding="utf-8")
        self._seen_at: dict[int, float] = {}
        self._process = self._start()

    def _start(self, *flags: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self._command, *flags], stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )

    def __enter__(self) -> _Training:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        self._log.close()

    def _kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def kill_and_resume(self) -> str:
        """Kill the driver as a power cut would, and start it again where its last checkpoint stands."""
        pid = self._process.pid
        self._kill()
        self._process = self._start("--resume")
        return f"process {pid}"

    def rows(self) -> list[dict[str, Any]]:
        """What is recorded so far; a line that is being written is left out."""
        try:
            text = (self._run_dir / "metrics.jsonl").read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def wait_for_update(self, update: int) -> None:
        """Wait until an update is recorded."""
        while not self._look(update):
            if self._process.poll() is not None:
                raise RunError(self._end())
            time.sleep(_LOOK_S)

    def wait(self) -> None:
        """Wait until the training is over."""
        self.wait_for_update(self._n_updates)
        if self._process.wait(_STALL_S):
            raise RunError(self._end())

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
