"""Any gymnasium environment as a `BatchedEnv`: copies of it, stepped one after another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ray_rl.envs.api import EnvError, EnvSpec, StepResult
from ray_rl.episodes import EpisodeRequest
from ray_rl.failures import UserError

_SEED_LIMIT = 2**32
"""Environments that seed numpy's old generator take no more than 32 bits."""


class GymnasiumEnv:
    """Copies of a gymnasium environment with discrete actions.

    Observations are bits for ``MultiBinary`` spaces, else flattened to float32. ``info["action_mask"]`` is respected
    where `reset` gives one; then every step but the last of an episode must.

    Args:
        env_id: A registered id, also ``module:id``.
        max_batch: Number of copies.

    Raises:
        UserError: When its spaces are of another kind.
        gymnasium.error.Error: When it cannot be made.
    """

    def __init__(self, env_id: str, max_batch: int = 1) -> None:
        self.max_batch = max_batch
        self._envs = [gymnasium.make(env_id) for _ in range(max_batch)]
        space, actions = self._envs[0].observation_space, self._envs[0].action_space
        if not isinstance(actions, spaces.Discrete):
            raise UserError(f"environment {env_id!r} has actions {actions}: only Discrete ones can be trained")
        if not isinstance(space, spaces.Box | spaces.MultiBinary | spaces.Discrete):
            raise UserError(f"environment {env_id!r} has observations {space}: only Box, MultiBinary and Discrete work")
        self._space = space
        self._first_action = int(actions.start)
        _, info = self._envs[0].reset(seed=0)
        self.spec = EnvSpec(
            name=env_id,
            observation_size=int(spaces.flatdim(space)),
            observation_bits=isinstance(space, spaces.MultiBinary),
            n_actions=int(actions.n),
            has_action_masks="action_mask" in info,
        )
        self._masks: NDArray[np.bool_] = np.ones((0, self.spec.n_actions), dtype=np.bool_)
        self._steps_left: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._over: NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)
        self._observations: NDArray[Any] = self._blank(0)

    def reset(self, requests: Sequence[EpisodeRequest]) -> NDArray[Any]:
        """Start one episode per request; returns the first observations [B, D]."""
        n = len(requests)
        if not 1 <= n <= self.max_batch:
            raise ValueError(f"reset takes 1 to {self.max_batch} episodes, not {n}")
        self._masks = np.ones((n, self.spec.n_actions), dtype=np.bool_)
        self._steps_left = np.array([r.max_steps for r in requests], dtype=np.int64)
        self._over = np.zeros(n, dtype=np.bool_)
        self._observations = self._blank(n)
        for slot, request in enumerate(requests):
            observation, info = self._call(slot, lambda e, r=request: e.reset(seed=r.seed % _SEED_LIMIT))
            self._take_in(slot, observation, info)
        return self._observations.copy()

    def action_masks(self) -> NDArray[np.bool_] | None:
        """[B, A] True where an action is allowed now, or None."""
        return self._masks.copy() if self.spec.has_action_masks else None

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        """Take one action [B] in each copy whose episode goes on."""
        n = len(self._over)
        rewards = np.zeros(n, dtype=np.float32)
        terminated = np.zeros(n, dtype=np.bool_)
        truncated = np.zeros(n, dtype=np.bool_)
        self._steps_left -= 1
        for slot in np.flatnonzero(~self._over):
            action = int(actions[slot]) + self._first_action
            observation, reward, ended, cut, info = self._call(int(slot), lambda e, a=action: e.step(a))
            self._take_in(int(slot), observation, info, ended or cut)
            rewards[slot] = reward
            terminated[slot] = ended
            truncated[slot] = cut or self._steps_left[slot] <= 0
        self._over |= terminated | truncated
        return StepResult(self._observations.copy(), rewards, terminated, truncated)

    def close(self) -> None:
        """Close all copies."""
        for env in self._envs:
            env.close()

    def _blank(self, n: int) -> NDArray[Any]:
        return np.zeros((n, self.spec.observation_size), dtype=np.uint8 if self.spec.observation_bits else np.float32)

    def _call(self, slot: int, what: Any) -> Any:
        """Call into one copy; what it raises names the slot."""
        try:
            return what(self._envs[slot])
        except Exception as error:
            raise EnvError(slot, f"{type(error).__name__}: {error}") from error

    def _take_in(self, slot: int, observation: Any, info: dict[str, Any], over: bool = False) -> None:
        expected = self._space.shape or ()
        if np.shape(observation) != expected:
            raise EnvError(slot, f"observation has shape {np.shape(observation)}, its space says {expected}")
        flat = np.asarray(spaces.flatten(self._space, observation), dtype=np.float64)
        if not all(map(math.isfinite, flat)):
            raise EnvError(slot, "the observation holds a number that is not finite")
        self._observations[slot] = flat
        if self.spec.has_action_masks and not over:
            self._masks[slot] = self._mask(slot, info)

    def _mask(self, slot: int, info: dict[str, Any]) -> NDArray[np.bool_]:
        if "action_mask" not in info:
            raise EnvError(slot, "info has no action_mask, although that of the first reset had one")
        mask = np.asarray(info["action_mask"], dtype=np.bool_)
        if mask.shape != (self.spec.n_actions,):
            raise EnvError(slot, f"action_mask has shape {mask.shape}, there are {self.spec.n_actions} actions")
        return mask
