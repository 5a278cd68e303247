"""A learner in a thread of this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from ray_rl.episodes import EpisodeBatch
from ray_rl.ppo.api import Assignment, LearnerState, UpdateStats
from ray_rl.ppo.learner import Learner


class LocalLearner:
    """Keeps the promises of `ray_rl.ppo.api.LearnerHandle` in this process; calls run one after another.

    Args:
        assignment: What to learn, and how.
        fetch: Turns batches that came as references into the batches themselves.
    """

    def __init__(
        self,
        assignment: Assignment,
        fetch: Callable[[Sequence[EpisodeBatch | Any]], Sequence[EpisodeBatch]] = list,
    ) -> None:
        self._learner = Learner(assignment)
        self._fetch = fetch
        self._turns = ThreadPoolExecutor(1, "learner-turns")

    def update(self, batches: Sequence[EpisodeBatch | Any]) -> Future[UpdateStats]:
        """Start to learn from complete episodes, given in any order; returns at once."""
        return self._turns.submit(lambda: self._learner.update(self._fetch(batches)))

    def state(self) -> LearnerState:
        """Everything needed to go on bit for bit; waits for the update under way."""
        return self._turns.submit(self._learner.state).result()

    def load_state(self, state: LearnerState) -> None:
        """Go on from a saved state; ValueError names the first thing that does not fit."""
        self._turns.submit(self._learner.load_state, state).result()

    def close(self) -> None:
        """Wait for the update under way and end the threads; safe to call twice."""
        self._turns.shutdown()
        self._learner.close()

    def __enter__(self) -> Self:
        """Return the learner itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
