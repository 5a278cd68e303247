"""``ray-rl train``: train a defender."""

from __future__ import annotations

from pathlib import Path

from ray_rl.commands.flags import parse
from ray_rl.config import TrainConfig, UserError, load_yaml

_DESCRIPTION = (
    "Train a defender. Without flags: against B_lineAgent in the built-in CAGE-2 simulator, on all CPUs. "
    "--config FILE.yaml gives values under the flags' names (with underscores); flags override it."
)


def run(words: list[str]) -> int:
    """Train as the flags say; returns the exit code."""
    config_path, words = _take_config(words)
    default = TrainConfig() if config_path is None else load_yaml(config_path)
    config = parse(TrainConfig, "train", _DESCRIPTION, words, default)

    from ray_rl.trainer import train  # after the flags: help needs none of it

    train(config)
    return 0


def _take_config(words: list[str]) -> tuple[Path | None, list[str]]:
    """Split off ``--config FILE`` (or ``--config=FILE``), which gives the defaults of all other flags."""
    for position, word in enumerate(words):
        if word.startswith("--config="):
            return Path(word.removeprefix("--config=")), words[:position] + words[position + 1 :]
        if word == "--config":
            if position + 1 == len(words):
                raise UserError("--config needs a file")
            return Path(words[position + 1]), words[:position] + words[position + 2 :]
    return None, words
