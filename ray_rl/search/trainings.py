"""Where the trainings of a search run: one after another in this process, or several at once on Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from ray_rl.config import TrainConfig
from ray_rl.search.config import SearchRun
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


@contextmanager
def make_trainings(config: SearchRun) -> Iterator[Trainings]:
    """Make what a search needs to train, with the Ray that it needs; everything is released at the end."""
    collect = config.collect
    if collect.collector == "sequential" and config.search.parallel == 1:
        yield InThisProcess()
        return
    from ray_rl.collect.factory import default_n_workers
    from ray_rl.ray_runtime import connection
    from ray_rl.search.ray_trainings import RayTrainings

    on_tasks = collect.collector == "ray-tasks"
    n_workers = (collect.n_workers or default_n_workers()) if on_tasks else config.search.parallel
    with (
        connection(collect.address, n_workers),
        RayTrainings(config.search.parallel, on_tasks, collect.n_workers) as trainings,
    ):
        yield trainings
