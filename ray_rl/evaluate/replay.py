"""Episodes played once more with everything kept: what happened on each host at each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_rl.config import EnvConfig
from ray_rl.envs.cage2.action_sets import ACTION_SETS, game_action
from ray_rl.envs.cage2.constants import ACTIVITY_EXPLOIT, N_HOSTS, TABLE_BITS
from ray_rl.envs.cage2.env import Cage2Env
from ray_rl.envs.cyborg_env import CyborgEnv
from ray_rl.envs.registry import make_env
from ray_rl.episodes import EpisodeRequest
from ray_rl.policy.acting import ActingPolicy
from ray_rl.seeding import policy_uniforms

FREE, USER_HELD, PRIVILEGED_HELD = range(3)
"""What Red holds on a host: nothing, a session without privileges, one with."""


@dataclass(frozen=True, slots=True)
class Replays:
    """N episodes of T steps.

    Attributes:
        requests: What was played, [N].
        actions: [N, T] Blue's actions, 0 to 144.
        rewards: [N, T].
        attacked: [N, T, 13] bool, the table shows an exploit on the host after the step.
        held: [N, T, 13] uint8, what Red holds there after the step: FREE, USER_HELD or PRIVILEGED_HELD.
    """

    requests: tuple[EpisodeRequest, ...]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    attacked: NDArray[np.bool_]
    held: NDArray[np.uint8]

    def returns(self) -> NDArray[np.float64]:
        """[N] sum of rewards."""
        return self.rewards.sum(axis=1, dtype=np.float64)


def replay(config: EnvConfig, policy: ActingPolicy, requests: Sequence[EpisodeRequest]) -> Replays:
    """Play episodes of one length in this process; they are the same as anywhere else.

    Args:
        config: ``cage2`` or ``cyborg``, with what the policy sees.
        policy: Picks the actions.
        requests: One or more episodes.
    """
    env = make_env(config)
    assert isinstance(env, Cage2Env | CyborgEnv)
    size = env.max_batch
    parts = [
        _play_together(env, ACTION_SETS.index(config.actions), policy, requests[first : first + size])
        for first in range(0, len(requests), size)
    ]
    env.close()
    return Replays(tuple(requests), *(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _play_together(
    env: Cage2Env | CyborgEnv, action_set: int, policy: ActingPolicy, requests: Sequence[EpisodeRequest]
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_], NDArray[np.uint8]]:
    n, n_steps = len(requests), requests[0].max_steps
    seeds = np.array([r.seed for r in requests], dtype=np.uint64)
    greedy = np.array([r.greedy for r in requests], dtype=np.bool_)
    to_game = np.array([game_action(action_set, a) for a in range(env.spec.n_actions)], dtype=np.int64)
    actions = np.empty((n, n_steps), dtype=np.int64)
    rewards = np.empty((n, n_steps), dtype=np.float32)
    attacked = np.empty((n, n_steps, N_HOSTS), dtype=np.bool_)
    held = np.empty((n, n_steps, N_HOSTS), dtype=np.uint8)
    policy.begin(n)
    observations = env.reset(requests)
    for step in range(n_steps):
        chosen, _ = policy.act(observations, env.action_masks(), policy_uniforms(seeds, step), greedy)
        result = env.step(chosen)
        observations = result.observations
        actions[:, step], rewards[:, step] = to_game[chosen], result.rewards
        table = observations[:, :TABLE_BITS].reshape(n, N_HOSTS, 4)
        attacked[:, step] = table[:, :, 0] + 2 * table[:, :, 1] == ACTIVITY_EXPLOIT
        truth = env.truth()
        held[:, step] = np.where(
            truth.n_privileged > 0,
            PRIVILEGED_HELD,
            np.where(truth.n_removable + truth.n_hidden > 0, USER_HELD, FREE),
        )
    return actions, rewards, attacked, held
