"""Reading a checkout of MiniCAGE: what is played, and one sentence for what is not there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ray_rl.bench.minicage import episode_player, load_minicage
from ray_rl.config import UserError

ENVIRONMENT = """
import numpy as np
class SimplifiedCAGE:
    steps = []
    def __init__(self, num_envs):
        self.num_envs, self.action_mapping = num_envs, {"Blue": dict.fromkeys(range(3))}
    def reset(self):
        return {"Red": np.zeros((self.num_envs, 40))}, {}
    def step(self, red_action, blue_action):
        self.steps.append((red_action.shape, blue_action.shape, int(blue_action.max())))
        return {"Red": np.zeros((self.num_envs, 40))}, {}, None, {}
"""
RED = """
import numpy as np
class Meander_minimal:
    def get_action(self, observation):
        return np.zeros((len(observation), 1))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """The least that has the interface of a checkout."""
    package = tmp_path / "mini_CAGE"
    package.mkdir()
    (package / "__init__.py").write_text("from .minimal import SimplifiedCAGE\n")
    (package / "minimal.py").write_text(ENVIRONMENT)
    (package / "test_agent.py").write_text(RED)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "mini_CAGE"]:
        del sys.modules[name]


@pytest.mark.parametrize("below", ["", "mini_CAGE"])
def test_all_environments_take_every_step(checkout: Path, below: str) -> None:
    minicage = load_minicage(str(checkout / below))
    episode_player(minicage, 4, 7)()
    assert [step[:2] for step in minicage.environment.steps] == [((4, 1), (4, 1))] * 7
    assert max(step[2] for step in minicage.environment.steps) < 3
    assert str(checkout) not in sys.path


def test_a_folder_without_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no mini_CAGE/minimal\.py: clone"):
        load_minicage(str(tmp_path))


def test_what_breaks_its_import_is_told(checkout: Path) -> None:
    (checkout / "mini_CAGE" / "test_agent.py").write_text("import no_such_thing\n")
    with pytest.raises(UserError, match="cannot be imported: ModuleNotFoundError: No module named 'no_such_thing'"):
        load_minicage(str(checkout))
