"""From the episodes of an update to whole sequences, for networks that remember: T steps of N episodes, padded.

An episode of L steps is a column of L + 1 inputs, the last of them its final observation, which only the critic reads.
What lies below is padding: a network that reads forwards never lets it reach what counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_rl.envs.api import EnvSpec
from ray_rl.episodes import EpisodeBatch
from ray_rl.policy.actor_critic import mask_bias
from ray_rl.ppo.batch import Place, check_episodes
from ray_rl.ppo.device import CPU, onto
from ray_rl.seeding import Purpose, derive_seed


@dataclass(frozen=True, slots=True)
class Sequences:
    """M steps of N episodes as columns; T is the length of the longest.

    Attributes:
        inputs: [T + 1, N, D + A] uint8 or float32: the observation, then a one at the place of the action before it.
        mask_bias: [T, N, A] float32 to add to logits, or None where every action is always allowed.
        actions: [T, N] int64.
        steps: [M] int64, place of each step in a flattened [T, N]; those of an episode lie one after another.
        finals: [N] int64, place of each final observation in a flattened [T + 1, N].
        behaviour_log_probs, rewards, alignment_rewards, lengths, terminated, policy_versions, place: As in `PpoBatch`.
    """

    inputs: Tensor
    mask_bias: Tensor | None
    actions: Tensor
    steps: Tensor
    finals: Tensor
    behaviour_log_probs: Tensor
    rewards: NDArray[np.float32]
    alignment_rewards: NDArray[np.float32] | None
    lengths: NDArray[np.int32]
    terminated: NDArray[np.bool_]
    policy_versions: NDArray[np.int64]
    place: Place

    @property
    def n_distinct(self) -> int:
        """Steps: what a network that remembers says depends on all before it."""
        return len(self.steps)

    def padded(self, values: Tensor) -> Tensor:
        """Values of steps [M] as columns [T, N], 0 where there is no step."""
        n_rows, n_episodes = self.actions.shape
        return values.new_zeros(n_rows * n_episodes).index_copy_(0, self.steps, values).view(n_rows, -1)


def sequences(episodes: EpisodeBatch, spec: EnvSpec, place: Place, device: torch.device = CPU) -> Sequences:
    """Lay episodes out as columns.

    Args:
        episodes: As `concatenate_in_order` gives them.
        spec: What the policy sees.
        place: Where their steps lie among those of the update.
        device: Where the learner computes.

    Raises:
        ValueError: When the episodes do not fit the spec.
    """
    check_episodes(episodes, spec)
    lengths = episodes.lengths.astype(np.int64)
    n, longest = len(lengths), int(lengths.max())
    column = np.repeat(np.arange(n), lengths)
    row = np.concatenate([np.arange(length) for length in lengths])
    size, n_actions = spec.observation_size, spec.n_actions
    inputs = np.zeros((longest + 1, n, size + n_actions), dtype=np.uint8 if spec.observation_bits else np.float32)
    inputs[row, column, :size] = _unpacked(episodes.observations, spec)
    inputs[lengths, np.arange(n), :size] = _unpacked(episodes.final_observations, spec)
    inputs[row + 1, column, size + episodes.actions.astype(np.int64)] = 1
    actions = np.zeros((longest, n), dtype=np.int64)
    actions[row, column] = episodes.actions
    allowed = None
    if episodes.action_masks is not None:
        allowed = np.ones((longest, n, n_actions), dtype=np.bool_)
        allowed[row, column] = np.unpackbits(episodes.action_masks, axis=1, count=n_actions).view(np.bool_)

    def there(values: NDArray[np.generic]) -> Tensor:
        return onto(torch.from_numpy(values), device)

    return Sequences(
        inputs=there(inputs),
        mask_bias=None if allowed is None else mask_bias(there(allowed)),
        actions=there(actions),
        steps=there(row * n + column),
        finals=there(lengths * n + np.arange(n)),
        behaviour_log_probs=onto(torch.tensor(episodes.behaviour_log_probs), device),
        rewards=episodes.rewards,
        alignment_rewards=episodes.alignment_rewards,
        lengths=episodes.lengths,
        terminated=episodes.terminated,
        policy_versions=episodes.extras["policy_version"],
        place=place,
    )


def _unpacked(observations: NDArray[np.generic], spec: EnvSpec) -> NDArray[np.generic]:
    if not spec.observation_bits:
        return observations
    return np.unpackbits(observations.view(np.uint8), axis=1, count=spec.observation_size)


def episode_minibatches(n_episodes: int, count: int, run_seed: int, version: int, epoch: int) -> Iterator[Tensor]:
    """Cut the episodes of an update into slices, shuffled anew for every version and epoch: columns [n] int64.

    Args:
        n_episodes: N.
        count: Number of slices, whose sizes differ by one episode at most.
        run_seed: With version and epoch decides the permutation; nothing else does.
        version: Number of finished updates.
        epoch: Number of the pass, from 0.
    """
    generator = np.random.default_rng(derive_seed(run_seed, Purpose.MINIBATCH, version, epoch))
    for columns in np.array_split(generator.permutation(n_episodes), count):
        yield torch.from_numpy(columns)
