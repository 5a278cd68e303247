"""Benching a training: parts that add up to an update, bounds that follow from the paces, results that compare."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ray_rl.bench.machine import this_machine
from ray_rl.bench.time_account import PARTS, account
from ray_rl.bench.train import Pace, Round, TrainBench, Training
from ray_rl.bench.versions import OWN_FOLDER
from ray_rl.cli import main
from ray_rl.collect.api import ChunkSummary
from ray_rl.commands import bench_train as command
from ray_rl.config import TrainConfig
from ray_rl.seeding import Purpose
from ray_rl.spans import Span
from ray_rl.training_metrics import UpdateReport

DRIVER = {"publish": 0.01, "collect": 0.2, "learn": 0.5, "record": 0.05, "checkpoint": 0.02}
LEARNER = {"fetch": 0.02, "join": 0.01, "unpack": 0.03, "advantages": 0.04, "epochs": 0.36}
ACTOR = {"minibatches": 0.02, "forward": 0.1, "backward": 0.15, "optimiser": 0.01}
CRITIC = {"minibatches": 0.02, "forward": 0.05, "backward": 0.05, "optimiser": 0.01}


def chunk(rollout_s: float, chunk_s: float) -> ChunkSummary:
    no_returns = np.zeros(2)
    lengths = np.full(2, 50, dtype=np.int32)
    summary = ChunkSummary(
        Purpose.TRAIN, 0, np.arange(2), no_returns, no_returns, lengths, {}, rollout_s, 0.0, 0.0, 100, "here", 1, 10**8
    )
    return replace(summary, chunk_s=chunk_s)


def report(chunks: tuple[ChunkSummary, ...]) -> UpdateReport:
    spans = [
        Span(what, who, 0.0, seconds)
        for who, parts in (("driver", DRIVER), ("learner", LEARNER), ("actor", ACTOR), ("critic", CRITIC))
        for what, seconds in parts.items()
    ]
    return UpdateReport(0.8, tuple(spans), chunks)


def test_the_parts_of_an_update_are_told_apart() -> None:
    parts = account([report((chunk(0.1, 0.11), chunk(0.14, 0.15)))], n_workers=2, step_s=0.0005)
    assert parts == pytest.approx(
        {
            "publishing": 0.01,
            "stepping": 0.05,  # 200 steps at 2000 per second, by two workers
            "inference": 0.07,  # 0.24 s of rollouts by two workers, less that
            "packing": 0.01,
            "waiting": 0.07,  # 0.2 s, less 0.26 s of chunks by two workers
            "transport": 0.06,  # learning took 0.5 s, the learner knows of 0.46 s, of which it fetched for 0.02 s
            "unpacking": 0.04,
            "GAE": 0.04,
            "forward": 0.1,
            "backward": 0.15,
            "optimiser": 0.01,
            "loss": 0.1,  # the passes took 0.36 s
            "logging": 0.03,
            "checkpointing": 0.02,
            "other": 0.04,
        }
    )
    assert list(parts) == list(PARTS)


def test_what_happens_beside_the_driver_costs_no_time_of_an_update() -> None:
    slow = account([report((chunk(1.0, 1.1), chunk(1.0, 1.1)))], n_workers=2, step_s=0.0005)
    none = account([report(())], n_workers=2, step_s=0.0005)
    assert sum(slow.values()) == pytest.approx(0.8)
    assert sum(none.values()) == pytest.approx(0.8)
    assert slow["stepping"] + slow["inference"] + slow["packing"] == pytest.approx(0.2)
    assert none["waiting"] == pytest.approx(0.2)


def test_what_the_driver_does_while_the_learner_is_ahead_costs_nothing() -> None:
    """The learner knows of 0.46 s, of which the driver waited for 0.4 s: a fifth of its other 0.3 s was beside them."""
    ahead = report((chunk(0.1, 0.11), chunk(0.14, 0.15)))
    spans = tuple(span._replace(duration_s=0.4) if span.what == "learn" else span for span in ahead.spans)
    parts = account([UpdateReport(0.7, spans, ahead.chunks)], n_workers=2, step_s=0.0005)
    assert parts["publishing"] == pytest.approx(0.008)
    assert parts["transport"] == pytest.approx(0.02)
    assert parts["backward"] == pytest.approx(0.15)
    assert sum(parts.values()) == pytest.approx(0.7)


def test_updates_are_averaged() -> None:
    one = report((chunk(0.1, 0.1),))
    parts = account([one, replace(one, total_s=1.0)], n_workers=1, step_s=0.0005)
    assert sum(parts.values()) == pytest.approx(0.9)
    assert parts["backward"] == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("learner", "collectors", "strict", "overlapped"),
    [
        (Pace(900, 0.002), Pace(4500, 0.0005), 750, 800),  # the cores have no more to give than 2 / 0.0025
        (Pace(500, 0.002), Pace(4500, 0.0001), 450, 500),  # the learner has no use for more cores
    ],
)
def test_bounds_follow_from_the_paces(learner: Pace, collectors: Pace, strict: float, overlapped: float) -> None:
    one = Round(2, learner, collectors, {"strict": Training(1.0, {}), "overlapped": Training(1.0, {})})
    assert one.bound("strict") == pytest.approx(strict)
    assert one.bound("overlapped") == pytest.approx(overlapped)


def test_a_training_is_measured_and_saved(tmp_path: Path) -> None:
    saved = tmp_path / "bench.json"
    tiny = ["--rounds", "1", "--updates", "3", "--episodes-per-update", "8", "--n-workers", "2", "--hidden-size", "8"]
    assert main(["bench", "train", *tiny, "--json", str(saved)]) == 0
    content = json.loads(saved.read_text())
    figures = {name: figure["median"] for name, figure in content["figures"].items()}
    for mode in ("strict", "overlapped"):
        share = figures[f"end to end, {mode}"] / figures[f"bound, {mode}"]
        assert figures[f"share of the bound, {mode}"] == pytest.approx(share)
        parts = {name: part["median"] for name, part in content["parts_s"][mode].items()}
        assert sum(parts.values()) == pytest.approx(8 / figures[f"end to end, {mode}"])
        assert min(parts["forward"], parts["backward"], parts["optimiser"], parts["unpacking"], parts["GAE"]) > 0
        assert abs(parts["other"]) < 0.2 * sum(parts.values())
    assert {"processor", "cores", "versions", "command"} <= set(content["machine"])


def test_a_result_is_compared_with_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training = Training(640.0, dict.fromkeys(PARTS, 0.02))
    one = Round(2, Pace(900, 0.002), Pace(4500, 0.0005), {"strict": training, "overlapped": training})

    def measured(config: TrainConfig, rounds: int, say: object) -> TrainBench:
        return TrainBench.of_rounds(this_machine(), config, (one,) * rounds)

    monkeypatch.setattr(command, "bench_train", measured)
    saved = tmp_path / "bench.json"
    assert main(["bench", "train", "--json", str(saved), "--seed", "7"]) == 0
    content = json.loads(saved.read_text())
    content["figures"]["learner alone"]["values"] = [600.0]
    saved.write_text(json.dumps(content))
    capsys.readouterr()
    assert main(["bench", "train", "--against", str(saved)]) == 0
    shown = capsys.readouterr().out
    (learner,) = [line for line in shown.splitlines() if "learner alone" in line]
    assert [cell.strip() for cell in learner.split("│")[1:7]] == [
        "learner alone", "900", "900 - 900", "2.00", "600", "1.50"
    ]  # fmt: skip
    assert "careful: seed was 7, and is 0" in shown
    assert "cores was" not in shown


def test_two_versions_are_measured_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other version here is one that only pretends to measure: it says what it was asked for."""
    training = Training(500.0, dict.fromkeys(PARTS, 0.02))
    one = Round(2, Pace(450, 0.002), Pace(4500, 0.0005), {"strict": training, "overlapped": training})
    result = TrainBench.of_rounds(this_machine(), TrainConfig(), [one])
    pretended, asked = tmp_path / "result.json", tmp_path / "asked.txt"
    pretended.write_text(json.dumps(result.to_json()))
    package = tmp_path / "other" / "ray_rl"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text(
        "import shutil, sys\n"
        f"open({str(asked)!r}, 'a').write(' '.join(sys.argv[1:-1]) + '\\n')\n"
        f"shutil.copy({str(pretended)!r}, sys.argv[-1])\n"
    )
    tiny = ["--updates", "3", "--episodes-per-update", "8", "--n-workers", "2", "--hidden-size", "8"]
    saved = tmp_path / "bench.json"
    words = ["--rounds", "2", *tiny, "--against", str(tmp_path / "other"), "--json", str(saved)]
    assert main(["bench", "train", *words]) == 0
    expected = "bench train --rounds 1 --updates 3 --episodes-per-update 8 --hidden-size 8 --n-workers 2 --json"
    assert asked.read_text().splitlines() == [expected] * 2
    content = json.loads(saved.read_text())
    own, other = content["figures"]["learner alone"], content["against"]["figures"]["learner alone"]
    assert other["values"] == [450, 450]
    assert len(own["values"]) == 2
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if "learner alone" in line]
    ratios = [value / 450 for value in own["values"]]
    assert f"({min(ratios):.2f} - {max(ratios):.2f})" in line
    assert "careful: episodes_per_update was 200, and is 8" in shown


def test_a_version_that_does_not_finish_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken"
    (broken / "ray_rl").mkdir(parents=True)
    (broken / "ray_rl" / "__main__.py").write_text("raise SystemExit('error: no such flag')")
    tiny = ["--updates", "2", "--episodes-per-update", "4", "--n-workers", "1", "--hidden-size", "4"]
    assert main(["bench", "train", "--rounds", "1", *tiny, "--against", str(broken)]) == 1
    assert f"the version in {broken} does not finish its benchmark: error: no such flag" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--against", "."], ". is not a checkout of ray_rl: it holds no package of that name"),
        (["--against", str(OWN_FOLDER)], "is this very version"),
        (["--against", "nowhere.json"], "cannot read --against nowhere.json"),
        (["--against", "list.json"], "was not written by ray-rl bench train"),
        (["--against", "text.json"], "is no JSON file"),
        (["--updates", "1"], "--updates 2 or more"),
        (["--json", "nowhere/x.json"], "--json nowhere/x.json"),
        (["--hidden-size", "0"], "hidden_sizes"),
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
    Path("list.json").write_text("[1]")
    Path("text.json").write_text("learner alone 500")
    assert main(["bench", "train", *words]) == 2
    assert complaint in capsys.readouterr().err
