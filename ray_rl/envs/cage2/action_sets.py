"""Blue's action sets: which of the 145 actions a policy chooses from, and which of them can help now.

``all`` is the challenge's own list. ``compact`` leaves out Monitor (it runs by itself after every step), User0 (Red's
own host, which cannot be cleaned), the three operational hosts (they cost little and Red's agents hardly touch them)
and the decoys that never fit: Sleep, then Analyse, Remove and Restore of nine hosts, then 25 decoys.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ray_rl.envs.cage2.constants import (
    ACTION_NAMES,
    ANALYSE_BLOCK,
    BASE_PORTS,
    COMPROMISED_NO,
    DECOY_HOSTS,
    DECOY_NEEDS,
    DEFENDER,
    ENTERPRISE0,
    ENTERPRISE1,
    ENTERPRISE2,
    FIRST_DECOY_BLOCK,
    FIRST_HOST_ACTION,
    N_ACTIONS,
    N_DECOYS,
    N_HOSTS,
    OP_SERVER0,
    REMOVE_BLOCK,
    RESTORE_BLOCK,
    SLEEP,
    USER1,
    USER2,
    USER3,
    USER4,
    action_index,
)
from ray_rl.envs.cage2.notebook import DECOYS, TABLE
from ray_rl.envs.cage2.simulator import decoy_fits

Row = NDArray[np.int64]

ACTION_SETS = ("all", "compact")
ALL_ACTIONS, COMPACT_ACTIONS = range(2)

COMPACT_HOSTS = (DEFENDER, ENTERPRISE0, ENTERPRISE1, ENTERPRISE2, OP_SERVER0, USER1, USER2, USER3, USER4)


def _fits_clean(kind: int, host: int) -> bool:
    return bool(DECOY_HOSTS[kind] >> host & 1) and not BASE_PORTS[host] & DECOY_NEEDS[kind]


COMPACT_DECOYS = np.array(
    [(host, kind) for host in COMPACT_HOSTS for kind in range(N_DECOYS) if _fits_clean(kind, host)], dtype=np.int64
)
"""[25, 2] host and kind of every decoy that fits a clean host of `COMPACT_HOSTS`."""

_COMPACT = np.array(
    [SLEEP]
    + [action_index(block, host) for block in (ANALYSE_BLOCK, REMOVE_BLOCK, RESTORE_BLOCK) for host in COMPACT_HOSTS]
    + [action_index(FIRST_DECOY_BLOCK + kind, host) for host, kind in COMPACT_DECOYS],
    dtype=np.int64,
)
_FIRST_COMPACT_REMOVE = 1 + len(COMPACT_HOSTS)
_FIRST_COMPACT_DECOY = 1 + 3 * len(COMPACT_HOSTS)
_COMPACT_HOSTS = np.array(COMPACT_HOSTS, dtype=np.int64)

ACTION_SET_SIZES = (N_ACTIONS, len(_COMPACT))


@njit(cache=True, nogil=True, inline="always")
def game_action(action_set: int, action: int) -> int:
    """The challenge's action, 0…144, behind an action of a set."""
    return action if action_set == ALL_ACTIONS else _COMPACT[action]


@njit(cache=True, nogil=True)
def allowed_actions(notebook: Row, action_set: int, allowed: NDArray[np.bool_]) -> None:
    """Tell which actions of a set may help now.

    Masked are decoys that cannot be placed (their port is taken or the system does not fit: nothing would happen) or
    are in place already (a second DecoyVsftpd changes nothing that Red looks at), and, in the compact set, Remove on a
    host whose table entry says that it is not compromised: Remove ends only sessions whose exploit was reported, and a
    report makes the entry User until a Restore, which ends them too.

    Args:
        notebook: [NOTEBOOK_SIZE] int64.
        action_set: ALL_ACTIONS or COMPACT_ACTIONS.
        allowed: [ACTION_SET_SIZES[action_set]] bool, overwritten.
    """
    allowed[:] = True
    if action_set == ALL_ACTIONS:
        for kind in range(N_DECOYS):
            for host in range(N_HOSTS):
                action = FIRST_HOST_ACTION + (FIRST_DECOY_BLOCK + kind) * N_HOSTS + host
                allowed[action] = _decoy_helps(notebook, kind, host)
        return
    for place in range(_COMPACT_HOSTS.shape[0]):
        compromised = notebook[TABLE] >> (4 * _COMPACT_HOSTS[place] + 2) & 3
        allowed[_FIRST_COMPACT_REMOVE + place] = compromised != COMPROMISED_NO
    for k in range(COMPACT_DECOYS.shape[0]):
        allowed[_FIRST_COMPACT_DECOY + k] = _decoy_helps(notebook, COMPACT_DECOYS[k, 1], COMPACT_DECOYS[k, 0])


@njit(cache=True, nogil=True, inline="always")
def _decoy_helps(notebook: Row, kind: int, host: int) -> bool:
    decoys = notebook[DECOYS + host]
    return decoys >> kind & 1 == 0 and decoy_fits(decoys, kind, host)


def action_names(action_set: int) -> list[str]:
    """Names of the actions of a set, in order."""
    size = ACTION_SET_SIZES[action_set]
    return [ACTION_NAMES[game_action(action_set, action)] for action in range(size)]
