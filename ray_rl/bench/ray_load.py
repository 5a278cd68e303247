"""Keeps all workers of the connected Ray busy, through the same collector as a training, and watches the driver."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing

from ray_rl.collect.api import Chunk
from ray_rl.collect.ray_tasks import RayTasksCollector
from ray_rl.config import EnvConfig
from ray_rl.envs.registry import make_env
from ray_rl.episodes import episode_requests
from ray_rl.failures import RunError
from ray_rl.policy.random_weights import random_weights
from ray_rl.seeding import Purpose

_HIDDEN_SIZES = (64, 64)
_START_S, _START_S_PER_WORKER = 100.0, 5.0
"""How long new workers may take until each has returned something, in seconds: all start at once, and each takes 2 to
3 s of a core of this machine."""
_SILENCE_S = 400.0
"""How long all workers together may return nothing, in seconds."""
_LOOK_S = 0.2
_CHUNKS_PER_WORKER = 8
"""Chunks that are asked for ahead, so that the collector never runs dry."""


class DriverCpu:
    """What this process takes of a core from now on."""

    def __init__(self) -> None:
        self._started_s, self._process_s, self._thread_s = time.monotonic(), time.process_time(), time.thread_time()

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._started_s

    @property
    def share(self) -> float:
        """Share of a core, over all threads: above 1 with several at work."""
        return (time.process_time() - self._process_s) / self.seconds

    @property
    def thread_share(self) -> float:
        """Share of a core that the calling thread took."""
        return (time.thread_time() - self._thread_s) / self.seconds


class Load:
    """Episodes without end.

    Args:
        env: What the workers run.
        episodes_per_chunk: Episodes of a task.
        n_workers: Workers to keep busy; may be set anew as the cluster grows.
    """

    def __init__(self, env: EnvConfig, episodes_per_chunk: int, n_workers: int) -> None:
        self.n_workers = n_workers
        self._env = env
        self._episodes_per_chunk = episodes_per_chunk
        self._collector = RayTasksCollector(env, None, episodes_per_chunk, _SILENCE_S)
        with closing(make_env(env)) as made:
            spec = made.spec
        self._collector.publish(random_weights(spec.observation_size, _HIDDEN_SIZES, spec.n_actions), 0)
        self._asked = 0
        self._answered = 0

    def chunks(self, until: Callable[[], bool]) -> Iterator[Chunk]:
        """Chunks as they finish, until a condition holds."""
        while not until():
            self._ask()
            for chunk in self._collector.completed(timeout_s=_LOOK_S):
                self._answered += len(chunk.summary.indices)
                self._ask()
                yield chunk
                if until():
                    return

    def _ask(self) -> None:
        wanted = _CHUNKS_PER_WORKER * self.n_workers * self._episodes_per_chunk
        if self._asked - self._answered < wanted // 2:
            steps, agent = self._env.episode_steps, self._env.red_agent
            requests = episode_requests(0, self._asked, wanted, red_agent=agent, max_steps=steps, purpose=Purpose.BENCH)
            self._collector.submit(requests)
            self._asked += wanted

    def warm_up(self, n_workers: int) -> None:
        """Go on until so many workers have returned something since now.

        Raises:
            RunError: When they do not within a time.
        """
        seen: set[tuple[str, int]] = set()
        limit_s = _START_S + _START_S_PER_WORKER * n_workers
        deadline = time.monotonic() + limit_s
        for chunk in self.chunks(lambda: len(seen) >= n_workers or time.monotonic() > deadline):
            seen.add((chunk.summary.node, chunk.summary.pid))
        if len(seen) < n_workers:
            raise RunError(
                f"only {len(seen)} of {n_workers} workers answered within {limit_s:g} s: this machine is too busy, or "
                "too small to start them; ask for fewer --nodes or --workers-per-node"
            )

    def finish(self) -> None:
        """Let what was asked for finish, so that the workers are free, and live on."""
        for _ in self._collector.completed():
            pass

    def close(self) -> None:
        """End, with the workers that are still at it."""
        self._collector.close()
