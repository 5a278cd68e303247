"""CybORG's own words for what Blue saw in a step, as `ray_rl.envs.cage2.events.Event`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray_rl.envs.cage2.constants import HOSTS
from ray_rl.envs.cage2.events import Event

_SHELL_PORT = 4444
_PLACES = {host: place for place, host in enumerate(HOSTS)}


def events_in(observation: Mapping[str, Any]) -> list[Event]:
    """The events in Blue's observation after a step, sorted.

    Args:
        observation: What CybORG shows Blue.
    """
    return sorted(
        _event(_PLACES[name], process)
        for name, seen in observation.items()
        if name != "success"
        for process in seen.get("Processes", ())
    )


def _event(host: int, process: Mapping[str, Any]) -> Event:
    if "Connections" not in process:
        return Event(host, "decoy", 0)
    connection = process["Connections"][0]
    if connection.get("remote_port") == _SHELL_PORT:
        return Event(host, "shell", 0)
    return Event(host, "connection", int(connection["local_port"]))
