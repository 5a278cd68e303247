"""Advantages: worked out by hand, and against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ray_rl.ppo.gae import generalised_advantages


def reference(
    rewards: NDArray[np.float32],
    values: NDArray[np.float32],
    final_values: NDArray[np.float32],
    lengths: NDArray[np.int32],
    terminated: NDArray[np.bool_],
    discount: float,
    gae_lambda: float,
) -> NDArray[np.float64]:
    advantages = []
    start = 0
    for length, over, final_value in zip(lengths, terminated, final_values, strict=True):
        steps = slice(start, start + length)
        following = np.append(values[steps][1:].astype(float), 0.0 if over else final_value)
        surprises = rewards[steps] + discount * following - values[steps]
        for t in range(length):
            advantages.append(sum((discount * gae_lambda) ** k * s for k, s in enumerate(surprises[t:])))
        start += length
    return np.array(advantages)


@pytest.mark.parametrize(
    ("terminated", "advantages", "returns"),
    [
        # Terminated: nothing follows the last step.
        #   step 3: surprise 3 + 0.5·0 − 0.3 = 2.7;                advantage 2.7
        #   step 2: surprise 2 + 0.5·0.3 − 0.2 = 1.95;             advantage 1.95 + 0.25·2.7 = 2.625
        #   step 1: surprise 1 + 0.5·0.2 − 0.1 = 1.0;              advantage 1.0 + 0.25·2.625 = 1.65625
        (True, [1.65625, 2.625, 2.7], [1.75625, 2.825, 3.0]),
        # Truncated: the final observation is worth 8.
        #   step 3: surprise 3 + 0.5·8 − 0.3 = 6.7;                advantage 6.7
        #   step 2: surprise 1.95;                                 advantage 1.95 + 0.25·6.7 = 3.625
        #   step 1: surprise 1.0;                                  advantage 1.0 + 0.25·3.625 = 1.90625
        (False, [1.90625, 3.625, 6.7], [2.00625, 3.825, 7.0]),
    ],
)
def test_an_episode_worked_out_by_hand(terminated: bool, advantages: list[float], returns: list[float]) -> None:
    found = generalised_advantages(
        np.array([1, 2, 3], np.float32),
        np.array([0.1, 0.2, 0.3], np.float32),
        np.array([8], np.float32),
        np.array([3], np.int32),
        np.array([terminated]),
        0.5,
        0.5,
    )
    np.testing.assert_allclose(found[0], advantages, rtol=1e-6)
    np.testing.assert_allclose(found[1], returns, rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    seed=st.integers(0, 2**32),
    discount=st.floats(0, 1),
    gae_lambda=st.floats(0, 1),
)
def test_the_kernel_agrees_with_the_definition(
    lengths: list[int], seed: int, discount: float, gae_lambda: float
) -> None:
    rng = np.random.default_rng(seed)
    n, m = len(lengths), sum(lengths)
    rewards, values = rng.normal(size=(2, m)).astype(np.float32)
    final_values = rng.normal(size=n).astype(np.float32)
    arguments = (rewards, values, final_values, np.array(lengths, np.int32), rng.random(n) < 0.5, discount, gae_lambda)
    advantages, returns = generalised_advantages(*arguments)
    expected = reference(*arguments)
    np.testing.assert_allclose(advantages, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(returns, expected + values, rtol=1e-4, atol=1e-5)


def test_nothing_leaks_from_one_episode_into_the_next() -> None:
    rewards = np.array([0, 0, 1000, 1000], np.float32)
    zeros = np.zeros(4, np.float32)
    advantages, _ = generalised_advantages(
        rewards, zeros, np.zeros(2, np.float32), np.array([2, 2], np.int32), np.array([False, True]), 0.99, 0.95
    )
    np.testing.assert_array_equal(advantages[:2], [0, 0])
