"""CybORG behind its own wrappers, as the organisers evaluate it: what the adapter is measured and tested against.

``ChallengeWrapper`` and what it stands on run as they are; gym's classes and prettytable's are stand-ins, which do less
than the originals, so the stack runs no slower than with them.
"""

from __future__ import annotations

import importlib
import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_rl.envs.cyborg.find import Upstream
from ray_rl.envs.cyborg.own_random import OwnRandom
from ray_rl.envs.cyborg.stand_ins import stand_ins


class WrapperStack:
    """One red agent's CybORG in CybORG's own ``ChallengeWrapper``.

    Args:
        upstream: The package.
        red_agent: One of `ray_rl.episodes.RED_AGENTS`.

    Attributes:
        cyborg: The ``CybORG``.
        env: It in its wrapper.
    """

    def __init__(self, upstream: Upstream, red_agent: str) -> None:
        with stand_ins():
            wrappers = importlib.import_module("CybORG.Agents.Wrappers")
        self._random = OwnRandom()
        red = getattr(upstream.agents, red_agent)
        with self._random.in_use(seed=0):
            self.cyborg: Any = upstream.cyborg(str(upstream.scenario), "sim", agents={"Red": red})
            self.env: Any = wrappers.ChallengeWrapper(env=self.cyborg, agent_name="Blue")

    def reset(self, seed: int) -> NDArray[np.int64]:
        """Start an episode; returns the stock table [52] int64."""
        with self._random.in_use(seed):
            return np.asarray(self.env.reset(), dtype=np.int64)

    def step(self, action: int) -> tuple[NDArray[np.int64], float]:
        """Take one step; returns the stock table [52] int64 and Blue's reward."""
        with self._random.in_use():
            table, reward, _, _ = self.env.step(action=action)
        return np.asarray(table, dtype=np.int64), float(reward)

    def play_without_bookkeeping(self, seed: int, actions: NDArray[np.int64]) -> None:
        """Play an episode as the organisers' script does, on Python's own generator: for measuring."""
        random.seed(seed)
        self.env.reset()
        for action in actions.tolist():
            self.env.step(action=action)
