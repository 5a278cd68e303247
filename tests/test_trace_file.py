"""The trace of a training: whole JSON, all three kinds of process, and one clock for them."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from ray_rl.cli import main
from ray_rl.config import TrainConfig
from ray_rl.trace_file import TraceFile
from ray_rl.trainer import train

CLOCK_US = 2000.0
"""How far the ends of spans may be off: starts and durations are taken from two clocks."""

Spans = dict[str, list[tuple[str, float, float]]]
"""What, start and end in microseconds, by process."""


def spans_of(path: Path) -> Spans:
    events: list[dict[str, Any]] = json.loads(path.read_text())
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    threads = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    spans: Spans = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            assert (event["pid"], event["tid"]) in threads
            spans[names[event["pid"]]].append((event["name"], event["ts"], event["ts"] + event["dur"]))
    return spans


def test_driver_learner_and_workers_are_on_one_clock(tmp_path: Path) -> None:
    values = {
        "total_episodes": 24,
        "episodes_per_update": 8,
        "episode_steps": 20,
        "hidden_sizes": (8,),
        "evaluate_every": 0,
        "n_workers": 2,
        "profile": tmp_path / "trace.json",
        "run_dir": str(tmp_path / "run"),
    }
    train(TrainConfig.from_mapping(values, "test"))
    spans = spans_of(tmp_path / "trace.json")
    workers = [name for name in spans if name.startswith("worker ")]
    assert workers
    assert set(spans) == {"driver", "learner", *workers}
    chunks = [span for name in workers for span in spans[name] if span[0] == "chunk"]
    by_what = {what: [s for s in spans["driver"] if s[0] == what] for what in ("publish", "collect", "learn")}
    for (_, published, _), (_, _, collected), (_, began, ended) in zip(*by_what.values(), strict=True):
        here = [c for c in chunks if published - CLOCK_US < c[1] and c[2] < collected + CLOCK_US]
        assert here, "the chunks of an update ran while it was collecting"
        chunks = [c for c in chunks if c not in here]
        learned = [s for s in spans["learner"] if began - CLOCK_US < s[1] and s[2] < ended + CLOCK_US]
        assert {"fetch", "unpack", "advantages", "forward", "backward", "optimiser"} <= {s[0] for s in learned}
    assert chunks == []


def test_a_trace_without_an_update_is_whole_too(tmp_path: Path) -> None:
    with TraceFile(tmp_path / "trace.json"):
        pass
    assert json.loads((tmp_path / "trace.json").read_text()) == []


def test_a_trace_that_cannot_be_written_is_refused_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--run-dir", str(tmp_path / "run"), "--profile", str(tmp_path / "nowhere" / "trace.json")]
    assert main(["train", "--collector", "sequential", *words]) == 2
    assert "cannot write --profile" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
