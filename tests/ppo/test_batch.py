"""Batches: nothing is lost between the wire and the networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from made_episodes import IDENTITY, MASKED, masked_episodes
from numpy.typing import NDArray

from ray_rl.envs.api import EnvSpec
from ray_rl.episodes import EpisodeBatch, concatenate_in_order
from ray_rl.policy.actor_critic import ActorCritic
from ray_rl.policy.network_inputs import NetworkInputs
from ray_rl.ppo.batch import distinct_rows, minibatches, ppo_batch, split


def episodes() -> EpisodeBatch:
    weights = ActorCritic(MASKED.observation_size, MASKED.n_actions, (8,), seed=0).actor_weights()
    return concatenate_in_order([masked_episodes(weights, 3, 40, 20), masked_episodes(weights, 2, 0, 20)])


def numbers_of(inputs: NetworkInputs, size: int = MASKED.observation_size) -> NDArray[np.float32]:
    """Inputs as a table, read through the door that the networks use."""
    table: NDArray[np.float32] = inputs.affine(
        torch.eye(size), torch.zeros(size), out=torch.empty(len(inputs), size)
    ).numpy()
    return table


def test_every_step_finds_its_observation_and_mask_again() -> None:
    made = episodes()
    batch = ppo_batch(made, MASKED)
    observations = np.unpackbits(made.observations, axis=1, count=MASKED.observation_size)
    np.testing.assert_array_equal(numbers_of(batch.inputs)[batch.input_of_row[batch.rows]], observations)
    finals = np.unpackbits(made.final_observations, axis=1, count=MASKED.observation_size)
    np.testing.assert_array_equal(numbers_of(batch.inputs)[batch.input_of_row[batch.final_rows]], finals)
    assert made.action_masks is not None
    assert batch.allowed is not None
    allowed = np.unpackbits(made.action_masks, axis=1, count=MASKED.n_actions).astype(bool)
    np.testing.assert_array_equal(batch.allowed.numpy()[batch.rows], allowed)
    np.testing.assert_array_equal(batch.actions, made.actions)
    assert batch.policy_versions.tolist() == [2] * 20 + [3] * 20


def test_an_episode_that_came_twice_is_refused() -> None:
    weights = ActorCritic(MASKED.observation_size, MASKED.n_actions, (8,), seed=0).actor_weights()
    twice = concatenate_in_order([masked_episodes(weights, 0, 0, 20), masked_episodes(weights, 0, 19, 3)])
    with pytest.raises(ValueError, match="episode 19 is there twice"):
        split(twice, 2)


def test_observations_of_numbers_pass_unchanged() -> None:
    made = episodes()
    n, m = len(made.lengths), len(made.actions)
    numbers = np.random.default_rng(0).normal(size=(m + n, 3)).astype(np.float32)
    spec = EnvSpec("numbers", 3, False, MASKED.n_actions, False)
    batch = ppo_batch(replace(made, observations=numbers[:m], final_observations=numbers[m:], action_masks=None), spec)
    np.testing.assert_array_equal(numbers_of(batch.inputs, 3)[batch.input_of_row[batch.rows]], numbers[:m])
    np.testing.assert_array_equal(numbers_of(batch.inputs, 3)[batch.input_of_row[batch.final_rows]], numbers[m:])
    assert batch.allowed is None


def test_an_observation_under_many_masks_is_one_input() -> None:
    made = episodes()
    repeated = np.repeat(made.observations[:1], len(made.actions), axis=0)
    finals = np.repeat(made.observations[:1], len(made.lengths), axis=0)
    batch = ppo_batch(replace(made, observations=repeated, final_observations=finals), MASKED)
    assert len(batch.inputs) == 1
    assert made.action_masks is not None
    assert batch.n_distinct == len(np.unique(made.action_masks, axis=0)) > 1


@pytest.mark.parametrize("width", [1, 8, 13])
def test_distinct_rows_are_the_distinct_rows(width: int) -> None:
    rng = np.random.default_rng(width)
    keys = rng.integers(0, 3, (500, width)).astype(np.uint8) if width == 1 else rows_with_repeats(rng, width)
    numbers, firsts = distinct_rows(keys)
    np.testing.assert_array_equal(keys[firsts][numbers], keys)
    assert len(firsts) == len(np.unique(keys, axis=0))
    assert (np.diff(firsts) > 0).all()


def rows_with_repeats(rng: np.random.Generator, width: int) -> NDArray[np.uint8]:
    rows: NDArray[np.uint8] = rng.integers(0, 256, (100, width)).astype(np.uint8)
    return rows[rng.integers(0, 100, 500)]


def test_minibatches_cover_every_step_once_and_differ_from_epoch_to_epoch() -> None:
    batch = ppo_batch(episodes(), MASKED)
    observed = numbers_of(batch.inputs)
    orders = []
    for epoch in range(2):
        parts = list(minibatches(batch, 3, run_seed=1, version=4, epoch=epoch))
        steps = torch.cat([part.steps for part in parts])
        assert sorted(steps.tolist()) == list(range(batch.n_steps))
        sizes = [len(part.steps) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        for part in parts:
            rows = batch.rows[part.steps]
            inputs = numbers_of(part.inputs)
            np.testing.assert_array_equal(inputs[part.input_of_step], observed[batch.input_of_row[rows]])
            np.testing.assert_array_equal(part.input_of_row[part.row_of_step], part.input_of_step)
            assert len(np.unique(inputs, axis=0)) == len(inputs)
            assert batch.allowed is not None
            assert part.allowed is not None
            np.testing.assert_array_equal(part.allowed[part.row_of_step], batch.allowed[rows])
            assert len(part.row_shares) == len(np.unique(rows))
            counts = np.bincount(part.row_of_step) / len(part.steps)
            np.testing.assert_allclose(part.row_shares, counts, rtol=1e-6)
            np.testing.assert_array_equal(part.actions, batch.actions[part.steps])
            assert part.share == 1.0
        orders.append(steps.tolist())
    assert orders[0] != orders[1]
    again = torch.cat([part.steps for part in minibatches(batch, 3, run_seed=1, version=4, epoch=0)])
    assert again.tolist() == orders[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations": np.zeros((1, 5), np.uint8)}, "observations are 5 uint8 wide"),
        ({"action_masks": None}, "action masks"),
        ({"actions": np.full(1, 9)}, "lengths sum"),
    ],
)
def test_episodes_of_another_environment_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ppo_batch(replace(episodes(), **changes), MASKED)


def test_an_action_that_does_not_exist_is_refused() -> None:
    made = episodes()
    with pytest.raises(ValueError, match="action 200"):
        ppo_batch(replace(made, actions=np.full_like(made.actions, 200)), MASKED)
    with pytest.raises(ValueError, match="identity"):
        ppo_batch(made, IDENTITY)
