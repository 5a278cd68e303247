"""Tests marked ``cyborg`` need the folder of a CybORG 2.1 checkout in RAY_RL_CYBORG_PATH."""

from __future__ import annotations

import os

import pytest

from ray_rl.envs.cyborg.find import Upstream, load
from ray_rl.envs.cyborg.game import Game
from ray_rl.envs.cyborg.rule_set import identify


@pytest.fixture(scope="session")
def cyborg_path() -> str:
    path = os.environ.get("RAY_RL_CYBORG_PATH")
    if not path:
        pytest.skip("RAY_RL_CYBORG_PATH names no folder of a CybORG 2.1 checkout")
    return path


@pytest.fixture(scope="session")
def upstream(cyborg_path: str) -> Upstream:
    return load(cyborg_path)


@pytest.fixture(scope="session")
def game(upstream: Upstream) -> Game:
    return Game(upstream)


@pytest.fixture(scope="session")
def rules(game: Game, upstream: Upstream) -> str:
    return identify(game, upstream)
