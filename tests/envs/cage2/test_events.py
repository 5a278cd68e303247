"""The simulator's raw events against the counts that were recorded from CybORG's own observation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ray_rl.envs.cage2 import simulator as s
from ray_rl.envs.cage2.constants import N_HOSTS, RULE_SETS
from ray_rl.envs.cage2.events import events_of
from ray_rl.envs.cage2.traces import RED_CODES, forced_outcomes, load_trace

DATA = Path(__file__).parents[2] / "data" / "cage2"


@pytest.mark.parametrize("rules", RULE_SETS)
@pytest.mark.parametrize("red", ["bline", "meander"])
def test_events_have_the_recorded_numbers_ports_and_shells(rules: str, red: str) -> None:
    trace = load_trace(DATA / rules / f"{red}__probing__T100.npz")
    recorded, forced = trace.arrays, forced_outcomes(trace)
    state = np.empty(s.STATE_SIZE, dtype=np.int64)
    n_events = 0
    for episode, actions in enumerate(recorded["blue_action"].tolist()):
        s.reset_state(state, np.uint64(0), RED_CODES[red], RULE_SETS.index(rules))
        for step, action in enumerate(actions):
            s.step_state(state, action, forced[episode, step])
            events = events_of(state, action)
            n_events += len(events)
            for host in range(N_HOSTS):
                here = [event for event in events if event.host == host]
                assert len(here) == recorded["ev_n"][episode, step, host]
                ports = {(event.kind, event.port) for event in here if event.kind != "decoy"}
                assert len(ports) == recorded["ev_ports"][episode, step, host]
                flags = recorded["ev_flags"][episode, step, host]
                assert ("shell" in {event.kind for event in here}) == bool(flags & 1)
                assert ("decoy" in {event.kind for event in here}) == bool(flags & 2)
    assert n_events > 1000
