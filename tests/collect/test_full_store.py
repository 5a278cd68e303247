"""An object store that is smaller than the episodes of an update: they go to disk and come back whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from collectors import assert_same_episodes, indices_of, joined, requests_for, weights_for
from faulty_envs import WIDE_ID, WIDE_SIZE
from ray._private.internal_api import node_stats

from ray_rl.collect.ray_tasks import RayTasksCollector
from ray_rl.collect.sequential import SequentialCollector
from ray_rl.config import EnvConfig
from ray_rl.episodes import concatenate_in_order
from ray_rl.ppo.ray_learner import fetch_batches

_ENV = EnvConfig(env=WIDE_ID)
_STORE_BYTES = 80 * 2**20
_N_EPISODES = 40


@pytest.fixture
def small_store(fault_folder: Path) -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    yield
    ray.shutdown()


def test_more_episodes_than_the_store_holds_arrive_whole_and_each_once(small_store: None) -> None:
    requests = requests_for(_N_EPISODES)
    with SequentialCollector(_ENV, 4) as plain:
        plain.publish(weights_for(_ENV), 0)
        plain.submit(requests)
        expected = joined(plain.completed())
    assert expected.observations.nbytes > 1.2 * _STORE_BYTES, f"{WIDE_SIZE=} is too small for this test"
    with RayTasksCollector(_ENV, 2, 2, 120.0) as collector:
        collector.publish(weights_for(_ENV), 0)
        collector.submit(requests)
        chunks = list(collector.completed())
        assert indices_of(chunks) == list(range(_N_EPISODES))
        assert spilled_bytes() > 0
        assert_same_episodes(concatenate_in_order(fetch_batches([chunk.batch for chunk in chunks])), expected)


def spilled_bytes() -> int:
    """What went to disk so far, on all nodes."""
    return sum(
        node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False).store_stats.spilled_bytes_total
        for node in ray.nodes()
    )
