"""Recording episodes of CybORG: what happened, what Blue saw, and the true state, as arrays of small integers.

The arrays are those of `ray_rl.envs.cage2.traces`: per step [E, T, …], per state [E, T+1, …] with entry 0 after the
reset. Saved with `save_trace` they are the golden traces; in memory they are one side of a live comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_rl.envs.cage2.constants import (
    ACTION_NAMES,
    DECOYS,
    EXPLOITS,
    HOSTS,
    PORTS,
    RED_ACTIONS,
    SUBNETS,
    TABLE_BITS,
)
from ray_rl.envs.cage2.sightings import sighting_in
from ray_rl.envs.cage2.traces import STATES, Trace
from ray_rl.envs.cage2.truth import Truth
from ray_rl.envs.cyborg.blue_policies import MakeBlue, Seen
from ray_rl.envs.cyborg.game import Game
from ray_rl.envs.cyborg.raw_events import events_in
from ray_rl.envs.cyborg.table import EMPTY_TABLES, Tables, draw_tables
from ray_rl.envs.cyborg.truth import listening_sockets, newest_is_removable, truth_of_games
from ray_rl.episodes import RED_AGENTS

RED_NAMES = ("bline", "meander", "sleep")
"""The red agents as traces name them, in the order of `ray_rl.episodes.RED_AGENTS`."""
_SUCCESS = {"FALSE": 0, "TRUE": 1, "UNKNOWN": 2}
_NO_STATE = 255
_PLACES = {host: place for place, host in enumerate(HOSTS)}

_STEP_TYPES: Mapping[str, type[np.generic]] = {
    "blue_action": np.uint8,
    "blue_success": np.uint8,
    "red_action": np.uint8,
    "red_host": np.int8,
    "red_subnet": np.int8,
    "red_exploit": np.uint8,
    "red_success": np.uint8,
    "red_detected": np.uint8,
    "red_reuse": np.uint8,
    "green_action": np.uint8,
    "reward": np.float64,
    "bline_state": np.uint8,
    "ev_n": np.uint8,
    "ev_ports": np.uint8,
    "ev_flags": np.uint8,
}


def record_episodes(
    game: Game, red: str, make_blue: MakeBlue, seeds: Sequence[int], n_steps: int, policy: str = "given"
) -> Trace:
    """Play episodes in CybORG and write everything down.

    Args:
        game: The CybORG.
        red: ``bline``, ``meander`` or ``sleep``.
        make_blue: Makes Blue's policy for an episode.
        seeds: [E] one per episode; Python's generator starts from it right before the reset.
        n_steps: Steps per episode.
        policy: Blue's name in the recording.
    """
    episodes = [_record(game, red, make_blue, seed, n_steps) for seed in seeds]
    arrays = {name: np.stack([episode[name] for episode in episodes]) for name in episodes[0]}
    arrays["seed"] = np.array(seeds, dtype=np.int64)
    arrays |= {
        "tbl_hosts": np.array(HOSTS),
        "tbl_subnets": np.array(SUBNETS),
        "tbl_red_actions": np.array([*RED_ACTIONS, "InvalidAction"]),
        "tbl_exploits": np.array(["none", *EXPLOITS]),
        "tbl_decoys": np.array(DECOYS),
        "tbl_ports": np.array(PORTS, dtype=np.uint16),
        "tbl_blue_actions": np.array(ACTION_NAMES),
        "meta": np.array([f"red={red}", f"policy={policy}", f"steps={n_steps}"]),
    }
    return Trace(Path(f"{red}__{policy}__T{n_steps}.npz"), red, arrays)


def save_trace(trace: Trace, folder: Path) -> Path:
    """Write a recording as a compressed ``.npz`` under its own name; returns the file."""
    path = folder / trace.path.name
    folder.mkdir(parents=True, exist_ok=True)
    compressed: Any = np.savez_compressed
    compressed(path, **trace.arrays)
    return path


def _record(game: Game, red: str, make_blue: MakeBlue, seed: int, n_steps: int) -> dict[str, NDArray[Any]]:
    blue = make_blue(seed)
    game.reset(seed, RED_AGENTS[RED_NAMES.index(red)])
    tables, seen = EMPTY_TABLES, Seen()
    steps: list[dict[str, Any]] = []
    states = [_state(game, tables)]
    for step in range(n_steps):
        action = blue.act(seen)
        observation, reward = game.step(action)
        tables = draw_tables(tables, action, observation)
        steps.append(_outcome(game, action, observation, reward))
        states.append(_state(game, tables))
        seen = Seen(tables[:2], reported_shells(observation), step + 1, sighting_in(events_in(observation)))
    recorded = {name: np.array([s[name] for s in steps], dtype=kind) for name, kind in _STEP_TYPES.items()}
    for name in states[0]:
        kind = np.uint16 if name == "red_ports" else np.uint8
        recorded[name] = np.array([state[name] for state in states], dtype=kind)
    return recorded


def reported_shells(observation: Mapping[str, Any]) -> tuple[int, ...]:
    """Hosts on which Blue's raw observation reports a process behind a connection: a reverse shell."""
    return tuple(
        _PLACES[name]
        for name, seen in observation.items()
        if name != "success" and any("PID" in p and "Connections" in p for p in seen.get("Processes", ()))
    )


def _outcome(game: Game, action: int, observation: Mapping[str, Any], reward: float) -> dict[str, Any]:
    controller = game.controller
    red, green = controller.action["Red"], controller.action["Green"]
    kind = type(red).__name__
    target = getattr(red, "hostname", None) or controller.state.ip_addresses.get(getattr(red, "ip_address", None))
    host = _PLACES[target] if target is not None else -1
    sub_action = getattr(red, "sub_action", None)
    subnet = getattr(red, "subnet", None)
    agent = controller.agent_interfaces["Red"].agent
    events = [_events(observation.get(name, {})) for name in HOSTS]
    detected = host >= 0 and bool(events[host][2] & 1)
    succeeded = controller.observation["Red"].data["success"].name == "TRUE"
    return {
        "blue_action": action,
        "blue_success": _SUCCESS[observation["success"].name],
        "red_action": RED_ACTIONS.index(kind) if kind in RED_ACTIONS else len(RED_ACTIONS),
        "red_host": host,
        "red_subnet": -1 if subnet is None else SUBNETS.index(controller.state.subnets[subnet].name),
        "red_exploit": 0 if sub_action is None else 1 + EXPLOITS.index(type(sub_action).__name__),
        "red_success": _SUCCESS[controller.observation["Red"].data["success"].name],
        "red_detected": detected,
        "red_reuse": sub_action is not None and succeeded and not detected and newest_is_removable(game),
        "green_action": int(type(green).__name__ != "Sleep"),
        "reward": reward,
        "bline_state": agent.action if type(agent).__name__ == RED_AGENTS[0] else _NO_STATE,
        "ev_n": [n for n, _, _ in events],
        "ev_ports": [n_ports for _, n_ports, _ in events],
        "ev_flags": [flags for _, _, flags in events],
    }


def _events(seen: Mapping[str, Any]) -> tuple[int, int, int]:
    """Entries, distinct local ports, and flags: reverse shell, decoy first, connection last, files shown."""
    processes = seen.get("Processes", ())
    connections = [process["Connections"][0] for process in processes if "Connections" in process]
    flags = 8 if "Files" in seen else 0
    if processes:
        flags |= 1 if any(c.get("remote_port") == 4444 for c in connections) else 0
        flags |= 2 if "Service Name" in processes[0] else 0
        flags |= 4 if "Connections" in processes[-1] else 0
    return len(processes), len({c["local_port"] for c in connections}), flags


def _state(game: Game, tables: Tables) -> dict[str, NDArray[np.int64]]:
    truth: Truth = truth_of_games([game])
    bits = np.arange(TABLE_BITS)
    state = {name: getattr(truth, attribute)[0] for name, attribute in STATES.items()}
    any_session = truth.n_privileged + truth.n_removable + truth.n_hidden > 0
    state["red_level"] = np.where(truth.n_privileged > 0, 2, any_session)[0]
    state["n_listen"] = listening_sockets(game)
    state["obs_stock"] = tables.stock >> bits & 1
    state["obs_corr"] = tables.corrected >> bits & 1
    return state
