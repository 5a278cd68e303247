"""The rules of alignment once more, in plain Python and by name: what the compiled functions are held against."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

FOOTHOLD = "User0"
"""Red's own host: it is never clean, so it compromises nothing."""


class ReferenceAlignment(NamedTuple):
    """How one episode followed its order.

    Attributes:
        rewards: Alignment reward of each step.
        compliance: 0…1.
        fixes: Number of fixes.
    """

    rewards: list[float]
    compliance: float
    fixes: int


def reference_alignment(
    order: Sequence[str],
    actions: Sequence[str],
    red_hosts: Sequence[Collection[str]],
    weight: float = 30.0,
    bonus: float = 0.0,
    penalty: float = 0.0,
) -> ReferenceAlignment:
    """Judge and reward one episode.

    Args:
        order: Names of the types of host, the most important first.
        actions: Name of Blue's action in each step, for example ``Remove User1``.
        red_hosts: Before each step, the names of the hosts where Red has a session.
        weight: λ.
        bonus: Of each compliant fix.
        penalty: Of each other fix.
    """
    rewards = []
    verdicts: list[bool] = []
    for action, hosts in zip(actions, red_hosts, strict=True):
        verb, _, host = action.partition(" ")
        if verb not in ("Remove", "Restore"):
            rewards.append(0.0)
            continue
        compromised = [kind for kind in order if any(_kind(h) == kind and h != FOOTHOLD for h in hosts)]
        before = _share(verdicts)
        verdicts.append(not compromised or compromised[0] == _kind(host))
        rewards.append(weight * (_share(verdicts) - before) + (bonus if verdicts[-1] else -penalty))
    if not verdicts:
        rewards[-1] = -0.2 * weight
        return ReferenceAlignment(rewards, 0.5, 0)
    return ReferenceAlignment(rewards, _share(verdicts), len(verdicts))


def _kind(host: str) -> str:
    return "defender" if host == "Defender" else host[:-1].lower()


def _share(verdicts: Sequence[bool]) -> float:
    return sum(verdicts) / len(verdicts) if verdicts else 0.0
