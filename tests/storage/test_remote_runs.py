"""Whole runs in remote storage: written whole, read back by every command, stopped, killed and gone on with."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import ray_rl.checkpoint as checkpoint_module
import ray_rl.run_folder
from ray_rl.checkpoint import checkpoints_in, load_checkpoint
from ray_rl.cli import main
from ray_rl.config import TrainConfig, UserError
from ray_rl.failures import RunError
from ray_rl.lease import Lease, held, lease_file
from ray_rl.run_folder import RunFolder
from ray_rl.storage import location, write_whole
from ray_rl.trainer import train

_SMALL: dict[str, Any] = {
    "collector": "sequential",
    "total_episodes": 64,
    "episodes_per_update": 16,
    "episode_steps": 100,
    "hidden_sizes": (16,),
    "minibatches": 2,
    "epochs": 2,
    "evaluate_every": 2,
    "evaluate_episodes": 8,
    "checkpoint_every": 1,
    "learner_threads": 1,
}


def small(run_dir: str | Path, **changes: Any) -> TrainConfig:
    return TrainConfig.from_mapping(_SMALL | {"run_dir": str(run_dir)} | changes, "test")


def rows_of(place: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (location(place) / "metrics.jsonl").read_text().splitlines()]


def checkpoint_names(place: str) -> list[str]:
    return [p.name for p in checkpoints_in(location(place) / "checkpoints")]


def assert_same_weights(a: str | Path, b: str | Path) -> None:
    one, other = (load_checkpoint(checkpoints_in(location(run) / "checkpoints")[-1]) for run in (a, b))
    assert one.update == other.update
    assert one.arrays.keys() == other.arrays.keys()
    for name, values in one.arrays.items():
        np.testing.assert_array_equal(values, other.arrays[name], err_msg=name)


class _QuickLease(Lease):
    """A lease with short pauses."""

    @classmethod
    def take(cls, folder: Any, say: Any, beat_s: float = 0.2) -> Lease:
        return super().take(folder, say, beat_s)


@pytest.fixture(autouse=True)
def quick_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_rl.run_folder, "Lease", _QuickLease)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run in a local folder."""
    path = tmp_path_factory.mktemp("here") / "run"
    train(small(path))
    return path


def test_a_run_lies_there_as_it_would_in_a_folder(place: str, here: Path, tmp_path: Path) -> None:
    assert str(train(small(place))) == place
    assert_same_weights(place, here)
    folder = location(place)
    assert {p.name.split(".17")[0] for p in folder.iterdir()} == {
        *("config.yaml", "metrics.jsonl", "checkpoints", "events.out.tfevents")
    }
    assert [row["update"] for row in rows_of(place)] == [row["update"] for row in rows_of(str(here))]
    for events in folder.glob("events.*"):
        (tmp_path / events.name).write_bytes(events.read_bytes())
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert [s.step for s in board.Scalars("rollout/return_mean")] == [16, 32, 48, 64]


def test_every_command_reads_from_there(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(small(place))
    cells = ("--episodes", "8", "--collector", "sequential", "--steps", "30", "--red-agents", "B_lineAgent")
    assert main(["evaluate", place, *cells]) == 0
    scores = json.loads((location(place) / "evaluation.json").read_text())
    assert scores["checkpoint"] == f"{place}/checkpoints/update_000004"
    assert main(["evaluate", f"{place}/checkpoints/update_000002", *cells]) == 0
    data, plot = tmp_path / "curves.csv", tmp_path / "curves.png"
    assert main(["curves", place, "--data", str(data), "--plot", str(plot)]) == 0
    assert place.rsplit("/", 1)[1] in data.read_text()
    assert main(["export", place, "--out", str(tmp_path / "agent"), "--episodes", "0"]) == 0
    assert (tmp_path / "agent" / "policy.npz").exists()
    follow_up = small(tmp_path / "next", start_from=place, total_episodes=16, evaluate_every=0)
    assert train(follow_up) == tmp_path / "next"
    capsys.readouterr()
    assert main(["evaluate", f"{place}/nothing", *cells]) == 2
    assert f"{place}/nothing does not exist" in capsys.readouterr().err


def test_resume_auto_starts_a_run_and_goes_on_with_it(place: str, here: Path) -> None:
    train(small(place, resume="auto"))
    for later in checkpoints_in(location(place) / "checkpoints")[1:]:
        checkpoint_module._remove(later)
    write_whole(location(place) / "checkpoints" / "update_000003" / "weights.safetensors", b"cut off by a crash")
    assert checkpoint_names(place) == ["update_000002"]
    train(small(place, resume="auto"))
    assert_same_weights(place, here)
    assert [r["update"] for r in rows_of(place) if "train/policy_loss" in r] == [1, 2, 3, 4]
    with pytest.raises(UserError, match="holds a run already"):
        train(small(place))


def test_a_checkpoint_is_whole_or_absent_wherever_its_writing_ends(
    place: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(checkpoints_in(here / "checkpoints")[-1])
    folder = location(place) / "checkpoints"
    for n_files in (0, 1, 2):
        left = n_files

        def fail_after_some(target: Any, content: bytes) -> None:
            nonlocal left
            if left == 0:
                raise OSError("the storage went away")
            left -= 1
            write_whole(target, content)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint_module, "write_whole", fail_after_some)
            with pytest.raises(OSError, match="went away"):
                checkpoint_module.save_checkpoint(folder, checkpoint, keep=1)
        assert checkpoints_in(folder) == []
    saved = checkpoint_module.save_checkpoint(folder, checkpoint, keep=1)
    assert load_checkpoint(saved).counters == checkpoint.counters


def test_a_storage_that_goes_away_ends_the_run_which_goes_on_when_it_is_back(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "memory://goes-away"

    def refuse(self: Any, path: str, *rest: Any, **options: Any) -> None:
        if "update_000003" in path:
            raise ConnectionError("nobody answers")
        whole(self, path, *rest, **options)

    whole = MemoryFileSystem.pipe_file
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "pipe_file", refuse)
        with pytest.raises(RunError, match=r"nobody answers; .*update_000002 is whole. See that the storage answers"):
            train(small(place))
    train(small(place, resume=True))
    assert_same_weights(place, here)


def test_two_drivers_on_one_run_are_refused(place: str) -> None:
    config = small(place)
    with RunFolder.open(config), pytest.raises(UserError, match="is in use by process"):
        RunFolder.open(small(place, resume=True))
    RunFolder.open(small(place, resume=True)).__exit__(None, None, None)


def test_a_run_that_was_taken_over_ends_and_leaves_the_heirs_files_alone(place: str, here: Path) -> None:
    checkpoint = load_checkpoint(checkpoints_in(here / "checkpoints")[-1])
    heir = {"key": "2", "host": "heir", "pid": 41, "pid_space": "elsewhere", "beats": 0}
    with contextlib.suppress(RunError), RunFolder.open(small(place)) as folder:
        folder.record(1, 16, 1600, 1.0, {"rollout/return_mean": -1.0})
        write_whole(lease_file(location(place), 2), json.dumps(heir).encode())
        with pytest.raises(RunError, match="taken over by process 41 on heir"):
            folder.save(checkpoint, keep=1)
    assert not (location(place) / "metrics.jsonl").exists()
    assert checkpoint_names(place) == []
    file = held(location(place))
    assert file is not None
    assert "heir" in file.read_text()


@pytest.fixture
def killed(s3_server: str) -> tuple[str, list[str]]:
    """A run on S3 whose process was killed after its second checkpoint, and its command."""
    place = f"s3://runs/killed-{os.getpid()}"
    words = [
        part
        for name, value in (_SMALL | {"total_episodes": 640}).items()
        for part in (f"--{name.replace('_', '-')}", *(map(str, value) if isinstance(value, tuple) else (str(value),)))
    ]
    command = [sys.executable, "-m", "ray_rl", "train", *words, "--run-dir", place, "--resume", "auto"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 100
    while len(checkpoint_names(place)) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return place, command


def test_a_killed_run_goes_on_to_the_same_bits_by_the_same_command(
    killed: tuple[str, list[str]], tmp_path: Path
) -> None:
    place, command = killed
    assert checkpoint_names(place)[-1] < "update_000040"
    subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=200)
    train(small(tmp_path / "whole", total_episodes=640))
    assert_same_weights(place, tmp_path / "whole")
    assert [r["update"] for r in rows_of(place) if "train/policy_loss" in r] == list(range(1, 41))
