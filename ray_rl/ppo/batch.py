"""From the episodes of an update to what the learner computes with.

Many steps of an update show the same observation with the same action mask. What the networks say of a step depends on
nothing else, so they see each such pair once (a *row*), and gradients of its steps are added up before they go back
through the network: the same sums, with less work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from ray_rl.envs.api import EnvSpec
from ray_rl.episodes import EpisodeBatch
from ray_rl.policy.actor_critic import mask_bias
from ray_rl.policy.network_inputs import BitInputs, NetworkInputs, NumberInputs
from ray_rl.seeding import Purpose, derive_seed, mix64

_mix64 = njit(inline="always")(mix64)


@dataclass(frozen=True, slots=True)
class PpoBatch:
    """The M steps of N episodes, and the R distinct rows of network inputs among them.

    Attributes:
        inputs: R rows of observations.
        mask_bias: [R, A] float32 tensor to add to logits, or None where every action is always allowed.
        rows: [M] int64, the row of each step.
        final_rows: [N] int64, the row of each episode's final observation.
        actions: [M] int64 tensor.
        behaviour_log_probs: [M] float32 tensor, as recorded when acting.
        rewards: [M] float32, of the environment.
        alignment_rewards: [M] float32, for following orders of repair, or None.
        lengths: [N] int32.
        terminated: [N] bool.
        policy_versions: [N] int64, of the weights that acted.
    """

    inputs: NetworkInputs
    mask_bias: Tensor | None
    rows: NDArray[np.int64]
    final_rows: NDArray[np.int64]
    actions: Tensor
    behaviour_log_probs: Tensor
    rewards: NDArray[np.float32]
    alignment_rewards: NDArray[np.float32] | None
    lengths: NDArray[np.int32]
    terminated: NDArray[np.bool_]
    policy_versions: NDArray[np.int64]

    @property
    def n_steps(self) -> int:
        """M."""
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Minibatch:
    """m steps of a batch and the r distinct rows among them.

    Attributes:
        steps: [m] int64 tensor, positions in the batch.
        rows: [r] int64 tensor, positions among the batch's rows.
        row_of_step: [m] int64 tensor, position in `rows` of each step's row.
    """

    steps: Tensor
    rows: Tensor
    row_of_step: Tensor


def ppo_batch(episodes: EpisodeBatch, spec: EnvSpec) -> PpoBatch:
    """Unpack episodes.

    Args:
        episodes: As `concatenate_in_order` gives them.
        spec: What the policy sees.

    Raises:
        ValueError: When the episodes do not fit the spec.
    """
    _check(episodes, spec)
    n_steps, n_episodes = len(episodes.actions), len(episodes.lengths)
    observations = np.concatenate((episodes.observations, episodes.final_observations))
    masks = None
    keys = observations.view(np.uint8).reshape(n_steps + n_episodes, -1)
    if episodes.action_masks is not None:
        # No action follows a final observation; all bits set stand for that.
        final_masks = np.full((n_episodes, episodes.action_masks.shape[1]), 255, dtype=np.uint8)
        masks = np.concatenate((episodes.action_masks, final_masks))
        keys = np.concatenate((keys, masks), axis=1)
    rows, firsts = distinct_rows(keys)
    wire = observations[firsts]
    return PpoBatch(
        inputs=BitInputs.from_packed(wire) if spec.observation_bits else NumberInputs(torch.from_numpy(wire)),
        mask_bias=None if masks is None else mask_bias(_allowed(masks[firsts], spec.n_actions)),
        rows=rows[:n_steps],
        final_rows=rows[n_steps:],
        actions=torch.from_numpy(episodes.actions.astype(np.int64)),
        behaviour_log_probs=torch.from_numpy(episodes.behaviour_log_probs.astype(np.float32, copy=True)),
        rewards=episodes.rewards,
        alignment_rewards=episodes.alignment_rewards,
        lengths=episodes.lengths,
        terminated=episodes.terminated,
        policy_versions=episodes.extras["policy_version"],
    )


def minibatches(batch: PpoBatch, count: int, run_seed: int, version: int, epoch: int) -> Iterator[Minibatch]:
    """Cut a batch into slices, shuffled anew for every version and epoch.

    Args:
        batch: M steps.
        count: Number of slices, whose sizes differ by one step at most.
        run_seed: With version and epoch decides the permutation; nothing else does.
        version: Number of finished updates.
        epoch: Number of the pass, from 0.
    """
    generator = np.random.default_rng(derive_seed(run_seed, Purpose.MINIBATCH, version, epoch))
    for steps in np.array_split(generator.permutation(batch.n_steps), count):
        row_of_step, rows = _number_rows(batch.rows[steps], len(batch.inputs))
        yield Minibatch(torch.from_numpy(steps), torch.from_numpy(rows), torch.from_numpy(row_of_step))


def distinct_rows(keys: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number equal rows alike, by first appearance.

    Args:
        keys: [K, W] bytes.

    Returns:
        The number of each row [K] int64, and for each number the position where it appears first [R] int64.
    """
    n_rows, width = keys.shape
    words = np.zeros((n_rows, -(-width // 8) * 8), dtype=np.uint8)
    words[:, :width] = keys
    return _number_equal(words.view(np.uint64))


@njit(cache=True, nogil=True)
def _number_equal(words: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`distinct_rows` for [K, W] words, by a hash table with linear probing, at most half full."""
    n_rows, width = words.shape
    size = 16
    while size < 2 * n_rows:
        size *= 2
    table = np.full(size, -1, dtype=np.int64)
    numbers = np.empty(n_rows, dtype=np.int64)
    firsts = np.empty(n_rows, dtype=np.int64)
    n_distinct = 0
    for row in range(n_rows):
        bits = np.uint64(0)
        for w in range(width):
            bits = _mix64(bits ^ words[row, w])
        slot = np.int64(bits & np.uint64(size - 1))
        while True:
            number = table[slot]
            if number < 0:
                number = table[slot] = n_distinct
                firsts[n_distinct] = row
                n_distinct += 1
                break
            same = True
            for w in range(width):
                if words[row, w] != words[firsts[number], w]:
                    same = False
                    break
            if same:
                break
            slot = (slot + 1) & (size - 1)
        numbers[row] = number
    return numbers, firsts[:n_distinct].copy()


@njit(cache=True, nogil=True)
def _number_rows(rows: NDArray[np.int64], n_rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the distinct entries of [m] rows by first appearance: each one's number [m], and the entries [r]."""
    number_of_row = np.full(n_rows, -1, dtype=np.int64)
    numbers = np.empty(rows.shape[0], dtype=np.int64)
    distinct = np.empty(rows.shape[0], dtype=np.int64)
    n_distinct = 0
    for i in range(rows.shape[0]):
        row = rows[i]
        if number_of_row[row] < 0:
            number_of_row[row] = n_distinct
            distinct[n_distinct] = row
            n_distinct += 1
        numbers[i] = number_of_row[row]
    return numbers, distinct[:n_distinct].copy()


def _allowed(masks: NDArray[np.uint8], n_actions: int) -> Tensor:
    return torch.from_numpy(np.unpackbits(masks, axis=1, count=n_actions).view(np.bool_))


def _check(episodes: EpisodeBatch, spec: EnvSpec) -> None:
    """Refuse episodes of another environment before they become nonsense."""
    width = -(-spec.observation_size // 8) if spec.observation_bits else spec.observation_size
    dtype = np.dtype(np.uint8 if spec.observation_bits else np.float32)
    found = episodes.observations
    if (found.shape[1], found.dtype) != (width, dtype):
        raise ValueError(
            f"observations are {found.shape[1]} {found.dtype} wide, those of '{spec.name}' are {width} {dtype} wide"
        )
    if (episodes.action_masks is not None) != spec.has_action_masks:
        raise ValueError(
            f"'{spec.name}' {'has' if spec.has_action_masks else 'has no'} action masks, the batch differs"
        )
    n_steps = len(episodes.actions)
    if int(episodes.lengths.sum()) != n_steps:
        raise ValueError(f"the lengths sum to {int(episodes.lengths.sum())}, but there are {n_steps} steps")
    if n_steps and int(episodes.actions.max()) >= spec.n_actions:
        raise ValueError(f"action {int(episodes.actions.max())} was taken, '{spec.name}' has {spec.n_actions} actions")
