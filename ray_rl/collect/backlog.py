"""Episodes that wait for a worker, and how many of them make a chunk."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ray_rl.collect.api import ChunkSummary
from ray_rl.episodes import EpisodeError, EpisodeRequest

_CHUNK_S = 0.3
"""Aim for the duration of a task: long enough to hide what scheduling costs, short enough to leave no slow tail."""
_SMALL_S = 0.05
"""A worker's share of a submission that takes no longer is one chunk: to send a second one costs more than the shorter
tail saves."""
_BEFORE_MEASURED = 2
"""Episodes of a chunk before any has been timed."""


@dataclass
class _Submission:
    waiting: deque[EpisodeRequest]
    share: int


@dataclass
class Backlog:
    """A queue of requests that hands out chunks.

    Attributes:
        n_workers: Workers that share the episodes.
        fixed_size: Episodes per chunk; None: as many as take `_CHUNK_S`, but never more than leave work for all
            workers, and where a worker's share takes longer than `_SMALL_S`, two chunks for each.
    """

    n_workers: int
    fixed_size: int | None
    _submissions: deque[_Submission] = field(default_factory=deque)
    _episode_s: float | None = None

    def add(self, requests: Sequence[EpisodeRequest]) -> None:
        """Queue episodes of one purpose."""
        if requests:
            share = -(-len(requests) // self.n_workers)
            if self._episode_s is None or share * self._episode_s > _SMALL_S:
                share = -(-share // 2)
            self._submissions.append(_Submission(deque(requests), share))

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._submissions)

    def clear(self) -> None:
        """Forget everything that waits."""
        self._submissions.clear()

    def take(self) -> list[EpisodeRequest]:
        """Take the next chunk; something must be waiting."""
        submission = self._submissions[0]
        size = self.fixed_size or min(self._affordable(), submission.share)
        chunk = [submission.waiting.popleft() for _ in range(min(size, len(submission.waiting)))]
        if not submission.waiting:
            self._submissions.popleft()
        return chunk

    def learn_from(self, summary: ChunkSummary) -> None:
        """Note how long episodes take; the latest chunk counts most."""
        episode_s = summary.rollout_s / len(summary.indices)
        self._episode_s = episode_s if self._episode_s is None else 0.7 * self._episode_s + 0.3 * episode_s

    def _affordable(self) -> int:
        if self._episode_s is None:
            return _BEFORE_MEASURED
        return max(1, int(_CHUNK_S / max(self._episode_s, 1e-6)))


class Punctuality:
    """Knows how long chunks take from being sent to being finished, and when one is late.

    The limit is the mean and four deviations, both smoothed as in RFC 6298 (retransmission of packets), and twice that
    for each copy that was sent already.

    Args:
        shortest_s: No chunk is late before that, in seconds.
    """

    def __init__(self, shortest_s: float) -> None:
        self._shortest_s = shortest_s
        self._mean_s: float | None = None
        self._deviation_s = 0.0

    def learn_from(self, seconds: float) -> None:
        """Note how long a chunk took."""
        if self._mean_s is None:
            self._mean_s, self._deviation_s = seconds, seconds / 2
        else:
            self._deviation_s += (abs(seconds - self._mean_s) - self._deviation_s) / 4
            self._mean_s += (seconds - self._mean_s) / 8

    def is_late(self, seconds: float, n_copies: int) -> bool:
        """Whether a chunk that was sent `n_copies` times, and last so long ago, should be sent once more.

        Nothing is late before the first chunk has shown how long they take.
        """
        if self._mean_s is None:
            return False
        return seconds > max(self._shortest_s, self._mean_s + 4 * self._deviation_s) * 2 ** (n_copies - 1)


class Watchdog:
    """Raises when nothing has finished for too long, and says what is pending.

    Args:
        limit_s: Longest silence, in seconds.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._heard_at = time.monotonic()

    def heard(self) -> None:
        """Something finished, or was begun after a time of nothing to do."""
        self._heard_at = time.monotonic()

    def wait_s(self, deadline: float | None) -> float:
        """How long to wait now, in seconds: until the deadline or until the silence is too long."""
        limit = self._heard_at + self._limit_s
        return max(0.0, (limit if deadline is None else min(limit, deadline)) - time.monotonic())

    def is_half_over(self) -> bool:
        """Whether half of the longest silence has gone by: time to try what is drastic, before all is given up."""
        return time.monotonic() - self._heard_at >= self._limit_s / 2

    def check(self, pending: Sequence[Sequence[EpisodeRequest]], circumstances: Callable[[], str] = str) -> None:
        """Raise if the silence has been too long; whoever goes on waiting then has as long again.

        Args:
            pending: Chunks that are running.
            circumstances: Tells what may be the reason; asked only when there is something to explain.

        Raises:
            EpisodeError: Names the first pending episode and counts the others.
        """
        if pending and time.monotonic() - self._heard_at >= self._limit_s:
            self.heard()
            n_episodes = sum(len(chunk) for chunk in pending)
            reason = circumstances() or "an environment hangs, or --watchdog-s is too short for its episodes"
            raise EpisodeError(
                pending[0][0],
                f"no chunk finished for {self._limit_s:g} s; {n_episodes} episodes in {len(pending)} chunks "
                f"are pending ({reason})",
            )
