"""What an episode costs the parts that every episode passes, and therefore how many a second each of them can bear.

Three parts are there once, however many nodes collect: the driver handles every chunk, the learner's node fetches it
from the object stores, the learner learns from its episodes. Each is busy for a time that grows with the chunks or the
episodes of a second; where that time reaches one second per second, the part is full. Until then the rate is what the
workers give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

INLINE_BYTES = 100 * 1024
"""Ray sends what is smaller with a task's answer (its ``max_direct_call_object_size``); the rest stays in a store."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Where a part is full.

    Attributes:
        part: Name.
        episodes_per_s: Rate at which it is.
        why: What its time goes into.
        remedy: What to do then.
    """

    part: str
    episodes_per_s: float
    why: str
    remedy: str


@dataclass(frozen=True, slots=True)
class CostModel:
    """Fitted costs.

    Attributes:
        worker_s_per_episode: Seconds of a worker for each episode, waits included.
        episodes_per_chunk: Episodes of a task.
        episode_bytes: Bytes of an episode.
        driver_idle_share: Share of a core that the driver takes whatever it does.
        driver_s_per_chunk: Seconds of a core that the driver takes for a chunk.
        fetch_s_per_chunk: Seconds in which a node fetches a chunk from another node's object store, whatever its size.
        fetch_s_per_byte: Seconds for each of its bytes, besides.
        learn_s_per_episode: Seconds that the learner takes for an episode.
    """

    worker_s_per_episode: float
    episodes_per_chunk: int
    episode_bytes: float
    driver_idle_share: float
    driver_s_per_chunk: float
    fetch_s_per_chunk: float
    fetch_s_per_byte: float
    learn_s_per_episode: float

    def limits(self) -> list[Limit]:
        """Where each part is full, the lowest first."""
        stored_bytes = max(self.episodes_per_chunk * self.episode_bytes, INLINE_BYTES)
        fetch_s = self.fetch_s_per_chunk + self.fetch_s_per_byte * stored_bytes
        limits = [
            Limit(
                "driver",
                (1 - self.driver_idle_share) / self.driver_s_per_chunk * self.episodes_per_chunk,
                f"{self.driver_s_per_chunk * 1e3:.2f} ms of a core for each chunk",
                "larger chunks (--episodes-per-chunk)",
            ),
            Limit(
                "object store",
                stored_bytes / self.episode_bytes / fetch_s,
                f"{fetch_s * 1e3:.2f} ms to fetch {stored_bytes / 1024:.0f} KiB from another node",
                "larger chunks, then a faster network at the learner",
            ),
            Limit(
                "learner",
                1 / self.learn_s_per_episode,
                f"{self.learn_s_per_episode * 1e3:.2f} ms for each episode, in all passes",
                "more learners (--n-learners), fewer passes (--epochs)",
            ),
        ]
        return sorted(limits, key=lambda limit: limit.episodes_per_s)

    def collected_per_s(self, n_workers: int) -> float:
        """Episodes a second that so many workers collect, until driver or object store is full."""
        passing = [limit.episodes_per_s for limit in self.limits() if limit.part != "learner"]
        return min(n_workers / self.worker_s_per_episode, *passing)

    def driver_share(self, n_workers: int) -> float:
        """Share of a core that the driver takes for so many workers."""
        chunks_per_s = self.collected_per_s(n_workers) / self.episodes_per_chunk
        return self.driver_idle_share + self.driver_s_per_chunk * chunks_per_s

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "limits": [asdict(limit) for limit in self.limits()]}


def fit_line(amounts: Sequence[float], costs: Sequence[float]) -> tuple[float, float]:
    """What something costs whatever its amount, and for each unit of it: the line nearest to what was measured.

    Args:
        amounts: Two different ones or more.
        costs: Measured at each.

    Returns:
        Cost of nothing, never below 0, and of a unit. A line that starts below 0, or does not rise, is replaced by the
        nearest one through 0.
    """
    xs, ys = np.asarray(amounts, dtype=float), np.asarray(costs, dtype=float)
    slope, start = np.polyfit(xs, ys, 1)
    if start < 0 or slope <= 0:
        start, slope = 0.0, float((xs * ys).sum() / (xs**2).sum())
    return float(start), float(slope)
