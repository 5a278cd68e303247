"""A learner in a Ray actor: episodes reach it from the workers by reference, not through the driver.

Torch is imported in the actor's process only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_rl.config import PolicyConfig, PpoConfig
from ray_rl.envs.api import EnvSpec
from ray_rl.episodes import EpisodeBatch
from ray_rl.policy.inference import PolicyWeights
from ray_rl.ppo.api import LearnerDiedError, LearnerState, UpdateStats


class _LearnerProcess:
    """What runs in the actor: a `Learner` that resolves references. Arguments as `RayLearner`."""

    def __init__(self, spec: EnvSpec, policy: PolicyConfig, ppo: PpoConfig, n_updates: int, run_seed: int) -> None:
        from ray_rl.ppo.learner import Learner

        self._learner = Learner(spec, policy, ppo, n_updates, run_seed)

    def pid(self) -> int:
        """Number of the actor's process."""
        return os.getpid()

    def update(self, batches: Sequence[EpisodeBatch | ray.ObjectRef[EpisodeBatch]]) -> UpdateStats:
        """Fetch all batches that came as references, at once, and learn."""
        return self._learner.update(fetch_batches(batches))

    def weights(self) -> PolicyWeights:
        """As `Learner.weights`."""
        return self._learner.weights()

    def state(self) -> LearnerState:
        """As `Learner.state`."""
        return self._learner.state()

    def load_state(self, state: LearnerState) -> None:
        """As `Learner.load_state`."""
        self._learner.load_state(state)


class RayPendingUpdate:
    """An update under way in the actor.

    Args:
        reference: Of its `UpdateStats`.
    """

    def __init__(self, reference: Any) -> None:
        self._reference = reference

    def done(self) -> bool:
        """Whether `result` returns, or raises, at once."""
        return bool(ray.wait([self._reference], timeout=0)[0])

    def result(self, timeout: float | None = None) -> UpdateStats:
        """Wait for the update; raises what the update raised, or TimeoutError after `timeout` seconds."""
        stats: UpdateStats = _get(self._reference, timeout)
        return stats


class RayLearner:
    """Keeps the promises of `ray_rl.ppo.api.LearnerHandle` by an actor on the driver's node; Ray is connected already.

    Args:
        spec: What the policy sees.
        policy: Size of the networks.
        ppo: How to learn.
        n_updates: Updates of the whole run.
        run_seed: Decides first weights and minibatches.
        num_cpus: CPUs that Ray sets aside for it. With 0 it shares with the workers, which mostly wait while it works.

    Raises:
        Whatever building the learner raises.
    """

    def __init__(
        self,
        spec: EnvSpec,
        policy: PolicyConfig,
        ppo: PpoConfig,
        n_updates: int,
        run_seed: int,
        num_cpus: float = 0,
    ) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        actor_class: Any = ray.remote(_LearnerProcess)
        options = actor_class.options(num_cpus=num_cpus, max_restarts=0, scheduling_strategy=here)
        self._actor: Any = options.remote(spec, policy, ppo, n_updates, run_seed)

    def update(self, batches: Sequence[EpisodeBatch | Any]) -> RayPendingUpdate:
        """Start to learn from episodes or references to them, in any order; returns at once."""
        return RayPendingUpdate(self._actor.update.remote(list(batches)))

    def weights(self) -> PolicyWeights:
        """The policy after all updates so far; waits for the one under way."""
        weights: PolicyWeights = _get(self._actor.weights.remote())
        return weights

    def state(self) -> LearnerState:
        """Everything needed to go on bit for bit; waits for the update under way."""
        state: LearnerState = _get(self._actor.state.remote())
        return state

    def load_state(self, state: LearnerState) -> None:
        """Go on from a saved state; ValueError names the first thing that does not fit."""
        _get(self._actor.load_state.remote(state))

    def pid(self) -> int:
        """Number of the actor's process on its node."""
        pid: int = _get(self._actor.pid.remote())
        return pid

    def close(self) -> None:
        """End the actor; safe to call twice."""
        if self._actor is not None:
            ray.kill(self._actor)
            self._actor = None

    def __enter__(self) -> Self:
        """Return the learner itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def fetch_batches(batches: Sequence[EpisodeBatch | ray.ObjectRef[EpisodeBatch]]) -> list[EpisodeBatch]:
    """The batches, those that came as references fetched at once."""
    fetched = iter(ray.get([batch for batch in batches if isinstance(batch, ray.ObjectRef)]))
    return [next(fetched) if isinstance(batch, ray.ObjectRef) else batch for batch in batches]


def _get(reference: Any, timeout_s: float | None = None) -> Any:
    """The value of a reference; what went wrong in the actor is raised as it was raised there."""
    try:
        return ray.get(reference, timeout=timeout_s)
    except GetTimeoutError as error:
        raise TimeoutError(f"the learner did not finish within {timeout_s} s") from error
    except RayTaskError as error:
        raise _first_cause(error) from error
    except RayActorError as error:
        raise LearnerDiedError(
            f"the learner's process is gone: {error}. Go on from the last checkpoint with --resume"
        ) from error


def _first_cause(error: RayTaskError) -> BaseException:
    cause: BaseException = error
    while isinstance(cause, RayTaskError) and isinstance(cause.cause, BaseException):
        cause = cause.cause
    return cause
