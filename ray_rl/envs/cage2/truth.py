"""The true state, in the terms of the recorded traces: what Blue does not see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_rl.envs.cage2 import simulator as s
from ray_rl.envs.cage2.constants import N_HOSTS


@dataclass(frozen=True, slots=True)
class Truth:
    """True state of B environments. Per-host arrays are [B, 13] in the order of `constants.HOSTS`.

    Attributes:
        n_privileged: Red's privileged sessions.
        n_removable: User-level sessions that Remove kills.
        n_hidden: User-level sessions that it does not.
        files: Malware: bit 0 from a reverse shell, bit 1 from an escalation.
        decoys: Masks of the decoys in place.
        n_vsftpd: DecoyVsftpd in place.
        ports_seen: Red's stored port scans: masks over `constants.PORTS`, bit 15 set where one is stored.
        known_addresses: Whether Red knows a host's address, 0 or 1.
        known_names: Whether Red knows a host's name, 0 or 1.
        known_subnets: [B, 3] 0 or 1.
        service: [B, 4] OTService: running, known to Red, killable, active.
    """

    n_privileged: NDArray[np.int64]
    n_removable: NDArray[np.int64]
    n_hidden: NDArray[np.int64]
    files: NDArray[np.int64]
    decoys: NDArray[np.int64]
    n_vsftpd: NDArray[np.int64]
    ports_seen: NDArray[np.int64]
    known_addresses: NDArray[np.int64]
    known_names: NDArray[np.int64]
    known_subnets: NDArray[np.int64]
    service: NDArray[np.int64]


def truth_of(states: NDArray[np.int64]) -> Truth:
    """Read the true state out of rows of simulator state.

    Args:
        states: [B, STATE_SIZE] int64.
    """

    def per_host(start: int) -> NDArray[np.int64]:
        return states[:, start : start + N_HOSTS].copy()

    def bits(column: int, n: int) -> NDArray[np.int64]:
        return states[:, column, None] >> np.arange(n) & 1

    return Truth(
        n_privileged=per_host(s.PRIVILEGED),
        n_removable=per_host(s.REMOVABLE),
        n_hidden=per_host(s.HIDDEN),
        files=per_host(s.FILES),
        decoys=per_host(s.DECOY_SET),
        n_vsftpd=per_host(s.VSFTPDS),
        ports_seen=per_host(s.PORTS_SEEN),
        known_addresses=bits(s.KNOWN_ADDRESSES, N_HOSTS),
        known_names=bits(s.KNOWN_NAMES, N_HOSTS),
        known_subnets=bits(s.KNOWN_SUBNETS, 3),
        service=states[:, [s.SERVICE_RUNNING, s.SERVICE_KNOWN, s.SERVICE_KILLABLE, s.SERVICE_ACTIVE]].copy(),
    )
