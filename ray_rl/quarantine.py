"""Episodes whose environment fails: once again, then another in its place, and not too many of them."""

from __future__ import annotations

from dataclasses import replace

from ray_rl.episodes import EpisodeError, EpisodeRequest
from ray_rl.seeding import Purpose, derive_seed


class Quarantine:
    """Decides what follows when an episode fails.

    The seed of the one that takes its place depends on the run's seed and the episode alone. So as long as an
    environment fails on the same seeds, the run is the same on any number of workers, resumed or not.

    Args:
        budget: Episodes that may be replaced; with 0 no failure is tolerated.
        run_seed: Decides the seeds of those that take their place.
    """

    def __init__(self, budget: int, run_seed: int) -> None:
        self._budget = budget
        self._run_seed = run_seed
        self._failed: set[tuple[Purpose, int, int]] = set()
        self._replaced: dict[tuple[Purpose, int], int] = {}

    @property
    def n_replaced(self) -> int:
        """Replacements so far."""
        return sum(self._replaced.values())

    def instead(self, error: EpisodeError) -> tuple[list[EpisodeRequest], str]:
        """The episodes to run in place of those that were dropped, and a remark that reports it.

        Args:
            error: What the collector raised.

        Raises:
            EpisodeError: The same, when it is not to be tolerated.
        """
        bad = error.request
        if not error.chunk:
            raise error
        if self._budget == 0:
            cause = f"{error.cause} (--max-failed-episodes 0 tolerates no failure)"
            raise EpisodeError(bad, cause, error.details, error.chunk) from error
        if (bad.purpose, bad.index, bad.seed) not in self._failed:
            self._failed.add((bad.purpose, bad.index, bad.seed))
            return list(error.chunk), f"episode {bad.index} (seed {bad.seed}) failed: {error.cause}; it runs again"
        if self.n_replaced >= self._budget:
            cause = f"{error.cause} ({self._budget} episodes failed before it, as --max-failed-episodes allows)"
            raise EpisodeError(bad, cause, error.details, error.chunk) from error
        other = replace(bad, seed=self._next_seed(bad))
        remark = (
            f"episode {bad.index} failed twice with seed {bad.seed}: {error.cause}; seed {other.seed} takes its place"
        )
        return [other if request == bad else request for request in error.chunk], remark

    def _next_seed(self, bad: EpisodeRequest) -> int:
        number = self._replaced.get((bad.purpose, bad.index), 0)
        self._replaced[bad.purpose, bad.index] = number + 1
        return derive_seed(self._run_seed, Purpose.REPLACE, int(bad.purpose), bad.index, number)
