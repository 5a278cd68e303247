"""Tests marked ``cyborg`` need an importable CybORG 2.1, or the folder of a checkout in RAY_RL_CYBORG_PATH."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from ray_rl.envs.cyborg.find import Upstream, load
from ray_rl.envs.cyborg.game import Game
from ray_rl.envs.cyborg.rule_set import identify


@pytest.fixture(scope="session")
def cyborg_path() -> str:
    path = os.environ.get("RAY_RL_CYBORG_PATH")
    if path:
        return path
    spec = importlib.util.find_spec("CybORG")
    if spec is None or spec.origin is None:
        pytest.skip("CybORG 2.1 is not installed, and RAY_RL_CYBORG_PATH names no folder of a checkout")
    return str(Path(spec.origin).parent)


@pytest.fixture(scope="session")
def upstream(cyborg_path: str) -> Upstream:
    return load(cyborg_path)


@pytest.fixture(scope="session")
def game(upstream: Upstream) -> Game:
    return Game(upstream)


@pytest.fixture(scope="session")
def rules(game: Game, upstream: Upstream) -> str:
    return identify(game, upstream)
