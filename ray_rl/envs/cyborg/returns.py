"""Left to its own draws, does the simulator return what CybORG returns? Two one-sided tests of equivalence.

The equality of single steps says nothing of how often each random outcome is drawn; this does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ray_rl.envs.cage2 import simulator as s
from ray_rl.envs.cage2.constants import CORRECTED, RULE_SETS, STOCK
from ray_rl.envs.cage2.sightings import sighting_of
from ray_rl.envs.cage2.traces import RED_CODES
from ray_rl.envs.cyborg.blue_policies import MakeBlue, Seen

MARGIN = 0.25
"""Means count as equivalent when they are less than this many standard deviations of a single return apart."""
LEVEL = 0.05
"""Chance of calling means equivalent that are a margin apart."""
DIFFERENCE_LEVEL = 0.001
"""Chance of calling equal means different."""
FEWEST = 30
"""Episodes below which nothing is decided: the tests take means for normally distributed."""


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Comparison of two samples of returns.

    Attributes:
        n: Sizes of the samples: CybORG, simulator.
        means: Their means.
        deviation: Pooled standard deviation of a single return; None, like half_width and margin, for fewer than
            `FEWEST` episodes.
        difference: Simulator minus CybORG.
        half_width: Of the 90 % interval of the difference, which decides the two one-sided tests at 5 %.
        margin: Largest difference that counts as equivalent.
        verdict: ``equivalent``: the interval lies within the margin. ``different``: a two-sided test at 0.1 % says
            that the means differ. ``undecided``: neither, or fewer than `FEWEST` episodes; more of them tell.
    """

    n: tuple[int, int]
    means: tuple[float, float]
    deviation: float | None
    difference: float
    half_width: float | None
    margin: float | None
    verdict: str


def compare_returns(cyborg: NDArray[np.float64], simulator: NDArray[np.float64]) -> Equivalence:
    """Test whether two samples of returns have equivalent means.

    Args:
        cyborg: [N] returns of CybORG, one or more.
        simulator: [M] returns of the simulator, one or more.
    """
    n, m = len(cyborg), len(simulator)
    means = (float(cyborg.mean()), float(simulator.mean()))
    if min(n, m) < FEWEST:
        return Equivalence((n, m), means, None, means[1] - means[0], None, None, "undecided")
    variances = (float(cyborg.var(ddof=1)), float(simulator.var(ddof=1)))
    deviation = math.sqrt((variances[0] + variances[1]) / 2)
    error = math.sqrt(variances[0] / n + variances[1] / m)
    difference = float(simulator.mean() - cyborg.mean())
    half_width = NormalDist().inv_cdf(1 - LEVEL) * error
    margin = MARGIN * deviation
    if abs(difference) > NormalDist().inv_cdf(1 - DIFFERENCE_LEVEL / 2) * error + 1e-9:
        verdict = "different"
    else:
        verdict = "equivalent" if abs(difference) + half_width <= margin + 1e-9 else "undecided"
    return Equivalence((n, m), means, deviation, difference, half_width, margin, verdict)


def simulated_returns(
    red: str, make_blue: MakeBlue, rules: str, seeds: NDArray[np.uint64], n_steps: int
) -> NDArray[np.float64]:
    """Returns of episodes in the simulator, which draws for itself.

    Args:
        red: ``bline``, ``meander`` or ``sleep``.
        make_blue: Makes Blue's policy for an episode.
        rules: Rule set.
        seeds: [N] one per episode.
        n_steps: Steps per episode.
    """
    state = np.empty(s.STATE_SIZE, dtype=np.int64)
    returns = np.zeros(len(seeds), dtype=np.float64)
    for episode, seed in enumerate(seeds):
        blue, seen = make_blue(int(seed)), Seen()
        s.reset_state(state, seed, RED_CODES[red], RULE_SETS.index(rules))
        for step in range(n_steps):
            returns[episode] += s.step_state(state, blue.act(seen), s.NOTHING_FORCED)
            reported = (int(state[s.EVENT_HOST]),) if state[s.RED_DETECTED] else ()
            tables = (int(s.table_of(state, STOCK)), int(s.table_of(state, CORRECTED)))
            seen = Seen(tables, reported, step + 1, int(sighting_of(state)))
    return returns
