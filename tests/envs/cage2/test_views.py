"""What Blue sees and may do: every bit has a name, and no mask ever hides an action that could help."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_rl.envs.cage2 import simulator as s
from ray_rl.envs.cage2.action_sets import ACTION_SET_SIZES, ACTION_SETS, action_names, allowed_actions, game_action
from ray_rl.envs.cage2.constants import ACTION_NAMES, EXPLOITS, HOSTS, N_EXPLOITS, N_HOSTS, VSFTPD
from ray_rl.envs.cage2.kernels import reset_row, step_row
from ray_rl.envs.cage2.notebook import NOTEBOOK_SIZE, SIGHTING, pack_table, unpack_table
from ray_rl.envs.cage2.sightings import FAILED, N_OUTCOMES, N_SIGHTS, SIGHT_NAMES, UNREPORTED
from ray_rl.envs.cage2.views import RAW_VIEW, VIEW_SIZES, VIEWS, active_features, feature_names


def rows(seed: int, red_agent: int, rules: int = 0) -> tuple[np.ndarray, np.ndarray]:
    state, notebook = np.empty(s.STATE_SIZE, np.int64), np.empty(NOTEBOOK_SIZE, np.int64)
    reset_row(state, notebook, np.uint64(seed), red_agent, rules)
    return state, notebook


def bits_of(notebook: np.ndarray, view: int) -> np.ndarray:
    active = np.empty(VIEW_SIZES[view], np.int32)
    n = active_features(notebook, view, active)
    assert (np.diff(active[:n]) > 0).all(), "indices ascend"
    assert n == 0 or 0 <= active[0] <= active[n - 1] < VIEW_SIZES[view]
    bits = np.zeros(VIEW_SIZES[view], np.uint8)
    bits[active[:n]] = 1
    return bits


@pytest.mark.parametrize("view", range(len(VIEWS)))
def test_every_bit_has_a_name_of_its_own(view: int) -> None:
    names = feature_names(view)
    assert len(names) == len(set(names)) == VIEW_SIZES[view]


@pytest.mark.parametrize("action_set", range(len(ACTION_SETS)))
def test_every_action_has_a_name_of_its_own(action_set: int) -> None:
    names = action_names(action_set)
    assert len(names) == len(set(names)) == ACTION_SET_SIZES[action_set]
    assert set(names) <= set(ACTION_NAMES)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    actions=st.lists(st.integers(0, 144), min_size=1, max_size=100),
    red_agent=st.integers(0, 2),
    seed=st.integers(0, 2**40),
    table=st.integers(0, 1),
    rules=st.integers(0, 1),
)
def test_views_and_masks_along_an_episode(
    actions: list[int], red_agent: int, seed: int, table: int, rules: int
) -> None:
    state, notebook = rows(seed, red_agent, rules)
    for action in actions:
        for action_set in range(len(ACTION_SETS)):
            check_masks(state, notebook, action_set)
        step_row(state, notebook, table, action)
        table_bits = unpack_table(s.table_of(state, table))
        assert pack_table(table_bits) == s.table_of(state, table)
        views = [bits_of(notebook, view) for view in range(len(VIEWS))]
        np.testing.assert_array_equal(views[0], table_bits)
        for smaller, larger in itertools.pairwise(views):
            np.testing.assert_array_equal(smaller, larger[: len(smaller)])
        in_place = {name for name, bit in zip(feature_names(1), views[1], strict=True) if bit and "in place" in name}
        assert len(in_place) <= sum(int(d).bit_count() for d in state[s.DECOY_SET : s.DECOY_SET + N_HOSTS])


def check_masks(state: np.ndarray, notebook: np.ndarray, action_set: int) -> None:
    """A masked action changes nothing of the true state, or only adds one more of a decoy that is there."""
    allowed = np.empty(ACTION_SET_SIZES[action_set], np.bool_)
    allowed_actions(notebook, action_set, allowed)
    assert allowed[0], "Sleep is always allowed"
    for action in np.flatnonzero(~allowed):
        game = game_action(action_set, int(action))
        done, undone = state.copy(), state.copy()
        s.step_state(done, game, s.NOTHING_FORCED)
        s.step_state(undone, 0, s.NOTHING_FORCED)
        done[s.BLUE_SUCCESS] = undone[s.BLUE_SUCCESS]
        if f"{ACTION_NAMES[game]}".startswith("DecoyVsftpd"):
            host = (game - 2) % N_HOSTS
            assert done[s.DECOY_SET + host] == undone[s.DECOY_SET + host]
            assert done[s.DECOY_SET + host] >> VSFTPD & 1 or done[s.VSFTPDS + host] == undone[s.VSFTPDS + host]
            continue
        np.testing.assert_array_equal(done, undone, err_msg=ACTION_NAMES[game])


def test_memory_of_an_order_of_events() -> None:
    """Defender's first decoy, then Restore: the notebook forgets the decoy and remembers the Restore."""
    state, notebook = rows(1, 2)
    step_row(state, notebook, 0, 28)  # DecoyApache Defender
    names = np.array(feature_names(2))
    assert "DecoyApache on Defender in place" in names[bits_of(notebook, 2) == 1]
    step_row(state, notebook, 0, 132)  # Restore Defender
    seen = set(names[bits_of(notebook, 2) == 1])
    assert "DecoyApache on Defender in place" not in seen
    assert "Defender: Restore 0 steps ago" in seen
    assert {"own action 0 back: Restore", "own action 1 back: decoy", "2 steps since the start"} <= seen


def test_raw_tells_which_exploit_it_was_until_the_host_is_restored() -> None:
    for seed in range(40):
        state, notebook = rows(seed, 0)
        while notebook[SIGHTING] < 0 or notebook[SIGHTING] % N_OUTCOMES == FAILED:
            step_row(state, notebook, 0, 0)
        host, exploit = divmod(int(notebook[SIGHTING]) // N_OUTCOMES, N_EXPLOITS)
        names = np.array(feature_names(RAW_VIEW))
        gained = {f"{HOSTS[host]}: {EXPLOITS[exploit]} came last", f"{HOSTS[host]}: {EXPLOITS[exploit]} since Restore"}
        seen = set(names[bits_of(notebook, RAW_VIEW) == 1])
        assert gained | {f"{SIGHT_NAMES[notebook[SIGHTING] % N_SIGHTS]} in this step"} <= seen
        unreported = f"{HOSTS[host]}: an unreported exploit since Restore"
        assert (unreported in seen) == (notebook[SIGHTING] % N_OUTCOMES == UNREPORTED)
        step_row(state, notebook, 0, 132 + host)
        assert not (gained | {unreported}) & set(names[bits_of(notebook, RAW_VIEW) == 1])
