"""The door: help, one clear line for everything that is wrong, and the right exit code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from ray_rl.cli import _COMMANDS, main

SMALL_RUN = [
    *("train", "--collector", "sequential", "--total-episodes", "32", "--episodes-per-update", "16"),
    *("--episode-steps", "20", "--hidden-sizes", "16", "--evaluate-episodes", "8"),
]


def complaint_of(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """The one line that a command says on standard error, once it has ended with exit code 2."""
    assert main(words) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "run"
    assert main([*SMALL_RUN, "--run-dir", str(path)]) == 0
    return path


def test_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command, (module, _) in _COMMANDS.items():
        assert command in text
        assert callable(import_module(f"ray_rl.{module}").run)


def test_help_of_train_groups_flags_and_gives_defaults_and_units(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--help"])
    assert not ended.value.code
    text = re.sub(r"[│╭╮╰╯─\s]+", " ", capsys.readouterr().out)
    for words in ("collect options", "--n-workers", "in seconds", "(default: 0.013)", "ppo options", "--clip-range"):
        assert words in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "did you mean 'train'"),
        (["train", "--n-wokers", "3"], "unknown flag --n-wokers; did you mean '--n-workers'"),
        (["train", "surplus"], "unknown word surplus"),
        (["train", "--n-workers", "0"], "n_workers: Input should be greater than or equal to 1"),
        (["train", "--n-workers", "two"], "--n-workers takes {None}|INT, not 'two'"),
        (
            ["train", "--hidden-sizes", "16,0"],
            "error: hidden_sizes: Input should be greater than or equal to 1 (given: 0) (",
        ),
        (["train", "--collector", "executer"], "'executor'"),
        (["train", "--red-agent", "Bline"], "did you mean 'B_lineAgent'"),
        (["train", "--env", "cage3"], "unknown environment 'cage3'; did you mean 'cage2'"),
        (["train", "--learning-rate", "nan"], "learning_rate"),
        (["train", "--config", "nowhere.yaml"], "cannot read nowhere.yaml"),
        (["train", "--config"], "--config needs a file"),
        (["train", "--recipe", "leaderbord"], "unknown recipe 'leaderbord'; did you mean 'leaderboard'"),
        (["train", "--recipe", "quick", "--config", "x.yaml"], "--config and --recipe both give values"),
        (["train", "--objective", "protocol", "--episode-steps", "50"], "needs episode_steps 100"),
        (["train", "--resume"], "--resume needs --run-dir"),
        (["train", "--resume", "--run-dir", "nowhere"], "nowhere does not exist"),
        (["train", "--address", "127.0.0.1:1", "--total-episodes", "200"], "nothing answers at --address 127.0.0.1:1"),
        (["train", "--address", "somewhere"], "is not HOST:PORT"),
        (["train", "--address", "http://127.0.0.1:8265"], "is not HOST:PORT"),
        (["train", "--collector", "executor", "--address", "127.0.0.1:1"], "--address needs a collector on Ray"),
        (["evaluate", "nowhere"], "nowhere does not exist"),
        (["evaluate"], "PATH"),
        (["evaluate", "x", "--cyborg-path", "y"], "--cyborg-path needs --env cyborg"),
        (["evaluate", "x", "--red-agents", "Meander"], "did you mean 'RedMeanderAgent'"),
        (["verify-env", "--traces", "nowhere"], "--traces nowhere is no folder"),
        (["compare", "--n-workers", "0"], "must be 1 or more"),
        (["compare", "--env", "nothing-v0"], "unknown environment 'nothing-v0'"),
        (["bench", "envs"], "did you mean 'env'"),
        (["doctor", "--adress", "x"], "did you mean '--address'"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in complaint_of(capsys, words)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_has_gone_is_no_reason_for_a_traceback() -> None:
    command = ["bash", "-c", 'set -o pipefail; "$@" | true', "piped", sys.executable, "-m", "ray_rl", "--help"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_flags_override_the_file_and_both_land_in_the_run(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("epochs: 2\nseed: 3\n", encoding="utf-8")
    path = tmp_path / "run"
    assert main([*SMALL_RUN, "--run-dir", str(path), "--config", str(config), "--seed", "4"]) == 0
    stored = (path / "config.yaml").read_text(encoding="utf-8")
    assert "epochs: 2" in stored
    assert "seed: 4" in stored


def test_evaluate_prints_the_table_and_saves_what_it_shows(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "scores.json"
    words = ["evaluate", str(run_dir), "--episodes", "20", "--collector", "sequential", "--json", str(target)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    scores = json.loads(target.read_text(encoding="utf-8"))
    assert "rules=head" in scores["environment"]
    assert len(scores["cells"]) == 9
    for cell in scores["cells"]:
        assert f"{cell['mean']:.2f} ± {cell['half_width']:.2f}" in shown
    assert f"{sum(cell['mean'] for cell in scores['cells']):.2f}" in shown


def test_a_failing_run_ends_with_code_1_and_one_line(tmp_path: Path) -> None:
    """A file-size limit stands for a full disk: the first checkpoint cannot be written, the run's rows stay."""
    words = [*SMALL_RUN, "--hidden-sizes", "256", "--checkpoint-every", "1", "--run-dir", "run"]
    command = ["bash", "-c", 'ulimit -f 100; exec "$@"', "limited", sys.executable, "-m", "ray_rl", *words]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "cannot write to run" in ended.stderr
    assert "--resume" in ended.stderr
    assert (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").count("\n") == 1
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_a_damaged_checkpoint_is_named_and_left_alone(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = run_dir / "checkpoints" / "update_000002" / "weights.safetensors"
    whole = weights.read_bytes()
    try:
        weights.write_bytes(whole[:-100])
        assert "weights.safetensors is truncated" in complaint_of(capsys, ["evaluate", str(run_dir)])
        assert "truncated" in complaint_of(capsys, [*SMALL_RUN, "--run-dir", str(run_dir), "--resume"])
        assert weights.read_bytes() == whole[:-100]
    finally:
        weights.write_bytes(whole)
