"""Seeds belong to episodes: stable for ever, apart for every purpose, alike in numpy and numba."""

from __future__ import annotations

import numpy as np
from numba import njit

from ray_rl.seeding import GOLDEN, POLICY_SALT, Purpose, episode_seeds, mix64, policy_uniforms, unit_interval


def test_seeds_never_change_between_versions() -> None:
    """Published scores name their seeds: these values are part of the format."""
    assert episode_seeds(0, Purpose.TRAIN, 0, 2).tolist() == [4735632414616502459, 5867093573576521588]
    assert policy_uniforms(np.array([1], dtype=np.uint64), 0)[0] == 0.4273623544238744


def test_purposes_and_indices_never_share_seeds() -> None:
    seeds = {int(seed) for purpose in Purpose for seed in episode_seeds(3, purpose, 0, 500)}
    assert len(seeds) == 500 * len(Purpose)
    assert episode_seeds(3, Purpose.TRAIN, 7, 1)[0] == episode_seeds(3, Purpose.TRAIN, 0, 8)[7]
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_mix64_is_the_splitmix64_finaliser() -> None:
    """First outputs of SplitMix64 from state 1234567, as published with Java's SplittableRandom test vectors."""
    state = np.uint64(1234567)
    outputs = []
    with np.errstate(over="ignore"):
        for _ in range(3):
            state += GOLDEN
            outputs.append(int(mix64(state)))
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_numba_computes_the_same_uniforms() -> None:
    mix, unit = njit(mix64), njit(unit_interval)

    @njit
    def compiled(seed: np.uint64, step: int) -> float:
        return unit(mix(mix(seed ^ POLICY_SALT) + np.uint64(step + 1) * GOLDEN))

    seeds = np.array([0, 1, 2**62 + 12345, 2**63 - 1], dtype=np.uint64)
    for step in (0, 1, 99):
        expected = [compiled(seed, step) for seed in seeds]
        np.testing.assert_array_equal(policy_uniforms(seeds, step), expected)


def test_uniforms_fill_the_unit_interval_evenly() -> None:
    """20 bins of 100,000 draws: chi-squared with 19 degrees of freedom exceeds 60 once in 250,000 times."""
    seeds = np.arange(1000, dtype=np.uint64)
    draws = np.concatenate([policy_uniforms(seeds, step) for step in range(100)])
    counts, _ = np.histogram(draws, bins=20, range=(0, 1))
    assert ((counts - 5000) ** 2 / 5000).sum() < 60
    assert draws.min() >= 0
    assert draws.max() < 1
