"""Episodes for the learner's tests, acted by the compiled policy as in a real run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ray_rl.envs.api import EnvSpec
from ray_rl.episodes import EpisodeBatch, action_dtype
from ray_rl.policy.inference import MlpPolicy, PolicyWeights

N_SYMBOLS = 5
IDENTITY = EnvSpec("identity", N_SYMBOLS, True, N_SYMBOLS, False)
"""Shows one of five symbols; naming it is worth 1."""

MASKED = EnvSpec("masked", 11, True, 7, True)
"""Random bits, random masks, random rewards."""


def identity_episodes(weights: PolicyWeights, version: int, first: int, count: int, length: int = 8) -> EpisodeBatch:
    rng = np.random.default_rng(first)
    symbols = rng.integers(0, N_SYMBOLS, (count, length + 1))
    bits = np.packbits(np.eye(N_SYMBOLS, dtype=np.uint8)[symbols], axis=-1)
    n_steps = count * length
    observations = np.eye(N_SYMBOLS, dtype=np.uint8)[symbols[:, :-1].ravel()]
    actions, log_probs = MlpPolicy(weights).act(observations, None, rng.random(n_steps), np.zeros(n_steps, np.bool_))
    return EpisodeBatch(
        observations=bits[:, :-1].reshape(n_steps, -1),
        action_masks=None,
        actions=actions.astype(action_dtype(N_SYMBOLS)),
        behaviour_log_probs=log_probs,
        rewards=(actions == symbols[:, :-1].ravel()).astype(np.float32),
        lengths=np.full(count, length, dtype=np.int32),
        terminated=np.ones(count, dtype=np.bool_),
        final_observations=bits[:, -1],
        indices=np.arange(first, first + count),
        policy_version=version,
    )


def masked_episodes(weights: PolicyWeights, version: int, first: int, count: int) -> EpisodeBatch:
    """Episodes of random lengths, some terminated, some truncated."""
    rng = np.random.default_rng(first)
    lengths = rng.integers(1, 20, count).astype(np.int32)
    n_steps = int(lengths.sum())
    observations = rng.integers(0, 2, (n_steps, MASKED.observation_size)).astype(np.uint8)
    masks = random_masks(rng, n_steps, MASKED.n_actions)
    actions, log_probs = MlpPolicy(weights).act(observations, masks, rng.random(n_steps), np.zeros(n_steps, np.bool_))
    finals = rng.integers(0, 2, (count, MASKED.observation_size)).astype(np.uint8)
    return EpisodeBatch(
        observations=np.packbits(observations, axis=1),
        action_masks=np.packbits(masks, axis=1),
        actions=actions.astype(action_dtype(MASKED.n_actions)),
        behaviour_log_probs=log_probs,
        rewards=rng.normal(size=n_steps).astype(np.float32),
        lengths=lengths,
        terminated=rng.random(count) < 0.5,
        final_observations=np.packbits(finals, axis=1),
        indices=np.arange(first, first + count),
        policy_version=version,
    )


def random_masks(rng: np.random.Generator, n_rows: int, n_actions: int) -> NDArray[np.bool_]:
    """At least one action is allowed in each row."""
    masks = rng.random((n_rows, n_actions)) < 0.6
    masks[np.arange(n_rows), rng.integers(0, n_actions, n_rows)] = True
    return masks
