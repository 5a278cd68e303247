"""The stepping loop for the built-in simulator with an MLP policy, as one compiled kernel.

One episode at a time goes through view, mask, network, sampling and simulator, so that everything it touches stays in
the first cache levels. It computes the same bits as `ray_rl.rollout.step_episodes` does on the same environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ray_rl.envs.api import requested_orders
from ray_rl.envs.cage2.action_sets import ACTION_SETS, allowed_actions, game_action
from ray_rl.envs.cage2.env import Cage2Env
from ray_rl.envs.cage2.kernels import reset_row, step_row
from ray_rl.envs.cage2.notebook import NOTEBOOK_SIZE
from ray_rl.envs.cage2.repairs import judge_repair
from ray_rl.envs.cage2.simulator import SESSION_HOSTS, STATE_SIZE
from ray_rl.envs.cage2.views import active_features
from ray_rl.episodes import EpisodeBatch, EpisodeRequest, action_dtype, request_extras
from ray_rl.policy.inference import MlpPolicy, Scratch, choose_row, forward_row, make_scratch
from ray_rl.seeding import GOLDEN, POLICY_SALT, mix64, unit_interval
from ray_rl.workflow.orders import N_TYPES, ORDER_BITS, ORDER_CODE_SIZE
from ray_rl.workflow.reward import reward_alignment

_NO_ORDER = -1
"""In place of an order's index: the episode follows none."""

_mix64 = njit(inline="always")(mix64)
_unit_interval = njit(inline="always")(unit_interval)


def run_cage2_episodes(
    env: Cage2Env, policy: MlpPolicy, requests: Sequence[EpisodeRequest], policy_version: int
) -> EpisodeBatch:
    """Run the requested episodes of the built-in simulator; action masks are left to `ray_rl.envs.masks`.

    Args:
        env: Gives rules, table, view and action set; its own state is not touched.
        policy: Picks the actions.
        requests: One or more episodes, all of one purpose.
        policy_version: Number of finished updates behind the policy.

    Returns:
        The episodes in the order of the requests.
    """
    spec = env.spec
    lengths = np.array([r.max_steps for r in requests], dtype=np.int32)
    n_steps = int(lengths.sum())
    n_episodes = len(requests)
    observations = np.zeros((n_steps, -(-spec.observation_size // 8)), dtype=np.uint8)
    actions = np.empty(n_steps, dtype=action_dtype(spec.n_actions))
    log_probs = np.empty(n_steps, dtype=np.float32)
    rewards = np.empty(n_steps, dtype=np.float32)
    final_observations = np.zeros((n_episodes, observations.shape[1]), dtype=np.uint8)
    extras = request_extras(requests)
    orders = requested_orders(requests) if spec.follows_order else np.full(n_episodes, _NO_ORDER)
    verdicts = np.empty(n_steps if spec.follows_order else 0, dtype=np.int8)
    _play(
        np.array([r.seed for r in requests], dtype=np.uint64),
        extras["red_agent"],
        orders,
        np.array([r.greedy for r in requests], dtype=np.bool_),
        lengths,
        env.rules_code,
        env.table_code,
        env.view_code,
        env.action_set_code,
        env.targets,
        spec.observation_size,
        spec.n_actions,
        policy.padded.sizes,
        policy.padded.values,
        make_scratch(policy.padded.sizes),
        observations,
        actions,
        log_probs,
        rewards,
        final_observations,
        verdicts,
    )
    batch = EpisodeBatch(
        observations=observations,
        action_masks=None,
        mask_rule=ACTION_SETS[env.action_set_code],
        actions=actions,
        behaviour_log_probs=log_probs,
        rewards=rewards,
        lengths=lengths,
        terminated=np.zeros(n_episodes, dtype=np.bool_),
        final_observations=final_observations,
        indices=np.array([r.index for r in requests], dtype=np.int64),
        policy_version=policy_version,
        extras=extras,
    )
    return batch if env.alignment is None else reward_alignment(batch, verdicts, env.alignment)


@njit(cache=True, nogil=True)
def _play(
    seeds: NDArray[np.uint64],
    red_agents: NDArray[np.int8],
    orders: NDArray[np.int64],
    greedy: NDArray[np.bool_],
    lengths: NDArray[np.int32],
    rules: int,
    table: int,
    view: int,
    action_set: int,
    targets: NDArray[np.int8],
    observation_size: int,
    n_actions: int,
    sizes: NDArray[np.int64],
    values: NDArray[np.float32],
    scratch: Scratch,
    observations: NDArray[np.uint8],
    actions: NDArray[Any],
    log_probs: NDArray[np.float32],
    rewards: NDArray[np.float32],
    final_observations: NDArray[np.uint8],
    verdicts: NDArray[np.int8],
) -> None:
    """Play episode after episode and write what `EpisodeBatch` holds, and verdicts, into the arrays given."""
    state = np.empty(STATE_SIZE, np.int64)
    notebook = np.empty(NOTEBOOK_SIZE, np.int64)
    active = np.empty(observation_size, np.int32)
    ones = np.ones(observation_size, np.float32)
    allowed = np.empty(n_actions, np.bool_)
    row = 0
    for episode in range(seeds.shape[0]):
        seed = seeds[episode]
        order = orders[episode]
        policy_stream = _mix64(seed ^ POLICY_SALT)
        reset_row(state, notebook, seed, red_agents[episode], rules)
        for step in range(lengths[episode]):
            n_active = _observe(notebook, view, order, active)
            _set_bits(observations[row], active, n_active)
            allowed_actions(notebook, action_set, allowed)
            logits = forward_row(ones, active, n_active, sizes, values, scratch)
            uniform = _unit_interval(_mix64(policy_stream + np.uint64(step + 1) * GOLDEN))
            action, log_probs[row] = choose_row(logits, allowed, uniform, greedy[episode], scratch)
            actions[row] = action
            if order != _NO_ORDER:
                verdicts[row] = judge_repair(order, state[SESSION_HOSTS], targets[action])
            rewards[row] = step_row(state, notebook, table, game_action(action_set, action))
            row += 1
        n_active = _observe(notebook, view, order, active)
        _set_bits(final_observations[episode], active, n_active)


@njit(inline="always")
def _observe(notebook: NDArray[np.int64], view: int, order: int, active: NDArray[np.int32]) -> int:
    """List the set bits of an observation: those of the view, then those of the order's code; returns how many."""
    n_active = active_features(notebook, view, active)
    if order != _NO_ORDER:
        for position in range(N_TYPES):
            active[n_active] = active.shape[0] - ORDER_CODE_SIZE + ORDER_BITS[order, position]
            n_active += 1
    return n_active


@njit(inline="always")
def _set_bits(packed: NDArray[np.uint8], active: NDArray[np.int32], n_active: int) -> None:
    """Set the active bits of a zeroed row, most significant bit of a byte first, as `numpy.packbits` does."""
    for k in range(n_active):
        i = active[k]
        packed[i >> 3] |= np.uint8(128 >> (i & 7))
