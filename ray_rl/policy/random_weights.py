"""Random weights: a policy to measure with before any is trained."""

from __future__ import annotations

import itertools

import numpy as np

from ray_rl.policy.inference import PolicyWeights


def random_weights(
    observation_size: int, hidden_sizes: tuple[int, ...], n_actions: int, seed: int = 0
) -> PolicyWeights:
    """Draw an MLP whose layers keep the scale of their input, with biases of 0.

    Args:
        observation_size: D.
        hidden_sizes: Units of each hidden layer.
        n_actions: A.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    sizes = (observation_size, *hidden_sizes, n_actions)
    layers = [
        (rng.normal(0, 1 / np.sqrt(n_in), (n_in, n_out)).astype(np.float32), np.zeros(n_out, dtype=np.float32))
        for n_in, n_out in itertools.pairwise(sizes)
    ]
    return PolicyWeights.from_layers(layers)
