"""Several learner processes on one batch, which to whoever asks are one learner.

The process that is asked has a part of every batch itself, hands the others theirs, and speaks for all: their networks
are equal bit for bit, so its weights and state are everyone's. The others end with it. When one of them dies the update
fails, and whoever asked starts a new team (`ray_rl.ppo.ray_learner`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, cast

import psutil
import ray
from ray.exceptions import RayActorError

from ray_rl.envs.masks import restore_masks
from ray_rl.envs.true_state import with_true_state
from ray_rl.episodes import EpisodeBatch, concatenate_in_order
from ray_rl.ppo.api import Assignment, LearnerDiedError, LearnerState, UpdateStats
from ray_rl.ppo.batch import Part, check_episodes, split
from ray_rl.ppo.learner import Learner
from ray_rl.ppo.team import TeamBrokenError, join_team, meeting_place
from ray_rl.ray_runtime import this_node

_VERDICT_S = 10.0
"""How long to wait for word of which learner is gone, in seconds."""


class _Member:
    """What runs in the actor of another learner.

    Args:
        assignment: That of the first learner.
        rank: Number of this one, from 1.
        host: Address of the first learner.
        port: Where the learners find each other there.
    """

    def __init__(self, assignment: Assignment, rank: int, host: str, port: int) -> None:
        _speak_by_the_clusters_network()
        team = join_team(meeting_place(host, port), rank, assignment.ppo.n_learners)
        self._learner = Learner(assignment, team)

    def pid(self) -> int:
        """Number of the actor's process."""
        return os.getpid()

    def update_part(self, part: Part) -> None:
        """As `Learner.update_part`; what it says of the update, the first learner says too."""
        self._learner.update_part(part)

    def load_state(self, state: LearnerState) -> None:
        """As `Learner.load_state`."""
        self._learner.load_state(state)


class LearnerTeam:
    """The first of several learners; runs in an actor. It is used as a `Learner` is.

    Args:
        assignment: What to learn, how, and how many learners there are.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._spec = assignment.spec
        self._true_state = assignment.true_state
        self._size = assignment.ppo.n_learners
        self._broken: str | None = None
        host = _speak_by_the_clusters_network()
        self._store = meeting_place(host)
        member: Any = ray.remote(_Member)
        member = member.options(
            num_cpus=0,
            num_gpus=assignment.ppo.gpus_per_learner,
            max_restarts=0,
            scheduling_strategy="DEFAULT" if assignment.ppo.gpus_per_learner else _placement(self._size),
        )
        self._members = [member.remote(assignment, rank, host, self._store.port) for rank in range(1, self._size)]
        team = join_team(self._store, 0, self._size)
        self._learner = Learner(assignment, team)

    def pids(self) -> list[int]:
        """Numbers of the processes of all learners, this one's first."""
        return [os.getpid(), *ray.get([member.pid.remote() for member in self._members])]

    def update(self, batches: Sequence[EpisodeBatch]) -> UpdateStats:
        """Learn from complete episodes, together; when that fails, all learners stay as they were.

        Args:
            batches: The episodes of one update, in any order.

        Raises:
            LearnerDiedError: When one of the learners is gone. Other errors are those of `Learner.update`.
        """
        if self._broken is not None:
            raise LearnerDiedError(self._broken)
        started = time.perf_counter()
        whole = concatenate_in_order(batches)
        # Before the learners begin: what one alone refuses leaves the others waiting.
        check_episodes(restore_masks(whole), self._spec)
        if self._true_state is not None:
            with_true_state(whole, self._true_state)
        own, *others = split(whole, self._size)
        joined_s = time.perf_counter() - started
        under_way = [member.update_part.remote(part) for member, part in zip(self._members, others, strict=True)]
        try:
            return self._learner.update_part(own, joined_s)
        except TeamBrokenError as error:
            self._broken = self._first_cause(under_way) or str(error)
            raise LearnerDiedError(self._broken) from error

    def _first_cause(self, under_way: Sequence[Any]) -> str | None:
        """Which learner is gone, and why, as far as Ray knows."""
        ray.wait(list(under_way), num_returns=len(under_way), timeout=_VERDICT_S)
        for number, reference in enumerate(under_way, start=2):
            try:
                ray.get(reference, timeout=0)
            except RayActorError as death:
                reason = str(death).strip().splitlines()[0]
                return f"learner {number} of {self._size} is gone: {reason}"
            except Exception:  # it too only misses the one that is gone
                continue
        return None

    def state(self) -> LearnerState:
        """As `Learner.state`."""
        return self._learner.state()

    def load_state(self, state: LearnerState) -> None:
        """As `Learner.load_state`, for all learners."""
        self._learner.load_state(state)
        ray.get([member.load_state.remote(state) for member in self._members])


def _placement(size: int) -> Any:
    """Beside the first learner where there are cores enough, else spread over the cluster."""
    if size > len(os.sched_getaffinity(0)):
        return "SPREAD"
    return this_node()


def _speak_by_the_clusters_network() -> str:
    """Let sums travel by the network interface that Ray uses; returns this node's address there."""
    address: str = cast("Any", ray.util).get_node_ip_address()
    for name, entries in psutil.net_if_addrs().items():
        if address in {entry.address for entry in entries}:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
    return address
