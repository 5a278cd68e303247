"""The policies that ship with the package: small, whole, and as good as they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_rl.commands.train import RECIPES, recipe_path
from ray_rl.config import CollectConfig, UserError, load_yaml
from ray_rl.evaluate.policies import SHIPPED, load_policy, shipped_names
from ray_rl.evaluate.protocol import evaluate_checkpoint
from ray_rl.seeding import Purpose


def test_they_are_small() -> None:
    assert {"record", "record-leaderboard"} <= set(shipped_names())
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 1_000_000


@pytest.mark.parametrize("name", shipped_names())
def test_each_scores_about_what_it_says(name: str) -> None:
    """On validation seeds, 150 episodes per cell: 95 % intervals of about ±1.3."""
    policy = load_policy(Path(name))
    said = float(policy.made_by.split("rules ")[-1].split(": ")[1].split(" ±")[0])
    assert said > -60
    scores = evaluate_checkpoint(
        Path(name),
        n_episodes=150,
        greedy=True,
        seed=3,
        collect=CollectConfig(collector="sequential"),
        purpose=Purpose.VALIDATE,
    )
    assert scores.total == pytest.approx(said, abs=2.5 * scores.total_half_width)
    assert scores.sees_raw_events == ("raw" in name)


def test_a_name_with_a_typo_is_answered_with_the_right_one() -> None:
    with pytest.raises(UserError, match="did you mean 'record'"):
        load_policy(Path("recrod"))
    with pytest.raises(UserError, match="did you mean 'leaderboard'"):
        recipe_path("leaderbord")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_a_configuration(path: Path) -> None:
    assert load_yaml(path).env.red_agent == "mixed"
