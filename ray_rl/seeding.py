"""Seeds and random numbers: they belong to the episode, never to a worker.

A run seed and an episode's index give the episode's seed; the episode's seed and a step number give every uniform
that the step needs. Nothing here keeps state, so an episode replays alike in any process, in any order, in any batch.

The scalar functions are written so that numba can compile them: ``numba.njit(seeding.mix64)`` computes the same bits
as the numpy call.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""Step of a counter-based stream: 2**64 over the golden ratio, odd."""
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_30 = np.uint64(30)
_SHIFT_27 = np.uint64(27)
_SHIFT_31 = np.uint64(31)
_SHIFT_11 = np.uint64(11)
_UNIT = 1.0 / (1 << 53)

POLICY_SALT = np.uint64(0x706F6C696379)
"""Separates the stream that picks Blue's actions from the stream that the environment draws from."""


class Purpose(IntEnum):
    """What a seed is for; seeds of different purposes never coincide by construction."""

    TRAIN = 0
    EVALUATE = 1
    VALIDATE = 2
    WEIGHTS = 3
    MINIBATCH = 4
    BENCH = 5
    VERIFY = 6
    SEARCH = 7
    REPLACE = 8


def derive_seed(run_seed: int, purpose: Purpose, *key: int) -> int:
    """Derive an independent seed from a run's seed.

    Args:
        run_seed: The run's own seed, 0 or more.
        purpose: What the seed is for.
        *key: Numbers that tell seeds of one purpose apart, for example an episode's index.

    Returns:
        An integer in [0, 2**63), by numpy's ``SeedSequence``.
    """
    sequence = np.random.SeedSequence(run_seed, spawn_key=(int(purpose), *key))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def mix64(x: Any) -> Any:
    """Scramble 64 bits: the finaliser of SplitMix64 (Steele, Lea, Flood 2014, figure 16).

    Args:
        x: uint64 scalar, or an array of them.
    """
    x = (x ^ (x >> _SHIFT_30)) * _MIX_1
    x = (x ^ (x >> _SHIFT_27)) * _MIX_2
    return x ^ (x >> _SHIFT_31)


def unit_interval(bits: Any) -> Any:
    """Map 64 random bits to a float64 in [0, 1), keeping the upper 53.

    Args:
        bits: uint64 scalar, or an array of them.
    """
    return (bits >> _SHIFT_11) * _UNIT


def episode_seeds(run_seed: int, purpose: Purpose, first: int, count: int) -> NDArray[np.uint64]:
    """Seeds of consecutive episodes: a hash of the index, keyed by what `derive_seed` gives for run and purpose.

    Args:
        run_seed: The run's own seed, 0 or more.
        purpose: What the episodes are for.
        first: Index of the first.
        count: How many.

    Returns:
        [count] uint64 in [0, 2**63); `mix64` is a bijection, so they differ as long as 63 bits can tell them apart.
    """
    key = np.uint64(derive_seed(run_seed, purpose))
    indices = np.arange(first, first + count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        seeds: NDArray[np.uint64] = mix64(key + indices * GOLDEN) >> np.uint64(1)
    return seeds


def policy_uniforms(seeds: NDArray[np.uint64], step: int | NDArray[np.int64]) -> NDArray[np.float64]:
    """The uniform that picks Blue's action, for several episodes at the same step number.

    Args:
        seeds: [B] uint64, the episodes' seeds.
        step: 0-based number of the step within the episode, or several of them that broadcast against the seeds.

    Returns:
        [B] float64 in [0, 1). The compiled rollout computes the same number from the same seed and step.
    """
    with np.errstate(over="ignore"):
        counter = (np.asarray(step).astype(np.uint64) + np.uint64(1)) * GOLDEN
        uniforms: NDArray[np.float64] = unit_interval(mix64(mix64(seeds ^ POLICY_SALT) + counter))
    return uniforms
