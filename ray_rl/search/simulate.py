"""Searches over scores that are known: how soon does a method find the best order?"""

from __future__ import annotations

from dataclasses import replace

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


def simulate(truth: NDArray[np.float64], noise: NDArray[np.float64], rule: Rule, n: int) -> NDArray[np.int64]:
    """Search over known scores, each observed once with noise.

    Args:
        truth: [120] true scores.
        noise: [120] standard deviation of an observation.
        rule: How to choose; its seed decides the noise, too, which is the same for all methods.
        n: Trainings.

    Returns:
        [n] the orders in which they were tried.
    """
    seen = truth + noise * np.random.default_rng((rule.seed, 1)).normal(size=N_ORDERS)
    tried: list[int] = []
    for _ in range(n):
        order = propose(rule, tried, _observed(tried, seen, noise), ())
        if order is None:
            break
        tried.append(order)
    return np.array(tried, dtype=np.int64)


def regret_curves(
    truth: NDArray[np.float64], noise: NDArray[np.float64], rule: Rule, n: int, repeats: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Regret over the trainings of repeated searches.

    Args:
        truth: [120] true scores.
        noise: [120] standard deviation of an observation.
        rule: How to choose; repetition r uses its seed + r.
        n: Trainings.
        repeats: Searches.

    Returns:
        Two arrays [repeats, n]: how far the true score of the order that looked best so far lies below the best of
        all, and the sum of how far each tried order lay below it.
    """
    simple, cumulative = np.empty((2, repeats, n))
    for r in range(repeats):
        own = replace(rule, seed=rule.seed + r)
        tried = simulate(truth, noise, own, n)
        seen = truth + noise * np.random.default_rng((own.seed, 1)).normal(size=N_ORDERS)
        gaps = truth.max() - truth[tried]
        looked_best = np.array([tried[: k + 1][np.argmax(seen[tried[: k + 1]])] for k in range(len(tried))])
        simple[r] = truth.max() - truth[looked_best]
        cumulative[r] = np.cumsum(gaps)
    return simple, cumulative


def _observed(tried: list[int], seen: NDArray[np.float64], noise: NDArray[np.float64]) -> Observations:
    orders = np.array(tried, dtype=np.int64)
    return Observations(orders, seen[orders], noise[orders] ** 2)
