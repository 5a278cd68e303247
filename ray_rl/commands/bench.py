"""``ray-rl bench PART``: how fast the parts are on this machine."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from ray_rl.config import UserError, suggest

_PARTS = {
    "env": ("bench_env", "steps per second on one core, simulator to whole rollout"),
    "train": ("bench_train", "training end to end, beside what its parts allow, with the time of every part"),
    "peers": ("bench_peers", "training beside the PPO of Stable-Baselines3, CleanRL and RLlib"),
    "scale": ("bench_scale", "one driver and more and more simulated nodes; where driver, store and learner are full"),
}
"""What to bench -> module of commands, one line of help."""


def run(words: list[str]) -> int:
    """Run the benchmark that the first word names; returns the exit code."""
    if not words or words[0] in ("-h", "--help"):
        lines = [f"  {part:<6} {text}" for part, (_, text) in _PARTS.items()]
        print("\n".join(["usage: ray-rl bench PART [flags]", "", *lines]))
        return 0 if words else 2
    if words[0] not in _PARTS:
        raise UserError(f"nothing to bench called {words[0]!r}{suggest(words[0], _PARTS)}")
    bench: Callable[[list[str]], int] = import_module(f"ray_rl.commands.{_PARTS[words[0]][0]}").run
    return bench(words[1:])
