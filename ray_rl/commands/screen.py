"""Where commands print their tables."""

from __future__ import annotations

import sys

from rich.console import Console

_WIDTH_OF_FILES = 170
"""Columns where nobody's terminal says how many there are: enough for every table."""


def make_console() -> Console:
    """A console on standard output, wide enough for tables when the output goes to a file or pipe."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_FILES)
