"""Recorded episodes of CybORG 2.1, and their replay in the simulator: equality step by step, nothing tolerated.

A trace is an ``.npz`` of E episodes of T steps, arrays only. The replay gives the simulator Blue's actions and the
random outcomes that CybORG drew; everything else it must find by itself.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ray_rl.envs.cage2 import simulator as s
from ray_rl.envs.cage2.constants import (
    ACTION_NAMES,
    B_LINE,
    CORRECTED,
    EXPLOITS,
    HOSTS,
    MEANDER,
    RED_ACTIONS,
    RULE_SETS,
    SLEEPER,
    STOCK,
    TABLE_BITS,
)
from ray_rl.envs.cage2.truth import truth_of
from ray_rl.failures import UserError

RED_CODES = {"bline": B_LINE, "meander": MEANDER, "sleep": SLEEPER}
"""Red agents as traces name them."""

_OUTCOMES = (
    "blue_action",
    "reward",
    "red_exploit",
    "red_detected",
    "red_host",
    "red_action",
    "red_success",
    "blue_success",
)
STATES = {
    "n_priv": "n_privileged",
    "n_user_rem": "n_removable",
    "n_user_hid": "n_hidden",
    "files": "files",
    "decoys": "decoys",
    "n_vsftpd": "n_vsftpd",
    "red_ports": "ports_seen",
    "red_known_ip": "known_addresses",
    "red_known_host": "known_names",
    "red_known_subnet": "known_subnets",
    "ot": "service",
}
"""Name in a trace -> attribute of `Truth`."""


@dataclass(frozen=True, slots=True)
class Trace:
    """E recorded episodes of T steps against one red agent.

    Attributes:
        path: Where it was read from.
        red_agent: ``bline``, ``meander`` or ``sleep``.
        arrays: By name: per step [E, T, …], per state [E, T+1, …], entry 0 after the reset.
    """

    path: Path
    red_agent: str
    arrays: Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay found.

    Attributes:
        path: The trace.
        rules: Rule set that it was replayed by.
        n_episodes: Episodes replayed.
        n_steps: Steps replayed.
        n_mismatches: Steps in which anything differs.
        first_difference: The first of them with everything around it; empty when there is none.
    """

    path: Path
    rules: str
    n_episodes: int
    n_steps: int
    n_mismatches: int
    first_difference: str


def load_trace(path: Path) -> Trace:
    """Read a trace.

    Raises:
        UserError: When the file is no trace.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        meta = dict(str(item).split("=", 1) for item in arrays["meta"])
        missing = [name for name in (*_OUTCOMES, *STATES, "obs_stock", "obs_corr") if name not in arrays]
        if missing:
            raise KeyError(missing[0])
        return Trace(path, meta["red"], arrays)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no trace of CAGE-2 episodes: {type(error).__name__} {error}") from error


def replay(trace: Trace, rules: str) -> ReplayReport:
    """Replay a trace in the compiled simulator.

    Args:
        trace: The recording.
        rules: ``head`` or ``leaderboard``.
    """
    recorded = trace.arrays
    found = simulate(
        recorded["blue_action"], forced_outcomes(trace), RED_CODES[trace.red_agent], RULE_SETS.index(rules)
    )
    wrong: dict[str, NDArray[np.bool_]] = {}
    for name, values in found.items():
        expected = recorded[name]
        steps_of = expected if expected.shape[1] == values.shape[1] else expected[:, 1:]
        differs = values != steps_of
        wrong[name] = differs.reshape(*differs.shape[:2], -1).any(axis=2)
    anywhere = np.any(list(wrong.values()), axis=0)
    first = _describe(trace, found, wrong, anywhere) if anywhere.any() else ""
    n_episodes, n_steps = anywhere.shape
    return ReplayReport(trace.path, rules, n_episodes, n_episodes * n_steps, int(anywhere.sum()), first)


def forced_outcomes(trace: Trace) -> NDArray[np.int64]:
    """The random outcomes of a recording, as the simulator takes them: [E, T, N_FORCED] int64, -1 for none.

    Which session an escalation took is not recorded; CAGE-2's red agents escalate right after each exploit, so that a
    host never has both kinds. A recording without ``red_reuse`` is one in which no process number came twice.
    """
    recorded = trace.arrays
    forced = np.full((*recorded["blue_action"].shape, s.N_FORCED), -1, dtype=np.int64)
    forced[..., s.FORCED_EXPLOIT] = recorded["red_exploit"].astype(np.int64) - 1
    forced[..., s.FORCED_DETECTION] = recorded["red_detected"]
    forced[..., s.FORCED_REUSE] = recorded.get("red_reuse", 0)
    target = recorded["red_host"].astype(np.int64)
    if trace.red_agent == "bline":
        target = np.repeat(target[:, 1:2], target.shape[1], axis=1)  # drawn once, in its second action
    forced[..., s.FORCED_TARGET] = target
    return forced


def simulate(actions: NDArray[Any], forced: NDArray[np.int64], red_agent: int, rules: int) -> dict[str, NDArray[Any]]:
    """Run episodes with given actions and random outcomes; returns arrays [E, T, …] named as in a trace.

    Args:
        actions: [E, T] Blue's actions, 0…144.
        forced: [E, T, N_FORCED] outcomes, -1 where the simulator draws.
        red_agent: B_LINE, MEANDER or SLEEPER.
        rules: HEAD or LEADERBOARD.
    """
    n_episodes, n_steps = actions.shape
    states = np.empty((n_episodes, n_steps, s.STATE_SIZE), dtype=np.int64)
    tables = np.empty((2, n_episodes, n_steps), dtype=np.int64)
    rewards = np.empty((n_episodes, n_steps), dtype=np.float64)
    _simulate(actions.astype(np.int64), forced, red_agent, rules, states, tables, rewards)
    truth = truth_of(states.reshape(-1, s.STATE_SIZE))
    found = {name: getattr(truth, attribute) for name, attribute in STATES.items()}
    found = {name: values.reshape(n_episodes, n_steps, -1) for name, values in found.items()}
    bits = np.arange(TABLE_BITS)
    found["obs_stock"] = tables[STOCK][..., None] >> bits & 1
    found["obs_corr"] = tables[CORRECTED][..., None] >> bits & 1
    found["reward"] = rewards
    found["red_action"] = states[..., s.RED_ACTION]
    found["red_success"] = states[..., s.RED_SUCCESS]
    found["blue_success"] = states[..., s.BLUE_SUCCESS]
    found["red_detected"] = states[..., s.RED_DETECTED]
    found["red_exploit"] = states[..., s.RED_EXPLOIT] + 1
    sweeps = found["red_action"] == RED_ACTIONS.index("DiscoverRemoteSystems")
    found["red_host"] = np.where(sweeps, -1, states[..., s.RED_TARGET])
    return found


@njit(cache=True, nogil=True)
def _simulate(
    actions: NDArray[np.int64],
    forced: NDArray[np.int64],
    red_agent: int,
    rules: int,
    states: NDArray[np.int64],
    tables: NDArray[np.int64],
    rewards: NDArray[np.float64],
) -> None:
    state = np.empty(s.STATE_SIZE, np.int64)
    for episode in range(actions.shape[0]):
        s.reset_state(state, np.uint64(episode), red_agent, rules)
        for step in range(actions.shape[1]):
            rewards[episode, step] = s.step_state(state, actions[episode, step], forced[episode, step])
            states[episode, step] = state
            for table in (STOCK, CORRECTED):
                tables[table, episode, step] = s.table_of(state, table)


def replay_folder(
    folder: Path, rules: str | None = None, on_report: Callable[[ReplayReport], None] = lambda report: None
) -> list[ReplayReport]:
    """Replay every trace below a folder.

    Args:
        folder: Searched with its subfolders.
        rules: Rule set; None takes the one that the trace's own folder is named after.
        on_report: Called after each trace.

    Raises:
        UserError: When there is no trace, or a rule set is neither given nor told by a folder's name.
    """
    paths = sorted(folder.rglob("*.npz"))
    if not paths:
        raise UserError(f"no traces (*.npz) below {folder}")
    reports = []
    for path in paths:
        named = next((part for part in reversed(path.parts[:-1]) if part in RULE_SETS), None)
        if rules is None and named is None:
            raise UserError(f"{path} is in no folder named {' or '.join(RULE_SETS)}: say --rules")
        reports.append(replay(load_trace(path), rules or str(named)))
        on_report(reports[-1])
    return reports


def _describe(
    trace: Trace,
    found: Mapping[str, NDArray[Any]],
    wrong: Mapping[str, NDArray[np.bool_]],
    anywhere: NDArray[np.bool_],
) -> str:
    """The first step that differs: what led to it, the arrays that differ with both values, the state around it."""
    episode, step = (int(i) for i in np.argwhere(anywhere)[0])
    recorded = trace.arrays
    seed = f" (seed {int(recorded['seed'][episode])})" if "seed" in recorded else ""
    lines = [f"{trace.path.name}: episode {episode}, step {step + 1}{seed}"]
    lines += [f"  step {t + 1}: {_what_happened(recorded, episode, t)}" for t in range(max(0, step - 3), step + 1)]
    for name, differs in wrong.items():
        if differs[episode, step]:
            expected = recorded[name]
            at = step if expected.shape[1] == differs.shape[1] else step + 1
            lines.append(
                f"  {name}: recorded {_short(expected[episode, at])}, simulated {_short(found[name][episode, step])}"
            )
    lines.append("  recorded before -> after the step:")
    lines += [
        f"    {n}: {_short(recorded[n][episode, step])} -> {_short(recorded[n][episode, step + 1])}" for n in STATES
    ]
    return "\n".join(lines)


def _what_happened(recorded: Mapping[str, NDArray[Any]], episode: int, step: int) -> str:
    """Blue's and Red's actions in a step with their random outcomes, in words."""

    def at(name: str) -> int:
        return int(recorded[name][episode, step])

    blue = f"{ACTION_NAMES[at('blue_action')]} ({_SUCCESSES[at('blue_success')]})"
    target = f" {HOSTS[at('red_host')]}" if at("red_host") >= 0 else ""
    exploit = f" by {EXPLOITS[at('red_exploit') - 1]}" if at("red_exploit") else ""
    detected = ", reverse shell reported" if at("red_detected") else ""
    reward = float(recorded["reward"][episode, step])
    red = f"{_RED_ACTIONS[at('red_action')]}{target}{exploit} ({_SUCCESSES[at('red_success')]}{detected})"
    return f"Blue: {blue}; Red: {red}; reward {reward:g}"


_RED_ACTIONS = (*RED_ACTIONS, "an invalid action")
_SUCCESSES = ("FALSE", "TRUE", "UNKNOWN", "invalid")


def _short(values: Any) -> str:
    """An array in one line: digits together, larger numbers apart."""
    numbers = np.asarray(values)
    apart = "" if numbers.ndim and numbers.max() <= 9 else " "
    return np.array2string(numbers, separator=apart, max_line_width=200)
