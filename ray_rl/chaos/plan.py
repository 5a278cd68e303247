"""What is done to a training, and when: decided by a seed before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ray_rl.config import UserError

FaultName = Literal["worker", "straggler", "node", "silence", "learner", "driver"]
FAULTS: tuple[FaultName, ...] = get_args(FaultName)

MEANING: dict[FaultName, str] = {
    "worker": "a sampling process is killed",
    "straggler": "a sampling process stands still for a while",
    "node": "a node is killed, another one joins",
    "silence": "a node with all its processes stands still, as behind a cut link; another one joins",
    "learner": "the learner's process is killed",
    "driver": "the driver is killed and started again with --resume",
}
"""What happens to the training, by the fault's name."""

STANDSTILL_S = 20.0
"""How long a process or node stands still, in seconds; then it goes on, if it is still wanted."""


@dataclass(frozen=True, slots=True)
class Event:
    """One disturbance.

    Attributes:
        fault: What happens.
        after_update: Once so many updates are recorded.
        delay: How far into the next update, as a share of the usual duration of one.
    """

    fault: FaultName
    after_update: int
    delay: float


def make_plan(faults: Sequence[FaultName], times: int, n_updates: int, seed: int) -> list[Event]:
    """Spread faults over a training, in an order and at moments that the seed decides.

    Each has a stretch of updates of its own, of which the first and the last update stay undisturbed, so that what one
    costs is not counted as another's.

    Args:
        faults: Which ones.
        times: How often each.
        n_updates: Updates of the training.
        seed: Decides order and moments.

    Raises:
        UserError: When the training is too short.
    """
    rng = np.random.default_rng(seed)
    order = [fault for fault in faults for _ in range(times)]
    rng.shuffle(order)
    bounds = np.linspace(0, n_updates, len(order) + 1).astype(int).tolist()
    if n_updates < 4 * len(order):
        raise UserError(f"{len(order)} faults need a training of {4 * len(order)} updates or more, not {n_updates}")
    return [
        Event(fault, int(rng.integers(first + 1, end - 2)), float(rng.random()))
        for fault, first, end in zip(order, bounds[:-1], bounds[1:], strict=True)
    ]
