"""A Gaussian process over the 120 orders of repair.

The kernel is Mallows': k(a, b) = s² exp(-θ d(a, b)) with Kendall's distance d, which counts the pairs of types that two
orders rank differently. It is positive definite (Jiao and Vert 2018, "The Kendall and Mallows kernels for
permutations"). The mean is one constant, estimated with the rest; its uncertainty is part of the prediction.

An observed score has two kinds of noise: that of its evaluation, which is known, and that of its training, which is the
same for all orders and estimated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_rl.workflow.orders import kendall_distances

_DECAYS = np.geomspace(0.02, 3.0, 14)
_SIGNALS = np.geomspace(0.1, 10.0, 9)
"""Signal variances tried, in units of the variance of the scores."""
_NOISES = np.array([1e-4, 0.01, 0.03, 0.1, 0.3, 1.0])
"""Training noise tried, likewise."""
_DECAY_PRIOR = (np.log(0.2), 1.0)
_SIGNAL_PRIOR = (0.0, 1.0)
"""Mean and deviation of the logarithms under weak priors, which decide while few orders were tried."""
_LEAST_VARIANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What the kernel is made of.

    Attributes:
        signal: s², variance of the score over the orders, in squared reward.
        decay: θ, per pair of types ranked differently.
        noise: Variance of a score from training to training, in squared reward.
    """

    signal: float
    decay: float
    noise: float


@dataclass(frozen=True, slots=True)
class Observations:
    """Scores of K orders.

    Attributes:
        orders: [K] int64 indices.
        scores: [K] float64, mean return.
        variances: [K] float64, squared standard error of each evaluation.
    """

    orders: NDArray[np.int64]
    scores: NDArray[np.float64]
    variances: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Posterior:
    """What is believed of all orders.

    Attributes:
        mean: [120] float64.
        deviation: [120] float64, of the order's true score.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


DISTANCES = kendall_distances()
"""[120, 120] Kendall distances."""


def mallows_kernel(orders: NDArray[np.int64], others: NDArray[np.int64], decay: float) -> NDArray[np.float64]:
    """Correlation of the scores of orders: [K, L].

    Args:
        orders: [K] indices.
        others: [L] indices.
        decay: θ.
    """
    correlations: NDArray[np.float64] = np.exp(-decay * DISTANCES[np.ix_(orders, others)])
    return correlations


def fit(observed: Observations) -> Hyperparameters:
    """The hyper-parameters of greatest marginal likelihood times prior, over a grid.

    Args:
        observed: Scores of at least one order.
    """
    unit = max(float(observed.scores.var()), float(observed.variances.mean()), _LEAST_VARIANCE)
    evaluation = observed.variances / unit
    best, found = -np.inf, Hyperparameters(unit, float(_DECAYS[0]), 0.0)
    for decay in _DECAYS:
        correlation = mallows_kernel(observed.orders, observed.orders, float(decay))
        for noise in _NOISES:
            merit = _log_likelihoods(correlation, evaluation + noise, observed.scores / np.sqrt(unit))
            merit += _log_prior(np.log(_SIGNALS), _SIGNAL_PRIOR) + _log_prior(np.log(decay), _DECAY_PRIOR)
            k = int(np.argmax(merit))
            if merit[k] > best:
                best = float(merit[k])
                found = Hyperparameters(float(_SIGNALS[k]) * unit, float(decay), float(noise) * unit)
    return found


def _log_likelihoods(
    correlation: NDArray[np.float64], noise: NDArray[np.float64], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """For every signal variance, with the constant mean integrated out (restricted likelihood): [S].

    One eigendecomposition serves all signals: with N = diag(noise), s²C + N = N^½ (s² N^-½ C N^-½ + 1) N^½.

    Args:
        correlation: [K, K], C.
        noise: [K] variances.
        scores: [K].
    """
    root = 1.0 / np.sqrt(noise)
    eigenvalues, vectors = np.linalg.eigh(root[:, None] * correlation * root)
    y, one = vectors.T @ (root * scores), vectors.T @ root
    variances = 1.0 + _SIGNALS[:, None] * np.maximum(eigenvalues, 0.0)  # [S, K]
    information = (one * one / variances).sum(axis=1)
    mean = (one * y / variances).sum(axis=1) / information
    rest = y - mean[:, None] * one
    log_determinant = np.log(variances).sum(axis=1) + np.log(noise).sum()
    likelihoods: NDArray[np.float64] = -0.5 * (
        (rest * rest / variances).sum(axis=1) + log_determinant + np.log(information)
    )
    return likelihoods


def _log_prior(value: Any, prior: tuple[float, float]) -> Any:
    mean, deviation = prior
    return -0.5 * ((value - mean) / deviation) ** 2


def posterior(observed: Observations, hyper: Hyperparameters) -> Posterior:
    """Mean and deviation of the true score of every order, given what was observed.

    Args:
        observed: Scores of at least one order.
        hyper: Of `fit`.
    """
    everywhere = np.arange(len(DISTANCES))
    covariance = hyper.signal * mallows_kernel(observed.orders, observed.orders, hyper.decay)
    covariance += np.diag(observed.variances + hyper.noise + _LEAST_VARIANCE * hyper.signal)
    cross = hyper.signal * mallows_kernel(observed.orders, everywhere, hyper.decay)  # [K, 120]
    factor = np.linalg.cholesky(covariance)
    right = np.column_stack([observed.scores, np.ones_like(observed.scores), cross])
    whitened = np.linalg.solve(factor, right)
    y, one, across = whitened[:, 0], whitened[:, 1], whitened[:, 2:]
    information = float(one @ one)
    constant = float(one @ y) / information
    mean = constant + across.T @ (y - constant * one)
    unexplained = 1.0 - across.T @ one  # how much of the constant mean a prediction still needs
    variance = hyper.signal - (across * across).sum(axis=0) + unexplained**2 / information
    return Posterior(mean, np.sqrt(np.maximum(variance, 0.0)))
