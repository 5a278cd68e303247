"""The examples for other libraries run, in a few seconds each, where the library is installed; they stay short."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent.parent / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_they_are_short() -> None:
    lines = {path.name: len(path.read_text().splitlines()) for path in FOLDER.glob("*.py")}
    assert len(lines) == 3
    assert max(lines.values()) < 60, lines


def test_in_the_manner_of_cleanrl_it_learns() -> None:
    train = example("cleanrl_ppo").train
    assert train(n_updates=30, n_envs=40, n_steps=30) > train(n_updates=1, n_envs=40, n_steps=30)


def test_stable_baselines3() -> None:
    pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    model, score = example("stable_baselines3_ppo").train(total_episodes=40, num_envs=10, episode_steps=20)
    assert model.num_timesteps == 800
    assert score < 0


def test_rllib() -> None:
    pytest.importorskip("ray.rllib.algorithms.ppo", reason="ray[rllib] is not installed", exc_type=ImportError)
    module = example("rllib_ppo")
    returns = module.train(module.configure(num_env_runners=0, num_envs=10, episode_steps=20), n_updates=2)
    assert len(returns) == 2
    assert all(math.isfinite(mean) and mean < 0 for mean in returns)
