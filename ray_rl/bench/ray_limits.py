"""What driver, object store and learner can bear, each measured alone on the connected Ray."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from ray_rl.bench.cost_model import INLINE_BYTES, fit_line
from ray_rl.bench.ray_load import DriverCpu, Load
from ray_rl.collect.worker import run_chunk
from ray_rl.config import EnvConfig, PolicyConfig, PpoConfig
from ray_rl.envs.registry import make_env
from ray_rl.episodes import episode_requests
from ray_rl.seeding import Purpose

_QUICK_WAIT_S = 1e-5
"""Wait of the episodes that are to fill the driver."""
_TASKS_AT_ONCE = 500
_BLOCKS = 24
_BLOCK_BYTES = (INLINE_BYTES + 2**12, 2**20)
"""Sizes of the blocks that are fetched, the smallest that a store keeps and a large one."""
_PATIENCE_S = 60.0
_UPDATES = 5


@dataclass(frozen=True, slots=True)
class FullDriver:
    """What the driver does when chunks cost the workers next to nothing.

    Attributes:
        chunks_per_s: Chunks handled.
        chunk_driver_share: Share of a core that the driver's process took meanwhile.
        chunk_thread_share: Part of it that its main thread took; at 1 the driver is full.
        tasks_per_s: Empty tasks that Ray alone handles.
        task_driver_share: Share of a core that the driver's process took meanwhile.
    """

    chunks_per_s: float
    chunk_driver_share: float
    chunk_thread_share: float
    tasks_per_s: float
    task_driver_share: float


def fill_driver(n_workers: int, seconds: float) -> FullDriver:
    """Handle chunks of an episode of one step, then Ray's empty tasks, as fast as they go."""
    env = EnvConfig(env="latency", episode_steps=1, latency_mean_s=_QUICK_WAIT_S, latency_max_s=4 * _QUICK_WAIT_S)
    with closing(Load(env, 1, n_workers)) as load:
        load.warm_up(1)
        n_chunks, cpu = 0, DriverCpu()
        for _ in load.chunks(lambda: cpu.seconds >= seconds):
            n_chunks += 1
        chunks_per_s, share, thread_share = n_chunks / cpu.seconds, cpu.share, cpu.thread_share
        load.finish()
    nothing: Any = _nothing
    n_tasks, cpu = 0, DriverCpu()
    while cpu.seconds < seconds:
        ray.get([nothing.remote() for _ in range(_TASKS_AT_ONCE)])
        n_tasks += _TASKS_AT_ONCE
    return FullDriver(chunks_per_s, share, thread_share, n_tasks / cpu.seconds, cpu.share)


@ray.remote(num_cpus=1)
def _nothing() -> None:
    pass


def fetch_costs() -> tuple[float, float]:
    """Seconds to fetch an object from other nodes' stores, many at once: for each, and for each of its bytes."""
    block: Any = _block
    times_s = []
    for n_bytes in _BLOCK_BYTES:
        references = [block.remote(n_bytes) for _ in range(_BLOCKS)]
        ray.wait(references, num_returns=_BLOCKS, timeout=_PATIENCE_S, fetch_local=False)
        started = time.perf_counter()
        ray.get(references, timeout=_PATIENCE_S)
        times_s.append((time.perf_counter() - started) / _BLOCKS)
    return fit_line(_BLOCK_BYTES, times_s)


@ray.remote(num_cpus=1)
def _block(n_bytes: int) -> NDArray[np.uint8]:
    return np.zeros(n_bytes, dtype=np.uint8)


def learning_costs(n_episodes: int) -> tuple[float, float]:
    """Seconds that one learner with the default settings takes for an episode of CAGE-2, and the bytes of such a one.

    Args:
        n_episodes: Episodes of an update.
    """
    from ray_rl.ppo.api import Assignment
    from ray_rl.ppo.learner import Learner

    env = EnvConfig()
    with closing(make_env(env)) as made:
        spec = made.spec
    seconds = []
    ppo = PpoConfig(episodes_per_update=n_episodes)
    with closing(Learner(Assignment(spec, PolicyConfig(), ppo, _UPDATES, 0))) as learner:
        for update in range(_UPDATES):
            requests = episode_requests(
                0,
                update * n_episodes,
                n_episodes,
                red_agent=env.red_agent,
                max_steps=env.episode_steps,
                purpose=Purpose.BENCH,
            )
            batch = run_chunk(env.options, learner.weights(), requests, update)[1]
            started = time.perf_counter()
            learner.update([batch])
            seconds.append(time.perf_counter() - started)
    return float(np.median(seconds)) / n_episodes, batch.n_bytes / n_episodes
