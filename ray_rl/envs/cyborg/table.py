"""Blue's 52-bit table, drawn from CybORG's own observation: stock and corrected at once, without CybORG's wrappers.

The wrappers deep-copy each observation, sort it into a printed table and turn that into a vector. What they say of a
host depends on the observation of the step, Blue's action, and the host's compromised entry before, nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ray_rl.envs.cage2.constants import (
    ACTIVITY_EXPLOIT,
    ACTIVITY_NONE,
    ACTIVITY_SCAN,
    COMPROMISED_NO,
    COMPROMISED_PRIVILEGED,
    COMPROMISED_UNKNOWN,
    COMPROMISED_USER,
    FIRST_HOST_ACTION,
    HOSTS,
    N_HOSTS,
    REMOVE_BLOCK,
    RESTORE_BLOCK,
)

_SHELL_PORT = 4444
"""Remote port of the reverse shells."""
_MALWARE_DENSITY = 0.9
_PLACES = {host: place for place, host in enumerate(HOSTS)}


class Tables(NamedTuple):
    """Both tables after a step, packed as `ray_rl.envs.cage2.simulator.table_of` packs them.

    Attributes:
        stock: As the organisers' wrapper has it.
        corrected: As the community's corrected wrapper has it.
        compromised: The compromised entries alone, the same in both; what the next step starts from.
    """

    stock: int
    corrected: int
    compromised: int


EMPTY_TABLES = Tables(0, 0, 0)
"""At the start of an episode."""


def draw_tables(before: Tables, action: int, observation: Mapping[str, Any]) -> Tables:
    """Draw Blue's tables after a step.

    Args:
        before: Tables of the step before, or `EMPTY_TABLES`.
        action: What Blue did in the step, 0…144.
        observation: What CybORG shows Blue after it.
    """
    compromised = _after_action(before.compromised, action)
    stock = corrected = 0
    for name, seen in observation.items():
        if name == "success":
            continue
        place = _PLACES[name]
        if "Processes" in seen:
            activities = read_activities(seen["Processes"])
            stock |= activities[0] << 4 * place
            corrected |= activities[1] << 4 * place
            if activities[1] == ACTIVITY_EXPLOIT:
                compromised = _entered(compromised, place, COMPROMISED_USER)
        if any(file["Density"] >= _MALWARE_DENSITY for file in seen.get("Files", ())):
            compromised = _entered(compromised, place, COMPROMISED_PRIVILEGED)
    return Tables(stock | compromised, corrected | compromised, compromised)


def read_activities(processes: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """What the stock and the corrected table say of a host's processes and connections in a step.

    An Exploit is one in both. They differ where a decoy that Blue placed in the step stands in the list: first in it,
    it hides what would be a Scan in the stock table; last in it, which means alone, it is no activity in the corrected
    one.

    Args:
        processes: The host's ``Processes`` in Blue's observation, in order; at least one.
    """
    connections = [process["Connections"][0] for process in processes if "Connections" in process]
    n_ports = len({connection["local_port"] for connection in connections})
    if len(processes) >= 3 and n_ports >= 3:
        return ACTIVITY_SCAN, ACTIVITY_SCAN
    shell = any(connection.get("remote_port") == _SHELL_PORT for connection in connections)
    if shell or (len(processes) >= 3 and n_ports == 1):
        return ACTIVITY_EXPLOIT, ACTIVITY_EXPLOIT
    hidden = "Service Name" in processes[0]
    alone = "Connections" not in processes[-1]
    return (ACTIVITY_NONE if hidden else ACTIVITY_SCAN), (ACTIVITY_NONE if alone else ACTIVITY_SCAN)


def _after_action(compromised: int, action: int) -> int:
    block, place = divmod(action - FIRST_HOST_ACTION, N_HOSTS)
    if block == RESTORE_BLOCK:
        return _entered(compromised, place, COMPROMISED_NO)
    if block == REMOVE_BLOCK and compromised >> (4 * place + 2) & 3 != COMPROMISED_NO:
        return _entered(compromised, place, COMPROMISED_UNKNOWN)
    return compromised


def _entered(compromised: int, place: int, value: int) -> int:
    shift = 4 * place + 2
    return compromised & ~(3 << shift) | value << shift
