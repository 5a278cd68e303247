"""Learning with a memory: what only a memory can learn, with masks and episodes of any length, bit for bit."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_episodes import random_masks

from ray_rl.config import PolicyConfig, PpoConfig, TrainConfig, UserError
from ray_rl.envs.api import EnvSpec
from ray_rl.episodes import EpisodeBatch, concatenate_in_order, take_episodes
from ray_rl.policy.acting import acting_policy
from ray_rl.policy.inference import PolicyWeights
from ray_rl.policy.recurrent import RecurrentActorCritic
from ray_rl.ppo.api import Assignment, PolicyMismatchError
from ray_rl.ppo.batch import Place
from ray_rl.ppo.learner import Learner
from ray_rl.ppo.sequence_epochs import evaluate_values
from ray_rl.ppo.sequences import sequences
from ray_rl.ppo.team import Channel, Team

N_SYMBOLS, LENGTH = 3, 4
RECALL = EnvSpec("recall", N_SYMBOLS, True, N_SYMBOLS, True)
"""Shows a symbol once, at the first step; naming it at the last is worth 1. One wrong action is masked at each step."""
GRU = PolicyConfig(policy="gru", memory_size=12, hidden_sizes=(16,))


def config(**changes: object) -> PpoConfig:
    values = {"minibatches": 4, "epochs": 4, "learning_rate": 1e-2, "learner_threads": 1, "discount": 0.9}
    return PpoConfig.model_validate(values | changes)


def recall_episodes(
    weights: PolicyWeights, version: int, count: int, lengths: np.ndarray | None = None
) -> EpisodeBatch:
    """Episodes of one length, or cut to the lengths given."""
    rng = np.random.default_rng(1000 + version)
    symbols = rng.integers(0, N_SYMBOLS, count)
    masks = random_masks(rng, LENGTH * count, N_SYMBOLS).reshape(LENGTH, count, N_SYMBOLS)
    masks[:, np.arange(count), symbols] = True
    policy = acting_policy(weights)
    policy.begin(count)
    observations = np.zeros((LENGTH + 1, count, N_SYMBOLS), np.uint8)
    observations[0, np.arange(count), symbols] = 1
    steps = [policy.act(observations[t], masks[t], rng.random(count), np.zeros(count, np.bool_)) for t in range(LENGTH)]
    actions, log_probs = np.array([a for a, _ in steps]), np.array([p for _, p in steps])
    rewards = np.zeros((LENGTH, count), np.float32)
    rewards[-1] = actions[-1] == symbols
    lengths = np.full(count, LENGTH) if lengths is None else lengths
    row, column = np.concatenate([np.arange(n) for n in lengths]), np.repeat(np.arange(count), lengths)
    return EpisodeBatch(
        observations=np.packbits(observations[row, column], axis=1),
        action_masks=np.packbits(masks[row, column], axis=1),
        actions=actions[row, column].astype(np.uint8),
        behaviour_log_probs=log_probs[row, column],
        rewards=rewards[row, column],
        lengths=lengths.astype(np.int32),
        terminated=np.ones(count, np.bool_),
        final_observations=np.packbits(observations[lengths, np.arange(count)], axis=1),
        indices=np.arange(count),
        policy_version=version,
    )


def run(policy: PolicyConfig, n_updates: int) -> float:
    """Mean reward of the last update's episodes."""
    with closing(Learner(Assignment(RECALL, policy, config(), n_updates, 0))) as learner:
        for version in range(n_updates):
            batch = recall_episodes(learner.weights(), version, 128)
            learner.update([batch])
        return float(batch.returns().mean())


def test_it_learns_what_only_a_memory_can() -> None:
    assert run(GRU, 25) > 0.95
    assert run(PolicyConfig(hidden_sizes=(16,)), 25) < 0.8


def test_the_first_ratio_is_exactly_one_and_the_record_is_checked() -> None:
    with closing(Learner(Assignment(RECALL, GRU, config(), 9, 0))) as learner:
        for version in range(3):
            lengths = np.random.default_rng(version).integers(1, LENGTH + 1, 30)
            stats = learner.update([recall_episodes(learner.weights(), version, 30, lengths)])
            assert stats.first_ratio_deviation == 0.0
            assert 0 < stats.log_prob_difference < 1e-5
            assert stats.n_distinct == stats.n_steps == lengths.sum()
        batch = recall_episodes(learner.weights(), 3, 30)
        with pytest.raises(PolicyMismatchError):
            learner.update([replace(batch, behaviour_log_probs=batch.behaviour_log_probs + np.float32(0.01))])
        old = recall_episodes(learner.weights(), 3, 30)
        learner.update([batch])
        assert learner.update([old]).first_ratio_deviation == 0.0  # stale steps have their ratios against it as well


def test_going_on_from_a_saved_state_changes_no_bit() -> None:
    def go_on(learner: Learner, count: int) -> Learner:
        for _ in range(count):
            learner.update([recall_episodes(learner.weights(), learner.version, 40)])
        return learner

    with (
        closing(Learner(Assignment(RECALL, GRU, config(), 6, 0))) as whole,
        closing(Learner(Assignment(RECALL, GRU, config(), 6, 0))) as first,
    ):
        expected, saved = go_on(whole, 4).state(), go_on(first, 2).state()
    # Other first weights, which the state replaces.
    with closing(Learner(Assignment(RECALL, GRU, config(), 6, 5))) as other:
        other.load_state(saved)
        assert other.version == 2
        np.testing.assert_array_equal(other.weights().values, PolicyWeights.from_network(saved.arrays).values)
    with closing(Learner(Assignment(RECALL, GRU, config(), 6, 0))) as second:
        second.load_state(saved)
        found = go_on(second, 2).state()
    for name, values in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], values, err_msg=name)


def test_a_value_depends_on_its_own_episode_alone_and_on_what_came_before() -> None:
    networks = RecurrentActorCritic(N_SYMBOLS, N_SYMBOLS, 6, (8,), 0)
    networks.critic.parameters.copy_(torch.randn(len(networks.critic.parameters)))
    lengths = np.array([4, 1, 3])
    batch = concatenate_in_order([recall_episodes(networks.actor_weights(), 0, 3, lengths)])
    values, finals = evaluate_values(networks.critic, sequences(batch, RECALL, Place(0, 8)))
    assert (len(values), len(finals)) == (8, 3)
    for episode, first in enumerate((0, 4, 5)):
        alone = recall_episodes(networks.actor_weights(), 0, 3, lengths)
        part = concatenate_in_order([take_episodes(alone, np.array([episode]))])
        own, final = evaluate_values(networks.critic, sequences(part, RECALL, Place(0, int(lengths[episode]))))
        torch.testing.assert_close(own, values[first : first + lengths[episode]])
        torch.testing.assert_close(final, finals[episode : episode + 1])


def test_what_cannot_be_is_refused() -> None:
    values = {"policy": "gru", "minibatches": 9, "episodes_per_update": 8, "total_episodes": 80}
    with pytest.raises(UserError, match="exceed the 8 episodes of an update: policy gru learns from whole episodes"):
        TrainConfig.from_mapping(values, "test")
    with pytest.raises(ValueError, match="learners that share a batch"):
        Learner(Assignment(RECALL, GRU, config(), 1, 0), Team(Channel(), Channel()))
