"""The door: ``ray-rl COMMAND``. Exit codes: 0 done, 1 what was checked does not hold or the run failed, 2 bad input.

Each command imports what it needs when it is called, so that help is instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

_COMMANDS = {
    "train": ("commands.train", "train a defender"),
    "evaluate": ("commands.evaluate", "play a trained defender by the challenge's protocol"),
    "curves": ("commands.curves", "write how trainings went, as data and as a picture"),
    "export": ("commands.export", "write a trained defender for others to play"),
    "verify-env": ("commands.verify_env", "hold the simulator against recorded or live CybORG"),
    "compare": ("commands.compare", "compare the methods of collecting episodes on this machine"),
    "search": ("commands.search", "search the order of repair whose defender does best"),
    "regret": ("commands.regret", "compare methods of searching over orders whose scores are known"),
    "orders": ("commands.orders", "set one policy for all orders of repair beside the specialists"),
    "submit": ("commands.submit", "train on a Ray cluster as a job; list, follow, stop and resume runs there"),
    "bench": ("commands.bench", "measure how fast the parts are on this machine"),
    "chaos": ("commands.chaos", "disturb a training on a cluster, and prove that it ends with the same bits"),
    "doctor": ("commands.doctor", "check this machine, and say what to do"),
}
"""Command -> module (its `run` takes the words behind the command and returns the exit code), one line of help."""


def main(words: list[str] | None = None) -> int:
    """Run a command.

    Args:
        words: Command line without the program; default: that of the process.

    Returns:
        The exit code.
    """
    try:
        code = _obey(sys.argv[1:] if words is None else words)
        sys.stdout.flush()  # here, so that a reader who has gone is met here and not by the interpreter's end
    except BrokenPipeError:  # as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _obey(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        import ray_rl

        print(f"ray-rl {ray_rl.__version__}")
        return 0
    if words[0] not in _COMMANDS:
        import difflib

        near = difflib.get_close_matches(words[0], _COMMANDS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else f"; commands: {', '.join(_COMMANDS)}"
        return _bad_input(f"unknown command {words[0]!r}{hint}")
    return _run(words[0], words[1:])


def _overview() -> str:
    width = max(map(len, _COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in _COMMANDS.items()]
    return "\n".join(
        [
            "ray-rl: distributed PPO on Ray for autonomous cyber defenders (CAGE Challenge 2)",
            "",
            "usage: ray-rl COMMAND [flags]",
            "",
            *lines,
            "",
            "ray-rl COMMAND --help lists the flags of a command with units and defaults.",
        ]
    )


def _run(command: str, words: list[str]) -> int:
    from importlib import import_module

    from ray_rl.config import UserError
    from ray_rl.episodes import EpisodeError
    from ray_rl.failures import RunError

    run: Callable[[list[str]], int] = import_module(f"ray_rl.{_COMMANDS[command][0]}").run
    try:
        return run(words)
    except UserError as error:
        return _bad_input(str(error))
    except (EpisodeError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 1


def _bad_input(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
