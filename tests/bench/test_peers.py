"""Benching peers: each trains as much as the others, the best setting runs, and who is not installed is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ray_rl.bench import peers
from ray_rl.bench.peer_cleanrl import CleanPpo
from ray_rl.bench.peer_cleanrl import train as train_clean
from ray_rl.bench.peers import Contestant, Task, bench_peers, contestants, in_own_process
from ray_rl.cli import main
from ray_rl.commands import bench_peers as command

TASK = Task(
    hidden_size=16, episodes_per_update=8, episode_steps=10, epochs=2, minibatches=4, n_updates=3, n_warm=1
)  # fmt: skip
PACES = {("fast", 1): 10.0, ("fast", 2): 40.0, ("slow", 1): 8.0, ("slow", 2): 5.0}


def contestant(name: str) -> Contestant:
    return Contestant(name, name, ({"n_envs": 1}, {"n_envs": 2}))


def test_the_best_setting_of_each_runs_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[tuple[str, int, int]] = []

    def run(module: str, task: Task, setting: dict[str, int]) -> float:
        if module == "absent":
            raise ModuleNotFoundError("No module named 'absent'")
        runs.append((module, setting["n_envs"], task.n_updates))
        return PACES[module, setting["n_envs"]]

    monkeypatch.setattr(peers, "in_own_process", run)
    task = Task(16, 8, 10, 2, 4, n_updates=9, n_warm=2)
    result = bench_peers(task, [contestant(name) for name in ("fast", "slow", "absent")], 2, lambda line: None)
    tries = [("fast", 1, 4), ("fast", 2, 4), ("slow", 1, 4), ("slow", 2, 4)]
    assert runs == tries + 2 * [("fast", 2, 9), ("slow", 1, 9)]
    assert [result.times_as_fast(one, "fast").median for one in result.results] == [1.0, 5.0]
    assert result.not_installed == (("absent", "No module named 'absent'"),)
    assert result.to_json()["results"][1]["setting"] == {"n_envs": 1}


def test_settings_are_given_to_everybody_and_fit_the_batch() -> None:
    for cores in (1, 2, 4, 16):
        everybody = contestants(cores, 200)
        assert everybody[0].name == peers.OWN
        for one in everybody:
            assert one.settings
            assert all(200 % int(setting.get("n_envs", 1)) == 0 or one.name == "RLlib" for setting in one.settings)


@pytest.mark.parametrize("n_envs", [8, 2])
def test_the_clean_one_collects_whole_episodes_and_bootstraps_what_was_cut_off(n_envs: int) -> None:
    ppo = CleanPpo(TASK, n_envs)
    ppo.update()
    values, following = ppo._values.numpy(), ppo._next_values.numpy()
    ends = np.arange(1, len(values) + 1) % TASK.episode_steps == 0
    np.testing.assert_array_equal(following[:-1][~ends[:-1]], values[1:][~ends[:-1]])
    assert (following[ends] != 0).all()
    assert values.shape == (80 // n_envs, n_envs)


def test_the_clean_one_learns_and_is_timed() -> None:
    assert train_clean(TASK, n_envs=4, n_threads=torch.get_num_threads()) > 0
    ppo = CleanPpo(Task(64, 40, 30, 6, 4, 1, 1), 40)
    returns = [ppo.update() for _ in range(40)]
    assert np.mean(returns[-5:]) > 0.85 * np.mean(returns[:5])  # returns are negative


@pytest.mark.parametrize(
    ("needs", "module", "setting"),
    [
        ("stable_baselines3", "ray_rl.bench.peer_sb3", {"n_envs": 4, "n_threads": 1}),
        ("ray.rllib.algorithms.ppo", "ray_rl.bench.ray_peer_rllib", {"n_processes": 0, "n_envs": 8, "n_threads": 1}),
        (
            "torch",
            "ray_rl.bench.peer_own",
            {"max_staleness": 0, "collector": "ray-tasks", "n_learners": 2, "learner_threads": 1},
        ),
        (
            "torch",
            "ray_rl.bench.peer_own",
            {"max_staleness": 1, "collector": "executor", "n_learners": 1, "learner_threads": 2},
        ),
    ],
)
def test_each_trains_in_a_process_of_its_own(needs: str, module: str, setting: dict[str, int | str]) -> None:
    pytest.importorskip(needs, reason=f"{needs} is not installed", exc_type=ImportError)
    assert in_own_process(module, TASK, setting) > 0


def test_the_command_shows_and_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(module: str, task: Task, setting: dict[str, int]) -> float:
        if module.endswith("rllib"):
            raise ModuleNotFoundError("No module named 'scipy'")
        if setting.get("max_staleness") == 1:
            return 750.0
        return {"peer_own": 600.0, "peer_sb3": 150.0}.get(module.split(".")[-1], 200.0)

    monkeypatch.setattr(peers, "in_own_process", run)
    saved = tmp_path / "peers.json"
    assert main(["bench", "peers", "--rounds", "1", "--json", str(saved)]) == 0
    shown = capsys.readouterr().out
    rows = {cells[1].strip(): cells for line in shown.splitlines() if len(cells := line.split("│")) > 4}
    assert [cell.strip() for cell in rows["Stable-Baselines3"][4:6]] == ["4.00 x", "5.00 x"]
    assert rows["RLlib"][2].strip() == "not installed"
    content = json.loads(saved.read_text())
    (sb3,) = [one for one in content["results"] if one["name"] == "Stable-Baselines3"]
    assert [own["median"] for own in sb3["times_as_fast"].values()] == [4.0, 5.0]
    assert content["not_installed"] == {"RLlib": "No module named 'scipy'"}
    assert {one["name"]: one["episodes_per_s"]["median"] for one in content["results"]}["CleanRL-style"] == 200.0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--updates", "1"], "--updates 2 or more"),
        (["--episodes-per-update", "6"], "a multiple of 4"),
        (["--json", "nowhere/x.json"], "--json nowhere/x.json"),
    ],
)
def test_bad_input_is_refused_before_the_work(
    words: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "bench_peers", None)
    assert main(["bench", "peers", *words]) == 2
    assert complaint in capsys.readouterr().err
