"""Spans: what somebody did, from when and for how long. A list of them is a profile.

Starts are seconds of the system's clock, which all processes of a machine share; nodes share it as far as their clocks
are set alike. Durations are taken from a clock that is never set.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")


class Span(NamedTuple):
    """Something that was done.

    Attributes:
        what: What it was.
        who: Who did it; what one does never overlaps, or lies within another of its spans.
        started_s: When it began, in seconds since 1970.
        duration_s: How long it took, in seconds.
    """

    what: str
    who: str
    started_s: float
    duration_s: float


class Spans:
    """Gathers spans of one.

    Args:
        who: Whose they are.
    """

    def __init__(self, who: str) -> None:
        self._who = who
        self._done: list[Span] = []

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Add what happens inside, once it is over."""
        started_s, started = time.time(), time.perf_counter()
        try:
            yield
        finally:
            self._done.append(Span(what, self._who, started_s, time.perf_counter() - started))

    def each(self, what: str, items: Iterator[Item]) -> Iterator[Item]:
        """The items, one by one; what is added is how long each took to come."""
        while True:
            with self(what):
                item = next(items, None)
            if item is None:
                return
            yield item

    def taken(self) -> tuple[Span, ...]:
        """All so far, in the order in which they ended."""
        return tuple(self._done)
