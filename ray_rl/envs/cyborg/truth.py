"""The true state of a CybORG, in the terms of `ray_rl.envs.cage2.truth.Truth`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_rl.envs.cage2.constants import HOSTS, N_HOSTS, OP_SERVER0, PORTS, SCAN_STORED, SUBNETS, VSFTPD
from ray_rl.envs.cage2.truth import Truth
from ray_rl.envs.cyborg.game import Game

_PLACES = {host: place for place, host in enumerate(HOSTS)}
_PORT_BITS = {port: 1 << bit for bit, port in enumerate(PORTS)}
_DECOY_PROCESSES = ("apache2", "femitter", "haraka", "Smss.exe", "Sshd.exe", "Svchost.exe", "Tomcat.exe", "vsftpd")
"""Names of the decoys' processes, in the order of `constants.DECOYS`."""
_ADMINISTRATORS = ("root", "SYSTEM")
_SERVICE = "OTService"


def truth_of_games(games: Sequence[Game]) -> Truth:
    """Read the true state out of B games.

    Args:
        games: At least one, each in an episode.
    """
    rows = [_read(game) for game in games]
    return Truth(**{name: np.array([row[name] for row in rows], dtype=np.int64) for name in Truth.__dataclass_fields__})


def _read(game: Game) -> dict[str, list[int]]:
    state = game.controller.state
    red_space = game.controller.agent_interfaces["Red"].action_space
    reds_mind = state.sessions["Red"][0]
    hosts = [state.hosts[name] for name in HOSTS]
    n_privileged, n_removable, n_hidden = _count_sessions(state)
    kinds = [_decoy_kinds(host.processes) for host in hosts]
    known_subnets = {state.subnets[cidr].name for cidr, known in red_space.subnet.items() if known}
    ports_seen = [0] * N_HOSTS
    for address, ports in reds_mind.ports.items():
        if ports:
            ports_seen[_PLACES[state.ip_addresses[address]]] = _port_mask(ports) | SCAN_STORED
    service = state.hosts[HOSTS[OP_SERVER0]].services.get(_SERVICE, {})
    return {
        "n_privileged": n_privileged,
        "n_removable": n_removable,
        "n_hidden": n_hidden,
        "files": [_file_bits(host.files) for host in hosts],
        "decoys": [sum(1 << kind for kind in set(here)) for here in kinds],
        "n_vsftpd": [here.count(VSFTPD) for here in kinds],
        "ports_seen": ports_seen,
        "known_addresses": _flags(state.ip_addresses[a] for a, known in red_space.ip_address.items() if known),
        "known_names": _flags(name for name, known in red_space.hostname.items() if known),
        "known_subnets": [int(name in known_subnets) for name in SUBNETS],
        "service": [
            int(any(process.name == _SERVICE for process in hosts[OP_SERVER0].processes)),
            int(reds_mind.ot_service is not None),
            int(service.get("process") is not None),
            int(bool(service.get("active"))),
        ],
    }


def _count_sessions(state: Any) -> tuple[list[int], list[int], list[int]]:
    """Count Red's sessions on each host: privileged, removable, hidden.

    Remove ends a user-level session whose process was reported to Blue at any time.
    """
    counts = ([0] * N_HOSTS, [0] * N_HOSTS, [0] * N_HOSTS)
    for session in state.sessions["Red"].values():
        level = 0 if session.username in _ADMINISTRATORS else 1 if _was_reported(state, session) else 2
        counts[level][_PLACES[session.host]] += 1
    return counts


def _was_reported(state: Any, session: Any) -> bool:
    return session.pid in state.sessions["Blue"][0].sus_pids.get(session.host, ())


def newest_is_removable(game: Game) -> bool:
    """Whether Remove would end the session that Red opened last."""
    state = game.controller.state
    newest = list(state.sessions["Red"].values())[-1]
    return newest.username not in _ADMINISTRATORS and _was_reported(state, newest)


def session_hosts(game: Game) -> int:
    """Mask of the hosts where Red has a session, foothold included."""
    mask = 0
    for session in game.controller.state.sessions["Red"].values():
        mask |= 1 << _PLACES[session.host]
    return mask


def _decoy_kinds(processes: Iterable[Any]) -> list[int]:
    return [_DECOY_PROCESSES.index(process.name) for process in processes if process.decoy_type]


def _file_bits(files: Iterable[Any]) -> int:
    bits = 0
    for file in files:
        bits |= 1 if file.name.startswith("cmd.") else 2 if file.name.startswith("escalate.") else 0
    return bits


def _port_mask(ports: Iterable[int]) -> int:
    mask = 0
    for port in ports:
        mask |= _PORT_BITS[port]
    return mask


def _flags(names: Iterable[str]) -> list[int]:
    flags = [0] * N_HOSTS
    for name in names:
        flags[_PLACES[name]] = 1
    return flags


def listening_sockets(game: Game) -> NDArray[np.int64]:
    """Sockets of each host that a port scan would report: [13] int64."""
    hosts = game.controller.state.hosts
    counts = [
        sum(1 for process in hosts[name].processes for c in process.connections if "remote_port" not in c)
        for name in HOSTS
    ]
    return np.array(counts, dtype=np.int64)
