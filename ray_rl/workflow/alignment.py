"""How far the fixes of an episode follow an order, and the reward for it.

A *fix* is a Remove or a Restore, whatever comes of it. It is *compliant* when it targets a host of the type that is, at
that moment and by the true state, the most important compromised one of the order; when nothing is compromised, every
fix is. A type is compromised while Red has a session on one of its hosts; Red's own foothold, which no fix can clean,
does not count. The *compliance* of an episode is the share of its fixes that were compliant, 0.5 without any fix.

The alignment reward is λ times the compliance so far (0 before the first fix), paid as its change at each fix, so that
an episode's payments add up to λ times its compliance. An episode without a fix pays -0.2 λ at its end. Besides, each
compliant fix may earn a bonus and each other one cost a penalty.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ray_rl.workflow.rule import AlignmentRule

NO_FIX, VIOLATION, COMPLIANT = -1, 0, 1
"""Verdicts on a step."""
COMPLIANCE_WITHOUT_FIX = 0.5
PENALTY_WITHOUT_FIX = 0.2
"""In units of λ."""


class Alignment(NamedTuple):
    """How N episodes followed their orders.

    Attributes:
        rewards: [M] float32, alignment reward of each step.
        returns: [N] float64, their sums.
        compliance: [N] float64, 0…1.
        fixes: [N] int32, number of fixes.
    """

    rewards: NDArray[np.float32]
    returns: NDArray[np.float64]
    compliance: NDArray[np.float64]
    fixes: NDArray[np.int32]


@njit(cache=True, nogil=True)
def judge(order: NDArray[np.int64], compromised: int, target: int) -> int:
    """Judge one step.

    Args:
        order: [5] types, the most important first.
        compromised: Set of the types that are compromised before the step, as a bit mask.
        target: Type of the host that the step fixes, -1 when it is no fix.

    Returns:
        NO_FIX, VIOLATION or COMPLIANT.
    """
    if target < 0:
        return NO_FIX
    for position in range(order.shape[0]):
        kind = order[position]
        if compromised >> kind & 1:
            return COMPLIANT if kind == target else VIOLATION
    return COMPLIANT


def align(verdicts: NDArray[np.int8], lengths: NDArray[np.int32], rule: AlignmentRule) -> Alignment:
    """Reward episodes that lie one after another.

    Args:
        verdicts: [M] of `judge`.
        lengths: [N], their sum is M.
        rule: What following is worth.
    """
    n = len(lengths)
    result = Alignment(
        np.zeros(len(verdicts), dtype=np.float32),
        np.zeros(n, dtype=np.float64),
        np.full(n, COMPLIANCE_WITHOUT_FIX, dtype=np.float64),
        np.zeros(n, dtype=np.int32),
    )
    _align(verdicts, lengths, rule.weight, rule.bonus, rule.penalty, *result)
    return result


@njit(cache=True, nogil=True)
def _align(
    verdicts: NDArray[np.int8],
    lengths: NDArray[np.int32],
    weight: float,
    bonus: float,
    penalty: float,
    rewards: NDArray[np.float32],
    returns: NDArray[np.float64],
    compliance: NDArray[np.float64],
    fixes: NDArray[np.int32],
) -> None:
    step = 0
    for episode in range(lengths.shape[0]):
        n_fixes = n_compliant = 0
        so_far = 0.0
        for _ in range(lengths[episode]):
            if verdicts[step] != NO_FIX:
                n_fixes += 1
                n_compliant += verdicts[step]
                now = n_compliant / n_fixes
                reward = weight * (now - so_far) + (bonus if verdicts[step] == COMPLIANT else -penalty)
                rewards[step] = reward
                returns[episode] += reward
                so_far = now
            step += 1
        fixes[episode] = n_fixes
        if n_fixes:
            compliance[episode] = so_far
        elif lengths[episode]:
            rewards[step - 1] = -PENALTY_WITHOUT_FIX * weight
            returns[episode] = -PENALTY_WITHOUT_FIX * weight
