"""What following an order of repair is worth."""

from __future__ import annotations

from typing import NamedTuple


class AlignmentRule(NamedTuple):
    """What following the order is worth.

    Attributes:
        weight: λ, reward for a compliance of 1.
        bonus: Reward of each compliant fix besides.
        penalty: Cost of each other fix besides.
    """

    weight: float = 30.0
    bonus: float = 0.0
    penalty: float = 0.0
