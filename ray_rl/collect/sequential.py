"""Everything in this process, one chunk after another: for debugging, and as the yardstick."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from ray_rl.collect.api import NOT_PUBLISHED, Chunk, PublishCosts
from ray_rl.collect.backlog import Backlog
from ray_rl.collect.worker import run_chunk
from ray_rl.config import EnvConfig
from ray_rl.episodes import EpisodeRequest
from ray_rl.policy.inference import PolicyWeights


class SequentialCollector:
    """Runs episodes when their chunks are asked for.

    Args:
        env: The environment.
        episodes_per_chunk: Episodes of a chunk; None: chosen by measured durations.
    """

    def __init__(self, env: EnvConfig, episodes_per_chunk: int | None = None) -> None:
        self._env = env.options
        self._backlog = Backlog(1, episodes_per_chunk)
        self._weights: PolicyWeights | None = None
        self._policy_version = 0
        self.publish_costs = PublishCosts()

    def publish(self, weights: PolicyWeights, policy_version: int) -> None:
        """Make weights current; nothing has to be copied."""
        self._weights, self._policy_version = weights, policy_version
        self.publish_costs = self.publish_costs.plus(0, 0.0)

    def submit(self, requests: Sequence[EpisodeRequest]) -> None:
        """Queue episodes."""
        if self._weights is None:
            raise ValueError(NOT_PUBLISHED)
        self._backlog.add(requests)

    def completed(self, timeout_s: float | None = None) -> Iterator[Chunk]:
        """Run and yield chunks; looks at the time between chunks only."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self._weights and self._backlog and (deadline is None or time.monotonic() < deadline):
            summary, batch = run_chunk(self._env, self._weights, self._backlog.take(), self._policy_version)
            self._backlog.learn_from(summary)
            yield Chunk(summary, batch)

    def close(self) -> None:
        """Forget what waits; there is nothing else to release."""
        self._backlog.clear()

    def __enter__(self) -> Self:
        """Return the collector itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
