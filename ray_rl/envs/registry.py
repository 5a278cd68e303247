"""Which environment a configuration means. Nothing is imported before somebody asks for it."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

import gymnasium

from ray_rl.config import EnvConfig, UserError, suggest
from ray_rl.envs.api import BatchedEnv
from ray_rl.workflow.orders import RANDOM_ORDER

_BUILT_IN = {
    "cage2": "ray_rl.envs.cage2.env:Cage2Env",
    "cyborg": "ray_rl.envs.cyborg_env:CyborgEnv",
    "latency": "ray_rl.envs.latency_env:LatencyEnv",
}
"""Environments with an entry point of their own; every other name is a gymnasium id."""


def make_env(config: EnvConfig, max_batch: int = 1) -> BatchedEnv:
    """Build an environment.

    Args:
        config: Which one, with its options.
        max_batch: Environments to step together, for those that are stepped one by one (gymnasium ids).

    Raises:
        UserError: When there is no such environment, or it cannot be used.
    """
    if config.env not in _BUILT_IN:
        return _make_gymnasium_env(config.env, max_batch)
    module, name = _BUILT_IN[config.env].split(":")
    env: BatchedEnv = getattr(import_module(module), name)(**_options(config))
    return env


def _options(config: EnvConfig) -> dict[str, Any]:
    if config.env == "latency":
        return {"mean_s": config.latency_mean_s, "max_s": config.latency_max_s}
    options: dict[str, Any] = {
        "rules": config.rules,
        "table": config.table,
        "view": config.view,
        "actions": config.actions,
        "alignment": config.alignment,
    }
    if config.env == "cyborg":
        options["path"] = config.cyborg_path
    return options


def _make_gymnasium_env(env_id: str, max_batch: int) -> BatchedEnv:
    from ray_rl.envs.gymnasium_env import GymnasiumEnv

    try:
        return GymnasiumEnv(env_id, max_batch)
    except gymnasium.error.UnregisteredEnv as error:
        known = [*_BUILT_IN, *gymnasium.registry]
        raise UserError(f"unknown environment {env_id!r}{suggest(env_id, known)}") from error
    except (gymnasium.error.Error, ImportError) as error:
        raise UserError(f"environment {env_id!r} cannot be made: {error}") from error


def env_of_this_process(config: EnvConfig) -> BatchedEnv:
    """The environment of a worker process: built once, kept from task to task.

    What an episode returns depends on its request alone, so keeping the environment changes nothing but the time. An
    episode's order of repair is part of its request: environments that differ in it alone are one.
    """
    return _kept_env(config if config.workflow is None else config.model_copy(update={"workflow": RANDOM_ORDER}))


def forget_env_of_this_process() -> None:
    """Build the environment anew when it is next asked for: it failed, and nobody knows what state it is in."""
    _kept_env.cache_clear()


@lru_cache(maxsize=1)
def _kept_env(config: EnvConfig) -> BatchedEnv:
    return make_env(config)
