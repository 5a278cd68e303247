"""Action masks that need not travel: CAGE-2's follow from what an episode shows and what Blue did in it.

A worker leaves them out and names the rule; whoever needs them derives them again, the same bits.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ray_rl.envs.cage2.action_sets import ACTION_SET_SIZES, ACTION_SETS, allowed_actions, game_action
from ray_rl.envs.cage2.constants import TABLE_BITS
from ray_rl.envs.cage2.notebook import NOTEBOOK_SIZE, TABLE, note_own_action, reset_notebook
from ray_rl.episodes import EpisodeBatch


def restore_masks(episodes: EpisodeBatch) -> EpisodeBatch:
    """Give episodes whose masks did not travel their masks again; others are returned as they are.

    Args:
        episodes: With `mask_rule` named or not.

    Raises:
        ValueError: When the rule is unknown.
    """
    if episodes.mask_rule is None:
        return episodes
    if episodes.mask_rule not in ACTION_SETS:
        raise ValueError(f"unknown mask rule {episodes.mask_rule!r}; known: {', '.join(ACTION_SETS)}")
    action_set = ACTION_SETS.index(episodes.mask_rule)
    n_actions = ACTION_SET_SIZES[action_set]
    masks = np.zeros((len(episodes.actions), -(-n_actions // 8)), dtype=np.uint8)
    _derive(episodes.observations, episodes.actions, episodes.lengths, action_set, n_actions, masks)
    return replace(episodes, action_masks=masks, mask_rule=None)


@njit(cache=True, nogil=True)
def _derive(
    observations: NDArray[np.uint8],
    actions: NDArray[np.uint8],
    lengths: NDArray[np.int32],
    action_set: int,
    n_actions: int,
    masks: NDArray[np.uint8],
) -> None:
    """Replay what Blue noted of its own actions, and fill zeroed masks [M, ceil(A/8)] from that and the tables."""
    notebook = np.empty(NOTEBOOK_SIZE, np.int64)
    allowed = np.empty(n_actions, np.bool_)
    row = 0
    for episode in range(lengths.shape[0]):
        reset_notebook(notebook)
        for step in range(lengths[episode]):
            table = np.int64(0)
            for bit in range(TABLE_BITS):  # every view begins with the table
                table |= np.int64(observations[row, bit >> 3] >> (7 - (bit & 7)) & 1) << bit
            notebook[TABLE] = table
            allowed_actions(notebook, action_set, allowed)
            for a in range(n_actions):
                if allowed[a]:
                    masks[row, a >> 3] |= np.uint8(128 >> (a & 7))
            note_own_action(notebook, game_action(action_set, actions[row]), step)
            row += 1
