"""MiniCAGE, a public re-implementation of CAGE-2 in vectorised numpy, where the user has a checkout of it.

https://github.com/alan-turing-institute/CybORG_plus_plus; it plays by rules of its own, so that only its speed is
comparable, not what is scored on it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ray_rl.config import UserError

_PACKAGE = "mini_CAGE"


@dataclass(frozen=True, slots=True)
class MiniCage:
    """Its classes.

    Attributes:
        environment: ``SimplifiedCAGE``.
        meander: ``Meander_minimal``, a red agent that plays many episodes at once.
    """

    environment: Any
    meander: Any


def load_minicage(path: str) -> MiniCage:
    """Import the package ``mini_CAGE`` from a checkout; nothing stays on `sys.path`.

    Args:
        path: The checkout of CybORG_plus_plus, or the package in it.

    Raises:
        UserError: When it is not there, or cannot be imported.
    """
    given = Path(path).expanduser()
    folder = next((f for f in (given / _PACKAGE, given) if (f / "minimal.py").is_file()), None)
    if folder is None:
        raise UserError(
            f"--minicage-path {path} holds no {_PACKAGE}/minimal.py: "
            "clone https://github.com/alan-turing-institute/CybORG_plus_plus and name its folder"
        )
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None or not (folder / "__init__.py").is_file():
        raise UserError(f"--minicage-path {path}: {folder} is no Python package")
    package = importlib.util.module_from_spec(spec)
    sys.modules[_PACKAGE] = package
    try:
        spec.loader.exec_module(package)
        environment = importlib.import_module(f"{_PACKAGE}.minimal").SimplifiedCAGE
        meander = importlib.import_module(f"{_PACKAGE}.test_agent").Meander_minimal
    except Exception as error:
        raise UserError(f"--minicage-path {path} cannot be imported: {type(error).__name__}: {error}") from error
    return MiniCage(environment, meander)


def episode_player(minicage: MiniCage, n_envs: int, n_steps: int) -> Callable[[], None]:
    """A function that plays episodes of a random Blue against its meandering Red, which is vectorised as the rest is.

    Args:
        minicage: From `load_minicage`.
        n_envs: Episodes played together.
        n_steps: Steps of each.
    """
    env = minicage.environment(num_envs=n_envs)
    red = minicage.meander()
    blue_actions = np.random.default_rng(0).integers(len(env.action_mapping["Blue"]), size=(n_steps, n_envs, 1))

    def play() -> None:
        seen, _ = env.reset()
        for blue_action in blue_actions:
            red_action = red.get_action(observation=seen["Red"])
            seen, _, _, _ = env.step(red_action=red_action, blue_action=blue_action)

    return play
