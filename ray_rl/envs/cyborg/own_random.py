"""Random numbers of their own for each CybORG, which draws from Python's global generator."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class OwnRandom:
    """The state of Python's global generator as one CybORG left it.

    While it is in use the global generator continues from there, afterwards from where the caller was. It is the
    process's one generator: other threads must not draw from it meanwhile.
    """

    def __init__(self) -> None:
        self._state: Any = None

    @contextmanager
    def in_use(self, seed: int | None = None) -> Iterator[None]:
        """Let the global generator be this one.

        Args:
            seed: Start anew from this seed, as ``random.seed`` does; None continues.
        """
        callers = random.getstate()
        if seed is not None:
            random.seed(seed)
        elif self._state is not None:
            random.setstate(self._state)
        try:
            yield
        finally:
            self._state = random.getstate()
            random.setstate(callers)
