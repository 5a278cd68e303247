"""``ray-rl train``: train a defender."""

from __future__ import annotations

from pathlib import Path

import ray_rl
from ray_rl.commands.flags import parse, place, take
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
    config = read_config(words)

    from ray_rl.trainer import train  # after the flags: help needs none of it

    train(config)
    return 0


def read_config(words: list[str]) -> TrainConfig:
    """The run that flags describe, with ``--config`` or ``--recipe`` below them.

    Raises:
        UserError: When they do not describe one.
    """
    config_path, words = take(words, "--config", "a file")
    recipe, words = take(words, "--recipe", "a name")
    if config_path is not None and recipe is not None:
        raise UserError("--config and --recipe both give values: name one of them")
    if recipe is not None:
        config_path = str(recipe_path(recipe))
    default = TrainConfig() if config_path is None else load_yaml(place("--config", config_path))
    return parse(TrainConfig, "train", _DESCRIPTION, words, default)


def recipe_path(name: str) -> Path:
    """The file of a recipe.

    Raises:
        UserError: When there is no such recipe; suggests the nearest.
    """
    known = [path.stem for path in sorted(RECIPES.glob("*.yaml"))]
    if name not in known:
        raise UserError(f"unknown recipe {name!r}{suggest(name, known)}")
    return RECIPES / f"{name}.yaml"
