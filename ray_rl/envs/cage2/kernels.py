"""One step of one environment as Blue lives it: the simulator and Blue's notebook together."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ray_rl.envs.cage2.notebook import reset_notebook, update_notebook
from ray_rl.envs.cage2.sightings import sighting_of
from ray_rl.envs.cage2.simulator import NOTHING_FORCED, reset_state, step_state, table_of

Row = NDArray[np.int64]


@njit(cache=True, nogil=True)
def reset_row(state: Row, notebook: Row, seed: np.uint64, red_agent: int, rules: int) -> None:
    """Start an episode with an empty notebook.

    Args:
        state: [STATE_SIZE] int64, overwritten.
        notebook: [NOTEBOOK_SIZE] int64, overwritten.
        seed: The episode's seed.
        red_agent: Index into `ray_rl.episodes.RED_AGENTS`.
        rules: HEAD or LEADERBOARD.
    """
    reset_state(state, seed, red_agent, rules)
    reset_notebook(notebook)


@njit(cache=True, nogil=True)
def step_row(state: Row, notebook: Row, table: int, action: int) -> float:
    """Take one step and write it down.

    Args:
        state: [STATE_SIZE] int64, changed in place.
        notebook: [NOTEBOOK_SIZE] int64, changed in place.
        table: STOCK or CORRECTED.
        action: Blue's action, 0…144.

    Returns:
        Blue's reward.
    """
    reward = step_state(state, action, NOTHING_FORCED)
    update_notebook(notebook, table_of(state, table), action, sighting_of(state))
    return reward
