"""The networks: gradients, masks, first weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ray_rl.policy.actor_critic import ActorCritic, Mlp
from ray_rl.policy.network_inputs import NumberInputs


def autograd_forward(mlp: Mlp, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The same network on leaves that autograd follows; returns outputs and the flat parameters."""
    flat = mlp.parameters.clone().requires_grad_()
    values, start = inputs, 0
    for n_in, n_out in zip(mlp.sizes, mlp.sizes[1:], strict=False):
        if start:
            values = torch.relu(values)
        matrix = flat[start : start + n_in * n_out].view(n_in, n_out)
        start += n_in * n_out
        values = values @ matrix + flat[start : start + n_out]
        start += n_out
    return values, flat


@pytest.mark.parametrize("sizes", [(5, 3), (7, 16, 4), (6, 8, 9, 1)])
def test_written_out_passes_agree_with_autograd(sizes: tuple[int, ...]) -> None:
    mlp = Mlp(sizes, torch.float64)
    mlp.initialise(torch.Generator().manual_seed(1), 1.0)
    rng = np.random.default_rng(0)
    for n_rows in (10, 3, 20):  # growing and shrinking reuse of memory
        inputs = torch.from_numpy(rng.normal(size=(n_rows, sizes[0])))
        output_gradient = torch.from_numpy(rng.normal(size=(n_rows, sizes[-1])))
        expected, flat = autograd_forward(mlp, inputs)
        expected.backward(output_gradient)
        torch.testing.assert_close(mlp.forward(NumberInputs(inputs)), expected.detach())
        mlp.backward(output_gradient)
        assert flat.grad is not None
        torch.testing.assert_close(mlp.gradients, flat.grad)


def test_masked_log_probabilities_and_entropies_against_plain_arithmetic() -> None:
    rng = np.random.default_rng(0)
    networks = ActorCritic(9, 6, (16, 16), seed=3)
    networks.actor.parameters.mul_(4)
    observations = rng.integers(0, 2, (200, 9)).astype(np.float32)
    masks = rng.random((200, 6)) < 0.5
    masks[:, 0] |= ~masks.any(axis=1)
    masks[:5] = np.eye(6, dtype=bool)[:5]  # a single allowed action: log-probability and entropy 0
    actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
    log_probs, entropy, values = networks.log_probs_entropy_values(
        NumberInputs(torch.from_numpy(observations)), torch.from_numpy(masks), torch.from_numpy(actions)
    )
    hidden = observations.astype(np.float64)
    for number, (matrix, bias) in enumerate(networks.actor.layers):
        hidden = (np.maximum(hidden, 0) if number else hidden) @ matrix.double().numpy() + bias.double().numpy()
    for row, mask in enumerate(masks):
        logits = hidden[row, mask]
        exact = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        assert float(entropy[row]) == pytest.approx(-(np.exp(exact) * exact).sum(), abs=1e-5)
        chosen = int(mask[: actions[row]].sum())
        assert float(log_probs[row]) == pytest.approx(exact[chosen], abs=1e-5)
    assert entropy[:5].tolist() == [0.0] * 5
    assert values.shape == (200,)
    assert torch.isfinite(torch.cat([log_probs, entropy, values])).all()


def test_first_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, again, other = (ActorCritic(9, 6, (16,), seed=s).arrays() for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    assert not np.array_equal(first["network.actor.0.weight"], other["network.actor.0.weight"])
    assert not np.array_equal(first["network.actor.0.weight"], first["network.critic.0.weight"])


def test_first_policy_is_nearly_uniform_and_hidden_layers_keep_the_scale() -> None:
    networks = ActorCritic(30, 6, (64, 64), seed=1)
    observations = NumberInputs(torch.randn(50, 30, generator=torch.Generator().manual_seed(0)))
    _, entropy, _ = networks.log_probs_entropy_values(observations, None, torch.zeros(50, dtype=torch.int64))
    assert float(entropy.min()) > 0.999 * np.log(6)
    matrix = networks.actor.layers[0][0]
    torch.testing.assert_close(matrix @ matrix.t(), 2 * torch.eye(30), atol=1e-5, rtol=0)


def test_arrays_round_trip() -> None:
    one, two = (ActorCritic(9, 6, (16, 8), seed=s) for s in (1, 2))
    assert list(one.arrays()) == [
        f"network.{net}.{n}.{part}" for net in ("actor", "critic") for n in range(3) for part in ("weight", "bias")
    ]
    two.load_arrays(one.arrays())
    assert torch.equal(one.actor.parameters, two.actor.parameters)
    assert torch.equal(one.critic.parameters, two.critic.parameters)
    assert one.arrays()["network.actor.1.weight"].shape == (16, 8)
