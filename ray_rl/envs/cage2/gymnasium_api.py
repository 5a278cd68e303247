"""CAGE-2 for other trainers: ``gymnasium.make("ray_rl.envs:ray_rl/CAGE2-v0")`` and ``make_vec(…, num_envs=N)``."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from ray_rl.envs.cage2.env import Cage2Env
from ray_rl.episodes import RED_AGENTS, EpisodeRequest
from ray_rl.seeding import Purpose, episode_seeds

_SEED_LIMIT = 2**63


class Cage2GymEnv(gymnasium.Env[NDArray[np.int8], np.int64]):
    """One environment.

    Observations are bits, [D] int8. ``info["action_mask"]`` [A] int8 tells which actions may help. An episode has no
    natural end; it is truncated after `episode_steps`.

    Args:
        rules: ``head`` or ``leaderboard``.
        table: ``stock`` or ``corrected``.
        view: ``table``, ``winner`` or ``memory``.
        actions: ``all`` or ``compact``.
        red_agent: ``B_lineAgent``, ``RedMeanderAgent`` or ``SleepAgent``.
        episode_steps: Steps per episode.
        render_mode: None; there is nothing to look at.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (gymnasium's own convention)

    def __init__(
        self,
        rules: str = "head",
        table: str = "stock",
        view: str = "table",
        actions: str = "all",
        red_agent: str = "B_lineAgent",
        episode_steps: int = 100,
        render_mode: str | None = None,
    ) -> None:
        self._env = Cage2Env(rules, table, view, actions)
        self._red_agent = _known_red_agent(red_agent)
        self._episode_steps = episode_steps
        self.render_mode = render_mode
        self.observation_space = spaces.MultiBinary(self._env.spec.observation_size)
        self.action_space = spaces.Discrete(self._env.spec.n_actions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int8], dict[str, Any]]:
        """Start an episode; without a seed, one that follows from the last seed given."""
        super().reset(seed=seed)
        episode_seed = int(self.np_random.integers(_SEED_LIMIT))
        request = EpisodeRequest(0, episode_seed, self._episode_steps, self._red_agent)
        return self._env.reset([request])[0].astype(np.int8), self._info()

    def step(self, action: np.int64) -> tuple[NDArray[np.int8], float, bool, bool, dict[str, Any]]:
        """Take one of Blue's actions."""
        result = self._env.step(np.array([action]))
        observation = result.observations[0].astype(np.int8)
        return observation, float(result.rewards[0]), False, bool(result.truncated[0]), self._info()

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self._env.action_masks()[0].astype(np.int8)}


class Cage2VectorEnv(VectorEnv[NDArray[np.int8], NDArray[np.int64], NDArray[Any]]):
    """N environments in one compiled batch.

    They run in step, so all episodes are truncated together; the step after that starts new ones (next-step autoreset:
    its action is ignored and its reward 0). After ``reset(seed=S)`` they play, one batch after another, the episodes
    that a training run of seed S begins with.

    Args:
        num_envs: N.
        rules: As for `Cage2GymEnv`, like the following.
        table: Blue's table.
        view: What Blue sees.
        actions: What Blue may do.
        red_agent: The attacker.
        episode_steps: Steps per episode.
        render_mode: None.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        rules: str = "head",
        table: str = "stock",
        view: str = "table",
        actions: str = "all",
        red_agent: str = "B_lineAgent",
        episode_steps: int = 100,
        render_mode: str | None = None,
    ) -> None:
        self._env = Cage2Env(rules, table, view, actions)
        self._red_agents = np.full(num_envs, RED_AGENTS.index(_known_red_agent(red_agent)))
        self._n_steps = np.full(num_envs, episode_steps)
        self.render_mode = render_mode
        self.num_envs = num_envs
        spec = self._env.spec
        self.single_observation_space = spaces.MultiBinary(spec.observation_size)
        self.single_action_space = spaces.Discrete(spec.n_actions)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self._seed = 0
        self._n_begun = 0
        self._over = False

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int8], dict[str, Any]]:
        """Start an episode in every environment; a seed makes all that follows repeatable."""
        if isinstance(seed, list):
            raise ValueError("give one seed for the whole batch: every environment derives its own from it")
        super().reset(seed=seed)
        if seed is not None:
            self._seed, self._n_begun = seed, 0
        return self._begin(), self._info()

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[NDArray[np.int8], NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Take one of Blue's actions in every environment."""
        nowhere = np.zeros(self.num_envs, dtype=np.bool_)
        if self._over:
            return self._begin(), np.zeros(self.num_envs), nowhere, nowhere.copy(), self._info()
        result = self._env.step(np.asarray(actions))
        self._over = bool(result.truncated[0])
        observations = result.observations.view(np.int8)
        return observations, result.rewards.astype(np.float64), nowhere, result.truncated, self._info()

    def _begin(self) -> NDArray[np.int8]:
        self._over = False
        seeds = episode_seeds(self._seed, Purpose.TRAIN, self._n_begun, self.num_envs)
        self._n_begun += self.num_envs
        return self._env.begin(seeds, self._red_agents, self._n_steps).view(np.int8)

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self._env.action_masks().view(np.int8)}


def _known_red_agent(name: str) -> str:
    if name not in RED_AGENTS:
        raise ValueError(f"unknown red agent {name!r}; known: {', '.join(RED_AGENTS)}")
    return name
