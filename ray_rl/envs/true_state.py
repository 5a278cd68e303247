"""What Blue never sees, for a critic that may: the true state behind episodes of the built-in simulator.

None of it travels. An episode is decided by its seed, its red agent and Blue's actions, so whoever learns from it plays
it once more, at millions of steps per second, and reads the state off. That the rewards come out the same tells that it
is the same episode.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ray_rl.envs.api import EnvSpec
from ray_rl.envs.cage2 import simulator as s
from ray_rl.envs.cage2.action_sets import ACTION_SETS, game_action
from ray_rl.envs.cage2.constants import B_LINE_BACKTRACKS, DECOYS, HOSTS, N_DECOYS, N_HOSTS, RULE_SETS, SCAN_STORED
from ray_rl.envs.cage2.simulator import NOTHING_FORCED, STATE_SIZE, reset_state, step_state
from ray_rl.episodes import RED_AGENTS, EpisodeBatch

Row = NDArray[np.int64]

_N_SUBNETS = 3
_N_B_LINE = len(B_LINE_BACKTRACKS)
_COUNTED = np.array([s.PRIVILEGED, s.REMOVABLE, s.HIDDEN], dtype=np.int64)
"""Sessions of a host: one bit says that there is one, another that there are more."""
_HOST_MASKS = np.array(
    [s.KNOWN_ADDRESSES, s.KNOWN_NAMES, s.SCANNED, s.EXPLOITED, s.ESCALATED, s.MAPPED, s.HARAKA_BROKEN], dtype=np.int64
)
_PLACES = np.array([s.B_LINE_TARGET, s.LAST_EXPLOITED, s.LAST_ESCALATED], dtype=np.int64)
"""One host each, or none."""
_SUBNET_MASKS = np.array([s.KNOWN_SUBNETS, s.SWEPT], dtype=np.int64)
_FLAGS = np.array(
    [s.SERVICE_RUNNING, s.SERVICE_ACTIVE, s.SERVICE_KILLABLE, s.SERVICE_KNOWN, s.B_LINE_BUILT_12, s.RED_SAW_PORTS],
    dtype=np.int64,
)
_OUTCOMES = ("failed", "succeeded", "unknown")


def true_state_names() -> list[str]:
    """What each bit of the true state says, in order."""
    names = [f"{host}: {n} {kind}" for kind in ("privileged", "removable", "hidden") for host in HOSTS for n in "12"]
    names += [f"{host}: malware of {origin}" for host in HOSTS for origin in ("a reverse shell", "an escalation")]
    names += [f"{host}: {decoy}" for host in HOSTS for decoy in DECOYS]
    names += [f"{host}: port scan stored" for host in HOSTS]
    known = ("address known", "name known", "scanned", "exploited", "escalated", "mapped", "Haraka broken")
    names += [f"{host}: {what}" for what in known for host in HOSTS]
    names += [f"{what} {host}" for what in ("B_line enters by", "last exploited", "last escalated") for host in HOSTS]
    names += [f"subnet {number} {what}" for what in ("known", "swept") for number in range(_N_SUBNETS)]
    names += [f"service {what}" for what in ("running", "active", "killable", "known")]
    names += ["B_line prepared step 12", "Red saw ports"]
    names += [f"B_line at {number}" for number in range(_N_B_LINE)]
    names += [f"Red's action: {outcome}" for outcome in _OUTCOMES]
    return names + [f"against {name}" for name in RED_AGENTS]


TRUE_STATE_SIZE = len(true_state_names())


@dataclass(frozen=True, slots=True)
class TrueState:
    """How to play episodes once more.

    Attributes:
        rules: Rule set that they were played under.
        actions: Action set that Blue's actions come from.
    """

    rules: str
    actions: str


def spec_with_true_state(spec: EnvSpec) -> EnvSpec:
    """What a critic sees that is shown the true state beside the observations of a spec."""
    return replace(spec, observation_size=_start(spec) + TRUE_STATE_SIZE, has_action_masks=False)


def _start(spec: EnvSpec) -> int:
    """Where the true state begins: at the first whole byte behind the observation."""
    return -(-spec.observation_size // 8) * 8


def with_true_state(episodes: EpisodeBatch, true_state: TrueState) -> EpisodeBatch:
    """Put the true state behind the observations, and leave the action masks out.

    Args:
        episodes: Of the built-in simulator.
        true_state: How to play them once more.

    Raises:
        ValueError: When they come out otherwise than they were recorded.
    """
    n_bytes = -(-TRUE_STATE_SIZE // 8)
    states = np.zeros((len(episodes.actions), n_bytes), dtype=np.uint8)
    final_states = np.zeros((len(episodes.lengths), n_bytes), dtype=np.uint8)
    differing = _play_again(
        episodes.extras["seed"],
        episodes.extras["red_agent"],
        episodes.lengths,
        episodes.actions,
        episodes.rewards,
        RULE_SETS.index(true_state.rules),
        ACTION_SETS.index(true_state.actions),
        states,
        final_states,
    )
    if differing >= 0:
        raise ValueError(
            f"episode {episodes.indices[differing]} comes out otherwise when it is played once more under the rules "
            f"{true_state.rules}: its true state is not to be had"
        )
    return replace(
        episodes,
        observations=np.concatenate((episodes.observations, states), axis=1),
        final_observations=np.concatenate((episodes.final_observations, final_states), axis=1),
        action_masks=None,
        mask_rule=None,
    )


@njit(cache=True, nogil=True)
def _play_again(
    seeds: NDArray[np.uint64],
    red_agents: NDArray[np.int8],
    lengths: NDArray[np.int32],
    actions: NDArray[Any],
    rewards: NDArray[np.float32],
    rules: int,
    action_set: int,
    states: NDArray[np.uint8],
    final_states: NDArray[np.uint8],
) -> int:
    """Fill zeroed rows with the states before each step and after the last.

    Returns the first episode whose rewards differ, or -1.
    """
    state = np.empty(STATE_SIZE, np.int64)
    row = 0
    for episode in range(seeds.shape[0]):
        reset_state(state, seeds[episode], red_agents[episode], rules)
        for _ in range(lengths[episode]):
            _describe(state, states[row])
            reward = step_state(state, game_action(action_set, actions[row]), NOTHING_FORCED)
            if np.float32(reward) != rewards[row]:
                return episode
            row += 1
        _describe(state, final_states[episode])
    return -1


@njit(cache=True, nogil=True)
def _describe(state: Row, packed: NDArray[np.uint8]) -> None:
    """Set the bits that `true_state_names` names in a zeroed row."""
    k = 0
    for start in _COUNTED:
        for host in range(N_HOSTS):
            k = _put(packed, k, state[start + host] >= 1)
            k = _put(packed, k, state[start + host] >= 2)
    for host in range(N_HOSTS):
        k = _put_mask(packed, k, state[s.FILES + host], 2)
    for host in range(N_HOSTS):
        k = _put_mask(packed, k, state[s.DECOY_SET + host], N_DECOYS)
    for host in range(N_HOSTS):
        k = _put(packed, k, state[s.PORTS_SEEN + host] & SCAN_STORED != 0)
    for column in _HOST_MASKS:
        k = _put_mask(packed, k, state[column], N_HOSTS)
    for column in _PLACES:
        k = _put_choice(packed, k, state[column], N_HOSTS)
    for column in _SUBNET_MASKS:
        k = _put_mask(packed, k, state[column], _N_SUBNETS)
    for column in _FLAGS:
        k = _put(packed, k, state[column] != 0)
    k = _put_choice(packed, k, state[s.B_LINE_STATE], _N_B_LINE)
    k = _put_choice(packed, k, state[s.RED_SUCCESS], len(_OUTCOMES))
    _put_choice(packed, k, state[s.RED_AGENT], len(RED_AGENTS))


@njit(cache=True, nogil=True, inline="always")
def _put(packed: NDArray[np.uint8], k: int, bit: bool) -> int:
    """Write bit k, most significant bit of a byte first; returns the place of the next."""
    if bit:
        packed[k >> 3] |= np.uint8(128 >> (k & 7))
    return k + 1


@njit(cache=True, nogil=True, inline="always")
def _put_mask(packed: NDArray[np.uint8], k: int, mask: int, n: int) -> int:
    for i in range(n):
        k = _put(packed, k, mask >> i & 1 != 0)
    return k


@njit(cache=True, nogil=True, inline="always")
def _put_choice(packed: NDArray[np.uint8], k: int, choice: int, n: int) -> int:
    if choice >= 0:
        _put(packed, k + choice, True)
    return k + n
