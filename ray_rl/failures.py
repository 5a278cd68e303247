"""Why something ended before it was done: what the user gave, or what happened in the middle of a run."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input from the user: the message names the thing and the remedy; commands exit with code 2."""


class RunError(RuntimeError):
    """Something failed in the middle of a run: the message says what, what is saved, and how to go on."""


def suggest(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the nearest known one, or all of them; empty when there are none."""
    choices = sorted(known)
    if not choices:
        return ""
    near = difflib.get_close_matches(word.lower(), [c.lower() for c in choices], n=1, cutoff=0.5)
    if near:
        return f"; did you mean {next(c for c in choices if c.lower() == near[0])!r}?"
    return f"; known: {', '.join(choices)}"
