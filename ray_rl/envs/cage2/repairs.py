"""Which types of host are compromised, and which one Blue's action repairs: what orders of repair are judged by."""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ray_rl.envs.cage2.action_sets import ACTION_SET_SIZES, game_action
from ray_rl.envs.cage2.constants import FIRST_HOST_ACTION, HOSTS, N_HOSTS, REMOVE_BLOCK, RESTORE_BLOCK, USER0
from ray_rl.workflow.alignment import judge
from ray_rl.workflow.orders import N_TYPES, ORDERS, type_of_host

TYPE_OF: Final = np.array([type_of_host(name) for name in HOSTS], dtype=np.int64)
"""[13] type of each host."""
TYPE_HOSTS: Final = np.array(
    [sum(1 << h for h in range(N_HOSTS) if TYPE_OF[h] == kind and h != USER0) for kind in range(N_TYPES)],
    dtype=np.int64,
)
"""[5] host masks of the types, without User0: Red's own host is never clean."""


def repair_targets(action_set: int) -> NDArray[np.int8]:
    """The type of host that each action fixes: [A] int8, -1 for actions that are neither Remove nor Restore.

    Args:
        action_set: ALL_ACTIONS or COMPACT_ACTIONS.
    """
    targets = np.full(ACTION_SET_SIZES[action_set], -1, dtype=np.int8)
    for number in range(len(targets)):
        block, host = divmod(game_action(action_set, number) - FIRST_HOST_ACTION, N_HOSTS)
        if block in (REMOVE_BLOCK, RESTORE_BLOCK):
            targets[number] = TYPE_OF[host]
    return targets


@njit(cache=True, nogil=True)
def judge_repair(order: int, session_hosts: int, target: int) -> int:
    """Judge one step by `ray_rl.workflow.alignment.judge`.

    Args:
        order: Index of the order, 0…119.
        session_hosts: Mask of the hosts where Red has a session before the step.
        target: Of `repair_targets`.
    """
    compromised = 0
    for kind in range(N_TYPES):
        if session_hosts & TYPE_HOSTS[kind]:
            compromised |= 1 << kind
    return judge(ORDERS[order], compromised, target)
