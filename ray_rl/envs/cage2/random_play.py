"""Episodes of a Blue that acts at random, as one kernel: what the simulator alone can do."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ray_rl.envs.cage2.constants import N_ACTIONS
from ray_rl.envs.cage2.simulator import NOTHING_FORCED, STATE_SIZE, reset_state, step_state, table_of
from ray_rl.seeding import GOLDEN, POLICY_SALT, mix64

_mix64 = njit(inline="always")(mix64)


@njit(cache=True, nogil=True)
def random_play(seeds: NDArray[np.uint64], red_agent: int, rules: int, max_steps: int) -> NDArray[np.float64]:
    """Play episodes with uniformly random actions out of all 145; Blue's table is drawn in every step.

    Args:
        seeds: [N] uint64, one per episode.
        red_agent: Index into `ray_rl.episodes.RED_AGENTS`.
        rules: HEAD or LEADERBOARD.
        max_steps: Steps per episode.

    Returns:
        [N] float64, the episodes' returns.
    """
    returns = np.zeros(seeds.shape[0], np.float64)
    state = np.empty(STATE_SIZE, np.int64)
    seen = 0
    for episode in range(seeds.shape[0]):
        reset_state(state, seeds[episode], red_agent, rules)
        stream = _mix64(seeds[episode] ^ POLICY_SALT)
        for step in range(max_steps):
            action = int(_mix64(stream + np.uint64(step + 1) * GOLDEN) % np.uint64(N_ACTIONS))
            returns[episode] += step_state(state, action, NOTHING_FORCED)
            seen ^= table_of(state, 0)
    if seen == -1:  # never: keeps the table's drawing from being optimised away
        returns[0] = np.nan
    return returns
