"""The comparison that users know: CybORG with 100 workers, as published, to stand beside what is measured here."""

from __future__ import annotations

from dataclasses import dataclass

TABLE_EPISODES = 100_000
"""Episodes for which the table gives the time."""

N_WORKERS = 100
"""Workers of the published comparison."""


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """A published figure.

    Attributes:
        episodes_per_s: As published; a range is given by its two ends.
        remark: What was said of it.
    """

    episodes_per_s: tuple[float, float]
    remark: str


PUBLISHED = {
    "sequential": PublishedRow((2.6, 2.6), "one process"),
    "synchronous": PublishedRow((1.1, 1.1), "a barrier at each of 100 steps, 1.9 % efficiency"),
    "ray-actors": PublishedRow((10.0, 20.0), "weights serialised with every call"),
    "executor": PublishedRow((74.3, 74.3), "process pool with as_completed, 75 % efficiency"),
}
"""By method; stateless Ray tasks with weights put once were not part of it."""
