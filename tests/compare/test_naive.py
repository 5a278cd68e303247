"""The naive stand-in plays the same game as the methods that it stands beside."""

from __future__ import annotations

import numpy as np
import pytest

from ray_rl.compare.naive import StockCyborgEnv
from ray_rl.envs.cyborg_env import CyborgEnv
from ray_rl.episodes import episode_requests
from ray_rl.seeding import Purpose


@pytest.mark.cyborg
@pytest.mark.parametrize("red_agent", ["B_lineAgent", "RedMeanderAgent"])
def test_cyborg_in_its_own_wrapper_shows_and_rewards_what_the_adapter_does(cyborg_path: str, red_agent: str) -> None:
    stock, adapter = StockCyborgEnv(cyborg_path), CyborgEnv(cyborg_path)
    assert stock.spec.observation_size == adapter.spec.observation_size
    assert stock.spec.n_actions == adapter.spec.n_actions
    rng = np.random.default_rng(0)
    for request in episode_requests(0, 0, 2, red_agent=red_agent, max_steps=30, purpose=Purpose.BENCH):
        np.testing.assert_array_equal(stock.reset([request]), adapter.reset([request]))
        for _ in range(30):
            action = rng.integers(0, 145, 1)
            left, right = stock.step(action), adapter.step(action)
            np.testing.assert_array_equal(left.observations, right.observations)
            np.testing.assert_allclose(left.rewards, right.rewards, rtol=1e-6)
            np.testing.assert_array_equal(left.truncated, right.truncated)
        assert left.truncated.all()
