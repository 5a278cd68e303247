"""Training end to end on small runs: exact repetition, exact resume, and what happens when something goes wrong."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ray_rl.checkpoint import checkpoints_in, load_checkpoint
from ray_rl.collect.sequential import SequentialCollector
from ray_rl.config import TrainConfig, UserError
from ray_rl.envs.api import EnvSpec
from ray_rl.episodes import RED_AGENTS, EpisodeBatch
from ray_rl.interruption import Interruption
from ray_rl.policy.inference import PolicyWeights
from ray_rl.ppo.api import EpisodesLostError
from ray_rl.ppo.factory import assignment_of
from ray_rl.ppo.local_learner import LocalLearner
from ray_rl.trainer import Trainer, _train, train

_SMALL: dict[str, Any] = {
    "collector": "sequential",
    "total_episodes": 96,
    "episodes_per_update": 16,
    "episode_steps": 30,
    "hidden_sizes": (16,),
    "minibatches": 2,
    "epochs": 2,
    "evaluate_every": 3,
    "evaluate_episodes": 8,
    "checkpoint_every": 2,
    "keep_checkpoints": 10,
    "learner_threads": 1,
    "seed": 5,
}


def small(run_dir: Path, **changes: Any) -> TrainConfig:
    return TrainConfig.from_mapping(_SMALL | {"run_dir": str(run_dir)} | changes, "test")


def arrays_of(run_dir: Path, update: int = 6) -> dict[str, np.ndarray]:
    return dict(load_checkpoint(run_dir / "checkpoints" / f"update_{update:06d}").arrays)


def assert_same_arrays(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def rows_of(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(small(tmp_path_factory.mktemp("undisturbed") / "run"))


def test_same_seed_gives_the_same_bits_and_another_seed_does_not(undisturbed: Path, tmp_path: Path) -> None:
    assert_same_arrays(arrays_of(undisturbed), arrays_of(train(small(tmp_path / "again"))))
    other = arrays_of(train(small(tmp_path / "other", seed=6)))
    name = "network.actor.0.weight"
    assert not np.array_equal(arrays_of(undisturbed)[name], other[name])


@pytest.mark.parametrize(
    ("collector", "n_workers", "episodes_per_chunk"),
    [("ray-tasks", 1, None), ("ray-tasks", 3, 2), ("executor", 2, 3)],
)
def test_neither_collector_nor_workers_nor_chunks_change_a_bit(
    undisturbed: Path, tmp_path: Path, collector: str, n_workers: int, episodes_per_chunk: int | None
) -> None:
    config = small(tmp_path / "run", collector=collector, n_workers=n_workers, episodes_per_chunk=episodes_per_chunk)
    assert_same_arrays(arrays_of(undisturbed), arrays_of(train(config)))


def test_a_resumed_run_ends_with_the_same_bits(undisturbed: Path, tmp_path: Path) -> None:
    run_dir = train(small(tmp_path / "run"))
    for later in checkpoints_in(run_dir / "checkpoints")[1:]:
        for file in later.iterdir():
            file.unlink()
        later.rmdir()
    assert [p.name for p in checkpoints_in(run_dir / "checkpoints")] == ["update_000002"]
    train(small(run_dir, resume=True))
    assert_same_arrays(arrays_of(undisturbed), arrays_of(run_dir))
    updates = [row["update"] for row in rows_of(run_dir) if "train/policy_loss" in row]
    assert updates == [1, 2, 3, 4, 5, 6]


def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """kill -9 of the whole run in the middle, with Ray; then --resume."""
    settings = _SMALL | {"collector": "ray-tasks", "n_workers": 2, "total_episodes": 1600, "checkpoint_every": 5}
    flags = [
        part
        for name, value in settings.items()
        for part in (f"--{name.replace('_', '-')}", *(map(str, value) if isinstance(value, tuple) else (str(value),)))
    ]
    command = [sys.executable, "-m", "ray_rl", "train", *flags]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([*command, "--run-dir", str(killed)], start_new_session=True)
    _wait_for(lambda: len(checkpoints_in(killed / "checkpoints")) >= 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert checkpoints_in(killed / "checkpoints")[-1].name < "update_000100"
    subprocess.run([*command, "--run-dir", str(killed), "--resume"], check=True)
    subprocess.run([*command, "--run-dir", str(whole), "--collector", "sequential"], check=True)
    assert_same_arrays(arrays_of(whole, 100), arrays_of(killed, 100))


def test_chunks_lost_between_collecting_and_learning_are_collected_again_to_the_same_bits(
    undisturbed: Path, tmp_path: Path
) -> None:
    losses = [[0], [1, 2], [0, 1, 2, 3]]  # of the first update and of two repetitions; then nothing more

    def fetch(batches: Sequence[EpisodeBatch | Any]) -> Sequence[EpisodeBatch]:
        if losses:
            raise EpisodesLostError(losses.pop(0), "a node died")
        return batches

    def learner_of(spec: EnvSpec, config: TrainConfig) -> LocalLearner:
        return LocalLearner(assignment_of(spec, config), fetch)

    said = io.StringIO()
    config = small(tmp_path / "run", episodes_per_chunk=4)
    run_dir = _train(config, learner_of, Interruption(), Console(file=said))
    assert losses == []
    assert_same_arrays(arrays_of(undisturbed), arrays_of(run_dir))
    assert (
        "the episodes of 2 chunks were lost after they had been collected: a node died; 8 episodes" in said.getvalue()
    )
    rows = [row for row in rows_of(run_dir) if "data/first_episode" in row]
    assert [(r["data/first_episode"], r["data/last_episode"]) for r in rows] == [
        (16 * k, 16 * k + 15) for k in range(6)
    ]


@pytest.mark.parametrize("collector", ["sequential", "ray-tasks"])
def test_sigterm_saves_and_says_how_to_go_on(collector: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    flags = ["--collector", collector, "--n-workers", "1", "--episodes-per-update", "16", "--episode-steps", "30"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ray_rl", "train", *flags, "--run-dir", str(run_dir), "--total-episodes", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait_for(lambda: (run_dir / "metrics.jsonl").exists() and len(rows_of(run_dir)) >= 3, process)
    process.send_signal(signal.SIGTERM)
    output, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (0, "")
    assert "--resume" in output
    update = load_checkpoint(checkpoints_in(run_dir / "checkpoints")[-1]).update
    assert update == max(row["update"] for row in rows_of(run_dir))


def _wait_for(condition: Any, process: subprocess.Popen[Any], limit_s: float = 120) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert process.poll() is None, "the run ended by itself"
        assert time.monotonic() < deadline, "the run did not get there in time"
        time.sleep(0.05)


def test_overlapped_training_keeps_its_bound_and_uses_every_episode_once(tmp_path: Path) -> None:
    run_dir = train(small(tmp_path / "run", collector="ray-tasks", n_workers=2, max_staleness=2))
    rows = [row for row in rows_of(run_dir) if "train/policy_loss" in row]
    assert [row["update"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert max(row["staleness/max"] for row in rows) <= 2
    assert max(row["staleness/max"] for row in rows) >= 1


def test_overlapped_the_learner_begins_before_its_last_weights_are_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is saved, published and evaluated meanwhile is of the last update that is done."""
    done: list[str] = []
    publish, update = SequentialCollector.publish, LocalLearner.update

    def published(self: SequentialCollector, weights: PolicyWeights, version: int) -> None:
        done.append(f"publish {version}")
        publish(self, weights, version)

    def updated(self: LocalLearner, batches: Sequence[EpisodeBatch]) -> Any:
        done.append("update")
        future = update(self, batches)
        monkeypatch.setattr(future, "done", lambda: False)  # the learner is never faster than the collector
        return future

    monkeypatch.setattr(SequentialCollector, "publish", published)
    monkeypatch.setattr(LocalLearner, "update", updated)
    ahead = train(small(tmp_path / "ahead", max_staleness=1, checkpoint_every=1))
    assert done == ["publish 0", "update", *chain(*(("update", f"publish {k}") for k in range(1, 6))), "publish 6"]

    monkeypatch.setattr(Trainer, "_begin_ahead", lambda _: None)
    done.clear()
    in_turn = train(small(tmp_path / "in_turn", max_staleness=1, checkpoint_every=1))
    assert done == [*chain(*((f"publish {k}", "update") for k in range(6))), "publish 6"]
    for number in range(1, 7):
        assert load_checkpoint(ahead / "checkpoints" / f"update_{number:06d}").counters["version"] == number
        assert_same_arrays(arrays_of(ahead, number), arrays_of(in_turn, number))
    told = [[row for row in rows_of(folder) if "eval/return_mean" in row] for folder in (ahead, in_turn)]
    assert [row["eval/return_mean"] for row in told[0]] == [row["eval/return_mean"] for row in told[1]]
    assert len(told[0]) == 2


def test_evaluation_is_recorded_when_due_and_at_the_end(undisturbed: Path) -> None:
    updates = [row["update"] for row in rows_of(undisturbed) if "eval/return_mean" in row]
    assert updates == [3, 6]


def test_a_used_folder_is_refused_and_kept(undisturbed: Path) -> None:
    before = sorted(p.name for p in undisturbed.rglob("*"))
    with pytest.raises(UserError, match="--resume"):
        train(small(undisturbed))
    assert sorted(p.name for p in undisturbed.rglob("*")) == before


def test_resume_with_other_networks_is_refused(undisturbed: Path) -> None:
    with pytest.raises(UserError, match="hidden_sizes"):
        train(small(undisturbed, resume=True, hidden_sizes=(32,)))


def test_evaluation_against_a_mixture_gives_each_agent_its_share_and_the_protocols_total(
    undisturbed: Path, tmp_path: Path
) -> None:
    changes = {"red_agent": "mixed", "episode_steps": 100, "objective": "protocol", "total_episodes": 16}
    run_dir = train(small(tmp_path / "mixed", evaluate_episodes=9, evaluate_every=1, **changes))
    row = next(r for r in rows_of(run_dir) if "eval/return_mean" in r)
    by_agent = [row[f"eval/return_mean/{agent}"] for agent in RED_AGENTS]
    assert row["eval/return_mean"] == pytest.approx(np.mean(by_agent))
    assert 3 * sum(by_agent) < row["eval/protocol_total"] < sum(by_agent)
    assert not any("eval/protocol_total" in r for r in rows_of(undisturbed))


def test_the_protocols_objective_needs_its_longest_episode(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs episode_steps 100"):
        small(tmp_path, objective="protocol")
