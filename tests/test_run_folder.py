"""The run folder, read back with TensorBoard's own reader."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ray_rl.config import TrainConfig, UserError, load_yaml
from ray_rl.metrics import METRICS, reference_table
from ray_rl.run_folder import RunFolder, check_run_folder


def config_of(path: Path, **changes: object) -> TrainConfig:
    return TrainConfig.from_mapping({"run_dir": str(path), "learning_rate": 0.002} | changes, "test")


def tensorboard_of(path: Path) -> EventAccumulator:
    events = EventAccumulator(str(path))
    events.Reload()
    return events


def test_rows_and_tensorboard_hold_the_same_numbers(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run")
    with RunFolder.open(config) as folder:
        folder.record(1, 200, 20_000, 1.5, {"rollout/return_mean": -300.0, "train/explained_variance": float("nan")})
        folder.record(2, 400, 40_000, 2.5, {"rollout/return_mean": -200.0})
    rows = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(r["update"], r["episodes"], r["env_steps"], r["time_s"]) for r in rows] == [
        (1, 200, 20_000, 1.5),
        (2, 400, 40_000, 2.5),
    ]
    assert rows[0]["train/explained_variance"] is None
    scalars = tensorboard_of(folder.path).Scalars("rollout/return_mean")
    assert [(s.step, s.value) for s in scalars] == [(200, -300.0), (400, -200.0)]


def test_tensorboard_holds_the_configuration_and_the_hyperparameters(tmp_path: Path) -> None:
    with RunFolder.open(config_of(tmp_path / "run")) as folder:
        pass
    events = tensorboard_of(folder.path)
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "learning_rate: 0.002" in text
    plugin = events.SummaryMetadata("_hparams_/session_start_info").plugin_data
    assert plugin.plugin_name == "hparams"
    assert b"learning_rate" in plugin.content
    assert load_yaml(folder.path / "config.yaml").ppo.learning_rate == 0.002


def test_a_name_that_is_not_in_the_table_is_refused(tmp_path: Path) -> None:
    with RunFolder.open(config_of(tmp_path / "run")) as folder, pytest.raises(KeyError, match="rollout/return_mean"):
        folder.record(1, 200, 1, 1.0, {"rollout/return_maen": 1.0})


def test_resuming_forgets_rows_that_will_be_done_again(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunFolder.open(config_of(path)) as folder:
        for update in (1, 2, 3):
            folder.record(update, 200 * update, update, 1.0, {"rollout/return_mean": -update})
    with (path / "metrics.jsonl").open("a", encoding="utf-8") as rows:
        rows.write('{"update": 4, "epis')
    with RunFolder.open(config_of(path, resume=True)) as folder:
        folder.drop_metrics_after(2)
        folder.record(3, 600, 3, 1.0, {"rollout/return_mean": -30.0})
    updates = [json.loads(line)["update"] for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert updates == [1, 2, 3]
    scalars = tensorboard_of(path).Scalars("rollout/return_mean")
    assert [(s.step, s.value) for s in scalars] == [(200, -1.0), (400, -2.0), (600, -30.0)]


def test_a_folder_in_use_is_refused_by_another_process(tmp_path: Path) -> None:
    path = tmp_path / "run"
    code = (
        "import sys; from ray_rl.config import TrainConfig; from ray_rl.run_folder import RunFolder\n"
        "folder = RunFolder.open(TrainConfig.from_mapping({'run_dir': sys.argv[1]}, 'x'))\n"
        "print('open', flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(UserError, match=f"in use by process {holder.pid}"):
            check_run_folder(config_of(path, resume=True, learning_rate=1e-3))
    finally:
        holder.communicate("\n", timeout=30)
    check_run_folder(config_of(path, resume=True, learning_rate=1e-3))


@pytest.mark.parametrize("make", ["file", "full", "other"])
def test_a_folder_that_is_no_place_for_a_run_is_refused_and_left_alone(tmp_path: Path, make: str) -> None:
    path = tmp_path / "run"
    changes: dict[str, object] = {}
    if make == "file":
        path.write_text("precious", encoding="utf-8")
    elif make == "full":
        path.mkdir()
        (path / "thesis.txt").write_text("precious", encoding="utf-8")
    else:
        with RunFolder.open(config_of(path)):
            pass
        changes = {"resume": True, "epochs": 3}
    before = {p: p.read_bytes() for p in [path, *path.rglob("*")] if p.is_file()}
    with pytest.raises(UserError):
        check_run_folder(config_of(path, **changes))
    with pytest.raises(UserError):
        RunFolder.open(config_of(path, **changes))
    after = {p: p.read_bytes() for p in [path, *path.rglob("*")] if p.is_file() and p.name != ".lock"}
    assert after == {p: text for p, text in before.items() if p.name != ".lock"}


@pytest.mark.parametrize("made_before", [False, True])
def test_a_full_disk_is_one_clear_error_and_no_folder_is_left_that_was_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_before: bool
) -> None:
    path = tmp_path / "run"
    if made_before:
        path.mkdir()

    def fill_up(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ray_rl.run_folder.write_whole", fill_up)
    with pytest.raises(UserError, match=r"cannot write to --run-dir .*No space left on device; choose another folder"):
        RunFolder.open(config_of(path))
    assert path.exists() == made_before


def test_what_does_not_change_the_result_may_change_on_resume(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunFolder.open(config_of(path)):
        pass
    check_run_folder(config_of(path, resume=True, collector="executor", n_workers=7, evaluate_every=3))


def test_every_metric_says_what_it_means_in_which_unit() -> None:
    table = reference_table()
    for name, metric in METRICS.items():
        assert f"`{name}`" in table
        assert metric.meaning
