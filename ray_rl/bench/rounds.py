"""Interleaved measurement: A, B, C, A, B, C, … so that a machine that slows down slows all of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure measured several times.

    Attributes:
        values: Every measurement, in order.
    """

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The one to quote."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """Smallest measurement."""
        return min(self.values)

    @property
    def high(self) -> float:
        """Largest measurement."""
        return max(self.values)

    def to_json(self) -> dict[str, float | list[float]]:
        """As plain JSON values."""
        return {"median": self.median, "low": self.low, "high": self.high, "values": list(self.values)}

    def over(self, other: Spread) -> Spread:
        """How many times the other, measurement by measurement."""
        return Spread(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))


def measure_in_rounds(
    measurements: Mapping[str, Callable[[], float]], rounds: int, *, after_each: Callable[[str], None] | None = None
) -> dict[str, Spread]:
    """Take every measurement once a round.

    Args:
        measurements: Name and function that measures once and returns the figure. A warm-up is its own business.
        rounds: Number of rounds, 1 or more.
        after_each: Called with the name after each measurement, to show progress.

    Returns:
        All figures by name.
    """
    values: dict[str, list[float]] = {name: [] for name in measurements}
    for _ in range(rounds):
        for name, measure in measurements.items():
            values[name].append(measure())
            if after_each is not None:
                after_each(name)
    return {name: Spread(tuple(figures)) for name, figures in values.items()}
