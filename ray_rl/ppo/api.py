"""What a learner promises, wherever it runs. Free of torch, so that the driver stays light."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from numpy.typing import NDArray

from ray_rl.config import PolicyConfig, PpoConfig
from ray_rl.envs.api import EnvSpec
from ray_rl.envs.true_state import TrueState
from ray_rl.episodes import EpisodeBatch
from ray_rl.failures import RunError
from ray_rl.policy.inference import PolicyWeights
from ray_rl.spans import Span


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a learner is to learn, and how; two with the same assignment and the same episodes learn the same.

    Attributes:
        spec: What the policy sees.
        policy: Size of the networks.
        ppo: How to learn, and how many learners share it.
        n_updates: Updates of the whole run; schedules end with the last.
        run_seed: Decides first weights and minibatches.
        true_state: How to play episodes once more for a critic that sees the true state; None: it sees what the actor
            sees.
    """

    spec: EnvSpec
    policy: PolicyConfig
    ppo: PpoConfig
    n_updates: int
    run_seed: int
    true_state: TrueState | None = None


@dataclass(frozen=True, slots=True)
class UpdateStats:
    """What an update says of itself.

    Losses, entropy and gradient norms are means over all minibatches; `approx_kl` and `clip_fraction` are those of the
    last epoch, that is, of how far the policy moved.

    Attributes:
        policy_loss: Clipped surrogate objective, negated.
        value_loss: Mean squared error of the critic, in units of the (normalised) returns.
        entropy: Mean entropy of the policy over the allowed actions, in nats.
        approx_kl: Mean KL divergence from the policy before the update to the policy, estimated from the batch.
        clip_fraction: Share of steps whose probability ratio lay outside the clip range.
        explained_variance: Share of the variance of returns that the critic explained before the update.
        learning_rate: Adam's step size in this update.
        entropy_coefficient: Weight of the entropy bonus in this update.
        actor_gradient_norm: Norm of the actor's gradient before it was scaled down.
        critic_gradient_norm: Norm of the critic's gradient before it was scaled down.
        epochs: Passes of the actor over the batch; fewer than configured when `target_kl` ended them.
        first_ratio_deviation: Largest difference of a ratio from 1 in the first minibatch: exactly 0 if all is well.
        log_prob_difference: Largest difference between a recorded log-probability and the learner's own evaluation of
            it, over the steps that are not stale.
        staleness_mean: Mean over the episodes of how many updates their policy lay behind, in versions.
        staleness_max: Largest of them.
        n_steps: Environment steps learned from.
        n_episodes: Episodes learned from, each another.
        first_episode: Smallest index of them.
        last_episode: Largest index of them.
        n_distinct: Distinct pairs of observation and action mask among the steps; the networks see each pair once.
        unpack_s: Seconds spent on joining and unpacking the batches.
        advantages_s: Seconds spent on values and advantages.
        optimise_s: Seconds spent on the epochs.
        spans: What the learner's threads did. Where several learners share the batch, those of the first.
    """

    policy_loss: float
    value_loss: float
    entropy: float
    approx_kl: float
    clip_fraction: float
    explained_variance: float
    learning_rate: float
    entropy_coefficient: float
    actor_gradient_norm: float
    critic_gradient_norm: float
    epochs: int
    first_ratio_deviation: float
    log_prob_difference: float
    staleness_mean: float
    staleness_max: int
    n_steps: int
    n_episodes: int
    first_episode: int
    last_episode: int
    n_distinct: int
    unpack_s: float
    advantages_s: float
    optimise_s: float
    spans: tuple[Span, ...]


RETURNS_PREFIX = "returns."
"""Names of the arrays of a learner's state that hold the scale of returns, which belongs to the critic."""
RETURN_COUNTER = "return_batches"
"""Name of the counter that goes with them."""


@dataclass(frozen=True, slots=True)
class LearnerState:
    """Everything a learner needs to go on bit for bit.

    Attributes:
        arrays: Networks (``network.…``), moments of the optimiser (``optimiser.…``) and of the returns
            (``returns.…``), by name.
        counters: Whole numbers by name, as JSON holds them; among them ``version``.
    """

    arrays: Mapping[str, NDArray[Any]]
    counters: Mapping[str, Any]

    @property
    def version(self) -> int:
        """Number of finished updates."""
        return int(self.counters["version"])

    def weights(self) -> PolicyWeights:
        """The policy, for acting."""
        return PolicyWeights.from_network(self.arrays)


class PolicyMismatchError(RunError):
    """Recorded log-probabilities do not belong to the weights that are said to have acted.

    Args:
        difference: Largest absolute difference from the learner's own evaluation.
        n_wrong: Number of steps beyond the tolerance.
        n_steps: Number of steps compared.
        version: Policy version that the batches name.
    """

    def __init__(self, difference: float, n_wrong: int, n_steps: int, version: int) -> None:
        super().__init__(difference, n_wrong, n_steps, version)
        self.difference = difference
        self.n_wrong = n_wrong
        self.n_steps = n_steps
        self.version = version

    def __str__(self) -> str:
        """Say what does not fit, and what it means."""
        return (
            f"{self.n_wrong} of {self.n_steps} recorded log-probabilities differ from those of policy version "
            f"{self.version} by up to {self.difference:.3g}: a worker acted with other weights than it says, or the "
            "batch was damaged on its way"
        )


class DivergedError(RunError):
    """The networks hold numbers that are not finite."""


class LearnerDiedError(RunError):
    """The process of the learner died again and again; the run can be resumed from its last checkpoint."""


class LearnerSilentError(RunError):
    """The learner does not answer.

    Args:
        limit_s: For how long it was asked, in seconds.
    """

    def __init__(self, limit_s: float) -> None:
        super().__init__(limit_s)
        self.limit_s = limit_s

    def __str__(self) -> str:
        """Say what may be the matter, and how to go on."""
        return (
            f"the learner has not answered for {self.limit_s:g} s: its process hangs, or --watchdog-s is too short "
            "for a machine as busy as this. Go on from the last checkpoint with --resume"
        )


class EpisodesLostError(RunError):
    """Episodes that were collected cannot be fetched any more: they must be collected again.

    Args:
        positions: Which of the given batches are lost.
        cause: Why, of the first of them.
    """

    def __init__(self, positions: Sequence[int], cause: str) -> None:
        super().__init__(positions, cause)
        self.positions = positions
        self.cause = cause

    def __str__(self) -> str:
        """Say how many and why."""
        return f"the episodes of {len(self.positions)} chunks were lost after they had been collected: {self.cause}"


class PendingUpdate(Protocol):
    """An update under way; `concurrent.futures.Future` is one."""

    def done(self) -> bool:
        """Whether `result` returns, or raises, at once."""
        ...

    def result(self, timeout: float | None = None) -> UpdateStats:
        """Wait for the update and return its statistics; raises what the update raised.

        Args:
            timeout: Seconds to wait before a ``TimeoutError``; None waits as long as it takes.
        """
        ...


class LearnerHandle(Protocol):
    """The driver's side of a learner, in this process or in another.

    An update that fails leaves the learner as it was before.
    """

    def update(self, batches: Sequence[EpisodeBatch | Any]) -> PendingUpdate:
        """Start to learn from complete episodes, given in any order.

        Args:
            batches: The episodes of one update, or references to them where the learner resolves references. The
                pending update raises `EpisodesLostError` when some of these cannot be fetched.
        """
        ...

    def state(self) -> LearnerState:
        """Everything needed to go on bit for bit; waits for the update under way."""
        ...

    def load_state(self, state: LearnerState) -> None:
        """Go on from a saved state.

        Raises:
            ValueError: When an array or counter is missing, unknown or of another shape; names the first.
        """
        ...

    def close(self) -> None:
        """End the learner and release what it holds; safe to call twice."""
        ...

    def __enter__(self) -> Self:
        """Return the handle itself."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        ...
