"""Why a run ended before it was done, when it was nobody's bad input."""


class RunError(RuntimeError):
    """Something failed in the middle of a run: the message says what, what is saved, and how to go on."""
