"""Which order to try next: pure functions of what was tried so far, so that a search resumes exactly.

GP-UCB (Srinivas et al. 2010) takes the order with the greatest mean + √β_t · deviation, where
β_t = scale · 2 log(120 t² π² / (6 δ)) at the t-th training (their theorem 1; they too scaled it by 1/5 in practice).
Expected improvement weighs how far an order may exceed the best so far. Orders whose training is under way count as
observed at their expected score, which leaves the means and narrows the deviations (GP-BUCB, Desautels et al. 2014), so
that a batch does not crowd in one place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ray_rl.search.gaussian_process import DISTANCES, Hyperparameters, Observations, Posterior, fit, posterior
from ray_rl.seeding import Purpose, derive_seed
from ray_rl.workflow.orders import N_ORDERS

Method = Literal["gp-ucb", "ei", "random", "exhaustive"]
METHODS: tuple[Method, ...] = ("gp-ucb", "ei", "random", "exhaustive")


@dataclass(frozen=True, slots=True)
class Rule:
    """How a search chooses.

    Attributes:
        method: Its name.
        n_start: Orders that GP-UCB and EI spread out before they look at scores.
        beta_scale: Factor of β_t.
        delta: δ, chance that the bound behind β_t is allowed to fail.
        seed: Decides what is left to chance.
    """

    method: Method = "gp-ucb"
    n_start: int = 5
    beta_scale: float = 0.2
    delta: float = 0.1
    seed: int = 0


def beta(t: int, rule: Rule) -> float:
    """β_t of GP-UCB.

    Args:
        t: Number of the training, from 1.
        rule: Gives scale and δ.
    """
    return rule.beta_scale * 2.0 * math.log(N_ORDERS * t**2 * math.pi**2 / (6.0 * rule.delta))


def propose(rule: Rule, tried: Sequence[int], observed: Observations, pending: Sequence[int]) -> int | None:
    """The order to train next; None when all were tried.

    Args:
        rule: How to choose.
        tried: All orders asked for so far, in that order, whatever became of them.
        observed: Scores of those that may inform the choice.
        pending: Those of `tried` whose training is under way.
    """
    if len(set(tried)) == N_ORDERS:
        return None
    if rule.method == "exhaustive":
        return min(set(range(N_ORDERS)) - set(tried))
    shuffled = np.random.default_rng(derive_seed(rule.seed, Purpose.SEARCH)).permutation(N_ORDERS)
    done = np.array(tried, dtype=np.int64)
    left = shuffled[~np.isin(shuffled, done)]
    if rule.method == "random" or not tried:
        return int(left[0])
    if len(tried) < rule.n_start or len(observed.orders) == 0:
        return int(left[np.argmax(DISTANCES[np.ix_(left, done)].min(axis=1))])
    merit = merits(rule, len(tried) + 1, observed, believe(observed, fit(observed), pending))
    return int(left[np.argmax(merit[left])])


def merits(rule: Rule, t: int, observed: Observations, belief: Posterior) -> NDArray[np.float64]:
    """What GP-UCB or expected improvement thinks of trying each order next: [120].

    Args:
        rule: How to choose.
        t: Number of the training, from 1.
        observed: Scores so far.
        belief: What they say of all orders.
    """
    if rule.method == "gp-ucb":
        return belief.mean + math.sqrt(beta(t, rule)) * belief.deviation
    return expected_improvement(belief, float(belief.mean[observed.orders].max()))


def believe(observed: Observations, hyper: Hyperparameters, pending: Sequence[int]) -> Posterior:
    """The posterior, with orders under way counted as observed at their expected score."""
    known = posterior(observed, hyper)
    if not pending:
        return known
    waiting = np.array(pending, dtype=np.int64)
    noise = np.full(len(waiting), float(np.median(observed.variances)))
    imagined = Observations(
        np.concatenate((observed.orders, waiting)),
        np.concatenate((observed.scores, known.mean[waiting])),
        np.concatenate((observed.variances, noise)),
    )
    return Posterior(known.mean, posterior(imagined, hyper).deviation)


def expected_improvement(belief: Posterior, best: float) -> NDArray[np.float64]:
    """How far each order is expected to exceed a score: [120].

    Args:
        belief: Of all orders.
        best: The score to exceed.
    """
    deviation = np.maximum(belief.deviation, 1e-12)
    z = (belief.mean - best) / deviation
    below = np.array([0.5 * math.erfc(-value / math.sqrt(2.0)) for value in z.tolist()])
    density = np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    improvement: NDArray[np.float64] = (belief.mean - best) * below + deviation * density
    return improvement
