"""What the tests of collecting share: weights, requests, chunks in order, and all collectors by name."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import get_args

import numpy as np
import ray

from ray_rl.collect.api import Chunk
from ray_rl.config import CollectorName, EnvConfig
from ray_rl.envs.masks import restore_masks
from ray_rl.envs.registry import make_env
from ray_rl.episodes import EpisodeBatch, EpisodeRequest, concatenate_in_order, episode_requests
from ray_rl.policy.inference import PolicyWeights
from ray_rl.policy.recurrent import RecurrentActorCritic
from ray_rl.seeding import Purpose

ALL_COLLECTORS: tuple[str, ...] = get_args(CollectorName)


def weights_for(env: EnvConfig, seed: int = 0) -> PolicyWeights:
    made = make_env(env)
    spec = made.spec
    made.close()
    rng = np.random.default_rng(seed)
    sizes = (spec.observation_size, 8, spec.n_actions)
    return PolicyWeights.from_layers(
        [
            (rng.normal(0, 0.5, pair).astype(np.float32), rng.normal(0, 0.5, pair[1]).astype(np.float32))
            for pair in itertools.pairwise(sizes)
        ]
    )


def remembering_weights_for(env: EnvConfig) -> PolicyWeights:
    """A GRU whose every weight is drawn anew."""
    made = make_env(env)
    spec = made.spec
    made.close()
    weights = RecurrentActorCritic(spec.observation_size, spec.n_actions, 6, (8,), 0).actor_weights()
    rng = np.random.default_rng(0)
    return PolicyWeights(weights.sizes, rng.normal(0, 0.5, len(weights.values)).astype(np.float32))


def requests_for(count: int, first: int = 0, purpose: Purpose = Purpose.TRAIN) -> list[EpisodeRequest]:
    return episode_requests(11, first, count, red_agent="mixed", max_steps=12, purpose=purpose)


def batch_of(chunk: Chunk) -> EpisodeBatch:
    batch = ray.get(chunk.batch) if isinstance(chunk.batch, ray.ObjectRef) else chunk.batch
    assert isinstance(batch, EpisodeBatch)
    return batch


def joined(chunks: Iterable[Chunk]) -> EpisodeBatch:
    return concatenate_in_order([batch_of(chunk) for chunk in chunks])


def indices_of(chunks: Iterable[Chunk]) -> list[int]:
    return sorted(index for chunk in chunks for index in chunk.summary.indices.tolist())


def assert_same_episodes(a: EpisodeBatch, b: EpisodeBatch) -> None:
    a, b = restore_masks(a), restore_masks(b)
    names = ("observations", "action_masks", "actions", "behaviour_log_probs", "rewards", "lengths", "terminated")
    for name in (*names, "final_observations", "indices"):
        left, right = getattr(a, name), getattr(b, name)
        np.testing.assert_array_equal(left, right, err_msg=name)
        assert (left is None) == (right is None)
        assert left is None or left.dtype == right.dtype, name
    np.testing.assert_array_equal(a.extras["red_agent"], b.extras["red_agent"])
