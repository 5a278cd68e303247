"""Blue's views: which bits of its notebook a policy sees.

``table`` is the 52-bit table itself. ``winner`` adds what the challenge's winner kept beside it, scans and decoys.
``memory`` adds what a careful defender would write down. ``raw`` adds what is not in the table at all but in the events
that it is drawn from: which exploit it was. Every view is bits, given as a list of those that are 1.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ray_rl.envs.cage2.action_sets import COMPACT_DECOYS
from ray_rl.envs.cage2.constants import (
    DECOYS as DECOY_NAMES,
)
from ray_rl.envs.cage2.constants import (
    DEFENDER,
    ENTERPRISE0,
    ENTERPRISE1,
    ENTERPRISE2,
    EXPLOITS,
    FIRST_HOST_ACTION,
    HOSTS,
    N_EXPLOITS,
    N_HOSTS,
    OP_SERVER0,
    TABLE_BITS,
    USER0,
    USER1,
    USER2,
    USER3,
    USER4,
)
from ray_rl.envs.cage2.notebook import (
    DECOYS,
    DECOYS_AT_FIRST_SCAN,
    DECOYS_AT_LAST_SCAN,
    EVENTS,
    EXPLOITS_SINCE_RESTORE,
    FIRST_SCANS,
    GAINS,
    LAST_EXPLOIT,
    LAST_GAIN,
    LAST_REMOVE,
    LAST_RESTORE,
    LAST_SCAN,
    LAST_SCANNED,
    N_EVENTS,
    N_FIRST_SCANS,
    N_OWN_ACTIONS,
    N_STEPS,
    NEVER,
    OWN_ACTIONS,
    SCANNED,
    SIGHTING,
    TABLE,
    UNSEEN_SHELL,
)
from ray_rl.envs.cage2.sightings import N_SIGHTS, SIGHT_NAMES

Row = NDArray[np.int64]

VIEWS = ("table", "winner", "memory", "raw")
TABLE_VIEW, WINNER_VIEW, MEMORY_VIEW, RAW_VIEW = range(4)

SEEN_HOSTS = np.array(
    [
        DEFENDER,
        ENTERPRISE0,
        ENTERPRISE1,
        ENTERPRISE2,
        OP_SERVER0,
        USER0,
        USER1,
        USER2,
        USER3,
        USER4,
    ],
    dtype=np.int64,
)
"""Hosts that Red's agents touch in practice; of the three operational hosts the views hold the table only."""
N_SEEN = len(SEEN_HOSTS)
_PLACE = np.full(N_HOSTS, -1, dtype=np.int64)
_PLACE[SEEN_HOSTS] = np.arange(N_SEEN)

N_DECOY_BITS = len(COMPACT_DECOYS)
AGE_BOUNDS = np.array([1, 2, 3, 5, 9, 16], dtype=np.int64)
_N_AGES = len(AGE_BOUNDS) + 1
"""Ages in steps, in buckets 0, 1, 2, 3-4, 5-8, 9-15, 16 and more."""
CLOCK_BOUNDS = np.array(
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 18, 20, 23, 26, 30, 35, 40, 45, 50, 60, 70, 80, 90], dtype=np.int64
)
_N_CLOCK = len(CLOCK_BOUNDS) + 1
_N_COUNTS = 3
_KINDS = ("wait", "Analyse", "Remove", "decoy", "Restore")
_N_KINDS = len(_KINDS)
_TIMES = (LAST_EXPLOIT, LAST_SCAN, LAST_RESTORE, LAST_REMOVE)
_TIME_NAMES = ("exploit", "scan", "Restore", "Remove")

_WINNER_SIZE = TABLE_BITS + 2 * N_SEEN + N_DECOY_BITS
_MEMORY_SIZE = (
    _WINNER_SIZE
    + 2 * N_DECOY_BITS
    + len(_TIMES) * N_SEEN * _N_AGES
    + N_SEEN * _N_COUNTS
    + N_EVENTS * 2 * N_SEEN
    + N_OWN_ACTIONS * (_N_KINDS + N_SEEN)
    + _N_CLOCK
    + N_FIRST_SCANS * N_SEEN
)
_N_GAINS = UNSEEN_SHELL + 1
_RAW_SIZE = _MEMORY_SIZE + N_SIGHTS + N_SEEN * (N_EXPLOITS + _N_GAINS)
VIEW_SIZES = (TABLE_BITS, _WINNER_SIZE, _MEMORY_SIZE, _RAW_SIZE)


@njit(cache=True, nogil=True)
def active_features(notebook: Row, view: int, active: NDArray[np.int32]) -> int:
    """List the bits of a view that are 1.

    Args:
        notebook: [NOTEBOOK_SIZE] int64.
        view: TABLE_VIEW, WINNER_VIEW, MEMORY_VIEW or RAW_VIEW.
        active: [VIEW_SIZES[view]] int32, overwritten from the front with ascending indices.

    Returns:
        How many were written.
    """
    n = 0
    table = notebook[TABLE]
    if table:
        for bit in range(TABLE_BITS):
            if table >> bit & 1:
                active[n] = bit
                n += 1
    if view == TABLE_VIEW:
        return n
    offset = TABLE_BITS
    for place in range(N_SEEN):
        host = SEEN_HOSTS[place]
        if notebook[SCANNED] >> host & 1:
            active[n] = offset + 2 * place + (1 if notebook[LAST_SCANNED] == host else 0)
            n += 1
    offset += 2 * N_SEEN
    n = _list_decoys(notebook, DECOYS, offset, active, n)
    if view == WINNER_VIEW:
        return n
    n = _list_memory(notebook, offset + N_DECOY_BITS, active, n)
    return n if view == MEMORY_VIEW else _list_sightings(notebook, _MEMORY_SIZE, active, n)


@njit(cache=True, nogil=True, inline="always")
def _list_decoys(notebook: Row, start: int, offset: int, active: NDArray[np.int32], n: int) -> int:
    for k in range(N_DECOY_BITS):
        if notebook[start + COMPACT_DECOYS[k, 0]] >> COMPACT_DECOYS[k, 1] & 1:
            active[n] = offset + k
            n += 1
    return n


@njit(cache=True, nogil=True)
def _list_memory(notebook: Row, offset: int, active: NDArray[np.int32], n: int) -> int:
    n = _list_decoys(notebook, DECOYS_AT_FIRST_SCAN, offset, active, n)
    offset += N_DECOY_BITS
    n = _list_decoys(notebook, DECOYS_AT_LAST_SCAN, offset, active, n)
    offset += N_DECOY_BITS
    now = notebook[N_STEPS]
    for start in _TIMES:
        for place in range(N_SEEN):
            since = notebook[start + SEEN_HOSTS[place]]
            if since != NEVER:
                active[n] = offset + _bucket(now - 1 - since, AGE_BOUNDS)
                n += 1
            offset += _N_AGES
    for place in range(N_SEEN):
        count = notebook[EXPLOITS_SINCE_RESTORE + SEEN_HOSTS[place]]
        if count:
            active[n] = offset + min(count, _N_COUNTS) - 1
            n += 1
        offset += _N_COUNTS
    for k in range(N_EVENTS):
        event = notebook[EVENTS + k]
        if event != NEVER and _PLACE[event >> 1] >= 0:
            active[n] = offset + 2 * _PLACE[event >> 1] + (event & 1)
            n += 1
        offset += 2 * N_SEEN
    for k in range(N_OWN_ACTIONS):
        action = notebook[OWN_ACTIONS + k]
        if action != NEVER:
            n = _list_own_action(action, offset, active, n)
        offset += _N_KINDS + N_SEEN
    active[n] = offset + _bucket(now, CLOCK_BOUNDS)
    n += 1
    offset += _N_CLOCK
    for k in range(N_FIRST_SCANS):
        host = notebook[FIRST_SCANS + k]
        if host != NEVER and _PLACE[host] >= 0:
            active[n] = offset + _PLACE[host]
            n += 1
        offset += N_SEEN
    return n


@njit(cache=True, nogil=True)
def _list_sightings(notebook: Row, offset: int, active: NDArray[np.int32], n: int) -> int:
    if notebook[SIGHTING] != NEVER:
        active[n] = offset + notebook[SIGHTING] % N_SIGHTS
        n += 1
    offset += N_SIGHTS
    for place in range(N_SEEN):
        gain = notebook[LAST_GAIN + SEEN_HOSTS[place]]
        if gain != NEVER:
            active[n] = offset + gain
            n += 1
        offset += N_EXPLOITS
    for place in range(N_SEEN):
        gains = notebook[GAINS + SEEN_HOSTS[place]]
        for k in range(_N_GAINS):
            if gains >> k & 1:
                active[n] = offset + k
                n += 1
        offset += _N_GAINS
    return n


@njit(cache=True, nogil=True, inline="always")
def _list_own_action(action: int, offset: int, active: NDArray[np.int32], n: int) -> int:
    if action < FIRST_HOST_ACTION:
        active[n] = offset
        return n + 1
    block = (action - FIRST_HOST_ACTION) // N_HOSTS
    place = _PLACE[action - FIRST_HOST_ACTION - block * N_HOSTS]
    kind = block + 1 if block < 2 else (4 if block == 10 else 3)
    active[n] = offset + kind
    n += 1
    if place >= 0:
        active[n] = offset + _N_KINDS + place
        n += 1
    return n


@njit(cache=True, nogil=True, inline="always")
def _bucket(value: int, bounds: Row) -> int:
    """Number of bounds that a value has reached."""
    n = 0
    while n < bounds.shape[0] and value >= bounds[n]:
        n += 1
    return n


def feature_names(view: int) -> list[str]:
    """What each bit of a view says, in order.

    Args:
        view: TABLE_VIEW, WINNER_VIEW, MEMORY_VIEW or RAW_VIEW.
    """
    hosts = [HOSTS[h] for h in SEEN_HOSTS]
    decoys = [f"{DECOY_NAMES[kind]} on {HOSTS[host]}" for host, kind in COMPACT_DECOYS]
    names = [f"{host} {bit}" for host in HOSTS for bit in ("active", "exploited now", "compromised 0", "compromised 1")]
    if view == TABLE_VIEW:
        return names
    names += [f"{host} scanned {when}" for host in hosts for when in ("earlier", "latest")]
    names += [f"{decoy} in place" for decoy in decoys]
    if view == WINNER_VIEW:
        return names
    names += [f"{decoy} at the {which} scan" for which in ("first", "latest") for decoy in decoys]
    ages = _bucket_names(AGE_BOUNDS)
    names += [f"{host}: {what} {age} steps ago" for what in _TIME_NAMES for host in hosts for age in ages]
    names += [f"{host}: {count} exploits since Restore" for host in hosts for count in ("1", "2", "3+")]
    names += [f"event {k} back: {kind} of {h}" for k in range(N_EVENTS) for h in hosts for kind in ("scan", "exploit")]
    names += [f"own action {k} back: {what}" for k in range(N_OWN_ACTIONS) for what in (*_KINDS, *hosts)]
    names += [f"{clock} steps since the start" for clock in _bucket_names(CLOCK_BOUNDS)]
    names += [f"scan number {k + 1} was of {host}" for k in range(N_FIRST_SCANS) for host in hosts]
    if view == MEMORY_VIEW:
        return names
    names += [f"{sight} in this step" for sight in SIGHT_NAMES]
    names += [f"{host}: {exploit} came last" for host in hosts for exploit in EXPLOITS]
    return names + [f"{host}: {gain} since Restore" for host in hosts for gain in (*EXPLOITS, "an unreported exploit")]


def _bucket_names(bounds: Row) -> list[str]:
    low = [0, *bounds.tolist()]
    high = [*(b - 1 for b in bounds.tolist()), None]
    return [f"{a}+" if b is None else str(a) if a == b else f"{a}-{b}" for a, b in zip(low, high, strict=True)]
