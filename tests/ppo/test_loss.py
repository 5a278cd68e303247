"""The loss terms: what they say, and their derivatives against autograd's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ray_rl.ppo.adam import Adam, scale_down
from ray_rl.ppo.loss import (
    approximate_kl,
    clip_fraction,
    clipped_surrogate,
    explained_variance,
    squared_value_loss,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_surrogate_and_its_derivative() -> None:
    log_ratios = normal(500).mul_(0.4).requires_grad_()
    advantages = normal(500, seed=1)
    ratios = log_ratios.exp()
    expected = -torch.minimum(ratios * advantages, ratios.clamp(0.8, 1.2) * advantages).mean()
    expected.backward()
    loss, gradient = clipped_surrogate(log_ratios.detach(), advantages, 0.2)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, log_ratios.grad)


@pytest.mark.parametrize(
    ("ratio", "advantage", "pulls"),
    [(1.5, 1.0, False), (1.5, -1.0, True), (0.5, 1.0, True), (0.5, -1.0, False), (1.1, 1.0, True), (0.9, -1.0, True)],
)
def test_a_ratio_beyond_the_range_stops_pulling_only_where_it_has_gone_the_right_way(
    ratio: float, advantage: float, pulls: bool
) -> None:
    _, gradient = clipped_surrogate(torch.tensor([math.log(ratio)]), torch.tensor([advantage]), 0.2)
    assert (float(gradient) != 0) == pulls


@pytest.mark.parametrize("clip_range", [None, 0.3])
def test_value_loss_and_its_derivative(clip_range: float | None) -> None:
    values = normal(500).requires_grad_()
    old_values, returns = normal(500, seed=1), normal(500, seed=2)
    losses = (values - returns) ** 2
    if clip_range is not None:
        clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
        losses = torch.maximum(losses, (clipped - returns) ** 2)
    losses.mean().backward()
    loss, gradient = squared_value_loss(values.detach(), old_values, returns, clip_range)
    torch.testing.assert_close(loss, losses.mean().detach())
    torch.testing.assert_close(gradient, values.grad)


def test_a_clipped_value_that_has_moved_far_enough_counts_no_more() -> None:
    # old value 0, return 2, range 0.5: at 0.4 it still moves; at 0.7 the clipped error (2 − 0.5) is the worse one.
    zero, two = torch.zeros(1), torch.full((1,), 2.0)
    assert float(squared_value_loss(torch.tensor([0.4]), zero, two, 0.5)[1]) < 0
    loss, gradient = squared_value_loss(torch.tensor([0.7]), zero, two, 0.5)
    assert float(loss) == pytest.approx(1.5**2)
    assert float(gradient) == 0


def test_kl_estimate_is_near_the_divergence_and_never_negative() -> None:
    old, new = torch.log_softmax(normal(2, 5).mul_(0.5), 1)
    exact = float((old.exp() * (old - new)).sum())
    drawn = torch.multinomial(old.exp(), 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    assert float(approximate_kl((new - old)[drawn])) == pytest.approx(exact, rel=0.02)
    assert float(approximate_kl(normal(3) * 1e-4)) >= 0


def test_clip_fraction_counts_both_sides() -> None:
    assert float(clip_fraction(torch.tensor([0.5, 0.81, 1.0, 1.19, 1.21, 3.0]).log(), 0.2)) == 0.5


def test_explained_variance() -> None:
    assert explained_variance(0.0, 2.0) == 1.0
    assert explained_variance(2.0, 2.0) == 0.0
    assert explained_variance(8.0, 2.0) == -3.0
    assert math.isnan(explained_variance(0.0, 0.0))


def test_adam_is_adam() -> None:
    start = normal(50)
    parameter = torch.nn.Parameter(start.clone())
    theirs = torch.optim.Adam([parameter], lr=0.01, eps=1e-5)
    parameters = start.clone()
    ours = Adam.fresh(parameters)
    for seed in range(20):
        gradients = normal(50, seed=seed)
        parameter.grad = gradients.clone()
        theirs.step()
        ours.step(parameters, gradients, 0.01)
    torch.testing.assert_close(parameters, parameter.data, rtol=1e-10, atol=1e-12)


def test_gradients_are_scaled_down_but_never_up() -> None:
    gradients = torch.tensor([3.0, 4.0])
    assert float(scale_down(gradients, 0.5)) == 5.0
    np.testing.assert_allclose(gradients, [0.3, 0.4], rtol=1e-5)
    assert float(scale_down(gradients, 0.6)) == pytest.approx(0.5)
    np.testing.assert_allclose(gradients, [0.3, 0.4], rtol=1e-5)
