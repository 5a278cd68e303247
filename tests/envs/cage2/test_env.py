"""The simulator's door: what does not fit is refused before it reaches compiled code; company changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from ray_rl.envs.cage2.env import Cage2Env
from ray_rl.episodes import EpisodeRequest, episode_requests


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    for name in ("rules", "table", "view", "actions"):
        with pytest.raises(ValueError, match=f"unknown {name} 'x'; known: "):
            Cage2Env(**{name: "x"})


def test_what_does_not_fit_is_refused() -> None:
    env = Cage2Env()
    with pytest.raises(ValueError, match="call reset"):
        env.step(np.zeros(1, dtype=np.int64))
    for bad in ([], [EpisodeRequest(0, 0, 10)] * 5000):
        with pytest.raises(ValueError, match="1 to 4096"):
            env.reset(bad)
    for seed in (-1, 2**63):
        with pytest.raises(ValueError, match="outside"):
            env.reset([EpisodeRequest(0, seed, 10)])
    with pytest.raises(ValueError, match="unknown red agent 'x'"):
        env.reset([EpisodeRequest(0, 0, 10, "x")])
    env.reset([EpisodeRequest(0, 0, 10)] * 2)
    with pytest.raises(ValueError, match="one action for each of 2"):
        env.step(np.zeros(3, dtype=np.int64))
    for action in (-1, 145):
        with pytest.raises(ValueError, match="from 0 to 144"):
            env.step(np.array([0, action]))
    with pytest.raises(ValueError, match="whole numbers, got float64"):
        env.step(np.array([0.0, 0.5]))
    with pytest.raises(ValueError, match="episode 3 has 0 steps, not 1 or more"):
        env.reset([EpisodeRequest(3, 0, 0)])


def test_company_and_order_change_nothing() -> None:
    requests = episode_requests(5, 0, 9, red_agent="mixed", max_steps=40)
    actions = np.random.default_rng(0).integers(145, size=(40, 9))

    def play(order: list[int]) -> np.ndarray:
        env = Cage2Env()
        env.reset([requests[i] for i in order])
        return np.array([env.step(actions[t, order]).rewards for t in range(40)]).T

    together = play(list(range(9)))
    np.testing.assert_array_equal(play(list(range(8, -1, -1))), together[::-1])
    np.testing.assert_array_equal(play([4])[0], together[4])


def test_the_end_is_told_by_truncation_after_the_requested_steps() -> None:
    env = Cage2Env()
    env.reset([EpisodeRequest(0, 1, 2), EpisodeRequest(1, 2, 3)])
    ends = [env.step(np.zeros(2, dtype=np.int64)) for _ in range(3)]
    assert [r.truncated.tolist() for r in ends] == [[False, False], [True, False], [True, True]]
    assert not any(r.terminated.any() for r in ends)


def test_truth_shows_what_red_holds() -> None:
    env = Cage2Env()
    env.reset([EpisodeRequest(0, 1, 100)])
    for _ in range(40):
        env.step(np.zeros(1, dtype=np.int64))
    truth = env.truth()
    assert truth.n_privileged[0, 7] > 0, "B_line holds Op_Server0 long before step 40 when Blue sleeps"
    assert truth.service[0].tolist() == [0, 1, 1, 0]
