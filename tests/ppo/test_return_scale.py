"""Scaling returns changes the units of the critic, never its values."""

from __future__ import annotations

import pytest
import torch

from ray_rl.policy.actor_critic import Mlp
from ray_rl.policy.network_inputs import NumberInputs
from ray_rl.ppo.return_scale import ReturnScale, rescale_critic


def test_a_new_scale_leaves_every_value_as_it_was() -> None:
    critic = Mlp((4, 8, 1), torch.float64)
    critic.initialise(torch.Generator().manual_seed(0), 1.0)
    inputs = NumberInputs(torch.randn(20, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    scale = ReturnScale()
    for moments in ((-180.0, 10_000.0), (5.5, 0.25), (0.0, 0.0)):
        before = scale.values(critic.forward(inputs))
        changed = scale.with_batch(*moments)
        rescale_critic(critic, scale, changed)
        scale = changed
        torch.testing.assert_close(scale.values(critic.forward(inputs)), before)


def test_the_first_batch_decides_alone_and_later_ones_move_it() -> None:
    first = ReturnScale().with_batch(2.0, 1.0)
    assert (first.mean, first.deviation) == (2.0, 1.0)
    second = first.with_batch(6.0, 0.0)
    assert second.mean == 4.0  # (2 + 6) / 2
    assert second.mean_square == (5 + 36) / 2
    many = second
    for _ in range(300):
        many = many.with_batch(12.0, 4.0)
    assert many.mean == pytest.approx(12.0)
    assert many.deviation == pytest.approx(2.0, rel=1e-3)


def test_there_and_back() -> None:
    scale = ReturnScale(3.0, 13.0, 5)
    values = torch.tensor([0.0, 3.0, 7.0])
    assert scale.normalised(values).tolist() == [-1.5, 0.0, 2.0]
    assert scale.values(scale.normalised(values)).tolist() == values.tolist()


def test_returns_that_never_vary_are_not_magnified() -> None:
    assert ReturnScale().with_batch(7.0, 0.0).deviation == 1e-2
