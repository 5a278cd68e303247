"""Stand-ins for packages that CybORG imports but does not need for playing CAGE-2.

gym and prettytable serve its wrappers, paramiko the log of its emulation mode. While CybORG is imported the stand-ins
take their places, installed or not, so that what else the machine holds changes nothing; then they are gone again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_NAMES = ("gym", "gym.spaces", "prettytable", "paramiko", "paramiko.util")


class _Table:
    """As much of prettytable's table as CybORG's wrappers use: rows are added and read back in the order added.

    CybORG sorts by host name when it prints, never when it makes a vector.
    """

    def __init__(self, field_names: Any = None) -> None:
        self.field_names = field_names
        self._rows: list[list[Any]] = []

    def add_row(self, row: Any) -> None:
        self._rows.append(list(row))


class _Space:
    """A space that nobody samples from."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs


class _Env:
    """Base class without anything."""


def _stand_ins() -> dict[str, ModuleType]:
    made = {name: ModuleType(name) for name in _NAMES}
    for kind in ("Discrete", "Box", "MultiDiscrete"):
        setattr(made["gym.spaces"], kind, _Space)
    made["gym"].__dict__.update(Env=_Env, spaces=made["gym.spaces"], __path__=[])
    made["prettytable"].__dict__.update(PrettyTable=_Table)
    made["paramiko"].__dict__.update(util=made["paramiko.util"], __path__=[])
    return made


@contextmanager
def stand_ins() -> Iterator[None]:
    """Put the stand-ins in place, and afterwards whatever was there before."""
    before = {name: sys.modules[name] for name in _NAMES if name in sys.modules}
    sys.modules.update(_stand_ins())
    try:
        yield
    finally:
        for name in _NAMES:
            sys.modules.pop(name, None)
        sys.modules.update(before)
