"""What a careful defender writes down: Blue's own memory, from its table, its own actions, and sightings of exploits.

Views and action masks read the notebook and nothing else; sightings, which the table does not show, are for the view
``raw`` alone. The simulator and the adapter to CybORG keep it with the same two functions, so a policy sees the same in
both. A row of integers, like the simulator's state.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ray_rl.envs.cage2.constants import (
    ACTIVITY_NONE,
    ACTIVITY_SCAN,
    FIRST_DECOY_BLOCK,
    FIRST_HOST_ACTION,
    N_HOSTS,
    REMOVE_BLOCK,
    RESTORE_BLOCK,
    TABLE_BITS,
)
from ray_rl.envs.cage2.sightings import FAILED, N_OUTCOMES, N_SIGHTS, UNREPORTED
from ray_rl.envs.cage2.simulator import decoy_fits

Row = NDArray[np.int64]

N_EVENTS = 6
"""Latest events kept."""
N_OWN_ACTIONS = 4
"""Latest own actions kept."""
N_FIRST_SCANS = 2
"""Hosts remembered as the first ones that were scanned."""
NEVER = -1

TABLE = 0
"""Blue's table, as `simulator.table_of` packs it."""
N_STEPS = 1
"""Steps taken so far."""
SCANNED = 2
"""Mask of hosts that ever showed a scan."""
LAST_SCANNED = 3
"""Host of the latest scan, NEVER before the first."""
DECOYS = 4
"""[13] masks of the decoys that Blue placed and did not restore away."""
DECOYS_AT_FIRST_SCAN = DECOYS + N_HOSTS
"""[13] masks of the decoys in place when the host first showed a scan."""
DECOYS_AT_LAST_SCAN = DECOYS_AT_FIRST_SCAN + N_HOSTS
"""[13] the same for its latest scan."""
LAST_EXPLOIT = DECOYS_AT_LAST_SCAN + N_HOSTS
"""[13] number of the step in which the host last showed an exploit; NEVER before."""
LAST_SCAN = LAST_EXPLOIT + N_HOSTS
LAST_RESTORE = LAST_SCAN + N_HOSTS
LAST_REMOVE = LAST_RESTORE + N_HOSTS
EXPLOITS_SINCE_RESTORE = LAST_REMOVE + N_HOSTS
"""[13] exploits shown since the host's last Restore."""
EVENTS = EXPLOITS_SINCE_RESTORE + N_HOSTS
"""[6] latest events, newest first: 2 · host + 1 for an exploit, 2 · host for a scan; NEVER where there is none."""
OWN_ACTIONS = EVENTS + N_EVENTS
"""[4] Blue's latest actions, newest first, 0…144; NEVER where there is none."""
FIRST_SCANS = OWN_ACTIONS + N_OWN_ACTIONS
"""[2] the first hosts that showed a scan, in order; NEVER where there is none."""
SIGHTING = FIRST_SCANS + N_FIRST_SCANS
"""The sighting of the latest step (`ray_rl.envs.cage2.sightings`), NEVER where there was none."""
LAST_GAIN = SIGHTING + 1
"""[13] the latest exploit seen since the host's last Restore that did not fail; NEVER where there was none."""
GAINS = LAST_GAIN + N_HOSTS
"""[13] masks of all of these, and bit `UNSEEN_SHELL` where one of them went unreported."""
UNSEEN_SHELL = N_SIGHTS // N_OUTCOMES
NOTEBOOK_SIZE = GAINS + N_HOSTS


@njit(cache=True, nogil=True)
def reset_notebook(notebook: Row) -> None:
    """Open an empty notebook at the start of an episode.

    Args:
        notebook: [NOTEBOOK_SIZE] int64, overwritten.
    """
    notebook[:LAST_EXPLOIT] = 0
    notebook[LAST_EXPLOIT:] = NEVER
    notebook[LAST_SCANNED] = NEVER
    notebook[EXPLOITS_SINCE_RESTORE:EVENTS] = 0
    notebook[GAINS:] = 0


@njit(cache=True, nogil=True)
def update_notebook(notebook: Row, table: int, action: int, sighting: int) -> None:
    """Write down one step.

    Args:
        notebook: [NOTEBOOK_SIZE] int64, changed in place.
        table: Blue's table after the step, as `simulator.table_of` packs it.
        action: What Blue did in the step, 0…144.
        sighting: What the raw events say of an exploit in it, or NEVER.
    """
    step = notebook[N_STEPS]
    notebook[N_STEPS] = step + 1
    notebook[TABLE] = table
    _push(notebook, OWN_ACTIONS, N_OWN_ACTIONS, action)
    note_own_action(notebook, action, step)
    if table & _ALL_ACTIVITY:
        for host in range(N_HOSTS):
            activity = table >> (4 * host) & 3
            if activity != ACTIVITY_NONE:
                _note_activity(notebook, host, activity, step)
    notebook[SIGHTING] = sighting
    if sighting != NEVER:
        _note_sighting(notebook, sighting)


_ALL_ACTIVITY = sum(3 << (4 * host) for host in range(N_HOSTS))


@njit(cache=True, nogil=True, inline="always")
def note_own_action(notebook: Row, action: int, step: int) -> None:
    """Write down what Blue's action changes by itself: decoys, and when hosts were cleaned.

    Args:
        notebook: [NOTEBOOK_SIZE] int64, changed in place.
        action: What Blue did, 0…144.
        step: Number of the step, from 0.
    """
    if action < FIRST_HOST_ACTION:
        return
    block = (action - FIRST_HOST_ACTION) // N_HOSTS
    host = (action - FIRST_HOST_ACTION) - block * N_HOSTS
    if block == RESTORE_BLOCK:
        notebook[DECOYS + host] = 0
        notebook[LAST_RESTORE + host] = step
        notebook[EXPLOITS_SINCE_RESTORE + host] = 0
        notebook[LAST_GAIN + host] = NEVER
        notebook[GAINS + host] = 0
    elif block == REMOVE_BLOCK:
        notebook[LAST_REMOVE + host] = step
    elif block >= FIRST_DECOY_BLOCK:
        kind = block - FIRST_DECOY_BLOCK
        if decoy_fits(notebook[DECOYS + host], kind, host):
            notebook[DECOYS + host] |= 1 << kind


@njit(cache=True, nogil=True, inline="always")
def _note_activity(notebook: Row, host: int, activity: int, step: int) -> None:
    scan = activity == ACTIVITY_SCAN
    _push(notebook, EVENTS, N_EVENTS, 2 * host + (0 if scan else 1))
    if not scan:
        notebook[LAST_EXPLOIT + host] = step
        notebook[EXPLOITS_SINCE_RESTORE + host] += 1
        return
    notebook[LAST_SCAN + host] = step
    notebook[LAST_SCANNED] = host
    notebook[DECOYS_AT_LAST_SCAN + host] = notebook[DECOYS + host]
    if notebook[SCANNED] >> host & 1 == 0:
        notebook[SCANNED] |= 1 << host
        notebook[DECOYS_AT_FIRST_SCAN + host] = notebook[DECOYS + host]
        for k in range(N_FIRST_SCANS):
            if notebook[FIRST_SCANS + k] == NEVER:
                notebook[FIRST_SCANS + k] = host
                break


@njit(cache=True, nogil=True, inline="always")
def _note_sighting(notebook: Row, sighting: int) -> None:
    host = sighting // N_SIGHTS
    outcome = sighting % N_OUTCOMES
    if outcome == FAILED:
        return
    exploit = sighting % N_SIGHTS // N_OUTCOMES
    notebook[LAST_GAIN + host] = exploit
    notebook[GAINS + host] |= 1 << exploit
    if outcome == UNREPORTED:
        notebook[GAINS + host] |= 1 << UNSEEN_SHELL


@njit(cache=True, nogil=True, inline="always")
def _push(notebook: Row, start: int, length: int, value: int) -> None:
    """Put a value in front of a short list, dropping its last."""
    for k in range(length - 1, 0, -1):
        notebook[start + k] = notebook[start + k - 1]
    notebook[start] = value


def pack_table(bits: NDArray[np.uint8]) -> int:
    """Pack the 52 bits of Blue's table into one number, as `update_notebook` takes it.

    Args:
        bits: [52] of 0 and 1, in CybORG's order.
    """
    return sum(int(bit) << i for i, bit in enumerate(bits))


def unpack_table(table: int) -> NDArray[np.uint8]:
    """The 52 bits of a packed table: [52] uint8."""
    return np.array([table >> i & 1 for i in range(TABLE_BITS)], dtype=np.uint8)
