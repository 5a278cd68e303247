"""Distributions over actions and the derivative of the loss by the logits: compiled, by torch, and by autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ray_rl.ppo.distributions import Distributions, distributions, logit_gradient

SHAPES = [(1, 1), (31, 5), (32, 16), (33, 17), (100, 53), (64, 64), (200, 145)]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mask(n_rows: int, n_actions: int) -> Tensor:
    """Some are allowed in each row: in the first only one, in the last all."""
    allowed = torch.rand(n_rows, n_actions, generator=torch.Generator().manual_seed(3)) < 0.6
    allowed[:, -1] = True
    allowed[0, :-1] = False
    allowed[-1] = True
    return allowed


def plain(logits: Tensor, allowed: Tensor | None) -> Distributions:
    """As a textbook has it, in float64; autograd follows."""
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    log_probs = torch.log_softmax(logits, 1)
    probs = log_probs.exp()
    return Distributions(log_probs, probs, -(probs * log_probs.masked_fill(probs == 0, 0)).sum(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("scale", [1e-3, 3.0, 300.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_they_are_the_softmax_of_what_is_allowed(
    shape: tuple[int, int], scale: float, masked: bool, dtype: torch.dtype
) -> None:
    logits = drawn(*shape).mul_(scale).to(dtype)
    allowed = mask(*shape) if masked else None
    found, expected = distributions(logits, allowed), plain(logits.double(), allowed)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(found.probs.double(), expected.probs, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found.entropies.double(), expected.entropies, rtol=tolerance, atol=4 * tolerance)
    likely = expected.probs > 0
    torch.testing.assert_close(
        found.log_probs.double()[likely], expected.log_probs[likely], rtol=tolerance, atol=4 * tolerance
    )
    if allowed is not None:
        assert (found.probs[~allowed] == 0).all()
        assert (found.log_probs[~allowed] < -1e8).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_derivative_is_autograds(shape: tuple[int, int], masked: bool, dtype: torch.dtype) -> None:
    n_rows, n_actions = shape
    logits = drawn(*shape).mul_(2).requires_grad_()
    allowed = mask(*shape) if masked else None
    weights, gradients = drawn(n_rows, seed=1).abs(), drawn(n_rows, seed=2)
    actions = torch.full((n_rows,), n_actions - 1)
    expected = plain(logits, allowed)
    chosen = expected.log_probs[torch.arange(n_rows), actions]
    ((gradients * chosen).sum() - (weights * expected.entropies).sum()).backward()
    found = logit_gradient(distributions(logits.detach().to(dtype), allowed), weights.to(dtype), gradients.to(dtype))
    found[torch.arange(n_rows), actions] += gradients.to(dtype)
    assert logits.grad is not None
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(found.double(), logits.grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_no_number_stays_none(dtype: torch.dtype) -> None:
    logits = drawn(3, 20).to(dtype)
    logits[1, 7] = torch.nan
    found = distributions(logits, None)
    assert found.probs[1].isnan().all()
    assert found.entropies.isnan().tolist() == [False, True, False]
    assert not found.probs[[0, 2]].isnan().any()
