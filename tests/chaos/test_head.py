"""The head of a cluster dies with everything on it; the same command on another one goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ray_rl.chaos.drill import differing_arrays, wrong_updates
from ray_rl.chaos.training import Training
from ray_rl.config import TrainConfig
from ray_rl.ray_local_cluster import add_nodes, local_cluster

_CONFIG = TrainConfig.from_mapping(
    {
        "total_episodes": 4000,
        "episodes_per_update": 100,
        "hidden_sizes": [16],
        "epochs": 1,
        "evaluate_every": 0,
        "checkpoint_every": 5,
    },
    "test",
)


def on(cluster: Any) -> list[str]:
    return ["--collector", "ray-tasks", "--address", cluster.address]


@pytest.mark.slow
def test_a_run_whose_head_died_ends_and_goes_on_to_the_same_bits_elsewhere(tmp_path: Path) -> None:
    with Training(_CONFIG, tmp_path / "undisturbed", ["--collector", "sequential"]) as training:
        training.wait()
    with local_cluster({}) as cluster:
        add_nodes(cluster, 2)
        with Training(_CONFIG, tmp_path / "run", on(cluster)) as training:
            training.wait_for_update(12)
            for node in cluster.list_all_nodes():
                for processes in node.all_processes.values():
                    for process in processes:
                        process.process.kill()
            assert training.wait_for_end() != 0
    assert not (tmp_path / "run" / "checkpoints" / "update_000040").exists()
    with local_cluster({}) as another:
        add_nodes(another, 2)
        with Training(_CONFIG, tmp_path / "run", on(another)) as training:
            training.wait()
            assert wrong_updates(training.rows(), 40, 100) == []
    assert differing_arrays(tmp_path / "undisturbed", tmp_path / "run") == []
