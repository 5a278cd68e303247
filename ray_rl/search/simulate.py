"""Searches over scores that are known: how soon does a method find the best order?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_rl.search.gaussian_process import DISTANCES, Observations
from ray_rl.search.methods import Rule, propose
from ray_rl.workflow.orders import N_ORDERS, N_TYPES, ORDERS


def synthetic_truth(seed: int) -> NDArray[np.float64]:
    """A score of every order: [120] float64, smooth in Kendall's distance, with one peak that is known.

    The further an order lies from a hidden best one the lower it scores, and on top of it each type has a preference
    for its place; the sum is scaled to a deviation of 1.

    Args:
        seed: Decides the hidden order and the preferences.
    """
    generator = np.random.default_rng(seed)
    best = int(generator.integers(N_ORDERS))
    preference = generator.normal(size=(N_TYPES, N_TYPES))
    places = np.arange(N_TYPES)
    by_place = preference[ORDERS, places].sum(axis=1)
    score = -DISTANCES[best] + 0.5 * by_place
    truth: NDArray[np.float64] = (score - score.mean()) / score.std()
    return truth


@dataclass(frozen=True, slots=True)
class Search:
    """One search over known scores.

    Attributes:
        tried: [n] orders, as they were tried.
        gaps: [n] float64: by how much the true score of the order that looked best so far lies below the best of all;
            before any order met the gate, that of the worst.
    """

    tried: NDArray[np.int64]
    gaps: NDArray[np.float64]


def simulate(truth: NDArray[np.float64], noise: NDArray[np.float64], rule: Rule, n: int) -> Search:
    """Search over known scores, each observed once with noise.

    Args:
        truth: [120] true scores; NaN where an order does not meet the gate: to try it tells nothing.
        noise: [120] standard deviation of an observation.
        rule: How to choose; its seed decides the noise, too, which is the same for all methods.
        n: Trainings; fewer where all orders were tried.
    """
    seen = truth + noise * np.random.default_rng((rule.seed, 1)).normal(size=N_ORDERS)
    tried: list[int] = []
    while len(tried) < n and (order := propose(rule, tried, _observed(tried, seen, noise), ())) is not None:
        tried.append(order)
    gaps = np.full(len(tried), np.nanmax(truth) - np.nanmin(truth))
    for k in range(len(tried)):
        known = _observed(tried[: k + 1], seen, noise)
        if len(known.orders):
            gaps[k] = np.nanmax(truth) - truth[known.orders[np.argmax(known.scores)]]
    return Search(np.array(tried, dtype=np.int64), gaps)


def _observed(tried: list[int], seen: NDArray[np.float64], noise: NDArray[np.float64]) -> Observations:
    orders = np.array([order for order in tried if not np.isnan(seen[order])], dtype=np.int64)
    return Observations(orders, seen[orders], noise[orders] ** 2)
