"""What a step's raw events say of Red's exploit, beyond the table: which one it was, where, and how it ended.

The table calls an exploit that went unreported a Scan, and one that ran into a decoy too. The port of its connections
tells which exploit it was, their number how it ended. One number per step, read off the simulator's state by
`sighting_of`, and off raw events, the simulator's or CybORG's, by `sighting_in`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ray_rl.envs.cage2 import simulator as s
from ray_rl.envs.cage2.constants import EXPLOIT, EXPLOIT_PORTS, EXPLOITS, N_EXPLOITS, SSH
from ray_rl.envs.cage2.events import Event

OUTCOMES = ("failed", "unreported", "reported")
FAILED, UNREPORTED, REPORTED = range(3)
"""It ran into a decoy or a wrong password; it left a single event, as one does whose shell went unseen; a shell was
reported or a password found."""
N_OUTCOMES = len(OUTCOMES)
N_SIGHTS = N_EXPLOITS * N_OUTCOMES
"""Kinds of exploits times outcomes."""
NO_SIGHTING = -1

_GUESSED = 11
"""Connections of a brute force that found a password; one that did not leaves one less."""


@njit(cache=True, nogil=True, inline="always")
def sighting_of(state: NDArray[np.int64]) -> int:
    """The sighting of the step that a state came out of.

    Args:
        state: [STATE_SIZE] int64, after the step.

    Returns:
        ``(host · 8 + exploit) · 3 + outcome``, or `NO_SIGHTING`.
    """
    host = state[s.EVENT_HOST]
    if host < 0 or state[s.RED_ACTION] != EXPLOIT:
        return NO_SIGHTING
    if state[s.RED_DETECTED] or state[s.EVENTS] == _GUESSED:
        outcome = REPORTED
    else:
        outcome = UNREPORTED if state[s.EVENTS] == 1 else FAILED
    sighting: int = (host * N_EXPLOITS + state[s.RED_EXPLOIT]) * N_OUTCOMES + outcome
    return sighting


def sighting_in(events: Sequence[Event]) -> int:
    """The sighting in the raw events of a step; result as `sighting_of`.

    A port scan shows each socket of the host once, which for a host without decoys may be port 22 alone.
    """
    connections = [event for event in events if event.kind == "connection"]
    ports = {event.port for event in connections}
    if len(ports) != 1:
        return NO_SIGHTING
    port, n = ports.pop(), len(connections)
    brute_force = port == EXPLOIT_PORTS[SSH]
    if brute_force and n == 1:
        return NO_SIGHTING
    if n == _GUESSED or any(event.kind == "shell" for event in events):
        outcome = REPORTED
    else:
        outcome = UNREPORTED if n == 1 else FAILED
    return (connections[0].host * N_EXPLOITS + EXPLOIT_PORTS.index(port)) * N_OUTCOMES + outcome


SIGHT_NAMES = tuple(f"{exploit} {outcome}" for exploit in EXPLOITS for outcome in OUTCOMES)
"""Names of the kinds of exploits with their outcomes, in the order of sightings."""
