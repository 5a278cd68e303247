"""Which environment a configuration means. Nothing is imported before somebody asks for it."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium

from ray_rl.env_options import EnvOptions
from ray_rl.envs.api import BatchedEnv
from ray_rl.failures import UserError, suggest

if TYPE_CHECKING:
    from ray_rl.config import EnvConfig

_BUILT_IN = {
    "cage2": "ray_rl.envs.cage2.env:Cage2Env",
    "cyborg": "ray_rl.envs.cyborg_env:CyborgEnv",
    "latency": "ray_rl.envs.latency_env:LatencyEnv",
}
"""Environments with an entry point of their own; every other name is a gymnasium id."""


def make_env(config: EnvConfig, max_batch: int = 1) -> BatchedEnv:
    """Build the environment that a configuration means; arguments and errors as `build_env`."""
    return build_env(config.options, max_batch)


def build_env(options: EnvOptions, max_batch: int = 1) -> BatchedEnv:
    """Build an environment.

    Args:
        options: Which one, and how.
        max_batch: Environments to step together, for those that are stepped one by one (gymnasium ids).

    Raises:
        UserError: When there is no such environment, or it cannot be used.
    """
    if options.env not in _BUILT_IN:
        return _make_gymnasium_env(options.env, max_batch)
    module, name = _BUILT_IN[options.env].split(":")
    env: BatchedEnv = getattr(import_module(module), name)(**_arguments(options))
    return env


def _arguments(options: EnvOptions) -> dict[str, Any]:
    if options.env == "latency":
        return {"mean_s": options.latency_mean_s, "max_s": options.latency_max_s}
    arguments: dict[str, Any] = {
        "rules": options.rules,
        "table": options.table,
        "view": options.view,
        "actions": options.actions,
        "alignment": options.alignment,
    }
    if options.env == "cyborg":
        arguments["path"] = options.cyborg_path
    return arguments


def _make_gymnasium_env(env_id: str, max_batch: int) -> BatchedEnv:
    from ray_rl.envs.gymnasium_env import GymnasiumEnv

    try:
        return GymnasiumEnv(env_id, max_batch)
    except gymnasium.error.UnregisteredEnv as error:
        known = [*_BUILT_IN, *gymnasium.registry]
        raise UserError(f"unknown environment {env_id!r}{suggest(env_id, known)}") from error
    except (gymnasium.error.Error, ImportError) as error:
        raise UserError(f"environment {env_id!r} cannot be made: {error}") from error


def env_of_this_process(options: EnvOptions) -> BatchedEnv:
    """The environment of a worker process: built once, kept from task to task.

    What an episode returns depends on its request alone, so keeping the environment changes nothing but the time. An
    episode's order of repair is part of its request: environments that differ in it alone are one.
    """
    return _kept_env(options)


def forget_env_of_this_process() -> None:
    """Build the environment anew when it is next asked for: it failed, and nobody knows what state it is in."""
    _kept_env.cache_clear()


@lru_cache(maxsize=1)
def _kept_env(options: EnvOptions) -> BatchedEnv:
    return build_env(options)
