"""Checkpoints come back as they were written, and damaged ones are told apart before they do harm."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest

import ray_rl.checkpoint as checkpoint_module
from ray_rl.checkpoint import Checkpoint, checkpoints_in, find_checkpoint, load_checkpoint, save_checkpoint
from ray_rl.config import TrainConfig, UserError
from ray_rl.envs.api import EnvSpec


def example(update: int = 7) -> Checkpoint:
    rng = np.random.default_rng(update)
    return Checkpoint(
        update=update,
        env_steps=1400,
        elapsed_s=2.5,
        config=TrainConfig(),
        spec=EnvSpec("cage2 rules=head", 97, True, 53, True),
        arrays={
            "network.actor.0.weight": rng.normal(size=(4, 3)).astype(np.float32),
            "optimiser.step": np.array(update, dtype=np.int64),
        },
        counters={"version": update, "mean": 0.1 + 0.2},
    )


def test_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    saved = example()
    loaded = load_checkpoint(save_checkpoint(tmp_path, saved, keep=3))
    assert loaded.arrays.keys() == saved.arrays.keys()
    for name, values in saved.arrays.items():
        np.testing.assert_array_equal(loaded.arrays[name], values)
        assert loaded.arrays[name].dtype == values.dtype
    assert loaded.counters == saved.counters
    assert (loaded.update, loaded.env_steps, loaded.elapsed_s) == (7, 1400, 2.5)
    assert (loaded.config, loaded.spec) == (saved.config, saved.spec)


def test_only_the_newest_are_kept_and_no_temporary_stays(tmp_path: Path) -> None:
    for update in (1, 2, 10, 11):
        save_checkpoint(tmp_path, example(update), keep=2)
    assert [p.name for p in checkpoints_in(tmp_path)] == ["update_000010", "update_000011"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["update_000010", "update_000011"]


def test_a_run_folder_stands_for_its_latest_checkpoint(tmp_path: Path) -> None:
    for update in (1, 2):
        newest = save_checkpoint(tmp_path / "checkpoints", example(update), keep=5)
    assert find_checkpoint(tmp_path) == newest
    assert find_checkpoint(newest) == newest
    with pytest.raises(UserError, match="does not exist"):
        find_checkpoint(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["weights.safetensors", "optimiser.safetensors", "checkpoint.json"])
def test_a_truncated_file_is_named_with_the_remedy(tmp_path: Path, name: str) -> None:
    save_checkpoint(tmp_path, example(1), keep=5)
    path = save_checkpoint(tmp_path, example(2), keep=5)
    content = (path / name).read_bytes()
    (path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=name) as caught:
        load_checkpoint(path)
    assert "use an older checkpoint" in str(caught.value)


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, example(), keep=5)
    about = json.loads((path / "checkpoint.json").read_text())
    (path / "checkpoint.json").write_text(json.dumps(about | {"format_version": 99}))
    with pytest.raises(UserError, match="format 99"):
        load_checkpoint(path)


def test_a_full_disk_leaves_the_older_checkpoint_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = save_checkpoint(tmp_path, example(1), keep=5)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_module.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, example(2), keep=1)
    assert [p.name for p in tmp_path.iterdir()] == [good.name]
    assert load_checkpoint(good).update == 1


def test_a_leftover_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".update_000002.unfinished").mkdir()
    save_checkpoint(tmp_path, example(2), keep=5)
    assert [p.name for p in tmp_path.iterdir()] == ["update_000002"]
