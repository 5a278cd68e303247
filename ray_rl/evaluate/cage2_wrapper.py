"""What an agent of the view ``raw`` plays in: CybORG's ChallengeWrapper, and one number from CybORG's own observation.

After the 52 bits comes the sighting of the step: ``(host · 8 + exploit) · 3 + outcome`` of Red's exploit as the ports
and the number of its connections tell it, or -1. Each team of CAGE Challenge 2 could wrap CybORG as it liked; an agent
that sees this is nevertheless another than one of the table alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

HOSTS = (
    *("Defender", "Enterprise0", "Enterprise1", "Enterprise2", "Op_Host0", "Op_Host1", "Op_Host2", "Op_Server0"),
    *("User0", "User1", "User2", "User3", "User4"),
)
PORTS = (21, 25, 3390, 443, 80, 139, 3389, 22)
"""Port that each exploit attacks."""
SHELL_PORT = 4444
"""Remote port of reverse shells."""
SSH = 22
GUESSED = 11
"""Connections of a brute force that found a password."""
NO_SIGHTING = -1


class SightingWrapper:
    """ChallengeWrapper for Blue, with the sighting behind the bits.

    Args:
        env: The ``CybORG``.
        table: Its ``ChallengeWrapper``.
    """

    def __init__(self, env: Any, table: Any) -> None:
        self._cyborg = env
        self._table = table

    def reset(self, *args: Any, **kwargs: Any) -> Any:
        """Start an episode: [53], the last of them -1."""
        return np.append(np.asarray(self._table.reset(*args, **kwargs)), NO_SIGHTING)

    def step(self, action: Any = None) -> tuple[Any, float, bool, Any]:
        """Take one step: observation [53], then what ChallengeWrapper tells: reward, end, and what it adds."""
        bits, reward, done, info = self._table.step(action=action)
        return np.append(np.asarray(bits), sighting(self._cyborg.get_observation("Blue"))), reward, done, info

    def __getattr__(self, name: str) -> Any:
        """Everything else is ChallengeWrapper's."""
        return getattr(self._table, name)


def wrap(env: Any) -> SightingWrapper:
    """Wrap a ``CybORG`` for the agent, as ``evaluation.py`` asks for it."""
    from CybORG.Agents.Wrappers import ChallengeWrapper

    return SightingWrapper(env, ChallengeWrapper(env=env, agent_name="Blue"))


def sighting(observation: Mapping[str, Any]) -> int:
    """The sighting in Blue's observation after a step.

    Args:
        observation: As CybORG gives it.
    """
    ports: list[tuple[int, int]] = []
    shell = False
    for name, seen in observation.items():
        if name == "success":
            continue
        for process in seen.get("Processes", ()):
            for connection in process.get("Connections", ())[:1]:
                if connection.get("remote_port") == SHELL_PORT:
                    shell = True
                else:
                    ports.append((HOSTS.index(name), int(connection["local_port"])))
    if len(set(ports)) != 1 or ports == [(ports[0][0], SSH)]:
        return NO_SIGHTING
    host, port = ports[0]
    outcome = 2 if shell or len(ports) == GUESSED else 1 if len(ports) == 1 else 0
    return (host * len(PORTS) + PORTS.index(port)) * 3 + outcome
