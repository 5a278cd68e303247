"""The test of equivalence: what it calls equivalent, different and undecided."""

from __future__ import annotations

import numpy as np
import pytest

from ray_rl.envs.cyborg.returns import FEWEST, MARGIN, compare_returns
from ray_rl.envs.cyborg.side_by_side import share_out


def sample(n: int, mean: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 100.0, n)


def test_equal_and_shifted_means_are_told_apart() -> None:
    assert compare_returns(sample(500, -700, 0), sample(2000, -700, 1)).verdict == "equivalent"
    assert compare_returns(sample(500, -700, 0), sample(2000, -660, 1)).verdict == "different"


def test_few_episodes_decide_nothing() -> None:
    assert compare_returns(sample(FEWEST, -700, 0), sample(2000, -700, 1)).verdict == "undecided"
    few = compare_returns(sample(2, -700, 0), sample(2000, 0, 1))
    assert (few.verdict, few.half_width, few.margin) == ("undecided", None, None)


def test_returns_without_spread_are_equivalent_only_when_equal() -> None:
    zeros = np.zeros(50)
    assert compare_returns(zeros, zeros).verdict == "equivalent"
    assert compare_returns(zeros, zeros - 1).verdict == "different"


def test_means_a_margin_apart_are_rarely_called_equivalent() -> None:
    """At the edge of the margin two one-sided tests at 5 % say equivalent in at most 1 of 20 cases: here of 400."""
    shift = MARGIN * 100.0
    equivalent = sum(
        compare_returns(sample(400, 0, 2 * k), sample(400, shift, 2 * k + 1)).verdict == "equivalent"
        for k in range(400)
    )
    assert equivalent <= 35  # mean 20, standard deviation 4.4


@pytest.mark.parametrize("n_episodes", [1, 100, 2000])
def test_episodes_are_shared_out_over_all_pairs(n_episodes: int) -> None:
    shares = share_out(("sleep", "random"), n_episodes)
    assert len(shares) == 6
    assert sum(count for _, _, count in shares) >= n_episodes
    assert min(count for _, _, count in shares) >= 1


def test_pairs_with_a_sleeping_red_get_few_episodes_but_enough_to_compare_means() -> None:
    blues = ("sleep", "random", "react_restore", "react_remove", "mixed", "probing", "trained")
    counts = {red: {count for r, _, count in share_out(blues, 2000) if r == red} for red in ("bline", "sleep")}
    assert counts["sleep"] == {FEWEST}
    assert min(counts["bline"]) > 4 * FEWEST
    assert {count for _, _, count in share_out(blues, 210)} == {10}
