"""A whole search: what it leaves behind, how it goes on, what it makes of trainings that fail, what it refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ray_rl.cli import main
from ray_rl.config import TrainConfig
from ray_rl.evaluate.policies import load_policy
from ray_rl.failures import RunError
from ray_rl.search import study, training
from ray_rl.search.config import SearchRun, order_folder
from ray_rl.search.journal import History
from ray_rl.search.methods import Rule, propose
from ray_rl.search.training import train_order
from ray_rl.workflow.orders import kendall_distances, order_name

SMALL = [
    *("search", "--method", "gp-ucb", "--n-start", "2", "--total-episodes", "16", "--episodes-per-update", "8"),
    *("--episode-steps", "12", "--hidden-sizes", "8", "--evaluate-episodes", "6", "--minibatches", "1"),
    *("--epochs", "1", "--until-compliance", "0.0", "--gate-after-updates", "2", "--learner-threads", "1"),
    *("--max-orders", "4", "--seed", "3"),
]


def outcomes_of(folder: Path) -> list[dict[str, Any]]:
    """What came of every training, without the times, which differ."""
    rows = json.loads((folder / "search.json").read_text(encoding="utf-8"))["orders"]
    return [{k: v for k, v in row.items() if k not in ("seconds", "started_at")} for row in rows]


def complaint_of(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    assert main(words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "whole"
    assert main([*SMALL, "--run-dir", str(folder)]) == 0
    return folder


def test_a_search_leaves_table_picture_events_and_the_best_checkpoint(undisturbed: Path) -> None:
    found = json.loads((undisturbed / "search.json").read_text(encoding="utf-8"))
    assert found["episodes"] == 4 * 16
    assert len(found["gaps_s"]) == 3
    assert found["best"]["score"] == max(row["score"] for row in found["orders"])
    rows = list(csv.DictReader((undisturbed / "orders.csv").open(encoding="utf-8")))
    assert [row["name"] for row in rows] == [row["name"] for row in found["orders"]]
    assert (undisturbed / "search.png").read_bytes().startswith(b"\x89PNG")
    events = EventAccumulator(str(undisturbed))
    events.Reload()
    assert [e.step for e in events.Scalars("search/score")] == [16, 32, 48, 64]
    best = load_policy(undisturbed / "best")
    assert best.env.workflow == found["best"]["name"]
    trained = load_policy(order_folder(undisturbed, found["best"]["order"]))
    assert best.weights.values.tobytes() == trained.weights.values.tobytes()


def test_a_search_that_was_stopped_and_went_on_is_the_same(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "parts"
    words = [*SMALL, "--run-dir", str(folder)]
    real = study.Journal.finish
    calls = []

    def stop_the_second(journal: study.Journal, outcome: study.Outcome) -> None:
        calls.append(outcome.order)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(journal, outcome)

    monkeypatch.setattr(study.Journal, "finish", stop_the_second)
    assert main(words) == 1
    monkeypatch.undo()
    with (folder / "journal.jsonl").open("a", encoding="utf-8") as lines:
        lines.write('{"outcome": {"ord')  # the crash cut a line off
    assert main([*words, "--resume"]) == 0
    assert outcomes_of(folder) == outcomes_of(undisturbed)


def test_more_orders_continue_a_search_that_is_over(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "longer"
    words = [*SMALL, "--run-dir", str(folder)]
    assert main([*words, "--max-orders", "2"]) == 0
    assert main([*words, "--resume"]) == 0
    assert outcomes_of(folder) == outcomes_of(undisturbed)


def test_trainings_at_once_on_ray_have_the_same_outcomes(undisturbed: Path, tmp_path: Path) -> None:
    random = [*SMALL, "--method", "random", "--max-orders", "3"]
    assert main([*random, "--run-dir", str(tmp_path / "alone")]) == 0
    on_tasks = ["--collector", "ray-tasks", "--n-workers", "2", "--parallel", "2"]
    assert main([*random, *on_tasks, "--run-dir", str(tmp_path / "at_once")]) == 0
    names = ("order", "score", "standard_error", "compliance", "fixes", "episodes")
    alone, at_once = (
        [{name: row[name] for name in names} for row in outcomes_of(tmp_path / kind)] for kind in ("alone", "at_once")
    )
    assert at_once == alone


def test_a_training_that_fails_is_noted_and_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = propose(Rule("gp-ucb", seed=3), [], History().observations(0.0), ())
    assert first is not None
    real: Callable[[TrainConfig], Path] = training.train_silently

    def fail(config: TrainConfig) -> Path:
        if config.env.workflow == order_name(first):
            raise RunError("the learner diverged")
        return real(config)

    monkeypatch.setattr(training, "train_silently", fail)
    assert main([*SMALL, "--run-dir", str(tmp_path / "run")]) == 0
    rows = outcomes_of(tmp_path / "run")
    assert [row["error"] for row in rows] == ["the learner diverged", "", "", ""]
    assert rows[0]["score"] is None
    assert not rows[0]["met_gate"]
    assert "failed: the learner diverged" in capsys.readouterr().out


def test_an_error_that_nobody_foresaw_names_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: TrainConfig) -> Path:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(training, "train_silently", fail)
    assert train_order(5, SearchRun()).error == "ZeroDivisionError: division by zero"


def test_only_orders_that_met_the_gate_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*SMALL, "--until-compliance", "1.0", "--run-dir", str(tmp_path / "run")]
    assert main(words) == 1
    assert "no order met the gate" in capsys.readouterr().out
    found = json.loads((tmp_path / "run" / "search.json").read_text(encoding="utf-8"))
    assert found["best"] is None
    assert found["posterior"] is None
    assert not (tmp_path / "run" / "best").exists()


def test_the_budget_is_never_exceeded(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert main([*SMALL, "--budget-episodes", "47", "--run-dir", str(folder)]) == 0
    assert json.loads((folder / "search.json").read_text(encoding="utf-8"))["episodes"] == 32


def test_exhaustive_has_a_budget_for_all_orders() -> None:
    exhaustive = SearchRun.model_validate({"search": {"method": "exhaustive"}})
    assert exhaustive.budget == 120 * exhaustive.run.total_episodes
    assert SearchRun().budget == 100_000


def test_later_orders_start_from_the_nearest(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert main([*SMALL, "--warm-start", "nearest", "--run-dir", str(folder)]) == 0
    rows = outcomes_of(folder)
    distances = kendall_distances()
    assert rows[0]["started_from"] is None
    for k, row in enumerate(rows[1:], 1):
        before = [other["order"] for other in rows[:k]]
        assert row["started_from"] in before
        assert distances[row["order"], row["started_from"]] == min(distances[row["order"], before])
        stored = (order_folder(folder, row["order"]) / "config.yaml").read_text(encoding="utf-8")
        assert str(order_folder(folder, row["started_from"])) in stored


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--workflow", "user,op_host"], "exactly once"),
        (["--workflow", "3"], "leave workflow out"),
        (["--alignment-weight", "-1"], "alignment_weight"),
        (["--until-compliance", "1.5"], "until_compliance"),
        (["--budget-episodes", "15"], "budget_episodes (15) is less than one training (total_episodes 16)"),
        (["--evaluate-episodes", "1"], "evaluate_episodes"),
        (["--collector", "executor"], "ray-tasks or sequential"),
        (["--warm-start", "policy"], "start_from"),
        (["--truth", "nowhere.json"], "--truth nowhere.json"),
        (["--json", "no/folder/x.json"], "--json no/folder/x.json"),
        (["--delta", "0"], "delta"),
    ],
)
def test_what_cannot_work_is_one_clear_error(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in complaint_of(capsys, [*SMALL, "--run-dir", str(tmp_path / "run"), *words])
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_search_is_refused_and_left_alone(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, "--run-dir", str(undisturbed)]
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()}
    assert "add --resume" in complaint_of(capsys, words)
    assert "has seed = 3, now it is 4" in complaint_of(capsys, [*words, "--resume", "--seed", "4"])
    assert "holds no search" in complaint_of(capsys, [*SMALL, "--run-dir", str(tmp_path / "none"), "--resume"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    assert "is not empty" in complaint_of(capsys, [*SMALL, "--run-dir", str(tmp_path / "other")])
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()} == before


def test_a_damaged_journal_is_refused_by_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    words = [*SMALL, "--max-orders", "2", "--run-dir", str(folder)]
    assert main(words) == 0
    capsys.readouterr()
    journal = folder / "journal.jsonl"
    lines = journal.read_text(encoding="utf-8").splitlines()
    lines[1] = lines[1].replace("score", "scare")
    journal.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert "damaged in line 2" in complaint_of(capsys, [*words, "--resume"])
    assert journal.read_text(encoding="utf-8").splitlines() == lines
    (folder / "search.yaml").write_text("{", encoding="utf-8")
    assert "holds no configuration" in complaint_of(capsys, [*words, "--resume"])
