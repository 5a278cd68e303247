"""The drill: its plan, its proof (which must fail when something is wrong), and the whole of it on a small cluster."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ray_rl.chaos.drill import differing_arrays, wrong_updates
from ray_rl.chaos.plan import FAULTS, make_plan
from ray_rl.checkpoint import Checkpoint, save_checkpoint
from ray_rl.cli import main
from ray_rl.config import TrainConfig, UserError
from ray_rl.envs.api import EnvSpec


def test_every_fault_has_a_stretch_of_updates_of_its_own() -> None:
    for seed in range(20):
        plan = make_plan(FAULTS, 2, 60, seed)
        assert Counter(event.fault for event in plan) == dict.fromkeys(FAULTS, 2)
        after = [event.after_update for event in plan]
        assert min(np.diff(after)) >= 2
        assert after[0] >= 1
        assert after[-1] <= 58
    assert make_plan(FAULTS, 2, 60, 3) == make_plan(FAULTS, 2, 60, 3) != make_plan(FAULTS, 2, 60, 4)


def test_a_training_that_is_too_short_is_refused() -> None:
    with pytest.raises(UserError, match="6 faults need a training of 24 updates or more, not 23"):
        make_plan(FAULTS, 1, 23, 0)


def rows(*consumed: tuple[int, int, int]) -> list[dict[str, float]]:
    return [
        {"update": update, "data/first_episode": first, "data/last_episode": last} for update, first, last in consumed
    ]


def test_updates_that_are_missing_or_repeated_or_took_others_episodes_are_found() -> None:
    whole = [(1, 0, 9), (2, 10, 19), (3, 20, 29)]
    assert wrong_updates([{"update": 2, "eval/return_mean": 0.0}, *rows(*whole)], 3, 10) == []
    assert wrong_updates(rows(*whole[:2]), 3, 10) == [3]
    assert wrong_updates(rows(*whole, whole[1]), 3, 10) == [2]
    assert wrong_updates(rows(whole[0], (2, 10, 18), (3, 21, 29), (4, 30, 39)), 3, 10) == [2, 3, 4]


def test_one_bit_is_a_difference(tmp_path: Path) -> None:
    values = np.array([0.0, 1.0, -2.5], dtype=np.float32)
    for name, changed in (("a", values), ("b", values), ("c", values * np.float32(-1)), ("d", values + 0)):
        arrays = {"network.w": changed, "optimiser.m": values}
        if name == "d":
            arrays["network.w"][0] = -0.0
        checkpoint = Checkpoint(1, 1, 1.0, TrainConfig(), EnvSpec("x", 1, True, 1, False), arrays, {})
        save_checkpoint(tmp_path / name / "checkpoints", checkpoint, 1)
    assert differing_arrays(tmp_path / "a", tmp_path / "b") == []
    assert differing_arrays(tmp_path / "a", tmp_path / "c") == ["network.w"]
    assert differing_arrays(tmp_path / "a", tmp_path / "d") == ["network.w"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--nodes", "1"], "--nodes must be 2"),
        (["--updates", "10"], "need a training of 24 updates"),
        (["--faults", "earthquake"], "earthquake"),
    ],
)
def test_a_drill_that_cannot_be_held_is_refused(
    flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chaos", *flags]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.slow
def test_a_training_survives_every_fault_with_the_same_bits(tmp_path: Path) -> None:
    words = ["chaos", "--updates", "30", "--run-dir", str(tmp_path / "runs"), "--json", str(tmp_path / "drill.json")]
    assert main(words) == 0
    drill = json.loads((tmp_path / "drill.json").read_text())
    assert sorted(d["fault"] for d in drill["disturbances"]) == sorted(FAULTS)
    assert drill["wrong_updates"] == []
    assert drill["differing_arrays"] == []
