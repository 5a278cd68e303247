"""An environment whose steps wait: it stands for emulated hosts and remote ranges, where a step costs time but no CPU.

Waits follow a log-normal law, cut off at the longest one, and come from the episode's own seed, so every method of
collecting waits the same for the same episode.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import erf, exp, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_rl.envs.api import EnvSpec, StepResult
from ray_rl.episodes import EpisodeRequest

_OBSERVATION_SIZE = 52
_N_ACTIONS = 145
_SPREAD = 0.6
"""Standard deviation of the logarithm of a wait: the slowest of 100 takes about four times the mean."""

_NO, _YES = np.array([False]), np.array([True])
_NO.flags.writeable = _YES.flags.writeable = False


class LatencyEnv:
    """Episodes of CAGE-2's size that wait in every step, one at a time.

    Everything that an episode will do is drawn when it starts, so that a step costs nothing but its wait.

    Args:
        mean_s: Mean wait of a step, in seconds.
        max_s: Longest wait.
    """

    max_batch = 1

    def __init__(self, mean_s: float = 0.013, max_s: float = 0.05) -> None:
        self.spec = EnvSpec(f"latency mean={mean_s:g}s max={max_s:g}s", _OBSERVATION_SIZE, True, _N_ACTIONS, False)
        self._location = _location_for_mean(mean_s, max_s)
        self._max_s = max_s
        self._waits_s: list[float] = []
        self._rewards: NDArray[np.float32] = np.zeros((0, 1), dtype=np.float32)  # [T, 1]
        self._observations: NDArray[np.uint8] = np.zeros((1, 1, _OBSERVATION_SIZE), dtype=np.uint8)  # [T + 1, 1, D]
        self._step = 0

    def waits_s(self, request: EpisodeRequest) -> NDArray[np.float64]:
        """The waits of an episode's steps, in seconds: [T]."""
        return self._draw_waits(np.random.default_rng(request.seed), request.max_steps)

    def _draw_waits(self, rng: np.random.Generator, n_steps: int) -> NDArray[np.float64]:
        return np.minimum(rng.lognormal(self._location, _SPREAD, n_steps), self._max_s)

    def reset(self, requests: Sequence[EpisodeRequest]) -> NDArray[Any]:
        """Start an episode; returns its first observation [1, 52]."""
        (request,) = requests
        n_steps = request.max_steps
        rng = np.random.default_rng(request.seed)
        self._waits_s = self._draw_waits(rng, n_steps).tolist()
        self._rewards = (-rng.integers(0, 10, (n_steps, 1)) / 10).astype(np.float32)
        self._observations = rng.integers(0, 2, (n_steps + 1, 1, _OBSERVATION_SIZE), dtype=np.uint8)
        self._step = 0
        return self._observations[0]

    def action_masks(self) -> None:
        """Every action is always allowed."""

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        """Wait; the action changes nothing."""
        step = self._step
        if step >= len(self._waits_s):
            raise ValueError("the episode is over, or none was begun: reset first")
        time.sleep(self._waits_s[step])
        self._step += 1
        over = _YES if self._step == len(self._waits_s) else _NO
        return StepResult(self._observations[step + 1], self._rewards[step], _NO, over)

    def close(self) -> None:
        """Nothing to release."""


def _location_for_mean(mean_s: float, max_s: float) -> float:
    """The log-normal's location at which waits cut off at `max_s` have the mean asked for, by bisection."""

    def normal_cdf(x: float) -> float:
        return 0.5 * (1 + erf(x / sqrt(2)))

    def cut_mean(location: float) -> float:
        z = (log(max_s) - location) / _SPREAD
        below = exp(location + _SPREAD**2 / 2) * normal_cdf(z - _SPREAD)
        return below + max_s * (1 - normal_cdf(z))

    low, high = log(mean_s) - 5, log(max_s) + 5
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if cut_mean(middle) < mean_s else (low, middle)
    return (low + high) / 2
