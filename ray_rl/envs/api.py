"""What an environment promises; nothing else about it is known above this room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ray_rl.episodes import EpisodeRequest
from ray_rl.workflow.orders import N_ORDERS, ORDER_CODE_SIZE
from ray_rl.workflow.rule import AlignmentRule


@dataclass(frozen=True, slots=True)
class EnvSpec:
    """What a policy has to know of an environment.

    Attributes:
        name: The environment with what distinguishes its scores, for example ``cage2 rules=head view=table``.
        observation_size: D, numbers in one observation.
        observation_bits: True when each of them is 0 or 1 (uint8; packed on the wire), else they are float32.
        n_actions: A, number of discrete actions.
        has_action_masks: Whether `BatchedEnv.action_masks` restricts the actions.
        follows_order: Whether the last 25 numbers of an observation are the code of the order of repair that the
            episode is asked to follow; the environment is an `OrderedEnv` then.
    """

    name: str
    observation_size: int
    observation_bits: bool
    n_actions: int
    has_action_masks: bool
    follows_order: bool = False


class StepResult(NamedTuple):
    """What one step of B environments returns.

    Slots whose episode is already over ignore their action; their entries here carry no meaning.

    Attributes:
        observations: [B, D] uint8 or float32, after the step.
        rewards: [B] float32.
        terminated: [B] bool, the episode ended by itself.
        truncated: [B] bool, the episode reached its number of steps.
        verdicts: [B] int8, whether the step was a fix that followed the order (`ray_rl.workflow.alignment`); None
            where no order is asked for.
    """

    observations: NDArray[Any]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    verdicts: NDArray[np.int8] | None = None


class BatchedEnv(Protocol):
    """B environments stepped together."""

    @property
    def spec(self) -> EnvSpec:
        """What a policy has to know."""
        ...

    @property
    def max_batch(self) -> int:
        """The most episodes that `reset` takes at once."""
        ...

    def reset(self, requests: Sequence[EpisodeRequest]) -> NDArray[Any]:
        """Start one episode per request; returns the first observations [B, D]."""
        ...

    def action_masks(self) -> NDArray[np.bool_] | None:
        """[B, A] True where an action is allowed now; None when every action always is."""
        ...

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        """Take one action [B] in each environment."""
        ...

    def close(self) -> None:
        """Release what the environment holds; safe to call twice."""
        ...


def with_orders(spec: EnvSpec) -> EnvSpec:
    """The spec of the same environment when its episodes are asked to follow orders of repair."""
    return replace(
        spec,
        name=f"{spec.name} workflow",
        observation_size=spec.observation_size + ORDER_CODE_SIZE,
        follows_order=True,
    )


def requested_orders(requests: Sequence[EpisodeRequest]) -> NDArray[np.int64]:
    """The orders that episodes are asked to follow: [B] int64 in 0…119.

    Raises:
        ValueError: When an episode names none, or one that does not exist.
    """
    for request in requests:
        if request.order_index is None or not 0 <= request.order_index < N_ORDERS:
            raise ValueError(f"episode {request.index} names order {request.order_index}, not one of 0…{N_ORDERS - 1}")
    return np.array([r.order_index for r in requests], dtype=np.int64)


def checked_actions(actions: NDArray[Any], n_envs: int, n_actions: int) -> NDArray[np.int64]:
    """Actions as compiled code may take them: [n_envs] int64 in 0…n_actions-1.

    Args:
        actions: What the caller gave.
        n_envs: B, environments that were reset.
        n_actions: A, actions there are.

    Raises:
        ValueError: For anything else, or when nothing was reset.
    """
    given = np.asarray(actions)
    if n_envs == 0:
        raise ValueError("call reset before step")
    if given.shape != (n_envs,):
        raise ValueError(f"step takes one action for each of {n_envs} environments, got shape {given.shape}")
    if not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"actions are whole numbers, got {given.dtype}")
    if given.min() < 0 or given.max() >= n_actions:
        raise ValueError(f"actions go from 0 to {n_actions - 1}, got {given.min()} to {given.max()}")
    return given.astype(np.int64, copy=False)


class OrderedEnv(BatchedEnv, Protocol):
    """An environment whose episodes are asked to follow an order of repair (`EnvSpec.follows_order`)."""

    @property
    def alignment(self) -> AlignmentRule | None:
        """What following the order is worth."""
        ...


class EnvError(RuntimeError):
    """An environment misbehaved in one of its slots.

    Args:
        slot: Which of the B environments.
        cause: What it did, in one line.
    """

    def __init__(self, slot: int, cause: str) -> None:
        super().__init__(slot, cause)
        self.slot = slot
        self.cause = cause

    def __str__(self) -> str:
        """The cause."""
        return self.cause
