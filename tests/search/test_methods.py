"""Choosing the next order: what each method promises, and how soon it finds the best."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ray_rl.search.gaussian_process import DISTANCES, Observations, Posterior, fit, posterior
from ray_rl.search.methods import METHODS, Method, Rule, beta, expected_improvement, merits, propose
from ray_rl.search.simulate import simulate, synthetic_truth
from ray_rl.workflow.orders import N_ORDERS

QUIET = np.full(N_ORDERS, 0.05)
NOTHING = Observations(np.empty(0, dtype=np.int64), np.empty(0), np.empty(0))


def observed_of(orders: list[int], seed: int = 3) -> Observations:
    chosen = np.array(orders, dtype=np.int64)
    return Observations(chosen, synthetic_truth(seed)[chosen], np.full(len(chosen), 0.01))


@pytest.mark.parametrize("method", METHODS)
def test_every_order_is_tried_once_and_no_more(method: Method) -> None:
    tried = np.random.default_rng(0).permutation(N_ORDERS)[:-1].tolist()
    while (chosen := propose(Rule(method), tried, observed_of(tried), ())) is not None:
        tried.append(chosen)
    assert sorted(tried) == list(range(N_ORDERS))


def test_exhaustive_goes_through_all_and_random_depends_on_the_seed() -> None:
    truth = synthetic_truth(0)
    assert simulate(truth, QUIET, Rule("exhaustive"), 10).tried.tolist() == list(range(10))
    first, second = (simulate(truth, QUIET, Rule("random", seed=seed), 20).tried.tolist() for seed in (1, 2))
    assert first != second
    assert first == simulate(-truth, QUIET, Rule("random", seed=1), 20).tried.tolist()


def test_the_first_orders_are_spread_out() -> None:
    tried = simulate(synthetic_truth(0), QUIET, Rule("gp-ucb", n_start=6), 6).tried
    distances = DISTANCES[np.ix_(tried, tried)][np.triu_indices(6, 1)]
    assert distances.min() >= 4


def test_beta_grows_as_stated() -> None:
    rule = Rule(beta_scale=0.5, delta=0.1)
    assert beta(7, rule) == pytest.approx(0.5 * 2 * math.log(120 * 49 * math.pi**2 / 0.6))
    assert beta(8, rule) > beta(7, rule)


def test_expected_improvement_is_the_mean_of_what_exceeds_the_best() -> None:
    belief = Posterior(np.array([0.0, 1.0, -2.0, 3.0]), np.array([1.0, 0.5, 2.0, 0.0]))
    draws = np.random.default_rng(0).normal(size=(400_000, 1)) * belief.deviation + belief.mean
    np.testing.assert_allclose(expected_improvement(belief, 0.8), np.maximum(draws - 0.8, 0).mean(axis=0), atol=0.01)


@pytest.mark.parametrize("method", ["gp-ucb", "ei"])
def test_orders_under_way_are_not_asked_for_again_nor_crowded(method: Method) -> None:
    rule = Rule(method)
    tried = [0, 30, 60, 90, 119, 45]
    observed = observed_of(tried)
    batch: list[int] = []
    for _ in range(5):
        chosen = propose(rule, tried + batch, observed, batch)
        assert chosen is not None
        batch.append(chosen)
    assert len(set(batch)) == 5
    ignored = [propose(rule, tried + batch[:k], observed, ()) for k in range(5)]
    assert batch[0] == ignored[0]
    assert batch != ignored  # that orders are under way narrows the doubt around them


@pytest.mark.parametrize("method", ["gp-ucb", "ei"])
def test_without_any_order_that_met_the_gate_the_search_spreads_further(method: Method) -> None:
    tried = [0, 30, 60, 90, 119, 45]
    chosen = propose(Rule(method), tried, NOTHING, ())
    assert chosen is not None
    left = np.setdiff1d(np.arange(N_ORDERS), tried)
    assert DISTANCES[chosen, tried].min() == DISTANCES[np.ix_(left, tried)].min(axis=1).max()


def test_regret_of_gp_ucb_is_sublinear_where_orders_may_be_tried_again() -> None:
    rule, n = Rule("gp-ucb"), 80
    regret = np.zeros((4, n))
    for k in range(len(regret)):
        truth, rng = synthetic_truth(k), np.random.default_rng(k)
        orders = rng.permutation(N_ORDERS)[:5]
        scores = truth[orders] + rng.normal(0, 0.1, 5)
        for t in range(n):
            observed = Observations(orders, scores, np.full(len(orders), 0.01))
            if t % 10 == 0:
                hyper = fit(observed)
            chosen = int(np.argmax(merits(rule, t + 6, observed, posterior(observed, hyper))))
            regret[k, t] = truth.max() - truth[chosen]
            orders, scores = np.append(orders, chosen), np.append(scores, truth[chosen] + rng.normal(0, 0.1))
    by_part = regret.mean(axis=0).reshape(4, 20).mean(axis=1)
    assert by_part[3] < 0.25 * by_part[0]


@pytest.mark.parametrize("method", ["gp-ucb", "ei"])
def test_the_known_best_is_found_sooner_than_by_chance(method: Method) -> None:
    found, by_chance = np.empty((2, 6))
    for k in range(6):
        truth = synthetic_truth(k)
        found[k] = simulate(truth, QUIET, Rule(method, seed=k), 25).gaps[-1]
        by_chance[k] = simulate(truth, QUIET, Rule("random", seed=k), 25).gaps[-1]
    assert np.median(found) == 0.0
    assert found.mean() < 0.5 * by_chance.mean()


def test_orders_below_the_gate_are_spent_but_tell_nothing() -> None:
    truth = synthetic_truth(0)
    best = int(np.argmax(truth))
    hidden = truth.copy()
    hidden[best] = np.nan
    search = simulate(hidden, QUIET, Rule("random", seed=1), N_ORDERS)
    assert best in search.tried
    assert search.gaps[-1] == 0.0
    assert simulate(
        np.where(np.arange(N_ORDERS) == search.tried[2], truth, np.nan), QUIET, Rule("random", seed=1), 5
    ).gaps[:2] == pytest.approx(0.0)


def test_a_choice_depends_on_its_arguments_alone() -> None:
    rule, observed = Rule("gp-ucb", seed=4), observed_of([1, 2, 3, 50, 70, 100])
    tried = observed.orders.tolist()
    assert propose(rule, tried, observed, ()) == propose(rule, tried, observed, ())
    assert propose(replace(rule, seed=5), [], NOTHING, ()) != propose(rule, [], NOTHING, ())
