"""The terms of PPO's loss as functions of tensors, each with its derivative, and what is reported beside them.

M steps of a minibatch.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = 1e-12


def clipped_surrogate(log_ratios: Tensor, advantages: Tensor, clip_range: float) -> tuple[Tensor, Tensor]:
    """The clipped surrogate objective, negated (Schulman et al. 2017, equation 7).

    Args:
        log_ratios: [M] log π(a|s) minus the log-probability when the action was taken.
        advantages: [M].
        clip_range: ε.

    Returns:
        The mean loss (scalar), and its derivative by log π(a|s) [M].
    """
    ratios = log_ratios.exp()
    unclipped = ratios * advantages
    clipped = ratios.clamp(1 - clip_range, 1 + clip_range) * advantages
    # Where clipping makes the objective smaller, it is constant.
    gradient = torch.where(unclipped <= clipped, unclipped, 0.0).mul_(-1 / len(ratios))
    return -torch.minimum(unclipped, clipped).mean(), gradient


def squared_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float | None
) -> tuple[Tensor, Tensor]:
    """Mean squared error of the values, optionally of the worse of value and clipped value.

    Args:
        values: [M].
        old_values: [M] values before the update; read only when clipping.
        returns: [M].
        clip_range: How far a value may move from its old value before it stops to count; None: any distance.

    Returns:
        The mean loss (scalar), and its derivative by the values [M].
    """
    errors = values - returns
    if clip_range is None:
        return errors.square().mean(), errors.mul(2 / len(values))
    changes = values - old_values
    clipped_errors = old_values + changes.clamp(-clip_range, clip_range) - returns
    inside = changes.abs() <= clip_range
    counts = inside | (errors.square() > clipped_errors.square())
    loss = torch.maximum(errors.square(), clipped_errors.square()).mean()
    return loss, torch.where(counts, errors, 0.0).mul_(2 / len(values))


def approximate_kl(log_ratios: Tensor) -> Tensor:
    """KL divergence from the old policy to the new one, by the estimator r − 1 − log r, which is never negative.

    Source: Schulman 2020, http://joschu.net/blog/kl-approx.html, estimator k3.

    Args:
        log_ratios: [M] log of new over old probability of the actions taken under the old policy.
    """
    return (log_ratios.expm1() - log_ratios).mean()


def clip_fraction(log_ratios: Tensor, clip_range: float) -> Tensor:
    """Share of steps whose probability ratio lies outside 1 ± `clip_range`.

    Args:
        log_ratios: [M].
        clip_range: ε.
    """
    return (log_ratios.expm1().abs() > clip_range).float().mean()


def explained_variance(error_variance: float, return_variance: float) -> float:
    """1 − Var(returns − values) / Var(returns); 1 is perfect, 0 as good as a constant, NaN when returns never vary."""
    return 1.0 - error_variance / return_variance if return_variance >= _TINY else float("nan")
