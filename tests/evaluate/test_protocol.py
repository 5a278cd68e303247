"""Scores by the challenge's protocol, held against a direct computation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from ray_rl.checkpoint import Checkpoint, save_checkpoint
from ray_rl.collect.sequential import SequentialCollector
from ray_rl.config import CollectConfig, EnvConfig, TrainConfig, UserError
from ray_rl.envs.registry import make_env
from ray_rl.episodes import PROTOCOL_STEPS, RED_AGENTS, EpisodeBatch, episode_requests
from ray_rl.evaluate.protocol import evaluate_checkpoint, play_cells
from ray_rl.policy.inference import MlpPolicy, PolicyWeights
from ray_rl.policy.random_weights import random_weights
from ray_rl.rollout import run_episodes
from ray_rl.seeding import Purpose

SEQUENTIAL = CollectConfig(collector="sequential")


def weights_for(env: EnvConfig) -> PolicyWeights:
    spec = make_env(env).spec
    return random_weights(spec.observation_size, (16,), spec.n_actions)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = TrainConfig.from_mapping({"hidden_sizes": [16]}, "test")
    spec = make_env(config.env).spec
    rng = np.random.default_rng(0)
    shapes = ((spec.observation_size, 16), (16, spec.n_actions))
    arrays = {}
    for number, (n_in, n_out) in enumerate(shapes):
        arrays[f"network.actor.{number}.weight"] = rng.normal(0, 0.3, (n_in, n_out)).astype(np.float32)
        arrays[f"network.actor.{number}.bias"] = np.zeros(n_out, dtype=np.float32)
    return save_checkpoint(tmp_path / "checkpoints", Checkpoint(3, 1, 1.0, config, spec, arrays, {}), keep=1)


def test_each_cell_is_the_mean_of_its_own_episodes() -> None:
    env = EnvConfig()
    weights = weights_for(env)
    with SequentialCollector(env, 7) as collector:
        collector.publish(weights, 0)
        cells = play_cells(collector, seed=3, n_episodes=25, greedy=True, steps=(10, 20), agents=RED_AGENTS)
    assert [(c.steps, c.red_agent) for c in cells] == [(s, a) for s in (10, 20) for a in RED_AGENTS]
    requests = episode_requests(
        3, 4 * 25, 25, red_agent="RedMeanderAgent", max_steps=20, purpose=Purpose.EVALUATE, greedy=True
    )
    returns = run_episodes(make_env(env), MlpPolicy(weights), requests, 0).returns()
    assert cells[4].mean == pytest.approx(returns.mean())
    assert cells[4].half_width == pytest.approx(1.959964 * returns.std(ddof=1) / math.sqrt(25))


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    """Intervals of 60 evaluations against the mean of all: 95 % ± 3.3 standard errors, on fixed seeds."""
    with SequentialCollector(EnvConfig(), None) as collector:
        collector.publish(weights_for(EnvConfig()), 0)
        cells = [
            play_cells(collector, seed=seed, n_episodes=100, greedy=False, steps=(30,), agents=("RedMeanderAgent",))[0]
            for seed in range(60)
        ]
    truth = np.mean([cell.mean for cell in cells])
    covered = np.mean([abs(cell.mean - truth) <= cell.half_width for cell in cells])
    assert covered > 0.95 - 3.3 * math.sqrt(0.95 * 0.05 / 60)


def test_a_checkpoint_is_scored_on_its_rules_and_names_them(checkpoint: Path) -> None:
    arguments = {"n_episodes": 10, "greedy": True, "seed": 1, "collect": SEQUENTIAL}
    here = evaluate_checkpoint(checkpoint, **arguments)  # type: ignore[arg-type]
    assert "rules=head" in here.environment
    assert here.trained_on == here.environment
    assert {cell.steps for cell in here.cells} == set(PROTOCOL_STEPS)
    assert here.total == pytest.approx(sum(cell.mean for cell in here.cells))
    there = evaluate_checkpoint(checkpoint, rules="leaderboard", **arguments)  # type: ignore[arg-type]
    assert "rules=leaderboard" in there.environment
    assert "rules=head" in there.trained_on
    again = evaluate_checkpoint(checkpoint, **arguments)  # type: ignore[arg-type]
    assert again == here


def test_one_long_episode_holds_the_three_lengths_of_the_protocol() -> None:
    """A policy that does not know the length plays the first 30 steps alike, so the weighted return is the total."""
    env = EnvConfig(view="memory")
    weights = weights_for(env)

    def batch(steps: int) -> EpisodeBatch:
        requests = episode_requests(4, 0, 20, red_agent="mixed", max_steps=steps, purpose=Purpose.VALIDATE, greedy=True)
        return run_episodes(make_env(env), MlpPolicy(weights), requests, 0)

    by_length = sum(batch(steps).returns() for steps in PROTOCOL_STEPS)
    np.testing.assert_allclose(batch(100).protocol_returns(), by_length, rtol=1e-9)


def test_validation_plays_other_episodes_and_says_so(checkpoint: Path) -> None:
    arguments = {"n_episodes": 10, "greedy": True, "seed": 1, "collect": SEQUENTIAL}
    protocol = evaluate_checkpoint(checkpoint, **arguments)  # type: ignore[arg-type]
    validation = evaluate_checkpoint(checkpoint, purpose=Purpose.VALIDATE, **arguments)  # type: ignore[arg-type]
    assert (protocol.purpose, validation.purpose) == ("evaluate", "validate")
    assert protocol.total != validation.total


def test_evaluation_seeds_are_never_those_of_training() -> None:
    def seeds(purpose: Purpose) -> set[int]:
        return {r.seed for r in episode_requests(0, 0, 50_000, red_agent="mixed", max_steps=1, purpose=purpose)}

    assert not seeds(Purpose.TRAIN) & seeds(Purpose.EVALUATE)
    assert not seeds(Purpose.VALIDATE) & seeds(Purpose.EVALUATE)


def test_a_checkpoint_of_other_shapes_is_refused(checkpoint: Path) -> None:
    about = checkpoint / "checkpoint.json"
    about.write_text(about.read_text(encoding="utf-8").replace('"view": "winner"', '"view": "memory"'))
    with pytest.raises(UserError, match="97 inputs"):
        evaluate_checkpoint(checkpoint, n_episodes=1, greedy=True, seed=0, collect=SEQUENTIAL)
