"""Runs a training twice, once in one process and undisturbed, once on a cluster while faults happen, and compares.

The disturbed one must end with the same bits, and every update of it must have consumed exactly its episodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ray_rl.chaos.plan import Event, FaultName
from ray_rl.chaos.training import Training
from ray_rl.checkpoint import find_checkpoint, load_checkpoint
from ray_rl.config import TrainConfig


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
    with Training(config, folder / "undisturbed", ["--collector", "sequential"]) as undisturbed:
        undisturbed.wait()
    say("disturbed training, on the cluster")
    drill = Drill(config.n_updates, config.ppo.episodes_per_update)
    moments: list[tuple[Event, str, float]] = []
    with Training(config, folder / "disturbed", ["--collector", "ray-tasks", "--address", address]) as training:
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
