"""When an order counts as learned: a training that is conditioned on one need not go on for ever."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

LEAST_GAIN = 0.01
"""A compliance that gains less than this stands still."""

GateOutcome = Literal["met", "plateau"]


def gate_outcome(compliance: Sequence[float], threshold: float, patience: int) -> GateOutcome | None:
    """Tell whether a training may end.

    Args:
        compliance: Mean compliance of the episodes of each update so far.
        threshold: The training has met its aim once the latest reaches this.
        patience: It stands still when the best has not grown by `LEAST_GAIN` in this many updates.

    Returns:
        ``met``, ``plateau``, or None while it should go on.
    """
    if compliance and compliance[-1] >= threshold:
        return "met"
    best, waited = float("-inf"), 0
    for value in compliance:
        if value >= best + LEAST_GAIN:
            best, waited = value, 0
        else:
            waited += 1
        if waited >= patience:
            return "plateau"
    return None
