"""``ray-rl train``: train a defender."""

from __future__ import annotations

from pathlib import Path

import ray_rl
from ray_rl.commands.flags import parse
from ray_rl.config import TrainConfig, UserError, load_yaml, suggest

_DESCRIPTION = (
    "Train a defender. Without flags: against B_lineAgent in the built-in CAGE-2 simulator, on all CPUs. "
    "--config FILE.yaml gives values under the flags' names (with underscores), --recipe NAME those of a recipe that "
    "ships with ray_rl; flags override them."
)


RECIPES = Path(ray_rl.__file__).parent / "recipes"
"""Folder of the recipes: configurations with the scores that they were measured with."""


def run(words: list[str]) -> int:
    """Train as the flags say; returns the exit code."""
    config_path, words = _take(words, "--config", "a file")
    recipe, words = _take(words, "--recipe", "a name")
    if config_path is not None and recipe is not None:
        raise UserError("--config and --recipe both give values: name one of them")
    if recipe is not None:
        config_path = str(recipe_path(recipe))
    default = TrainConfig() if config_path is None else load_yaml(Path(config_path))
    config = parse(TrainConfig, "train", _DESCRIPTION, words, default)

    from ray_rl.trainer import train  # after the flags: help needs none of it

    train(config)
    return 0


def recipe_path(name: str) -> Path:
    """The file of a recipe.

    Raises:
        UserError: When there is no such recipe; suggests the nearest.
    """
    known = [path.stem for path in sorted(RECIPES.glob("*.yaml"))]
    if name not in known:
        raise UserError(f"unknown recipe {name!r}{suggest(name, known)}")
    return RECIPES / f"{name}.yaml"


def _take(words: list[str], flag: str, what: str) -> tuple[str | None, list[str]]:
    """Split off ``FLAG VALUE`` (or ``FLAG=VALUE``), which gives the defaults of all other flags."""
    for position, word in enumerate(words):
        if word.startswith(f"{flag}="):
            return word.removeprefix(f"{flag}="), words[:position] + words[position + 1 :]
        if word == flag:
            if position + 1 == len(words):
                raise UserError(f"{flag} needs {what}")
            return words[position + 1], words[:position] + words[position + 2 :]
    return None, words
