"""Batches join in the order of their episodes, whatever order they came in."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_rl.episodes import (
    MIXTURE,
    EpisodeBatch,
    EpisodeError,
    EpisodeRequest,
    action_dtype,
    concatenate_in_order,
    episode_requests,
    packed,
    protocol_weights,
    unpacked,
)
from ray_rl.seeding import Purpose


def batch_of(indices: list[int], lengths: list[int], version: int = 0) -> EpisodeBatch:
    """Step t of episode i has observation and reward i + t / 100."""
    steps = np.concatenate([i + np.arange(n) / 100 for i, n in zip(indices, lengths, strict=True)]).astype(np.float32)
    return EpisodeBatch(
        observations=steps[:, None],
        action_masks=None,
        actions=steps.astype(np.uint8),
        behaviour_log_probs=-steps,
        rewards=steps,
        lengths=np.array(lengths, dtype=np.int32),
        terminated=np.array([i % 2 == 0 for i in indices]),
        final_observations=np.array(indices, dtype=np.float32)[:, None],
        indices=np.array(indices, dtype=np.int64),
        policy_version=version,
        extras={"red_agent": np.array(indices, dtype=np.int8)},
        rollout_s=1.0,
    )


@given(st.permutations(range(7)), st.integers(1, 7))
def test_joined_batches_are_sorted_by_index(order: list[int], per_chunk: int) -> None:
    lengths = [3, 1, 4, 1, 5, 9, 2]
    chunks = [
        batch_of(list(order[k : k + per_chunk]), [lengths[i] for i in order[k : k + per_chunk]])
        for k in range(0, 7, per_chunk)
    ]
    joined = concatenate_in_order(chunks)
    expected = batch_of(list(range(7)), lengths)
    for name in ("observations", "actions", "behaviour_log_probs", "rewards", "lengths", "terminated", "indices"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(expected, name))
    np.testing.assert_array_equal(joined.extras["red_agent"], np.arange(7))


def test_each_episode_keeps_the_version_that_acted() -> None:
    joined = concatenate_in_order([batch_of([2, 3], [1, 1], version=5), batch_of([0, 1], [2, 2], version=4)])
    assert joined.extras["policy_version"].tolist() == [4, 4, 5, 5]
    assert joined.policy_version == 4
    assert joined.rollout_s == 2.0


def test_returns_are_sums_of_each_episode() -> None:
    np.testing.assert_allclose(batch_of([1, 2], [2, 3]).returns(), [2.01, 6.03], rtol=1e-6)


def test_requests_depend_on_seed_purpose_and_index_alone() -> None:
    whole = episode_requests(9, 0, 20, red_agent="mixed", max_steps=100)
    parts = [*episode_requests(9, 0, 8, red_agent="mixed", max_steps=100)]
    parts += episode_requests(9, 8, 12, red_agent="mixed", max_steps=100)
    assert whole == parts
    other = episode_requests(9, 0, 20, red_agent="mixed", max_steps=100, purpose=Purpose.VALIDATE)
    assert {r.seed for r in whole}.isdisjoint(r.seed for r in other)


def test_requests_arrive_as_they_were_sent() -> None:
    sent = episode_requests(
        3, 7, 20, red_agent="mixed", max_steps=30, purpose=Purpose.VALIDATE, greedy=True, order="random"
    )
    arrived = unpacked(pickle.loads(pickle.dumps(packed(sent))))
    assert arrived == sent
    assert {type(request.purpose) for request in arrived} == {Purpose}


def test_mixture_has_its_shares() -> None:
    """4,000 draws of share 0.49: five standard errors are 0.04."""
    requests = episode_requests(1, 0, 4000, red_agent="mixed", max_steps=1)
    for name, share in MIXTURE:
        assert abs(sum(r.red_agent == name for r in requests) / 4000 - share) < 0.04


@pytest.mark.parametrize(("n_actions", "dtype"), [(2, "uint8"), (145, "uint8"), (256, "uint8"), (257, "uint16")])
def test_actions_travel_in_the_smallest_type(n_actions: int, dtype: str) -> None:
    assert action_dtype(n_actions) == np.dtype(dtype)


def test_an_error_names_the_episode() -> None:
    text = str(EpisodeError(EpisodeRequest(41, 99, 100, "SleepAgent"), "ValueError: broken"))
    assert "episode 41" in text
    assert "seed 99" in text
    assert "ValueError: broken" in text


def test_protocol_returns_are_the_sums_over_the_first_30_50_and_100_steps() -> None:
    lengths = np.array([120, 40, 1], dtype=np.int32)
    rewards = np.random.default_rng(0).normal(size=161).astype(np.float32)
    parts = np.split(rewards.astype(np.float64), [120, 160])
    expected = [sum(part[:steps].sum() for steps in (30, 50, 100)) for part in parts]
    weights = protocol_weights(lengths)
    np.testing.assert_allclose(
        [(part * w).sum() for part, w in zip(parts, np.split(weights, [120, 160]), strict=True)], expected
    )
    assert weights[[0, 29, 30, 49, 50, 99, 100, 119]].tolist() == [3, 3, 2, 2, 1, 1, 0, 0]
