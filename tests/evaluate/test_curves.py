"""Learning curves are the evaluations that a run recorded."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from ray_rl.cli import main

_RUN = ["train", "--collector", "sequential", "--hidden-sizes", "8", "--episodes-per-update", "4"]
_RUN += ["--evaluate-every", "1", "--evaluate-episodes", "6", "--total-episodes", "8", "--red-agent", "mixed"]


def test_curves_hold_what_the_run_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*_RUN, "--run-dir", str(tmp_path / "long"), "--rules", "leaderboard"]) == 0
    assert main([*_RUN, "--run-dir", str(tmp_path / "short"), "--episode-steps", "20"]) == 0
    data, plot = tmp_path / "c.csv", tmp_path / "c.png"
    words = ["--data", str(data), "--plot", str(plot)]
    assert main(["curves", str(tmp_path / "long"), *words]) == 0
    rows = list(csv.DictReader(data.open(encoding="utf-8")))
    lines = [json.loads(line) for line in (tmp_path / "long" / "metrics.jsonl").read_text().splitlines()]
    recorded = [line for line in lines if "eval/protocol_total" in line]
    assert [float(r["total"]) for r in rows] == pytest.approx([r["eval/protocol_total"] for r in recorded], abs=1e-3)
    assert [int(r["episodes"]) for r in rows] == [4, 8]
    assert {r["rules"] for r in rows} == {"leaderboard"}
    assert plot.read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert main(["curves", str(tmp_path / "short"), *words]) == 2
    assert "no evaluation with the protocol's total" in capsys.readouterr().err
    assert main(["curves", str(tmp_path / "nowhere"), *words]) == 2
