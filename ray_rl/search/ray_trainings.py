"""Several trainings at once on Ray, each in an actor that stays: torch is loaded and the kernels compiled only once.

A slot holds the learner of one training after another. With ``ray-tasks`` the episodes run as stateless tasks anywhere
in the cluster, each training keeping no more of them in flight than its share; else they run in the slot itself.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_rl.config import TrainConfig
from ray_rl.ray_runtime import cluster_cpus, wait_some
from ray_rl.search.training import Outcome, train_order
from ray_rl.search.trainings import ConfigOf


class _Slot:
    """What runs in the actor."""

    def train(self, order: int, config: TrainConfig) -> Outcome:
        """As `train_order`."""
        return train_order(order, config)

    def warm_up(self) -> None:
        """Load what a training needs, so that the first does not wait for it."""
        import ray_rl.ppo.local_learner
        import ray_rl.trainer  # noqa: F401


class RayTrainings:
    """Keeps the promises of `ray_rl.search.trainings.Trainings` by actors on this machine; Ray is connected already.

    Args:
        n_slots: Trainings at once.
        on_tasks: Whether their episodes run as tasks, which need the CPUs that a slot then leaves alone.
        n_workers: Tasks that run at once, of all trainings together; None: as many as the cluster has CPUs.
    """

    def __init__(self, n_slots: int, on_tasks: bool, n_workers: int | None) -> None:
        self.n_slots = n_slots
        self._share = max(1, (n_workers or cluster_cpus()) // n_slots) if on_tasks else 1
        self._num_cpus = 0 if on_tasks else 1
        self._free: list[Any] = [self._new_slot() for _ in range(n_slots)]
        self._running: dict[Any, tuple[int, Any]] = {}

    def _new_slot(self) -> Any:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor_class: Any = ray.remote(_Slot)
        slot = actor_class.options(num_cpus=self._num_cpus, max_restarts=0, scheduling_strategy=here).remote()
        slot.warm_up.remote()
        return slot

    def start(self, order: int, config_of: ConfigOf) -> None:
        """As `Trainings.start`."""
        slot = self._free.pop()
        self._running[slot.train.remote(order, config_of(self._share))] = (order, slot)

    def next_outcome(self) -> Outcome:
        """As `Trainings.next_outcome`; a slot whose process died is replaced."""
        done = wait_some(list(self._running), None)[0]
        order, slot = self._running.pop(done)
        try:
            outcome: Outcome = ray.get(done)
        except RayActorError as error:
            slot = self._new_slot()
            outcome = Outcome(order, error=f"its process died: {str(error).splitlines()[0]}")
        self._free.append(slot)
        return outcome

    def close(self) -> None:
        """End all slots; trainings under way stay as they last saved themselves."""
        for slot in [*self._free, *(slot for _, slot in self._running.values())]:
            ray.kill(slot)
        self._free.clear()
        self._running.clear()

    def __enter__(self) -> Self:
        """Return the trainings themselves."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
