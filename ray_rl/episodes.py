"""The record that travels between rooms: what was asked for, and what came of it.

Shapes: N episodes, M steps in all, D observation size, A actions, B environments stepped together.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ray_rl.seeding import Purpose, episode_seeds, mix64, unit_interval
from ray_rl.workflow.orders import N_ORDERS

MIXED_RED_AGENT = "mixed"
"""Name of the mixture of red agents; each episode of a run draws one."""

MIXTURE = (("B_lineAgent", 0.49), ("RedMeanderAgent", 0.49), ("SleepAgent", 0.02))
"""Red agents of the mixture with their shares."""

_MIXTURE_SALT = np.uint64(0x6D6978747572)
"""Separates the draw of the red agent from the episode's other draws."""

_ORDER_SALT = np.uint64(0x6F72646572)
"""Separates the draw of the order of repair likewise."""

RED_AGENTS = tuple(name for name, _ in MIXTURE)
"""The red agents of CAGE Challenge 2."""

PROTOCOL_STEPS = (30, 50, 100)
"""Episode lengths of the challenge's evaluation, in steps."""


@dataclass(frozen=True, slots=True)
class EpisodeRequest:
    """Everything that decides an episode, given weights.

    Attributes:
        index: Position in the run (from 0, for each purpose); restores order whatever finished first.
        seed: Seed of the episode's own random numbers, in [0, 2**63).
        max_steps: Number of steps after which the episode is truncated.
        red_agent: One of `RED_AGENTS`; environments without an attacker ignore it.
        greedy: Take the likeliest action instead of a sampled one.
        purpose: What the episode is for; a chunk holds episodes of one purpose.
        order_index: Index of the repair order that the policy is asked to follow, or None.
    """

    index: int
    seed: int
    max_steps: int
    red_agent: str = "B_lineAgent"
    greedy: bool = False
    purpose: Purpose = Purpose.TRAIN
    order_index: int | None = None


def episode_requests(
    run_seed: int,
    first: int,
    count: int,
    *,
    red_agent: str,
    max_steps: int,
    purpose: Purpose = Purpose.TRAIN,
    greedy: bool = False,
    order: int | Literal["random"] | None = None,
) -> list[EpisodeRequest]:
    """Make the requests of consecutive episodes of a run.

    Args:
        run_seed: The run's seed.
        first: Index of the first episode.
        count: Number of episodes.
        red_agent: A red agent's name, or ``mixed``: then each episode draws its own from `MIXTURE` by its seed.
        max_steps: Steps per episode.
        purpose: What the episodes are for; decides which seeds they get.
        greedy: Whether the likeliest action is taken.
        order: Index of the order of repair to follow, or ``random``: then each episode draws its own by its seed.
    """
    seeds = episode_seeds(run_seed, purpose, first, count)
    agents = _draw_red_agents(seeds) if red_agent == MIXED_RED_AGENT else [red_agent] * count
    orders: Sequence[int | None] = _draw_orders(seeds) if isinstance(order, str) else [order] * count
    return [
        EpisodeRequest(index, seed, max_steps, agent, greedy, purpose, order_index)
        for index, seed, agent, order_index in zip(
            range(first, first + count), seeds.tolist(), agents, orders, strict=True
        )
    ]


PackedRequests = list[tuple[Any, ...]]
"""Requests as plain values."""

_values_of = attrgetter(*(field.name for field in fields(EpisodeRequest)))


def packed(requests: Iterable[EpisodeRequest]) -> PackedRequests:
    """Requests for another process: plain values are written several times faster than objects.

    The simulator plays ten thousand episodes a second, and Ray takes 4 µs for each object that it sends.
    """
    return [_values_of(request) for request in requests]


def unpacked(requests: PackedRequests) -> list[EpisodeRequest]:
    """The requests that were packed."""
    return [EpisodeRequest(*values) for values in requests]


def _draw_orders(seeds: NDArray[np.uint64]) -> list[int]:
    draws: NDArray[np.float64] = unit_interval(mix64(seeds ^ _ORDER_SALT))
    orders: list[int] = (draws * N_ORDERS).astype(np.int64).tolist()
    return orders


def _draw_red_agents(seeds: NDArray[np.uint64]) -> list[str]:
    bounds = np.cumsum([share for _, share in MIXTURE])[:-1]
    draws: NDArray[np.float64] = unit_interval(mix64(seeds ^ _MIXTURE_SALT))
    return [RED_AGENTS[number] for number in np.searchsorted(bounds, draws, side="right").tolist()]


@dataclass(frozen=True, slots=True)
class EpisodeBatch:
    """N complete episodes as arrays, one after another; M is the sum of their lengths.

    Observations of bits and action masks travel packed, eight to a byte (`numpy.packbits`, most significant first).

    Attributes:
        observations: [M, D] float32, or [M, ceil(D/8)] uint8 for observations of bits; what the policy saw.
        action_masks: [M, ceil(A/8)] uint8, packed, or None where every action is always allowed, or where the masks
            follow from the rest and did not travel (`mask_rule`).
        actions: [M] uint8, uint16 or int64, the smallest that holds the number of actions.
        behaviour_log_probs: [M] float32, log π(a|s) as computed when the action was taken.
        rewards: [M] float32.
        lengths: [N] int32, steps of each episode; their sum is M.
        terminated: [N] bool, whether the episode ended by itself (False: it was truncated).
        final_observations: [N, …] as `observations`, seen after the last step; bootstraps truncated episodes.
        indices: [N] int64, `EpisodeRequest.index`.
        policy_version: Number of finished updates behind the weights that acted.
        alignment_rewards: [M] float32, for following an order of repair; None where no order was asked for. They come
            on top of `rewards`, which are the environment's alone.
        mask_rule: Name of the rule by which `ray_rl.envs.masks.restore_masks` derives the masks; None: they are here,
            or there are none.
        extras: Named [N] arrays, one entry per episode (``red_agent``: index into `RED_AGENTS`, ``seed``; with orders
            of repair ``order_index``, ``compliance``, ``fixes`` and ``alignment_return``).
        node: Name of the host on which the episodes ran.
        pid: Process id there.
        rollout_s: Seconds that running the episodes took.
        env_s: Part of them spent in the environment; 0 where one kernel does everything.
        policy_s: Part of them spent on picking actions; 0 likewise.
    """

    observations: NDArray[Any]
    action_masks: NDArray[np.uint8] | None
    actions: NDArray[Any]
    behaviour_log_probs: NDArray[np.float32]
    rewards: NDArray[np.float32]
    lengths: NDArray[np.int32]
    terminated: NDArray[np.bool_]
    final_observations: NDArray[Any]
    indices: NDArray[np.int64]
    policy_version: int
    alignment_rewards: NDArray[np.float32] | None = None
    mask_rule: str | None = None
    extras: dict[str, NDArray[Any]] = field(default_factory=dict)
    node: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    rollout_s: float = 0.0
    env_s: float = 0.0
    policy_s: float = 0.0

    @property
    def n_bytes(self) -> int:
        """Bytes of all arrays together."""
        arrays = [getattr(self, name) for name in _STEP_FIELDS + _EPISODE_FIELDS]
        return sum(int(a.nbytes) for a in (*arrays, *self.extras.values()) if a is not None)

    def returns(self) -> NDArray[np.float64]:
        """Undiscounted sum of rewards of each episode: [N] float64."""
        return np.add.reduceat(self.rewards.astype(np.float64), _starts(self.lengths))

    def protocol_returns(self) -> NDArray[np.float64]:
        """Sum of each episode's returns over the first 30, 50 and 100 steps: [N] float64; see `protocol_weights`."""
        weighted = self.rewards.astype(np.float64) * protocol_weights(self.lengths)
        return np.add.reduceat(weighted, _starts(self.lengths))


def protocol_weights(lengths: NDArray[np.int32]) -> NDArray[np.float32]:
    """Weight of each step when one long episode stands for one of every length of the protocol.

    A policy that does not know how long an episode lasts plays the first 30 steps of any longer one as it plays an
    episode of 30. Its returns over 30, 50 and 100 steps therefore add up to one episode of 100 steps whose rewards
    count 3 times up to step 30, twice up to step 50, once up to step 100, and not at all after it.

    Args:
        lengths: [N] int32, steps of episodes that lie one after another.

    Returns:
        [M] float32, M the sum of the lengths.
    """
    steps = np.arange(int(lengths.sum())) - np.repeat(_starts(lengths), lengths)
    return np.sum([steps < length for length in PROTOCOL_STEPS], axis=0, dtype=np.float32)


_STEP_FIELDS = ("observations", "action_masks", "actions", "behaviour_log_probs", "rewards", "alignment_rewards")
_EPISODE_FIELDS = ("lengths", "terminated", "final_observations", "indices")


def action_dtype(n_actions: int) -> np.dtype[Any]:
    """The smallest unsigned type that holds the actions 0…n_actions-1."""
    return np.min_scalar_type(n_actions - 1)


def request_extras(requests: Sequence[EpisodeRequest]) -> dict[str, NDArray[Any]]:
    """What a batch keeps of its requests: named [N] arrays.

    ``red_agent`` is the index into `RED_AGENTS`, ``seed`` the episode's own; ``order_index`` is there when all are
    asked to follow an order.
    """
    extras: dict[str, NDArray[Any]] = {
        "red_agent": np.array([RED_AGENTS.index(r.red_agent) for r in requests], dtype=np.int8),
        "seed": np.array([r.seed for r in requests], dtype=np.uint64),
    }
    orders = [r.order_index for r in requests if r.order_index is not None]
    if len(orders) == len(requests):
        extras["order_index"] = np.array(orders, dtype=np.int16)
    return extras


def _starts(lengths: NDArray[np.int32]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(lengths[:-1], dtype=np.int64)))


def concatenate_in_order(batches: Sequence[EpisodeBatch]) -> EpisodeBatch:
    """Join batches into one whose episodes are sorted by index, whatever order the batches came in.

    Args:
        batches: At least one batch, all of the same environment.

    Returns:
        One batch; its `policy_version` is the oldest of them, its times their sums. `extras` of each episode
        gain ``policy_version`` [N] int64, so that the lag of each can still be told.
    """
    joined: dict[str, Any] = {
        name: join_arrays([getattr(b, name) for b in batches]) for name in _STEP_FIELDS + _EPISODE_FIELDS
    }
    extras = {name: np.concatenate([b.extras[name] for b in batches]) for name in batches[0].extras}
    extras["policy_version"] = np.concatenate(
        [np.full(len(b.lengths), b.policy_version, dtype=np.int64) for b in batches]
    )
    whole = replace(
        batches[0],
        **joined,
        extras=extras,
        policy_version=min(b.policy_version for b in batches),
        rollout_s=sum(b.rollout_s for b in batches),
        env_s=sum(b.env_s for b in batches),
        policy_s=sum(b.policy_s for b in batches),
    )
    order = np.argsort(whole.indices, kind="stable")
    return whole if np.array_equal(order, np.arange(len(order))) else take_episodes(whole, order)


def take_episodes(batch: EpisodeBatch, episodes: NDArray[np.int64]) -> EpisodeBatch:
    """Pick episodes of a batch by their positions, in the given order.

    Args:
        batch: The batch.
        episodes: [K] positions in 0…N-1.
    """
    starts = _starts(batch.lengths)
    lengths = batch.lengths[episodes]
    total = int(lengths.sum())
    offsets = np.arange(total) - np.repeat(_starts(lengths), lengths)
    steps = np.repeat(starts[episodes], lengths) + offsets
    picked: dict[str, Any] = {}
    for name in _STEP_FIELDS:
        values = getattr(batch, name)
        picked[name] = None if values is None else values[steps]
    for name in _EPISODE_FIELDS:
        picked[name] = getattr(batch, name)[episodes]
    extras = {name: values[episodes] for name, values in batch.extras.items()}
    return replace(batch, **picked, extras=extras)


def join_arrays(arrays: Sequence[NDArray[Any] | None]) -> Any:
    """Concatenate the arrays of a field that may be absent; None when all are."""
    present = [a for a in arrays if a is not None]
    return np.concatenate(present) if present else None


class EpisodeError(RuntimeError):
    """An episode could not be run; names the episode so that it can be run again in one process.

    Args:
        request: The episode that failed, or the first of several that were stepped together.
        cause: First cause, as one line.
        details: The worker's traceback, for the log.
        chunk: All episodes that are dropped with it; empty when none is, because they may still finish.
    """

    def __init__(
        self, request: EpisodeRequest, cause: str, details: str = "", chunk: Sequence[EpisodeRequest] = ()
    ) -> None:
        super().__init__(request, cause, details, tuple(chunk))
        self.request = request
        self.cause = cause
        self.details = details
        self.chunk = tuple(chunk)

    def __str__(self) -> str:
        """Say which episode failed, why, and how to reproduce it."""
        r = self.request
        return (
            f"episode {r.index} (seed {r.seed}, {r.red_agent}, {r.max_steps} steps) failed: {self.cause}. "
            f"It depends on that seed and the weights alone: --collector sequential runs it in one process."
        )
