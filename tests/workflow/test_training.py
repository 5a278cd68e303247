"""Training on an order: what is learned from, what is recorded, when it ends, and how it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_rl.checkpoint import checkpoints_in, load_checkpoint
from ray_rl.config import TrainConfig, UserError
from ray_rl.trainer import train, train_silently

_SMALL: dict[str, Any] = {
    "collector": "sequential",
    "workflow": "random",
    "total_episodes": 96,
    "episodes_per_update": 16,
    "episode_steps": 30,
    "hidden_sizes": (16,),
    "minibatches": 2,
    "epochs": 2,
    "evaluate_every": 6,
    "evaluate_episodes": 8,
    "checkpoint_every": 2,
    "keep_checkpoints": 10,
    "learner_threads": 1,
    "seed": 5,
}


def small(run_dir: Path, **changes: Any) -> TrainConfig:
    return TrainConfig.from_mapping(_SMALL | {"run_dir": str(run_dir)} | changes, "test")


def rows_of(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def networks_of(run_dir: Path) -> dict[str, np.ndarray]:
    checkpoint = load_checkpoint(checkpoints_in(run_dir / "checkpoints")[-1])
    return {name: array for name, array in checkpoint.arrays.items() if name.startswith("network.")}


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(small(tmp_path_factory.mktemp("undisturbed") / "run"))


def test_environment_alignment_and_total_are_recorded_apart(undisturbed: Path) -> None:
    for group, rows in (
        ("rollout", [r for r in rows_of(undisturbed) if "rollout/compliance" in r]),
        ("eval", [r for r in rows_of(undisturbed) if "eval/compliance" in r]),
    ):
        assert rows
        for row in rows:
            total = row[f"{group}/return_mean"] + row[f"{group}/alignment_return_mean"]
            assert row[f"{group}/total_return_mean"] == pytest.approx(total)
            assert row[f"{group}/return_max"] <= 0 < row[f"{group}/alignment_return_mean"]


def test_the_learner_learns_from_the_alignment_reward(undisturbed: Path, tmp_path: Path) -> None:
    worthless = networks_of(train(small(tmp_path / "run", alignment_weight=0)))
    name = "network.actor.0.weight"
    assert not np.array_equal(networks_of(undisturbed)[name], worthless[name])


@pytest.mark.parametrize("collector", ["synchronous", "ray-tasks"])
def test_no_collector_changes_a_bit(undisturbed: Path, tmp_path: Path, collector: str) -> None:
    assert_same(networks_of(undisturbed), networks_of(train(small(tmp_path / "run", collector=collector, n_workers=2))))


def test_a_silent_training_is_the_same(undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_same(networks_of(undisturbed), networks_of(train_silently(small(tmp_path / "run"))))
    assert capsys.readouterr().out == ""


def test_a_gated_run_ends_where_its_order_is_learned_also_when_resumed(tmp_path: Path) -> None:
    config = small(tmp_path / "run", until_compliance=0.05, total_episodes=1600)
    run_dir = train(config)
    updates = [row["update"] for row in rows_of(run_dir) if "rollout/compliance" in row]
    assert updates == [1]
    before = networks_of(run_dir)
    train(small(tmp_path / "run", until_compliance=0.05, total_episodes=1600, resume=True))
    assert_same(before, networks_of(run_dir))
    assert [row["update"] for row in rows_of(run_dir) if "rollout/compliance" in row] == [1]


def test_a_run_that_stands_still_ends(tmp_path: Path) -> None:
    changes = {"until_compliance": 1.0, "compliance_patience": 2, "learning_rate": 1e-9, "final_learning_rate": 0.0}
    run_dir = train(small(tmp_path / "run", total_episodes=3200, **changes))
    assert max(row["update"] for row in rows_of(run_dir)) < 100


def test_a_run_can_start_from_the_networks_of_another(undisturbed: Path, tmp_path: Path) -> None:
    still = {"learning_rate": 1e-12, "final_learning_rate": 0.0, "total_episodes": 16, "normalise_returns": False}
    started = networks_of(train(small(tmp_path / "run", start_from=str(undisturbed), workflow=17, **still)))
    for name, array in networks_of(undisturbed).items():
        np.testing.assert_allclose(started[name], array, atol=1e-6, err_msg=name)


def test_networks_that_do_not_fit_are_refused(undisturbed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="start-from"):
        train(small(tmp_path / "run", start_from=str(undisturbed), hidden_sizes=(32,)))
    with pytest.raises(UserError, match="start-from"):
        train(small(tmp_path / "run", start_from=str(undisturbed), workflow=None))
    assert not (tmp_path / "run").exists()
