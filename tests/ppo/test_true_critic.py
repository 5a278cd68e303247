"""A critic that sees the true state: it knows more, the actor knows nothing of it, and all else stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed

from ray_rl.config import PolicyConfig, PpoConfig, TrainConfig, UserError
from ray_rl.envs.cage2.env import Cage2Env
from ray_rl.envs.true_state import TrueState
from ray_rl.episodes import EpisodeBatch, concatenate_in_order, episode_requests
from ray_rl.policy.acting import acting_policy
from ray_rl.policy.inference import PolicyWeights
from ray_rl.ppo.api import Assignment, UpdateStats
from ray_rl.ppo.batch import split
from ray_rl.ppo.learner import Learner
from ray_rl.ppo.team import ALONE, Team, join_team
from ray_rl.rollout import run_episodes

ENV = Cage2Env("head", "stock", "table", "compact")
TRUTH = TrueState("head", "compact")
MLP = PolicyConfig(hidden_sizes=(32, 32))
GRU = PolicyConfig(policy="gru", memory_size=16, hidden_sizes=(16,))
PPO = PpoConfig(minibatches=2, epochs=3, learner_threads=1)


def make(
    policy: PolicyConfig, true_state: TrueState | None, team: Team = ALONE, dtype: torch.dtype = torch.float32
) -> Learner:
    return Learner(Assignment(ENV.spec, policy, PPO, 30, 0, true_state), team, dtype)


def episodes(weights: PolicyWeights, version: int, count: int = 40) -> EpisodeBatch:
    requests = episode_requests(0, version * count, count, red_agent="mixed", max_steps=30)
    return run_episodes(ENV, acting_policy(weights), requests, version)


def learn(learner: Learner, n_updates: int, count: int = 40) -> list[UpdateStats]:
    return [learner.update([episodes(learner.weights(), learner.version, count)]) for _ in range(n_updates)]


@pytest.mark.parametrize("policy", [MLP, GRU])
def test_the_actor_is_the_same_network_and_learns_from_what_the_critic_says(policy: PolicyConfig) -> None:
    with closing(make(policy, None)) as plain, closing(make(policy, TRUTH)) as seeing:
        np.testing.assert_array_equal(plain.weights().sizes, seeing.weights().sizes)
        np.testing.assert_array_equal(plain.weights().values, seeing.weights().values)
        learn(plain, 2), learn(seeing, 2)
        assert not np.array_equal(plain.weights().values, seeing.weights().values)
        own, other = plain.state().arrays, seeing.state().arrays
        assert all(own[name].shape == other[name].shape for name in own if name.startswith("network.actor."))


def test_it_explains_more_of_the_returns() -> None:
    with closing(make(MLP, None)) as plain, closing(make(MLP, TRUTH)) as seeing:
        known, seen = (learn(learner, 15, 100)[-1].explained_variance for learner in (plain, seeing))
    assert seen > known + 0.05


@pytest.mark.parametrize("policy", [MLP, GRU])
def test_a_saved_state_goes_on_to_the_same_bits(policy: PolicyConfig) -> None:
    with closing(make(policy, TRUTH)) as whole, closing(make(policy, TRUTH)) as second:
        learn(whole, 1)
        second.load_state(whole.state())
        learn(whole, 2), learn(second, 2)
        one, two = whole.state().arrays, second.state().arrays
        assert all(np.array_equal(one[name], two[name]) for name in one)


def test_a_state_of_a_critic_that_sees_less_is_refused() -> None:
    with closing(make(MLP, TRUTH)) as seeing, closing(make(MLP, None)) as plain:
        state = plain.state()
        with pytest.raises(ValueError, match=r"array 'network.critic.0.weight' is float32 of shape"):
            seeing.load_state(state)


def test_several_learners_are_one() -> None:
    with closing(make(MLP, TRUTH, dtype=torch.float64)) as alone:
        batch = episodes(alone.weights(), 0)
        alone.update([batch])
        expected = alone.state().arrays
    parts = split(concatenate_in_order([batch]), 2)
    store: Any = distributed.HashStore()
    with ThreadPoolExecutor(2) as threads:

        def all_do(work: Callable[[int], Any]) -> list[Any]:
            return list(threads.map(work, range(2)))

        learners = all_do(lambda rank: make(MLP, TRUTH, join_team(store, rank, 2, 30.0), torch.float64))
        all_do(lambda rank: learners[rank].update_part(parts[rank]))
        found = learners[0].state().arrays
        for learner in learners:
            learner.close()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, err_msg=name, rtol=1e-8, atol=1e-10)


def test_it_needs_episodes_that_can_be_played_again() -> None:
    TrainConfig.from_mapping({"critic_sees": "truth"}, "flags")
    with pytest.raises(UserError, match="critic_sees truth needs env cage2"):
        TrainConfig.from_mapping({"critic_sees": "truth", "env": "CartPole-v1"}, "flags")
