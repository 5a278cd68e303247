"""Where the trainings of a search run: one after another in this process, or several at once on Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from ray_rl.config import TrainConfig
from ray_rl.search.training import Outcome, train_order

ConfigOf = Callable[[int | None], TrainConfig]
"""Makes a training's configuration from its share of the workers."""


class Trainings(Protocol):
    """Runs trainings that were asked for, at most `n_slots` at once."""

    @property
    def n_slots(self) -> int:
        """Trainings that run at once."""
        ...

    def start(self, order: int, config_of: ConfigOf) -> None:
        """Start a training; there is a free slot."""
        ...

    def next_outcome(self) -> Outcome:
        """Wait for one of the trainings under way."""
        ...


class InThisProcess:
    """One training at a time, when its outcome is asked for."""

    n_slots = 1

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, ConfigOf]] = deque()

    def start(self, order: int, config_of: ConfigOf) -> None:
        """As `Trainings.start`."""
        self._waiting.append((order, config_of))

    def next_outcome(self) -> Outcome:
        """As `Trainings.next_outcome`."""
        order, config_of = self._waiting.popleft()
        return train_order(order, config_of(1))
