"""Generalised advantage estimation over whole episodes (Schulman et al. 2016, equation 16)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


def generalised_advantages(
    rewards: NDArray[np.float32],
    values: NDArray[np.floating[Any]],
    final_values: NDArray[np.floating[Any]],
    lengths: NDArray[np.int32],
    terminated: NDArray[np.bool_],
    discount: float,
    gae_lambda: float,
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """Advantages and returns of N episodes that lie one after another, M steps in all.

    Backwards through each episode: the surprise of a step is its reward plus the discounted value of what comes next,
    minus its own value; its advantage is that surprise plus γλ times the advantage of the next step. After the last
    step comes the value of the final observation if the episode was truncated (it would have gone on), and 0 if it
    terminated (nothing follows).

    Args:
        rewards: [M] float32.
        values: [M] float32 or float64, V of the observation before each step.
        final_values: [N] as `values`, V of the observation after the last step of each episode.
        lengths: [N] int32, their sum is M.
        terminated: [N] bool.
        discount: γ.
        gae_lambda: λ.

    Returns:
        advantages [M] and returns [M], of the type of `values`; returns are advantages plus values.
    """
    advantages = np.empty_like(values)
    returns = np.empty_like(values)
    _backwards(rewards, values, final_values, lengths, terminated, discount, gae_lambda, advantages, returns)
    return advantages, returns


@njit(cache=True, nogil=True)
def _backwards(
    rewards: NDArray[np.float32],
    values: NDArray[np.floating[Any]],
    final_values: NDArray[np.floating[Any]],
    lengths: NDArray[np.int32],
    terminated: NDArray[np.bool_],
    discount: float,
    gae_lambda: float,
    advantages: NDArray[np.floating[Any]],
    returns: NDArray[np.floating[Any]],
) -> None:
    """Fill advantages [M] and returns [M]; sums are kept in float64."""
    end = 0
    for episode in range(lengths.shape[0]):
        start = end
        end = start + lengths[episode]
        next_value = 0.0 if terminated[episode] else np.float64(final_values[episode])  # scalar
        advantage = 0.0
        for step in range(end - 1, start - 1, -1):
            value = np.float64(values[step])
            surprise = rewards[step] + discount * next_value - value
            advantage = surprise + discount * gae_lambda * advantage
            advantages[step] = advantage
            returns[step] = advantage + value
            next_value = value
