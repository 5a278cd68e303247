"""The environment that waits: its law, its seeds, its episodes."""

from __future__ import annotations

import numpy as np
import pytest

from ray_rl.envs.latency_env import LatencyEnv
from ray_rl.episodes import EpisodeRequest, episode_requests


@pytest.mark.parametrize(("mean_s", "max_s"), [(0.013, 0.05), (0.002, 0.1), (0.04, 0.05)])
def test_waits_have_the_mean_asked_for_and_never_exceed_the_longest(mean_s: float, max_s: float) -> None:
    waits = LatencyEnv(mean_s, max_s).waits_s(EpisodeRequest(0, 5, 400_000))
    assert waits.mean() == pytest.approx(mean_s, rel=0.01)
    assert waits.max() <= max_s
    assert waits.min() > 0


def test_waits_have_a_heavy_tail() -> None:
    """The slowest of 100 steps takes several times the mean: that is what makes barriers slow."""
    waits = LatencyEnv().waits_s(EpisodeRequest(0, 1, 100_000)).reshape(1000, 100)
    assert waits.max(axis=1).mean() > 3 * waits.mean()


def test_the_step_waits_what_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of the clock, since how long it takes cannot be asserted."""
    slept: list[float] = []
    monkeypatch.setattr("ray_rl.envs.latency_env.time.sleep", slept.append)
    env, request = LatencyEnv(), EpisodeRequest(0, 77, 25)
    env.reset([request])
    for _ in range(25):
        result = env.step(np.zeros(1, dtype=np.int64))
    assert result.truncated.tolist() == [True]
    np.testing.assert_allclose(slept, env.waits_s(request))


def played(env: LatencyEnv, request: EpisodeRequest, action: int) -> tuple[np.ndarray, np.ndarray]:
    observations, rewards = [env.reset([request])[0].copy()], []
    over = False
    while not over:
        result = env.step(np.array([action]))
        observations.append(result.observations[0].copy())
        rewards.append(result.rewards[0])
        assert not result.terminated[0]
        over = bool(result.truncated[0])
    return np.array(observations), np.array(rewards)


def test_an_episode_depends_on_its_seed_alone() -> None:
    env = LatencyEnv(1e-6, 2e-6)
    first, other = episode_requests(3, 0, 2, red_agent="mixed", max_steps=30)
    once, again, different = played(env, first, 0), played(LatencyEnv(1e-6, 2e-6), first, 9), played(env, other, 0)
    np.testing.assert_array_equal(once[0], again[0])
    np.testing.assert_array_equal(once[1], again[1])
    assert len(once[1]) == 30
    assert not np.array_equal(once[0], different[0])
    assert not np.array_equal(once[1], different[1])
    assert not np.array_equal(env.waits_s(first), env.waits_s(other))


def test_observations_fit_the_spec() -> None:
    env = LatencyEnv(1e-6, 2e-6)
    observations, rewards = played(env, EpisodeRequest(0, 1, 20), 0)
    assert observations.shape == (21, env.spec.observation_size)
    assert observations.dtype == np.uint8
    assert set(np.unique(observations)) == {0, 1}
    assert env.spec.observation_bits
    assert env.action_masks() is None
    assert rewards.dtype == np.float32
    assert ((rewards <= 0) & (rewards > -1)).all()


def test_stepping_past_the_end_or_before_the_start_is_refused() -> None:
    env = LatencyEnv(1e-6, 2e-6)
    with pytest.raises(ValueError, match="reset first"):
        env.step(np.zeros(1, dtype=np.int64))
    env.reset([EpisodeRequest(0, 1, 1)])
    env.step(np.zeros(1, dtype=np.int64))
    with pytest.raises(ValueError, match="reset first"):
        env.step(np.zeros(1, dtype=np.int64))
