"""Learners that share a batch: each computes with episodes of its own, and what they add up makes them one.

All learners of a team call the same sums in the same order. A sum has the same bits for all of them, and for the same
number of learners the same bits every time; so their networks stay equal without ever being sent. Actor and critic
train side by side and therefore have a channel each.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from ray_rl.failures import RunError

_distributed: Any = distributed  # torch's stubs leave out what is used here

SILENCE_S = 120.0
"""How long a learner waits for the others before it gives up, in seconds."""


class TeamBrokenError(RunError):
    """Another learner of the team is gone, or has been silent for too long."""


class Channel:
    """Sums over the learners of a team.

    Args:
        group: What joins them, a process group of torch; None for a learner that is alone.
    """

    def __init__(self, group: Any = None) -> None:
        self._group = group
        self._is_closed = False

    def add_up(self, numbers: Tensor) -> Tensor:
        """Replace numbers by their sums over the learners, in place; returns them.

        Raises:
            TeamBrokenError: When another learner does not answer.
        """
        return self._reduce(numbers, distributed.ReduceOp.SUM)

    def largest(self, numbers: Tensor) -> Tensor:
        """Replace numbers by the largest of each over the learners; otherwise as `add_up`."""
        return self._reduce(numbers, distributed.ReduceOp.MAX)

    def close(self) -> None:
        """Close the connections, so that the others learn at once that this learner is gone; safe to call twice."""
        self._is_closed = self._is_closed or self._group is not None
        self._group = None

    def _reduce(self, numbers: Tensor, operation: distributed.ReduceOp.RedOpType) -> Tensor:
        if self._is_closed:
            raise TeamBrokenError("the connection to the other learners was closed")
        if self._group is not None:
            try:
                self._group.allreduce([numbers], operation).wait()
            except RuntimeError as error:
                self.close()  # a neighbour of this learner need not be one of the learner that is gone
                cause = str(error).strip().splitlines()[0]
                raise TeamBrokenError(f"another learner does not answer: {cause}") from error
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
        actor: Sums for training the actor, and for everything before it.
        critic: Sums for training the critic.
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


def join_team(store: Any, rank: int, size: int, silence_s: float = SILENCE_S) -> Team:
    """Join the other learners; returns when all are there.

    Sums go by gloo, which takes those of a GPU by way of the host: gradients of networks as small as a policy's are
    80 kB or so, and a learner that is gone is noticed at once, which NCCL would take minutes to tell.

    Args:
        store: Where they find each other, of `torch.distributed`.
        rank: Number of this learner, from 0.
        size: Number of learners.
        silence_s: How long to wait for the others, here and in every sum, in seconds.

    Raises:
        TeamBrokenError: When one of them does not come.
    """
    try:
        actor, critic = (
            Channel(
                _distributed.ProcessGroupGloo(
                    _distributed.PrefixStore(name, store), rank, size, timedelta(seconds=silence_s)
                )
            )
            for name in ("actor", "critic")
        )
    except RuntimeError as error:
        raise TeamBrokenError(f"the learners do not find each other: {error}") from error
    team = Team(actor, critic)
    for channel in (team.actor, team.critic):
        channel.add_up(torch.zeros(1))
    return team
