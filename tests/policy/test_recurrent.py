"""Policies that remember: the same network in torch and in acting, whatever the batch; forgotten with the episode."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ray_rl.policy.acting import acting_policy
from ray_rl.policy.gru_inference import GruPolicy
from ray_rl.policy.inference import MlpPolicy, PolicyWeights
from ray_rl.policy.random_weights import random_weights
from ray_rl.policy.recurrent import RecurrentActorCritic

D, A, STEPS, N = 13, 5, 9, 6


def networks(seed: int = 0) -> RecurrentActorCritic:
    made = RecurrentActorCritic(D, A, 8, (12,), seed)
    generator = torch.Generator().manual_seed(seed)
    for network in (made.actor, made.critic):  # biases too, and logits that differ
        network.parameters.copy_(torch.randn(len(network.parameters), generator=generator) * 0.7)
    return made


def play(policy: GruPolicy, bits: np.ndarray, masks: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Actions and log-probabilities [T, B] along episodes [T, B, D]."""
    policy.begin(bits.shape[1])
    sampled = np.zeros(bits.shape[1], np.bool_)
    steps = [policy.act(*step, sampled) for step in zip(bits, masks, uniforms, strict=True)]
    return np.array([a for a, _ in steps]), np.array([p for _, p in steps])


def episodes(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = rng.random((STEPS, N, A)) < 0.7
    masks[:, :, 1] = True
    return rng.integers(0, 2, (STEPS, N, D)).astype(np.uint8), masks, rng.random((STEPS, N))


def test_acting_agrees_with_torch_step_by_step() -> None:
    made = networks()
    bits, masks, uniforms = episodes()
    actions, log_probs = play(GruPolicy(made.actor_weights()), bits, masks, uniforms)
    before = np.zeros((STEPS, N, A), np.float32)
    before[1:] = np.eye(A, dtype=np.float32)[actions[:-1]]
    inputs = torch.from_numpy(np.concatenate((bits.astype(np.float32), before), axis=2))
    logits = made.actor.forward(inputs).detach().masked_fill(~torch.from_numpy(masks), -1e9)
    expected = torch.log_softmax(logits, 2).numpy()
    np.testing.assert_allclose(log_probs, np.take_along_axis(expected, actions[:, :, None], 2)[:, :, 0], atol=2e-6)
    assert len(np.unique(actions)) > 2


def test_the_batch_changes_no_bit() -> None:
    policy = GruPolicy(networks().actor_weights())
    bits, masks, uniforms = episodes()
    actions, log_probs = play(policy, bits, masks, uniforms)
    for n in range(N):
        alone = play(policy, bits[:, n : n + 1], masks[:, n : n + 1], uniforms[:, n : n + 1])
        np.testing.assert_array_equal(alone[0][:, 0], actions[:, n])
        np.testing.assert_array_equal(alone[1][:, 0], log_probs[:, n])


def test_what_came_before_matters_and_ends_with_the_episode() -> None:
    policy = GruPolicy(networks().actor_weights())
    bits, masks, uniforms = episodes()
    first = play(policy, bits, masks, uniforms)[1]
    np.testing.assert_array_equal(play(policy, bits, masks, uniforms)[1], first)
    other = bits.copy()
    other[0] ^= 1
    assert not np.allclose(play(policy, other, masks, uniforms)[1][-1], first[-1])


def test_its_own_last_action_is_an_input() -> None:
    policy = GruPolicy(networks().actor_weights())
    bits, masks, uniforms = episodes()
    masks[:] = True
    one, two = (play(policy, bits, masks, np.vstack((np.full((1, N), u), uniforms[1:]))) for u in (0.0, 0.999))
    assert (one[0][0] != two[0][0]).all()
    assert not np.allclose(one[1][1], two[1][1])


def test_rows_of_other_episodes_are_refused() -> None:
    policy = GruPolicy(networks().actor_weights())
    policy.begin(2)
    with pytest.raises(ValueError, match="2 episodes were begun, 3 observations came"):
        policy.act(np.zeros((3, D), np.uint8), None, np.zeros(3), np.zeros(3, np.bool_))


def test_the_kind_is_read_off_the_weights() -> None:
    gru, mlp = networks().actor_weights(), random_weights(D, (8, 12), A)
    assert (gru.kind, mlp.kind) == ("gru", "mlp")
    assert gru.sizes.tolist() == mlp.sizes.tolist()
    assert isinstance(acting_policy(gru), GruPolicy)
    assert isinstance(acting_policy(PolicyWeights(mlp.sizes, mlp.values)), MlpPolicy)


def test_arrays_round_trip_and_the_seed_decides_them() -> None:
    state = torch.get_rng_state()
    one, again, two = (RecurrentActorCritic(D, A, 8, (12,), seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.actor.parameters, again.actor.parameters)
    assert not torch.equal(one.actor.parameters, two.actor.parameters)
    two.load_arrays(one.arrays())
    assert torch.equal(one.actor.parameters, two.actor.parameters)
    assert torch.equal(one.critic.parameters, two.critic.parameters)
    assert one.arrays()["network.actor.memory.input_weight"].shape == (D + A, 24)
