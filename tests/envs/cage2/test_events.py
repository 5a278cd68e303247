"""The simulator's raw events against the counts that were recorded from CybORG's observation, and what they tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ray_rl.envs.cage2 import simulator as s
from ray_rl.envs.cage2.constants import (
    ENTERPRISE0,
    ENTERPRISE1,
    EXPLOIT,
    HARAKA,
    HTTPS_RFI,
    N_EXPLOITS,
    N_HOSTS,
    RULE_SETS,
    SSH,
    TRUE,
    USER4,
)
from ray_rl.envs.cage2.events import Event, events_of
from ray_rl.envs.cage2.sightings import FAILED, N_OUTCOMES, NO_SIGHTING, REPORTED, UNREPORTED, sighting_in, sighting_of
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


@pytest.mark.parametrize("rules", range(len(RULE_SETS)))
@pytest.mark.parametrize("red_agent", [0, 1])
def test_a_sighting_is_read_alike_off_the_state_and_off_the_events(rules: int, red_agent: int) -> None:
    """And it says the truth: which exploit, whether it worked, and whether a session is known of."""
    rng = np.random.default_rng(rules)
    state = np.empty(s.STATE_SIZE, dtype=np.int64)
    seen = set()
    for seed in range(150):
        s.reset_state(state, np.uint64(seed), red_agent, rules)
        for action in rng.integers(145, size=80).tolist():
            s.step_state(state, action, s.NOTHING_FORCED)
            sighting = sighting_of(state)
            assert sighting == sighting_in(events_of(state, action))
            if sighting == NO_SIGHTING:
                assert state[s.RED_ACTION] != EXPLOIT or state[s.EVENT_HOST] < 0
                continue
            host, exploit = divmod(sighting // N_OUTCOMES, N_EXPLOITS)
            assert (host, exploit) == (state[s.EVENT_HOST], state[s.RED_EXPLOIT])
            assert state[s.RED_SUCCESS] == TRUE or sighting % N_OUTCOMES != REPORTED
            assert state[s.RED_SUCCESS] != TRUE or sighting % N_OUTCOMES != FAILED
            seen.add((exploit, sighting % N_OUTCOMES))
    assert len(seen) > 12


def connections(host: int, port: int, count: int) -> list[Event]:
    return [Event(host, "connection", port)] * count


@pytest.mark.parametrize(
    ("events", "host", "exploit", "outcome"),
    [
        (connections(ENTERPRISE0, 22, 11), ENTERPRISE0, SSH, REPORTED),
        (connections(ENTERPRISE0, 22, 10), ENTERPRISE0, SSH, FAILED),
        (connections(ENTERPRISE1, 443, 1), ENTERPRISE1, HTTPS_RFI, UNREPORTED),
        ([*connections(ENTERPRISE1, 443, 1), Event(ENTERPRISE1, "shell", 0)], ENTERPRISE1, HTTPS_RFI, REPORTED),
        ([*connections(USER4, 25, 2), Event(ENTERPRISE0, "decoy", 0)], USER4, HARAKA, FAILED),
    ],
)
def test_what_events_tell_of_an_exploit(events: list[Event], host: int, exploit: int, outcome: int) -> None:
    assert sighting_in(events) == (host * N_EXPLOITS + exploit) * N_OUTCOMES + outcome


def test_scans_and_decoys_are_no_exploits() -> None:
    scan = [*connections(USER4, 22, 1), *connections(USER4, 80, 1), *connections(USER4, 25, 1)]
    assert {sighting_in(e) for e in ([], connections(ENTERPRISE0, 22, 1), scan, [Event(USER4, "decoy", 0)])} == {-1}
