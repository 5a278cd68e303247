"""Learners that share a batch: each computes with episodes of its own, and what they add up makes them one.

All learners of a team call the same sums in the same order. A sum has the same bits for all of them, and for the same
number of learners the same bits every time (three or more may round otherwise on one machine than on several); so their
networks stay equal without ever being sent. Actor and critic train side by side and therefore have a channel each.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch
from torch import Tensor, distributed

from ray_rl.failures import RunError
from ray_rl.ppo.shared_sums import BrokenSumError, SharedSums, can_share, make_memory

_distributed: Any = distributed  # torch's stubs leave out what is used here

SILENCE_S = 120.0
"""How long a learner waits for the others before it gives up, in seconds."""


class TeamBrokenError(RunError):
    """Another learner of the team is gone, or has been silent for too long."""


class Sums(Protocol):
    """What joins learners: `SharedSums` on one machine, `GlooSums` on several."""

    def combine(self, numbers: Tensor, largest: bool) -> None:
        """Replace numbers of the host by their sums over the learners, or by the largest of each.

        Raises:
            BrokenSumError: When another learner does not answer.
        """
        ...

    def close(self) -> None:
        """Let the others learn at once that this learner is gone; safe to call twice."""
        ...


class GlooSums:
    """Sums over the network.

    Args:
        group: Process group of torch.
    """

    def __init__(self, group: Any) -> None:
        self._group = group

    def combine(self, numbers: Tensor, largest: bool) -> None:
        """As `Sums.combine`."""
        operation = distributed.ReduceOp.MAX if largest else distributed.ReduceOp.SUM
        try:
            self._group.allreduce([numbers], operation).wait()
        except RuntimeError as error:
            raise BrokenSumError(str(error).strip().splitlines()[0]) from error

    def close(self) -> None:
        """Close the connections."""
        self._group = None


class Channel:
    """Sums over the learners of a team.

    Args:
        sums: What joins them; None for a learner that is alone.
    """

    def __init__(self, sums: Sums | None = None) -> None:
        self._sums = sums
        self._is_closed = False

    def add_up(self, numbers: Tensor) -> Tensor:
        """Replace numbers by their sums over the learners, in place; returns them.

        Raises:
            TeamBrokenError: When another learner does not answer.
        """
        return self._combine(numbers, largest=False)

    def largest(self, numbers: Tensor) -> Tensor:
        """Replace numbers by the largest of each over the learners; otherwise as `add_up`."""
        return self._combine(numbers, largest=True)

    def close(self) -> None:
        """Let the others learn at once that this learner is gone; safe to call twice."""
        if self._sums is not None:
            self._is_closed = True
            self._sums.close()

    def _combine(self, numbers: Tensor, largest: bool) -> Tensor:
        if self._is_closed:
            raise TeamBrokenError("the connection to the other learners was closed")
        if self._sums is not None:
            on_host = numbers.cpu()
            try:
                self._sums.combine(on_host, largest)
            except BrokenSumError as error:
                self.close()  # a neighbour of this learner need not be one of the learner that is gone
                raise TeamBrokenError(f"another learner does not answer: {error}") from error
            if on_host is not numbers:
                numbers.copy_(on_host)
        return numbers

    def moments(self, values: Tensor, n_values: int) -> tuple[float, float]:
        """Mean and variance of the values of all learners.

        Args:
            values: [m] those of this learner.
            n_values: Number of values that all learners have together.
        """
        wide = values.double()
        mean = float(self.add_up(wide.sum())) / n_values
        variance = float(self.add_up((wide - mean).square_().sum())) / n_values
        return mean, variance


@dataclass(frozen=True, slots=True)
class Team:
    """The learners that share a batch, as one of them sees them.

    Attributes:
        actor: Sums for the advantages and for training the actor.
        critic: Sums for what the old policy says and for training the critic.
    """

    actor: Channel
    critic: Channel

    def close(self) -> None:
        """Leave: the others learn at once that this learner is gone; safe to call twice."""
        self.actor.close()
        self.critic.close()


ALONE = Team(Channel(), Channel())
"""The team of a learner that has the whole batch."""


def meeting_place(host: str, port: int = 0) -> Any:
    """A store by which learners in several processes find each other.

    Args:
        host: Address of the first learner.
        port: Where it listens; 0 for the first learner itself, whose store then has a ``port``.
    """
    return _distributed.TCPStore(host, port, is_master=port == 0, wait_for_workers=False)


def join_team(store: Any, rank: int, size: int, silence_s: float = SILENCE_S, in_memory: bool = True) -> Team:
    """Join the other learners; returns when all are there.

    On one machine sums go by memory that the learners share, else by gloo. Those of a GPU come to the host for it:
    gradients of networks as small as a policy's are 80 kB or so, and a learner that is gone is noticed at once, which
    NCCL would take minutes to tell.

    Args:
        store: Where they find each other, of `torch.distributed`.
        rank: Number of this learner, from 0.
        size: Number of learners.
        silence_s: How long to wait for the others, here and in every sum, in seconds.
        in_memory: Whether they may share memory; all say the same.

    Raises:
        TeamBrokenError: When one of them does not come.
    """
    try:
        sums = _meet_in_memory(store, rank, size, silence_s) if in_memory else None
        if sums is None:
            sums = [
                GlooSums(
                    _distributed.ProcessGroupGloo(
                        _distributed.PrefixStore(name, store), rank, size, timedelta(seconds=silence_s)
                    )
                )
                for name in ("actor", "critic")
            ]
    except RuntimeError as error:
        raise TeamBrokenError(f"the learners do not find each other: {error}") from error
    team = Team(*(Channel(one) for one in sums))
    for channel in (team.actor, team.critic):
        channel.add_up(torch.zeros(1))
    return team


def _meet_in_memory(store: Any, rank: int, size: int, silence_s: float) -> Sequence[Sums] | None:
    """What joins learners of one machine, for actor and critic; None where one of them does not see all others."""
    store.set_timeout(timedelta(seconds=silence_s))
    paths: list[Path] = []
    try:
        if rank == 0:
            with contextlib.suppress(OSError):
                for _ in ("actor", "critic") if can_share() else ():
                    paths.append(make_memory(size))
            store.set("memory", "\n".join(map(str, paths)))
        sums: list[SharedSums] = []
        with contextlib.suppress(OSError):
            sums += [SharedSums(Path(path), rank, size, silence_s) for path in store.get("memory").decode().split()]
        pids = [int(word) for word in _say(store, "pid", rank, size, str(os.getpid() if len(sums) == 2 else 0))]
        sees_all = all(pid and psutil.pid_exists(pid) for pid in pids)
        return sums if all(map(int, _say(store, "sees all", rank, size, str(int(sees_all))))) else None
    finally:
        for path in paths:
            path.unlink()


def _say(store: Any, what: str, rank: int, size: int, word: str) -> list[str]:
    """Say something to all, and hear what each says of it, in the order of ranks."""
    store.set(f"{what} {rank}", word)
    return [store.get(f"{what} {other}").decode() for other in range(size)]
