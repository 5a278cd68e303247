"""Learner processes that share batches: one learner to whoever asks, and a clear word when one of them dies."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
from made_episodes import MASKED, masked_episodes

from ray_rl.checkpoint import load_checkpoint
from ray_rl.config import PolicyConfig, PpoConfig, TrainConfig, UserError
from ray_rl.ppo import ray_learner
from ray_rl.ppo.api import Assignment, LearnerDiedError
from ray_rl.ppo.factory import make_local_learner
from ray_rl.ppo.learner import Learner
from ray_rl.ppo.ray_learner import RayLearner
from ray_rl.trainer import train

POLICY = PolicyConfig(hidden_sizes=(16,))
PPO = PpoConfig(minibatches=2, epochs=2, learner_threads=1, n_learners=3)


@pytest.fixture(scope="module", autouse=True)
def connected() -> Iterator[None]:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


def test_processes_together_are_one_learner_and_another_team_takes_over_when_one_dies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assignment = Assignment(MASKED, POLICY, PPO, 10, 0)
    with RayLearner(assignment) as team, closing(Learner(assignment)) as alone:
        pids = team.pids()
        assert len(set(pids)) == 3
        for version in range(2):
            chunks = [masked_episodes(alone.weights(), version, 100 * version + 10 * k, 10) for k in range(3)]
            stats = team.update([ray.put(chunk) for chunk in chunks[::-1]]).result(timeout=240)
            expected = alone.update(chunks)
            assert (stats.n_episodes, stats.n_steps) == (expected.n_episodes, expected.n_steps)
            assert stats.value_loss == pytest.approx(expected.value_loss, rel=1e-3)
        before = team.state()
        for name, values in alone.state().arrays.items():
            np.testing.assert_allclose(before.arrays[name], values, rtol=2e-3, atol=2e-4, err_msg=name)

        with pytest.raises(ValueError, match="episodes are too few for 3 learners"):
            team.update([ray.put(masked_episodes(alone.weights(), 2, 0, 2))]).result(timeout=240)
        alone.load_state(before)
        chunk = masked_episodes(alone.weights(), 2, 500, 30)
        team.update([ray.put(chunk)]).result(timeout=240)  # a refusal keeps them together
        after = team.state()

        team.load_state(before)
        pids = team.pids()
        os.kill(pids[1], signal.SIGKILL)
        team.update([ray.put(chunk)]).result(timeout=240)
        for name, values in after.arrays.items():
            np.testing.assert_array_equal(team.state().arrays[name], values, err_msg=name)
        successors = team.pids()
        assert set(successors).isdisjoint(pids)

        monkeypatch.setattr(ray_learner, "_DEATHS", 0)
        os.kill(successors[2], signal.SIGKILL)
        with pytest.raises(LearnerDiedError, match=r"learner 3 of 3 is gone: .*--resume"):
            team.update([ray.put(masked_episodes(team.state().weights(), 3, 700, 30))]).result(timeout=240)
    old = [psutil.Process(pid) for pid in pids + successors if psutil.pid_exists(pid)]
    _, left = psutil.wait_procs(old, timeout=60)
    assert left == []  # the others end with the first


def test_a_run_with_two_learners_resumes_bit_for_bit(tmp_path: Path) -> None:
    settings = {
        "total_episodes": 64,
        "episodes_per_update": 16,
        "episode_steps": 20,
        "hidden_sizes": (16,),
        "minibatches": 2,
        "epochs": 2,
        "evaluate_every": 0,
        "checkpoint_every": 2,
        "n_learners": 2,
        "learner_threads": 1,
        "n_workers": 1,
    }
    whole = train(TrainConfig.from_mapping({**settings, "run_dir": str(tmp_path / "whole")}, "test"))
    stopped = shutil.copytree(whole, tmp_path / "stopped")
    shutil.rmtree(stopped / "checkpoints" / "update_000004")
    train(TrainConfig.from_mapping({**settings, "run_dir": str(stopped), "resume": True}, "test"))
    one, two = (load_checkpoint(run / "checkpoints" / "update_000004").arrays for run in (whole, stopped))
    for name, values in one.items():
        np.testing.assert_array_equal(two[name], values, err_msg=name)


def test_several_learners_need_ray_and_an_episode_each() -> None:
    with pytest.raises(UserError, match="n_learners needs collector ray-tasks or ray-actors, not executor"):
        TrainConfig.from_mapping({"n_learners": 2, "collector": "executor"}, "test")
    with pytest.raises(UserError, match=r"n_learners \(9\) exceeds the 8 episodes of an update"):
        TrainConfig.from_mapping({"n_learners": 9, "episodes_per_update": 8}, "test")
    with pytest.raises(UserError, match="n_learners needs policy mlp"):
        TrainConfig.from_mapping({"n_learners": 2, "policy": "gru"}, "test")
    with pytest.raises(UserError, match="in one process: n_learners must be 1, not 2"):
        make_local_learner(MASKED, TrainConfig.from_mapping({"n_learners": 2}, "test"))
