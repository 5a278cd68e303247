"""Acting without torch: the same numbers as torch, the same bits in any batch, the right frequencies."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from ray_rl.policy.actor_critic import ActorCritic
from ray_rl.policy.inference import MlpPolicy, PolicyWeights, _act_rows
from ray_rl.policy.network_inputs import NumberInputs
from ray_rl.policy.random_weights import random_weights

_RNG_ROWS = 257


def networks(hidden_sizes: tuple[int, ...] = (32, 24), sharpen: float = 30.0) -> ActorCritic:
    made = ActorCritic(40, 13, hidden_sizes, seed=2)
    made.actor.layers[-1][0].mul_(sharpen)
    return made


def rows(seed: int = 0, n_rows: int = _RNG_ROWS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = rng.random((n_rows, 13)) < 0.6
    masks[:, 4] |= ~masks.any(axis=1)
    return rng.integers(0, 2, (n_rows, 40)).astype(np.uint8), masks, rng.random(n_rows)


@pytest.mark.parametrize("hidden_sizes", [(32,), (32, 24), (8, 50, 8), (5, 3)])
def test_log_probabilities_agree_with_torch(hidden_sizes: tuple[int, ...]) -> None:
    learner = networks(hidden_sizes)
    observations, masks, uniforms = rows()
    for numbers in (observations, np.random.default_rng(1).normal(size=observations.shape).astype(np.float32)):
        for allowed in (masks, None):
            actions, log_probs = MlpPolicy(learner.actor_weights()).act(
                numbers, allowed, uniforms, np.zeros(_RNG_ROWS, np.bool_)
            )
            expected, _, _ = learner.log_probs_entropy_values(
                NumberInputs(torch.from_numpy(numbers).float()),
                None if allowed is None else torch.from_numpy(allowed),
                torch.from_numpy(actions),
            )
            np.testing.assert_allclose(log_probs, expected, atol=1e-5, rtol=1e-5)


def test_the_batch_size_changes_no_bit() -> None:
    policy = MlpPolicy(networks().actor_weights())
    observations, masks, uniforms = rows()
    greedy = np.arange(_RNG_ROWS) % 3 == 0
    actions, log_probs = policy.act(observations, masks, uniforms, greedy)
    for size in (1, 7, 64):
        parts = [
            policy.act(observations[i : i + size], masks[i : i + size], uniforms[i : i + size], greedy[i : i + size])
            for i in range(0, _RNG_ROWS, size)
        ]
        np.testing.assert_array_equal(np.concatenate([a for a, _ in parts]), actions)
        together = np.concatenate([p for _, p in parts])
        np.testing.assert_array_equal(together.view(np.int32), log_probs.view(np.int32))


def test_masked_actions_are_never_taken_and_greedy_takes_the_likeliest() -> None:
    learner = networks()
    observations, masks, _ = rows()
    for uniform in (0.0, 0.5, np.nextafter(1.0, 0.0)):
        uniforms = np.full(_RNG_ROWS, uniform)
        actions, _ = MlpPolicy(learner.actor_weights()).act(
            observations, masks, uniforms, np.zeros(_RNG_ROWS, np.bool_)
        )
        assert masks[np.arange(_RNG_ROWS), actions].all()
    actions, _ = MlpPolicy(learner.actor_weights()).act(observations, masks, uniforms, np.ones(_RNG_ROWS, np.bool_))
    logits = learner.actor.forward(NumberInputs(torch.from_numpy(observations).float())).numpy()
    np.testing.assert_array_equal(actions, np.where(masks, logits, -np.inf).argmax(axis=1))


def test_sampling_inverts_the_cumulative_distribution() -> None:
    """Probabilities 1/2, 1/4 (masked), 1/8, 1/8 become 2/3, 0, 1/6, 1/6; evenly spaced uniforms hit each exactly."""
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.125], np.float32))
    policy = MlpPolicy(PolicyWeights.from_layers([(np.zeros((1, 4), np.float32), logits)]))
    n = 6000
    uniforms = (np.arange(n) + 0.5) / n
    actions, log_probs = policy.act(
        np.ones((n, 1), np.uint8), np.tile([True, False, True, True], (n, 1)), uniforms, np.zeros(n, np.bool_)
    )
    assert np.bincount(actions, minlength=4).tolist() == [4000, 0, 1000, 1000]
    assert (np.diff(actions) >= 0).all()
    np.testing.assert_allclose(np.exp(log_probs), np.where(actions == 0, 2 / 3, 1 / 6), rtol=1e-6)


def test_an_action_that_cannot_happen_is_not_drawn_at_the_very_end() -> None:
    """The last action is 200 nats below the first: its probability underflows."""
    layers = [(np.zeros((1, 3), np.float32), np.array([0.0, 0.0, -2000.0], np.float32))]
    policy = MlpPolicy(PolicyWeights.from_layers(layers))
    uniforms = np.full(1, np.nextafter(1.0, 0.0))
    actions, log_probs = policy.act(np.ones((1, 1), np.uint8), None, uniforms, np.zeros(1, np.bool_))
    assert actions.tolist() == [1]
    assert float(log_probs[0]) == pytest.approx(-np.log(2))


def test_extreme_logits_stay_finite() -> None:
    layers = [(np.zeros((1, 3), np.float32), np.array([1e8, -1e8, 0.0], np.float32))]
    policy = MlpPolicy(PolicyWeights.from_layers(layers))
    actions, log_probs = policy.act(np.ones((1, 1), np.uint8), None, np.full(1, 0.3), np.zeros(1, np.bool_))
    assert actions.tolist() == [0]
    assert log_probs.tolist() == [0.0]


def test_weights_come_out_of_a_learners_arrays() -> None:
    learner = networks()
    packed = PolicyWeights.from_network(learner.arrays())
    np.testing.assert_array_equal(packed.sizes, learner.actor_weights().sizes)
    np.testing.assert_array_equal(packed.values, learner.actor_weights().values)
    assert packed.n_bytes == 4 * (40 * 32 + 32 + 32 * 24 + 24 + 24 * 13 + 13)


@pytest.mark.parametrize("module", ["ray_rl.policy.inference", "ray_rl.ppo.api", "ray_rl.ppo.ray_learner"])
def test_acting_and_driving_do_without_torch(module: str) -> None:
    check = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_weights_out_of_the_object_store_need_no_kernel_of_their_own() -> None:
    weights = random_weights(8, (4,), 3)
    stored = PolicyWeights(weights.sizes.copy(), weights.values.copy())
    stored.values.flags.writeable = False
    row = (np.ones((1, 8), np.uint8), None, np.zeros(1), np.ones(1, np.bool_))
    MlpPolicy(weights).act(*row)
    n_compiled = len(_act_rows.signatures)
    MlpPolicy(stored).act(*row)
    assert len(_act_rows.signatures) == n_compiled
    assert weights.values.flags.writeable


def test_every_lane_is_summed_in_the_order_of_the_inputs() -> None:
    """The bits that recorded episodes and trained weights depend on, written out plainly."""
    policy = MlpPolicy(networks((32, 24)).actor_weights())
    observations, masks, uniforms = rows()
    greedy = np.arange(_RNG_ROWS) % 2 == 0
    actions, log_probs = policy.act(observations, masks, uniforms, greedy)
    sizes, values = policy.weights.sizes.tolist(), policy.weights.values
    for row in range(_RNG_ROWS):
        x, offset = observations[row].astype(np.float32), 0
        for n_in, n_out in pairwise(sizes):
            end = offset + n_in * n_out
            matrix = values[offset:end].reshape(n_in, n_out)
            sums = values[end : end + n_out].copy()
            for i in np.flatnonzero(x > 0):
                sums += x[i] * matrix[i]
            x, offset = sums, end + n_out
        allowed = np.flatnonzero(masks[row])
        best = allowed[x[allowed].argmax()]
        total, running = 0.0, []
        for action in allowed:
            total += math.exp(float(x[action] - x[best]))
            running.append(total)
        chosen = best
        if not greedy[row]:
            chosen = allowed[min(np.searchsorted(running, uniforms[row] * total, side="right"), len(allowed) - 1)]
        assert actions[row] == chosen
        assert log_probs[row] == np.float32(float(x[chosen] - x[best]) - math.log(total))
