"""An environment whose steps wait: it stands for emulated hosts and remote ranges, where a step costs time but no CPU.

Waits follow a log-normal law, cut off at the longest one, and come from the episode's own seed, so every method of
collecting waits the same for the same episode.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import erf, exp, log, sqrt

import numpy as np
from numpy.typing import NDArray

from ray_rl.envs.api import EnvSpec, StepResult
from ray_rl.episodes import EpisodeRequest
from ray_rl.seeding import policy_uniforms

_OBSERVATION_SIZE = 52
_N_ACTIONS = 145
_SPREAD = 0.6
"""Standard deviation of the logarithm of a wait: the slowest of 100 takes about four times the mean."""
_WAIT_SALT = np.uint64(0x77616974)


class LatencyEnv:
    """Episodes of CAGE-2's size that wait in every step.

    Environments stepped together wait side by side, as remote hosts would: a step takes as long as the slowest of them.

    Args:
        mean_s: Mean wait of a step, in seconds.
        max_s: Longest wait.
    """

    max_batch = 4096

    def __init__(self, mean_s: float = 0.013, max_s: float = 0.05) -> None:
        self.spec = EnvSpec(f"latency mean={mean_s:g}s max={max_s:g}s", _OBSERVATION_SIZE, True, _N_ACTIONS, False)
        self._location = _location_for_mean(mean_s, max_s)
        self._max_s = max_s
        self._seeds = np.zeros(0, dtype=np.uint64)
        self._steps_left = np.zeros(0, dtype=np.int64)
        self._step = 0

    def reset(self, requests: Sequence[EpisodeRequest]) -> NDArray[np.uint8]:
        """Start one episode per request; returns the first observations [B, 52]."""
        self._seeds = np.array([r.seed for r in requests], dtype=np.uint64) ^ _WAIT_SALT
        self._steps_left = np.array([r.max_steps for r in requests], dtype=np.int64)
        self._step = 0
        return self._observe()

    def action_masks(self) -> None:
        """Every action is always allowed."""

    def waits_s(self, seeds: NDArray[np.uint64], step: int) -> NDArray[np.float64]:
        """The waits of a step of several episodes, in seconds: [B].

        Args:
            seeds: [B] uint64.
            step: 0-based number of the step.
        """
        first = policy_uniforms(seeds, 2 * step)
        second = policy_uniforms(seeds, 2 * step + 1)
        normal = np.sqrt(-2 * np.log(1 - first)) * np.cos(2 * np.pi * second)
        return np.minimum(np.exp(self._location + _SPREAD * normal), self._max_s)

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        """Wait; the action changes nothing."""
        running = self._steps_left > 0
        waits = self.waits_s(self._seeds, self._step)[running]
        if len(waits):
            time.sleep(float(waits.max()))
        self._step += 1
        self._steps_left -= 1
        n = len(self._seeds)
        rewards = -waits_in_tenths(self._seeds, self._step)
        return StepResult(self._observe(), rewards, np.zeros(n, dtype=np.bool_), self._steps_left <= 0)

    def close(self) -> None:
        """Nothing to release."""

    def _observe(self) -> NDArray[np.uint8]:
        """Bits that differ from episode to episode and step to step, so that nothing can be skipped."""
        bits = (policy_uniforms(self._seeds, 10_000 + self._step) * 2**_OBSERVATION_SIZE).astype(np.uint64)
        return (bits[:, None] >> np.arange(_OBSERVATION_SIZE, dtype=np.uint64) & np.uint64(1)).astype(np.uint8)


def waits_in_tenths(seeds: NDArray[np.uint64], step: int) -> NDArray[np.float32]:
    """A reward that depends on episode and step: [B] float32 in {0, 0.1, …, 0.9}."""
    return (np.floor(policy_uniforms(seeds, 20_000 + step) * 10) / 10).astype(np.float32)


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
