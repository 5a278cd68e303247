"""From the episodes of an update to what the learner computes with.

Many steps of an update show the same observation with the same action mask, and more of them the same observation.
What the networks say depends on the observation alone, so they see each one once (an *input*); what the mask makes of
it is computed once for each pair of both (a *row*). Gradients of the steps of a row, and of the rows of an input, are
added up before they go back through the network: the same sums, with less work.

On a GPU each step is a row and an input of its own. The work that sharing saves is nothing there, and sums over what is
shared would come in any order, with other bits every time.
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
from ray_rl.episodes import EpisodeBatch, take_episodes
from ray_rl.policy.network_inputs import BitInputs, NetworkInputs, NumberInputs
from ray_rl.ppo.device import CPU, onto
from ray_rl.seeding import Purpose, derive_seed, mix64

_mix64 = njit(inline="always")(mix64)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the steps of a learner lie among those of an update, whose episodes several learners may share.

    Attributes:
        first_step: Position of the learner's first step.
        n_steps: Steps of all learners together.
    """

    first_step: int
    n_steps: int


@dataclass(frozen=True, slots=True)
class Part:
    """What one learner gets of an update's episodes.

    Attributes:
        episodes: Its own.
        place: Where their steps lie among those of the update.
        policy_versions: [N] int64, of the weights that acted in each of the update's episodes.
        indices: [N] int64, ascending: the update's episodes.
    """

    episodes: EpisodeBatch
    place: Place
    policy_versions: NDArray[np.int64]
    indices: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PpoBatch:
    """The M steps of N episodes, the R distinct rows among them, and the Q distinct network inputs among those.

    Tensors are where the learner computes, arrays on the host.

    Attributes:
        inputs: Q observations.
        input_of_row: [R] int64, the input of each row.
        allowed: [R, A] bool tensor, the action mask of each row, or None where every action is always allowed.
        rows: [M] int64, the row of each step.
        final_rows: [N] int64, the row of each episode's final observation.
        actions: [M] int64 tensor.
        behaviour_log_probs: [M] float32 tensor, as recorded when acting.
        rewards: [M] float32, of the environment.
        alignment_rewards: [M] float32, for following orders of repair, or None.
        lengths: [N] int32.
        terminated: [N] bool.
        policy_versions: [N] int64, of the weights that acted.
        place: Where these steps lie among those of the update.
    """

    inputs: NetworkInputs
    input_of_row: NDArray[np.int64]
    allowed: Tensor | None
    rows: NDArray[np.int64]
    final_rows: NDArray[np.int64]
    actions: Tensor
    behaviour_log_probs: Tensor
    rewards: NDArray[np.float32]
    alignment_rewards: NDArray[np.float32] | None
    lengths: NDArray[np.int32]
    terminated: NDArray[np.bool_]
    policy_versions: NDArray[np.int64]
    place: Place

    @property
    def n_steps(self) -> int:
        """M."""
        return len(self.rows)

    @property
    def n_distinct(self) -> int:
        """Distinct rows among the steps."""
        return len(np.unique(self.rows))

    @property
    def device(self) -> torch.device:
        """Where the learner computes."""
        return self.actions.device


@dataclass(frozen=True, slots=True)
class Minibatch:
    """m steps of a batch, their r distinct rows and q distinct inputs: what a learner has of a minibatch.

    Attributes:
        steps: [m] int64 tensor, positions in the batch.
        actions: [m] int64 tensor.
        row_of_step: [m] int64 tensor, number of each step's row among the r.
        input_of_step: [m] int64 tensor, number of each step's input among the q.
        row_shares: [r] tensor, share of the m steps that each row stands for.
        allowed: [r, A] bool tensor, or None where every action is always allowed.
        input_of_row: [r] int64 tensor, number of each row's input; 0, 1, … where q is r.
        inputs: q observations, ready to learn.
        share: Share that these steps are of the minibatch's: 1 for a learner that is alone.
    """

    steps: Tensor
    actions: Tensor
    row_of_step: Tensor
    input_of_step: Tensor
    row_shares: Tensor
    allowed: Tensor | None
    input_of_row: Tensor
    inputs: NetworkInputs
    share: float


def split(episodes: EpisodeBatch, n_learners: int) -> list[Part]:
    """Share out the episodes of an update: to each learner as many that lie one after another.

    Args:
        episodes: As `concatenate_in_order` gives them.
        n_learners: Number of parts; at most as many as episodes.

    Raises:
        ValueError: When the learners are too many, or an episode is there twice.
    """
    repeated = episodes.indices[1:][np.diff(episodes.indices) == 0]
    if len(repeated):
        raise ValueError(f"episode {repeated[0]} is there twice")
    n_episodes = len(episodes.lengths)
    if n_learners > n_episodes:
        raise ValueError(f"{n_episodes} episodes are too few for {n_learners} learners")
    versions, n_steps = episodes.extras["policy_version"], len(episodes.actions)
    if n_learners == 1:
        return [Part(episodes, Place(0, n_steps), versions, episodes.indices)]
    parts = []
    first_step = 0
    for own in np.array_split(np.arange(n_episodes), n_learners):
        part = Part(take_episodes(episodes, own), Place(first_step, n_steps), versions, episodes.indices)
        first_step += len(part.episodes.actions)
        parts.append(part)
    return parts


def ppo_batch(
    episodes: EpisodeBatch,
    spec: EnvSpec,
    place: Place | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> PpoBatch:
    """Unpack episodes.

    Args:
        episodes: As `concatenate_in_order` gives them.
        spec: What the policy sees.
        place: Where their steps lie among those of the update; None: they are all.
        dtype: Of the numbers that the learner computes with.
        device: Where each step is to be a row and an input of its own; None: on the CPU, with those that are equal
            found.

    Raises:
        ValueError: When the episodes do not fit the spec.
    """
    check_episodes(episodes, spec)
    n_steps, n_episodes = len(episodes.actions), len(episodes.lengths)
    observations = np.concatenate((episodes.observations, episodes.final_observations))
    masks = None
    if episodes.action_masks is not None:
        # No action follows a final observation; all bits set stand for that.
        final_masks = np.full((n_episodes, episodes.action_masks.shape[1]), 255, dtype=np.uint8)
        masks = np.concatenate((episodes.action_masks, final_masks))
    if device is None:
        inputs, input_firsts = distinct_rows(observations.view(np.uint8).reshape(n_steps + n_episodes, -1))
        rows, firsts = inputs, input_firsts
        if masks is not None:
            rows, firsts = distinct_rows(np.concatenate((inputs[:, None].view(np.uint8), masks), axis=1))
        observations, masks = observations[input_firsts], None if masks is None else masks[firsts]
        input_of_row = inputs[firsts]
    else:
        rows = input_of_row = np.arange(n_steps + n_episodes)
    where = device or CPU
    return PpoBatch(
        inputs=_network_inputs(observations, spec, dtype, device),
        input_of_row=input_of_row,
        allowed=None if masks is None else _bits(masks, spec.n_actions, where).bool(),
        rows=rows[:n_steps],
        final_rows=rows[n_steps:],
        actions=onto(torch.from_numpy(episodes.actions.astype(np.int64)), where),
        behaviour_log_probs=onto(torch.tensor(episodes.behaviour_log_probs, dtype=dtype), where),
        rewards=episodes.rewards,
        alignment_rewards=episodes.alignment_rewards,
        lengths=episodes.lengths,
        terminated=episodes.terminated,
        policy_versions=episodes.extras["policy_version"],
        place=place or Place(0, n_steps),
    )


def minibatches(batch: PpoBatch, count: int, run_seed: int, version: int, epoch: int) -> Iterator[Minibatch]:
    """Cut the steps of an update into slices, shuffled anew for every version and epoch.

    However many learners share the steps, the slices are the same; each learner gets what it has of them.

    Args:
        batch: M steps of the learner.
        count: Number of slices, whose sizes differ by one step at most.
        run_seed: With version and epoch decides the permutation; nothing else does.
        version: Number of finished updates.
        epoch: Number of the pass, from 0.
    """
    generator = np.random.default_rng(derive_seed(run_seed, Purpose.MINIBATCH, version, epoch))
    first, end = batch.place.first_step, batch.place.first_step + batch.n_steps
    for whole in np.array_split(generator.permutation(batch.place.n_steps), count):
        steps = whole
        if batch.n_steps < batch.place.n_steps:
            steps = whole[(whole >= first) & (whole < end)] - first
        yield _minibatch(batch, steps, len(steps) / max(len(whole), 1))


def _minibatch(batch: PpoBatch, steps: NDArray[np.int64], share: float) -> Minibatch:
    row_of_step, rows = _number_rows(batch.rows[steps], len(batch.input_of_row))
    input_of_row, inputs = _number_rows(batch.input_of_row[rows], len(batch.inputs))
    n_steps_of_row = np.bincount(row_of_step, minlength=len(rows))

    def there(positions: NDArray[np.int64]) -> Tensor:
        return onto(torch.from_numpy(positions), batch.device)

    chosen = there(steps)
    return Minibatch(
        steps=chosen,
        actions=batch.actions.index_select(0, chosen),
        row_of_step=there(row_of_step),
        input_of_step=there(input_of_row[row_of_step]),
        row_shares=there(n_steps_of_row).to(batch.behaviour_log_probs.dtype).div_(max(len(steps), 1)),
        allowed=None if batch.allowed is None else batch.allowed.index_select(0, there(rows)),
        input_of_row=there(input_of_row),
        inputs=batch.inputs.select(there(inputs)).ready_to_learn(),
        share=share,
    )


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


def _network_inputs(
    observations: NDArray[np.generic], spec: EnvSpec, dtype: torch.dtype, device: torch.device | None
) -> NetworkInputs:
    if spec.observation_bits and device is None:
        return BitInputs.from_packed(observations.view(np.uint8), spec.observation_size)
    where = device or CPU
    if spec.observation_bits:
        return NumberInputs(_bits(observations.view(np.uint8), spec.observation_size, where).to(dtype))
    return NumberInputs(onto(torch.from_numpy(observations), where).to(dtype))


def _bits(packed: NDArray[np.uint8], count: int, device: torch.device) -> Tensor:
    """Unpack the bits of [R, ceil(count/8)] bytes, most significant first, on a device: [R, count] uint8."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=device)
    return ((onto(torch.from_numpy(packed), device)[:, :, None] >> shifts) & 1).flatten(1)[:, :count]


def check_episodes(episodes: EpisodeBatch, spec: EnvSpec) -> None:
    """Refuse episodes of another environment before they become nonsense: ValueError says what does not fit."""
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
