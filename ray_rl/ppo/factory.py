"""Makes the learner that a run's configuration asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ray_rl.config import TrainConfig, UserError
from ray_rl.envs.api import EnvSpec
from ray_rl.envs.true_state import TrueState
from ray_rl.episodes import EpisodeBatch
from ray_rl.ppo.api import Assignment, LearnerHandle

_RAY_COLLECTORS = ("ray-tasks", "ray-actors")


def make_learner(spec: EnvSpec, config: TrainConfig) -> LearnerHandle:
    """Start the learner of a run: in a Ray actor where Ray collects, else in a thread of this process.

    Args:
        spec: What the policy sees.
        config: The run; where Ray collects, Ray is connected already.
    """
    if config.collect.collector in _RAY_COLLECTORS:
        from ray_rl.ppo.ray_learner import RayLearner

        return RayLearner(assignment_of(spec, config), limit_s=config.collect.watchdog_s)
    return make_local_learner(spec, config)


def make_local_learner(spec: EnvSpec, config: TrainConfig) -> LearnerHandle:
    """Start the learner of a run in a thread of this process; arguments as `make_learner`.

    Raises:
        UserError: When the run asks for several learners.
    """
    if config.ppo.n_learners > 1:
        raise UserError(f"here learning happens in one process: n_learners must be 1, not {config.ppo.n_learners}")
    from ray_rl.ppo.local_learner import LocalLearner

    fetch: Callable[[Sequence[Any]], Sequence[EpisodeBatch]] = list
    if config.collect.collector in _RAY_COLLECTORS:
        from ray_rl.ppo.ray_learner import fetch_batches

        fetch = fetch_batches
    return LocalLearner(assignment_of(spec, config), fetch)


def assignment_of(spec: EnvSpec, config: TrainConfig) -> Assignment:
    """What the learner of a run is to learn, and how; arguments as `make_learner`."""
    sees_truth = config.policy.critic_sees == "truth"
    true_state = TrueState(config.env.rules, config.env.actions) if sees_truth else None
    return Assignment(spec, config.policy, config.ppo, config.n_updates, config.run.seed, true_state)
