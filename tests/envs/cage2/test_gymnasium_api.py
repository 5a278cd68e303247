"""Other trainers meet CAGE-2 through gymnasium: its own checker agrees, and both ways in play the same game."""

from __future__ import annotations

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from ray_rl.envs import CAGE2_ID
from ray_rl.envs.cage2.env import Cage2Env
from ray_rl.episodes import episode_requests


@pytest.mark.parametrize(("view", "actions"), [("table", "all"), ("memory", "compact")])
def test_gymnasiums_own_checker_agrees(view: str, actions: str) -> None:
    env = gymnasium.make(CAGE2_ID, view=view, actions=actions)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)


def test_gymnasium_imports_it_by_name() -> None:
    code = f"import gymnasium; print(gymnasium.make('ray_rl.envs:{CAGE2_ID}').action_space.n)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "145\n"


def test_episodes_are_truncated_never_terminated() -> None:
    env = gymnasium.make(CAGE2_ID, episode_steps=7)
    _, info = env.reset(seed=3)
    ends = []
    for _ in range(7):
        *_, terminated, truncated, info = env.step(int(np.flatnonzero(info["action_mask"])[-1]))
        ends.append((terminated, truncated))
    assert ends == [(False, False)] * 6 + [(False, True)]


def test_seeds_repeat_and_differ() -> None:
    def play(seed: int) -> list[float]:
        env = gymnasium.make(CAGE2_ID)
        env.reset(seed=seed)
        return [float(env.step(5)[1]) for _ in range(60)]

    assert play(1) == play(1)
    assert len({tuple(play(seed)) for seed in range(6)}) > 1


def test_vector_env_resets_in_the_step_after_the_end() -> None:
    env = gymnasium.make_vec(CAGE2_ID, num_envs=5, episode_steps=3)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    observations, info = env.reset(seed=4)
    assert observations.shape == (5, 52)
    assert info["action_mask"].shape == (5, 145)
    assert not observations.any()
    for step in range(1, 9):
        observations, rewards, terminated, truncated, _ = env.step(np.full(5, 140))  # Restore User0: costs 1
        assert truncated.all() == (step % 4 == 3)
        assert not terminated.any()
        assert (rewards == (0 if step % 4 == 0 else rewards)).all()
        assert observations.any() or step % 4 in (0, 1, 2, 3)
    assert env.observation_space.contains(observations)


def test_vector_env_repeats_with_its_seed() -> None:
    def play(seed: int) -> np.ndarray:
        env = gymnasium.make_vec(CAGE2_ID, num_envs=8)
        env.reset(seed=seed)
        return np.array([env.step(np.zeros(8, dtype=np.int64))[1] for _ in range(40)])

    np.testing.assert_array_equal(play(1), play(1))
    assert not np.array_equal(play(1), play(2))
    assert len(np.unique(play(1).sum(axis=0))) > 1


def test_vector_env_plays_the_episodes_of_a_training_run_of_its_seed() -> None:
    vector = gymnasium.make_vec(CAGE2_ID, num_envs=3, red_agent="RedMeanderAgent", episode_steps=30)
    vector.reset(seed=9)
    played = np.array([vector.step(np.full(3, 140))[1] for _ in range(61)])  # 30 steps, one that begins anew, 30 steps
    env = Cage2Env()
    for first, rewards in ((0, played[:30]), (3, played[31:])):
        env.reset(episode_requests(9, first, 3, red_agent="RedMeanderAgent", max_steps=30))
        np.testing.assert_array_equal(rewards, [env.step(np.full(3, 140)).rewards for _ in range(30)])


def test_bad_arguments_are_named() -> None:
    for bad in ({"rules": "tail"}, {"red_agent": "Blue"}, {"view": "all"}):
        with pytest.raises(ValueError, match="known"):
            gymnasium.make(CAGE2_ID, **bad)
    env = gymnasium.make_vec(CAGE2_ID, num_envs=2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="whole numbers"):
        env.step(np.array([0.0, 0.5]))
