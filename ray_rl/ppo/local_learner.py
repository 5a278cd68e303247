"""A learner in a thread of this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from ray_rl.config import PolicyConfig, PpoConfig
from ray_rl.envs.api import EnvSpec
from ray_rl.envs.true_state import TrueState
from ray_rl.episodes import EpisodeBatch
from ray_rl.policy.inference import PolicyWeights
from ray_rl.ppo.api import LearnerState, UpdateStats
from ray_rl.ppo.learner import Learner


class LocalLearner:
    """Keeps the promises of `ray_rl.ppo.api.LearnerHandle` in this process; calls run one after another.

    Args:
        spec: What the policy sees.
        policy: Size of the networks.
        ppo: How to learn.
        n_updates: Updates of the whole run.
        run_seed: Decides first weights and minibatches.
        fetch: Turns batches that came as references into the batches themselves.
        true_state: As `Learner`.
    """

    def __init__(
        self,
        spec: EnvSpec,
        policy: PolicyConfig,
        ppo: PpoConfig,
        n_updates: int,
        run_seed: int,
        fetch: Callable[[Sequence[EpisodeBatch | Any]], Sequence[EpisodeBatch]] = list,
        true_state: TrueState | None = None,
    ) -> None:
        self._learner = Learner(spec, policy, ppo, n_updates, run_seed, true_state=true_state)
        self._fetch = fetch
        self._turns = ThreadPoolExecutor(1, "learner-turns")

    def update(self, batches: Sequence[EpisodeBatch | Any]) -> Future[UpdateStats]:
        """Start to learn from complete episodes, given in any order; returns at once."""
        return self._turns.submit(lambda: self._learner.update(self._fetch(batches)))

    def weights(self) -> PolicyWeights:
        """The policy after all updates so far; waits for the one under way."""
        return self._turns.submit(self._learner.weights).result()

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
