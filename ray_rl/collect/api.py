"""What a collector promises. One contract, five ways to keep it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ray_rl.episodes import EpisodeBatch, EpisodeRequest
from ray_rl.policy.inference import PolicyWeights
from ray_rl.seeding import Purpose

NOT_PUBLISHED = "publish weights before episodes are submitted"
"""What `Collector.submit` says when there is nothing to act with."""


@dataclass(frozen=True, slots=True)
class ChunkSummary:
    """What the driver reads of a chunk; a few hundred bytes, whatever the size of its episodes.

    Attributes:
        purpose: What the episodes are for.
        policy_version: Number of finished updates behind the weights that acted.
        indices: [N] int64, `EpisodeRequest.index` of each episode.
        returns: [N] float64, sum of rewards of each.
        protocol_returns: [N] float64, sum of the returns over the first 30, 50 and 100 steps of each.
        lengths: [N] int32, steps of each.
        extras: Named [N] arrays, as in the batch (``red_agent``, …).
        rollout_s: Seconds spent running the episodes.
        env_s: Part of them spent in the environment; 0 where one kernel does everything.
        policy_s: Part of them spent on picking actions; 0 likewise.
        n_bytes: Bytes of the batch.
        node: Host on which they ran.
        pid: Process there.
        worker_rss_bytes: Resident memory of that process when it finished.
        n_together: Environments that were stepped together, each in a process of its own; 1 where none wait for others.
        barrier_s: Seconds that those environments waited for the slowest of them, summed over them.
        began_s: When the process began with the chunk, in seconds since 1970.
        chunk_s: Seconds from there until the chunk was ready to be handed over.
    """

    purpose: Purpose
    policy_version: int
    indices: NDArray[np.int64]
    returns: NDArray[np.float64]
    protocol_returns: NDArray[np.float64]
    lengths: NDArray[np.int32]
    extras: dict[str, NDArray[Any]]
    rollout_s: float
    env_s: float
    policy_s: float
    n_bytes: int
    node: str
    pid: int
    worker_rss_bytes: int
    n_together: int = 1
    barrier_s: float = 0.0
    began_s: float = 0.0
    chunk_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """Episodes that one task collected and returned together.

    Attributes:
        summary: What the driver reads.
        batch: The episodes, or a reference to them (a Ray ``ObjectRef``) that only the learner resolves.
    """

    summary: ChunkSummary
    batch: EpisodeBatch | Any


@dataclass(frozen=True, slots=True)
class PublishCosts:
    """What handing out weights has cost a collector so far.

    Attributes:
        n_published: Calls of `Collector.publish`.
        serialised_bytes: Bytes of weights that the driver wrote, pickled or copied, for the workers to read.
        publish_s: Seconds that the driver spent on it.
    """

    n_published: int = 0
    serialised_bytes: int = 0
    publish_s: float = 0.0

    def plus(self, serialised_bytes: int, publish_s: float) -> PublishCosts:
        """The costs after one more publication."""
        return PublishCosts(self.n_published + 1, self.serialised_bytes + serialised_bytes, self.publish_s + publish_s)


class Collector(Protocol):
    """Runs requested episodes with the published weights and hands chunks over as they finish.

    An episode that cannot be run raises `ray_rl.episodes.EpisodeError` out of `completed`, and its chunk is dropped:
    one error for each such chunk, which names all of its episodes. The next `completed` goes on with all others, so
    that neither what had finished nor what waits is lost.
    """

    @property
    def publish_costs(self) -> PublishCosts:
        """What handing out weights has cost so far."""
        ...

    def publish(self, weights: PolicyWeights, policy_version: int) -> None:
        """Make weights current for every episode that starts from now on; once per update, whatever the workers."""
        ...

    def submit(self, requests: Sequence[EpisodeRequest]) -> None:
        """Queue episodes, all of one purpose; returns at once.

        Raises:
            ValueError: Before the first `publish`; nothing is queued then.
        """
        ...

    def completed(self, timeout_s: float | None = None) -> Iterator[Chunk]:
        """Yield chunks as they finish, in any order, until nothing is queued or running.

        Args:
            timeout_s: Give up waiting after this many seconds and return; what is pending stays pending.
                None waits as long as it takes.
        """
        ...

    def close(self) -> None:
        """End all workers and release everything; safe to call twice."""
        ...

    def __enter__(self) -> Self:
        """Return the collector itself."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        ...


def summarise(batch: EpisodeBatch, purpose: Purpose, worker_rss_bytes: int) -> ChunkSummary:
    """Make the summary of a batch.

    Args:
        batch: The episodes.
        purpose: What they are for.
        worker_rss_bytes: Resident memory of the process that ran them.
    """
    return ChunkSummary(
        purpose=purpose,
        policy_version=batch.policy_version,
        indices=batch.indices,
        returns=batch.returns(),
        protocol_returns=batch.protocol_returns(),
        lengths=batch.lengths,
        extras=batch.extras,
        rollout_s=batch.rollout_s,
        env_s=batch.env_s,
        policy_s=batch.policy_s,
        n_bytes=batch.n_bytes,
        node=batch.node,
        pid=batch.pid,
        worker_rss_bytes=worker_rss_bytes,
    )


def split_into_chunks(requests: Sequence[EpisodeRequest], episodes_per_chunk: int) -> list[Sequence[EpisodeRequest]]:
    """Cut requests into chunks of at most `episodes_per_chunk`, as equal as can be.

    Args:
        requests: Episodes of one purpose.
        episodes_per_chunk: Upper bound, 1 or more.
    """
    n_chunks = -(-len(requests) // episodes_per_chunk)
    bounds = [len(requests) * k // n_chunks for k in range(n_chunks + 1)] if n_chunks else [0]
    return [requests[a:b] for a, b in itertools.pairwise(bounds)]
