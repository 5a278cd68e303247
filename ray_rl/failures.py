"""Why something ended before it was done: what the user gave, or what happened in the middle of a run."""


class UserError(Exception):
    """Bad input from the user: the message names the thing and the remedy; commands exit with code 2."""


class RunError(RuntimeError):
    """Something failed in the middle of a run: the message says what, what is saved, and how to go on."""
