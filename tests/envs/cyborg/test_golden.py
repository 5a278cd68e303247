"""The golden set covers what it is for: where CybORG is missing, it is all that holds the simulator to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_rl.envs.cage2.constants import RULE_SETS
from ray_rl.envs.cage2.traces import load_trace
from ray_rl.envs.cyborg.golden import coverage
from ray_rl.envs.cyborg.recorder import RED_NAMES

DATA = Path(__file__).parents[2] / "data" / "cage2"


@pytest.mark.parametrize("rules", RULE_SETS)
def test_every_red_agent_length_and_odd_situation_is_in_the_golden_set(rules: str) -> None:
    traces = [load_trace(path) for path in sorted((DATA / rules).glob("*.npz"))]
    kinds = {(trace.red_agent, trace.arrays["blue_action"].shape[1]) for trace in traces}
    assert kinds >= {(red, steps) for red in RED_NAMES for steps in (30, 50, 100)}
    found = coverage(traces)
    assert len(found) == 16
    assert {what for what, count in found.items() if count < 10} == set()


def test_the_golden_set_stays_small() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*.npz")) < 3_000_000
