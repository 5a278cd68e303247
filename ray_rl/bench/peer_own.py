"""This package's own training, as one of the contestants of ``ray-rl bench peers``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console

from ray_rl.bench.peers import Task
from ray_rl.config import CollectorName, TrainConfig
from ray_rl.trainer import train as run_training
from ray_rl.training_metrics import UpdateReport


def train(task: Task, max_staleness: int, collector: CollectorName, n_learners: int, learner_threads: int) -> float:
    """Train on all cores.

    Args:
        task: What to train.
        max_staleness: 0 strict, 1 overlapped.
        collector: How episodes are run.
        n_learners: Learner processes.
        learner_threads: Threads of each.

    Returns:
        Episodes per second, metrics and checkpoints included.
    """
    reports: list[UpdateReport] = []
    with tempfile.TemporaryDirectory(prefix="ray-rl-bench-") as folder:
        values = {
            "hidden_sizes": (task.hidden_size, task.hidden_size),
            "episodes_per_update": task.episodes_per_update,
            "episode_steps": task.episode_steps,
            "epochs": task.epochs,
            "minibatches": task.minibatches,
            "total_episodes": task.n_updates * task.episodes_per_update,
            "max_staleness": max_staleness,
            "collector": collector,
            "n_learners": n_learners,
            "learner_threads": learner_threads,
            "evaluate_every": 0,
            "run_dir": str(Path(folder) / "run"),
        }
        run_training(TrainConfig.from_mapping(values, "bench peers"), Console(quiet=True), reports.append)
    return task.episodes_per_s(sum(report.total_s for report in reports[task.n_warm :]))
