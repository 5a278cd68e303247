"""CAGE-2's compiled batch of environments as Stable-Baselines3 wants it (which is no dependency of this package)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from ray_rl.envs import CAGE2_ID


class Cage2VecEnv(VecEnv):  # type: ignore[misc]  # untyped where Stable-Baselines3 is not installed
    """N environments that start anew in the very step that ends them, with their last observations in the infos.

    Actions are not masked; ``infos[i]["action_mask"]`` is not given.

    Args:
        num_envs: N.
        **arguments: Of ``gymnasium.make_vec("ray_rl/CAGE2-v0")``.
    """

    def __init__(self, num_envs: int, **arguments: Any) -> None:
        self._env = gymnasium.make_vec(CAGE2_ID, num_envs=num_envs, **arguments)
        self._actions = np.zeros(num_envs, dtype=np.int64)
        super().__init__(num_envs, self._env.single_observation_space, self._env.single_action_space)

    def reset(self) -> NDArray[np.int8]:
        """Start an episode in every environment, those of `seed` if it was called before."""
        observations, _ = self._env.reset(seed=self._seeds[0])
        self._reset_seeds()
        return observations

    def step_async(self, actions: NDArray[np.int64]) -> None:
        """Take note of one of Blue's actions for every environment."""
        self._actions = actions

    def step_wait(self) -> tuple[NDArray[np.int8], NDArray[Any], NDArray[np.bool_], list[dict[str, Any]]]:
        """Take them: observations, rewards, whether episodes ended, infos."""
        observations, rewards, _, ended, _ = self._env.step(self._actions)
        if not ended.any():
            return observations, rewards, ended, [{} for _ in ended]
        infos = [{"terminal_observation": last, "TimeLimit.truncated": True} for last in observations]
        return self._env.step(self._actions)[0], rewards, ended, infos  # all end together, and begin together

    def close(self) -> None:
        """Nothing to release."""

    def get_attr(self, attr_name: str, indices: int | Iterable[int] | None = None) -> list[Any]:
        """What all environments have in common, as often as asked for."""
        return [getattr(self._env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: int | Iterable[int] | None = None) -> None:
        """Refused: the environments are rows of arrays."""
        raise NotImplementedError("environments in one compiled batch have no attributes of their own")

    def env_method(self, method_name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Refused, like `set_attr`."""
        raise NotImplementedError("environments in one compiled batch have no methods of their own")

    def env_is_wrapped(self, wrapper_class: type, indices: int | Iterable[int] | None = None) -> Sequence[bool]:
        """Nothing is wrapped."""
        return [False for _ in self._get_indices(indices)]
