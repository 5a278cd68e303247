from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from ray_rl.config import TrainConfig
from ray_rl.console import Progress

METRICS = {
    "rollout/return_mean": -123.4,
    "time/episodes_per_s": 100.0,
    "staleness/mean": 0.5,
    "eval/return_mean": -45.6,
    "eval/return_half_width": 1.2,
    "train/entropy": 2.5,
    "train/approx_kl": 0.01,
    "time/share_collecting": 0.25,
    "time/share_learning": 0.7,
}


def shown(terminal: bool, stopped: bool = False) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False, color_system=None)
    config = TrainConfig.from_mapping({"total_episodes": 2000, "seed": 7}, "test")
    with Progress(config, Path("runs/mine"), console) as progress:
        progress.show(5, 10.0, METRICS)
        progress.finish(5, stopped)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_without_a_terminal_it_prints_plain_lines() -> None:
    lines = shown(terminal=False).splitlines()
    assert "\x1b" not in "".join(lines)
    assert "seed 7" in lines[0]
    for part in ("update 5/10", "0:10", "100 episodes/s", "return -123.4", "eval -45.6 ± 1.2", "lag 0.5"):
        assert part in lines[2]
    assert "ray-rl evaluate runs/mine" in "\n".join(lines)


def test_a_terminal_shows_progress_and_the_time_left() -> None:
    text = shown(terminal=True)
    for part in ("50%", "0:10 left", "-123.4", "-45.6 ± 1.2", "25%", "70%", "0.5"):
        assert part in text


def test_a_stopped_run_says_how_to_go_on() -> None:
    text = shown(terminal=False, stopped=True)
    assert "stopped after update 5 of 10" in text
    assert "ray-rl train --config runs/mine/config.yaml --run-dir runs/mine --resume" in text
