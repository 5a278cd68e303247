"""Training in an environment that fails on certain seeds: once again, then another in its place, within a budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_envs import ENV_ID, FaultKind, Faults

from ray_rl.checkpoint import find_checkpoint, load_checkpoint
from ray_rl.config import TrainConfig
from ray_rl.episodes import EpisodeError, EpisodeRequest, episode_requests
from ray_rl.quarantine import Quarantine
from ray_rl.trainer import train

_SETTINGS: dict[str, Any] = {
    "env": ENV_ID,
    "collector": "sequential",
    "total_episodes": 24,
    "episodes_per_update": 8,
    "episodes_per_chunk": 4,
    "episode_steps": 12,
    "hidden_sizes": (8,),
    "minibatches": 2,
    "epochs": 1,
    "evaluate_every": 0,
    "seed": 3,
    "max_failed_episodes": 2,
}


def trained(run_dir: Path, **changes: Any) -> dict[str, np.ndarray]:
    run = train(TrainConfig.from_mapping(_SETTINGS | {"run_dir": str(run_dir)} | changes, "test"))
    return dict(load_checkpoint(find_checkpoint(Path(str(run)))).arrays)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a)


def the_run() -> list[EpisodeRequest]:
    return episode_requests(3, 0, 24, red_agent="B_lineAgent", max_steps=12)


def test_a_failure_that_does_not_come_again_changes_no_bit(
    faults: Faults, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = trained(tmp_path / "whole")
    faults.plant(the_run()[9], "raise", once=True)
    assert same(whole, trained(tmp_path / "once"))
    assert "episode 9 (seed" in capsys.readouterr().out


def test_a_bad_seed_gives_its_place_to_another_the_same_whoever_collects(
    faults: Faults, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = trained(tmp_path / "whole")
    for index in (2, 17):
        faults.plant(the_run()[index], "raise")
    replaced = trained(tmp_path / "sequential")
    assert "episode 2 failed twice" in capsys.readouterr().out.replace("\n", " ")
    assert not same(whole, replaced)
    assert same(replaced, trained(tmp_path / "executor", collector="executor", n_workers=2, episodes_per_chunk=3))
    rows = [json.loads(line) for line in (tmp_path / "sequential" / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("data/replaced_episodes") for row in rows] == [1.0, 1.0, 2.0]
    assert [row["data/last_episode"] for row in rows] == [7.0, 15.0, 23.0]


@pytest.mark.parametrize("kind", ["raise", pytest.param("die", marks=pytest.mark.slow)])
def test_on_ray_a_seed_that_kills_its_worker_is_replaced_like_one_that_raises(
    kind: FaultKind, faults: Faults, local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in (2, 17):
        faults.plant(the_run()[index], "raise")
    expected = trained(tmp_path / "sequential")
    for index in (2, 17):
        faults.plant(the_run()[index], kind)
    on_ray = trained(tmp_path / "ray", collector="ray-tasks", n_workers=2)
    assert same(expected, on_ray)
    said = capsys.readouterr().out.replace("\n", " ")
    assert said.count("episode 17 failed twice") == 2
    assert ("its worker died 4 times" in said) == (kind == "die")


def test_more_than_the_budget_ends_the_run_with_the_cause(faults: Faults, tmp_path: Path) -> None:
    for index in (2, 5, 17):
        faults.plant(the_run()[index], "raise")
    with pytest.raises(EpisodeError, match=r"no step 2 today.*2 episodes failed before it") as failure:
        trained(tmp_path / "run")
    assert failure.value.request.index == 17


def test_without_a_budget_the_first_failure_ends_the_run(faults: Faults, tmp_path: Path) -> None:
    faults.plant(the_run()[2], "raise", once=True)
    with pytest.raises(EpisodeError, match=r"no step 2 today \(--max-failed-episodes 0 tolerates no failure\)"):
        trained(tmp_path / "run", max_failed_episodes=0)


def test_what_may_still_finish_is_not_run_again() -> None:
    silence = EpisodeError(the_run()[0], "no chunk finished for 300 s")
    with pytest.raises(EpisodeError) as raised:
        Quarantine(5, 0).instead(silence)
    assert raised.value is silence
