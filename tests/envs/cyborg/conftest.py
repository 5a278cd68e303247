"""Tests marked ``cyborg`` need an importable CybORG 2.1, or the folder of a checkout in RAY_RL_CYBORG_PATH."""

from __future__ import annotations

import pytest

from ray_rl.envs.cyborg.find import Upstream, load
from ray_rl.envs.cyborg.game import Game
from ray_rl.envs.cyborg.rule_set import identify


@pytest.fixture(scope="session")
def upstream(cyborg_path: str) -> Upstream:
    return load(cyborg_path)


@pytest.fixture(scope="session")
def game(upstream: Upstream) -> Game:
    return Game(upstream)


@pytest.fixture(scope="session")
def rules(game: Game, upstream: Upstream) -> str:
    return identify(game, upstream)
