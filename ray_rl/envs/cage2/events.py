"""The raw events behind Blue's table: which connections were seen on which port, and which of them were reverse shells.

The table says Scan or Exploit; these say what it was read from. The same words describe the simulator's steps and, in
`ray_rl.envs.cyborg.raw_events`, those of CybORG.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_rl.envs.cage2 import simulator as s
from ray_rl.envs.cage2.constants import (
    DECOY_OPENS,
    DISCOVER_SERVICES,
    EXPLOIT_PORTS,
    FIRST_DECOY_BLOCK,
    FIRST_HOST_ACTION,
    N_DECOYS,
    N_HOSTS,
    PORTS,
    RESTORE_BLOCK,
    SOCKETS,
    TRUE,
    VSFTPD,
)

_DECOY_PORTS = tuple(PORTS[int(mask).bit_length() - 1] for mask in DECOY_OPENS)


class Event(NamedTuple):
    """One entry of a host in Blue's raw observation.

    Attributes:
        host: The host.
        kind: ``decoy``: Blue placed one in this step. ``connection``: somebody connected. ``shell``: a reverse shell
            was reported, with its process.
        port: Local port; 0 for a decoy, and for a shell, whose port is random.
    """

    host: int
    kind: Literal["decoy", "connection", "shell"]
    port: int


def events_of(state: NDArray[np.int64], action: int) -> list[Event]:
    """The events of the step that a state came out of, sorted.

    Args:
        state: [STATE_SIZE] int64, after the step.
        action: What Blue did in it, 0…144.
    """
    events = []
    block, host = divmod(action - FIRST_HOST_ACTION, N_HOSTS)
    if FIRST_DECOY_BLOCK <= block < RESTORE_BLOCK and state[s.BLUE_SUCCESS] == TRUE:
        events.append(Event(host, "decoy", 0))
    target = int(state[s.EVENT_HOST])
    if target >= 0:
        shells = int(state[s.RED_DETECTED])
        if state[s.RED_ACTION] == DISCOVER_SERVICES:
            ports = _listening_ports(state, target)
        else:
            ports = [EXPLOIT_PORTS[int(state[s.RED_EXPLOIT])]] * (int(state[s.EVENTS]) - shells)
        events += [Event(target, "connection", port) for port in ports]
        events += [Event(target, "shell", 0)] * shells
    return sorted(events)


def _listening_ports(state: NDArray[np.int64], host: int) -> list[int]:
    """One port per socket: the host's own, then those of the decoys in place."""
    decoys = int(state[s.DECOY_SET + host])
    counts = [decoys >> kind & 1 for kind in range(N_DECOYS)]
    counts[VSFTPD] = int(state[s.VSFTPDS + host])
    return [*SOCKETS[host], *(_DECOY_PORTS[kind] for kind in range(N_DECOYS) for _ in range(counts[kind]))]
