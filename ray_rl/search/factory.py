"""What a search needs to train, chosen by its configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ray_rl.search.config import SearchRun
from ray_rl.search.trainings import InThisProcess, Trainings


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
