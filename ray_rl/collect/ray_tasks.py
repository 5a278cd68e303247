"""Stateless Ray tasks: the default. Weights enter the object store once, every task takes a reference to them.

About two tasks per CPU are in flight, the rest waits here, so a cluster that grows or shrinks finds work or is not
drowned in it. Each task returns two objects: a small summary for the driver, and the episodes, which go from the
worker's store to the learner's without passing through the driver. A task that dies with its worker runs again
elsewhere.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self, cast

import ray
from ray.exceptions import RayError

from ray_rl.collect.api import NOT_PUBLISHED, Chunk, ChunkSummary, PublishCosts
from ray_rl.collect.backlog import Backlog, Watchdog
from ray_rl.collect.worker import run_chunk
from ray_rl.config import EnvConfig
from ray_rl.episodes import EpisodeBatch, EpisodeError, EpisodeRequest
from ray_rl.policy.inference import PolicyWeights
from ray_rl.ray_runtime import cluster_cpus, first_cause, wait_some

_TASKS_PER_CPU = 2
_RETRIES = 3
"""Times that a task runs again when its worker or node dies; exceptions of the environment are never retried."""


@ray.remote(num_cpus=1, num_returns=2, max_retries=_RETRIES)
def collect_chunk(
    weights: PolicyWeights, env: EnvConfig, requests: Sequence[EpisodeRequest], policy_version: int
) -> tuple[ChunkSummary, EpisodeBatch]:
    """Run a chunk of episodes; stateless: what it returns depends on its arguments alone."""
    return run_chunk(env, weights, requests, policy_version)


class RayTasksCollector:
    """Runs episodes as stateless tasks on the connected Ray.

    Args:
        env: The environment.
        n_workers: Tasks that run at once; None: as many as the cluster has CPUs, also when it grows.
        episodes_per_chunk: Episodes of a task; None: chosen by measured durations.
        watchdog_s: Seconds without a finished task after which `completed` raises.
    """

    def __init__(
        self, env: EnvConfig, n_workers: int | None, episodes_per_chunk: int | None, watchdog_s: float
    ) -> None:
        self._env = env
        self._n_workers = n_workers
        self._backlog = Backlog(n_workers or cluster_cpus(), episodes_per_chunk)
        self._watchdog = Watchdog(watchdog_s)
        self._running: dict[ray.ObjectRef[Any], tuple[list[EpisodeRequest], ray.ObjectRef[Any]]] = {}
        self._finished: deque[Chunk] = deque()
        self._failures: deque[Exception] = deque()
        self._weights_ref: Any = None
        self._policy_version = 0
        self.publish_costs = PublishCosts()

    def publish(self, weights: PolicyWeights, policy_version: int) -> None:
        """Put weights into the object store, once."""
        started = time.perf_counter()
        self._weights_ref = ray.put(weights)
        self._policy_version = policy_version
        self.publish_costs = self.publish_costs.plus(weights.n_bytes, time.perf_counter() - started)

    def submit(self, requests: Sequence[EpisodeRequest]) -> None:
        """Queue episodes and start as many tasks as there is room for."""
        if self._weights_ref is None:
            raise ValueError(NOT_PUBLISHED)
        self._backlog.add(requests)
        if not self._running:
            self._watchdog.heard()
        self._start_tasks()

    def completed(self, timeout_s: float | None = None) -> Iterator[Chunk]:
        """Yield chunks as their tasks finish: at each wake-up all that are ready; new tasks start at once."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self._finished or self._failures or self._running:
            if not (self._finished or self._failures):
                done = wait_some(list(self._running), self._watchdog.wait_s(deadline))
                if not done:
                    self._watchdog.check([requests for requests, _ in self._running.values()])
                self._take_in(done)
            while self._finished:
                yield self._finished.popleft()
            if self._failures:
                raise self._failures.popleft()
            if deadline is not None and time.monotonic() >= deadline:
                return

    def _start_tasks(self) -> None:
        if self._n_workers is None:
            self._backlog.n_workers = cluster_cpus()
        while self._backlog and len(self._running) < _TASKS_PER_CPU * self._backlog.n_workers:
            requests = self._backlog.take()
            summary, batch = cast("Any", collect_chunk).remote(
                self._weights_ref, self._env, requests, self._policy_version
            )
            self._running[summary] = (requests, batch)

    def _take_in(self, done: list[ray.ObjectRef[Any]]) -> None:
        """Keep what succeeded and what failed, and go on with what waits."""
        for summary_ref, summary in zip(done, get_summaries(done), strict=True):
            requests, batch_ref = self._running.pop(summary_ref)
            if isinstance(summary, Exception):
                self._failures.append(name_episode(summary, requests, _RETRIES))
            else:
                self._backlog.learn_from(summary)
                self._finished.append(Chunk(summary, batch_ref))
        if done:
            self._watchdog.heard()
            self._start_tasks()

    def close(self) -> None:
        """Cancel what is running and forget the weights."""
        for summary_ref in self._running:
            ray.cancel(summary_ref, force=True)
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


def get_summaries(refs: list[ray.ObjectRef[Any]]) -> list[ChunkSummary | Exception]:
    """Fetch summaries in one call, and only when one of them failed, one by one."""
    try:
        return list(ray.get(refs))
    except Exception:
        return [_get_summary(ref) for ref in refs]


def _get_summary(ref: ray.ObjectRef[Any]) -> ChunkSummary | Exception:
    try:
        summary: ChunkSummary = ray.get(ref)
    except Exception as error:
        return first_cause(error)
    return summary


def name_episode(error: Exception, requests: Sequence[EpisodeRequest], retries: int) -> Exception:
    """Give failures of Ray itself (a worker that died again and again) the name of the chunk's first episode."""
    if not isinstance(error, RayError):
        return error
    text = str(error).strip().splitlines()[0]
    cause = f"its worker died {retries + 1} times ({type(error).__name__}: {text})"
    return EpisodeError(requests[0], cause, str(error))
