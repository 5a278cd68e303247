"""The compiled simulator is the reference, step by step, whatever Blue does and whatever chance decides."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_rl.envs.cage2 import simulator as s
from ray_rl.envs.cage2.constants import N_HOSTS, RULE_SETS, SCAN_STORED, action_index
from ray_rl.envs.cage2.reference import ReferenceGame
from ray_rl.envs.cage2.traces import RED_CODES


class Chance:
    """An oracle that draws, more often the rare outcomes than CybORG does, and remembers what it drew in a step."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.drawn = np.full(s.N_FORCED, -1)

    def exploit(self, options: list[int]) -> int:
        self.drawn[s.FORCED_EXPLOIT] = self._random.choice(options)
        return int(self.drawn[s.FORCED_EXPLOIT])

    def detected(self) -> bool:
        self.drawn[s.FORCED_DETECTION] = self._random.random() < 0.6
        return bool(self.drawn[s.FORCED_DETECTION])

    def reuses_number(self, reports: int) -> bool:
        assert reports > 0
        self.drawn[s.FORCED_REUSE] = self._random.random() < 0.3
        return bool(self.drawn[s.FORCED_REUSE])

    def escalates_removable(self, removable: int, hidden: int) -> bool:
        self.drawn[s.FORCED_REMOVABLE] = self._random.random() < removable / (removable + hidden)
        return bool(self.drawn[s.FORCED_REMOVABLE])

    def target(self, hosts: list[int]) -> int:
        self.drawn[s.FORCED_TARGET] = self._random.choice(hosts)
        return int(self.drawn[s.FORCED_TARGET])


_ON_HOSTS = st.builds(action_index, st.integers(0, 10), st.integers(0, N_HOSTS - 1))
_REPAIRS = st.builds(action_index, st.sampled_from([0, 1, 10]), st.integers(0, N_HOSTS - 1))
_ACTIONS = st.lists(st.one_of(st.just(0), st.integers(0, 144), _ON_HOSTS, _REPAIRS), min_size=30, max_size=80)


@pytest.mark.parametrize("rules", RULE_SETS)
@pytest.mark.parametrize("red_agent", ["bline", "meander", "sleep"])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(actions=_ACTIONS, seed=st.integers(0, 2**32))
def test_compiled_step_equals_the_reference(rules: str, red_agent: str, actions: list[int], seed: int) -> None:
    chance = Chance(seed)
    game = ReferenceGame(red_agent, rules, chance)
    state = np.empty(s.STATE_SIZE, dtype=np.int64)
    s.reset_state(state, np.uint64(seed), RED_CODES[red_agent], RULE_SETS.index(rules))
    for number, action in enumerate(actions):
        chance.drawn = np.full(s.N_FORCED, -1)
        shown = game.step(action)
        reward = s.step_state(state, action, chance.drawn)
        where = f"step {number + 1}, action {action}"
        assert reward == shown.reward, where
        for table in (0, 1):
            assert s.table_of(state, table) == packed(shown.activity[table], shown.compromised), where
        assert truth_of_game(game) == truth_of_state(state), where


def packed(activity: list[int], compromised: list[int]) -> int:
    return sum((activity[h] | compromised[h] << 2) << 4 * h for h in range(N_HOSTS))


def truth_of_game(game: ReferenceGame) -> list[object]:
    return [
        [sessions.privileged for sessions in game.sessions],
        [sessions.removable for sessions in game.sessions],
        [sessions.hidden for sessions in game.sessions],
        game.files,
        [len(decoys) for decoys in game.decoys],
        [0 if seen is None else seen | SCAN_STORED for seen in game.ports_seen],
        sum(1 << h for h in game.known_addresses),
        sum(1 << h for h in game.known_names),
        [game.service_running, game.service_active, game.service_killable, game.service_known],
        game.red_action,
        game.red_success,
        game.blue_success,
    ]


def truth_of_state(state: np.ndarray) -> list[object]:
    def hosts(start: int) -> list[int]:
        return state[start : start + N_HOSTS].tolist()

    vsftpd = 1 << 7
    n_decoys = [(d & ~vsftpd).bit_count() + n for d, n in zip(hosts(s.DECOY_SET), hosts(s.VSFTPDS), strict=True)]
    service = (s.SERVICE_RUNNING, s.SERVICE_ACTIVE, s.SERVICE_KILLABLE, s.SERVICE_KNOWN)
    return [
        hosts(s.PRIVILEGED),
        hosts(s.REMOVABLE),
        hosts(s.HIDDEN),
        hosts(s.FILES),
        n_decoys,
        hosts(s.PORTS_SEEN),
        int(state[s.KNOWN_ADDRESSES]),
        int(state[s.KNOWN_NAMES]),
        [bool(state[column]) for column in service],
        int(state[s.RED_ACTION]),
        int(state[s.RED_SUCCESS]),
        int(state[s.BLUE_SUCCESS]),
    ]
