"""Persistent Ray actors: one per worker, each with its environment, drained as their calls finish.

Ray restarts an actor that died and repeats the calls it had; what a call returns depends on its arguments alone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import ray

from ray_rl.collect.api import NOT_PUBLISHED, Chunk, ChunkSummary, PublishCosts
from ray_rl.collect.backlog import Backlog, Watchdog
from ray_rl.collect.ray_tasks import get_summaries, name_episode
from ray_rl.collect.worker import run_chunk, step_back
from ray_rl.env_options import EnvOptions
from ray_rl.episodes import EpisodeBatch, EpisodeRequest, PackedRequests, packed, unpacked
from ray_rl.policy.inference import PolicyWeights
from ray_rl.ray_runtime import put_once, wait_some

if TYPE_CHECKING:
    from ray_rl.config import EnvConfig

_CALLS_PER_ACTOR = 2
_RETRIES = 3


@ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=_RETRIES)
class _Sampler:
    def __init__(self, env: EnvOptions) -> None:
        step_back()
        self._env = env

    @ray.method(num_returns=2)
    def collect(
        self, weights: PolicyWeights, requests: PackedRequests, policy_version: int
    ) -> tuple[ChunkSummary, EpisodeBatch]:
        return run_chunk(self._env, weights, unpacked(requests), policy_version)


class RayActorsCollector:
    """Runs episodes in actors on the connected Ray.

    Args:
        env: The environment.
        n_workers: Actors.
        episodes_per_chunk: Episodes of a call; None: chosen by measured durations.
        watchdog_s: Seconds without a finished call after which `completed` raises.
    """

    def __init__(self, env: EnvConfig, n_workers: int, episodes_per_chunk: int | None, watchdog_s: float) -> None:
        self._backlog = Backlog(n_workers, episodes_per_chunk)
        self._watchdog = Watchdog(watchdog_s)
        self._actors: list[Any] = [cast("Any", _Sampler).remote(env.options) for _ in range(n_workers)]
        self._idle = deque(self._actors * _CALLS_PER_ACTOR)
        self._running: dict[ray.ObjectRef[Any], tuple[list[EpisodeRequest], ray.ObjectRef[Any], Any]] = {}
        self._finished: deque[Chunk] = deque()
        self._failures: deque[Exception] = deque()
        self._weights_ref: Any = None
        self._policy_version = 0
        self.publish_costs = PublishCosts()

    def publish(self, weights: PolicyWeights, policy_version: int) -> None:
        """Put weights into the object store, once."""
        started = time.perf_counter()
        self._weights_ref, n_bytes = put_once(weights, weights.n_bytes)
        self._policy_version = policy_version
        self.publish_costs = self.publish_costs.plus(n_bytes, time.perf_counter() - started)

    def submit(self, requests: Sequence[EpisodeRequest]) -> None:
        """Queue episodes and give every idle actor its share."""
        if self._weights_ref is None:
            raise ValueError(NOT_PUBLISHED)
        self._backlog.add(requests)
        if not self._running:
            self._watchdog.heard()
        self._call_actors()

    def completed(self, timeout_s: float | None = None) -> Iterator[Chunk]:
        """Yield chunks as the actors finish them."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self._finished or self._failures or self._running:
            if not (self._finished or self._failures):
                done = wait_some(list(self._running), self._watchdog.wait_s(deadline))
                if not done:
                    self._watchdog.check([requests for requests, _, _ in self._running.values()])
                self._take_in(done)
            while self._finished:
                yield self._finished.popleft()
            if self._failures:
                raise self._failures.popleft()
            if deadline is not None and time.monotonic() >= deadline:
                return

    def _call_actors(self) -> None:
        while self._backlog and self._idle:
            actor = self._idle.popleft()
            requests = self._backlog.take()
            summary, batch = actor.collect.remote(self._weights_ref, packed(requests), self._policy_version)
            self._running[summary] = (requests, batch, actor)

    def _take_in(self, done: list[ray.ObjectRef[Any]]) -> None:
        """Keep what succeeded and what failed, and go on with what waits."""
        for summary_ref, summary in zip(done, get_summaries(done), strict=True):
            requests, batch_ref, actor = self._running.pop(summary_ref)
            self._idle.append(actor)
            if isinstance(summary, Exception):
                self._failures.append(name_episode(summary, requests, _RETRIES))
            else:
                self._backlog.learn_from(summary)
                self._finished.append(Chunk(summary, batch_ref))
        if done:
            self._watchdog.heard()
            self._call_actors()

    def close(self) -> None:
        """Kill the actors and forget the weights."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors.clear()
        self._idle.clear()
        self._running.clear()
        self._finished.clear()
        self._failures.clear()
        self._backlog.clear()
        self._weights_ref = None

    def __enter__(self) -> Self:
        """Return the collector itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
