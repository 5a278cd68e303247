"""The Gaussian process over orders: a kernel that is one, predictions that others agree with, parameters recovered."""

from __future__ import annotations

import numpy as np
import pytest

from ray_rl.search.gaussian_process import (
    Hyperparameters,
    Observations,
    fit,
    mallows_kernel,
    posterior,
)
from ray_rl.workflow.orders import N_ORDERS

EVERY_ORDER = np.arange(N_ORDERS)


def observe(rng: np.random.Generator, orders: np.ndarray, truth: np.ndarray, noise: float) -> Observations:
    scores = truth[orders] + rng.normal(0, noise, len(orders))
    return Observations(orders, scores, np.full(len(orders), noise**2))


def draw_truth(rng: np.random.Generator, signal: float, decay: float) -> np.ndarray:
    factor = np.linalg.cholesky(signal * mallows_kernel(EVERY_ORDER, EVERY_ORDER, decay) + 1e-9 * np.eye(N_ORDERS))
    return np.asarray(factor @ rng.normal(size=N_ORDERS))


@pytest.mark.parametrize("decay", [0.02, 0.2, 1.0, 3.0])
def test_the_kernel_is_a_positive_definite_correlation(decay: float) -> None:
    kernel = mallows_kernel(EVERY_ORDER, EVERY_ORDER, decay)
    np.testing.assert_array_equal(kernel, kernel.T)
    np.testing.assert_array_equal(np.diag(kernel), 1.0)
    assert np.linalg.eigvalsh(kernel).min() > 0
    assert kernel.min() == pytest.approx(np.exp(-10 * decay))  # an order and its reverse differ in all ten pairs


def test_predictions_are_those_of_conditioning_one_great_gaussian() -> None:
    rng = np.random.default_rng(0)
    orders = rng.choice(N_ORDERS, 12, replace=False)
    scores, variances = rng.normal(-20, 3, 12), rng.uniform(0.1, 1.0, 12)
    found = posterior(Observations(orders, scores, variances), Hyperparameters(signal=4.0, decay=0.3, noise=0.5))
    # an unknown constant mean is a Gaussian of great variance that all orders share
    joint = 1e6 + 4.0 * mallows_kernel(EVERY_ORDER, EVERY_ORDER, 0.3)
    gain = joint[:, orders] @ np.linalg.inv(joint[np.ix_(orders, orders)] + np.diag(variances + 0.5))
    np.testing.assert_allclose(found.mean, gain @ scores, atol=1e-3)
    np.testing.assert_allclose(found.deviation**2, np.diag(joint - gain @ joint[orders]), atol=1e-3)


def test_without_noise_the_posterior_goes_through_what_was_seen() -> None:
    orders = np.array([3, 50, 99])
    scores = np.array([-10.0, -20.0, -15.0])
    found = posterior(Observations(orders, scores, np.zeros(3)), Hyperparameters(25.0, 0.3, 0.0))
    np.testing.assert_allclose(found.mean[orders], scores, atol=1e-4)
    assert found.deviation[orders].max() < 0.01
    assert np.delete(found.deviation, orders).min() > 1.0


def test_hyperparameters_are_recovered() -> None:
    rng = np.random.default_rng(1)
    decays, signals, noises = [], [], []
    for _ in range(6):
        truth = draw_truth(rng, signal=9.0, decay=0.2)
        seen = truth + rng.normal(0, np.sqrt(0.9), N_ORDERS)  # a training's noise; the evaluation's comes on top
        hyper = fit(observe(rng, rng.choice(N_ORDERS, 70, replace=False), seen, 0.5))
        decays.append(hyper.decay)
        signals.append(hyper.signal)
        noises.append(hyper.noise)
    assert 0.1 < np.median(decays) < 0.4
    assert 4.5 < np.median(signals) < 18.0
    assert 0.3 < np.median(noises) < 2.7


def test_intervals_hold_what_they_promise() -> None:
    rng = np.random.default_rng(2)
    inside = []
    for _ in range(10):
        truth = draw_truth(rng, signal=4.0, decay=0.2)
        observed = observe(rng, rng.choice(N_ORDERS, 30, replace=False), truth, 0.5)
        found = posterior(observed, fit(observed))
        inside.append(np.abs(truth - found.mean) < 1.96 * found.deviation)
    assert 0.88 < np.mean(inside) < 0.99


def test_one_score_or_equal_scores_are_enough() -> None:
    one = Observations(np.array([7]), np.array([-20.0]), np.array([0.25]))
    assert posterior(one, fit(one)).mean == pytest.approx(-20.0)
    equal = Observations(np.array([7, 8, 90]), np.full(3, -20.0), np.zeros(3))
    found = posterior(equal, fit(equal))
    assert found.mean == pytest.approx(-20.0)
    assert np.isfinite(found.deviation).all()
