"""The table's reading of CybORG's observations, case by case; and Blue policies that need nothing but it."""

from __future__ import annotations

from typing import Any

import pytest

from ray_rl.envs.cage2.constants import (
    ACTIVITY_EXPLOIT,
    ACTIVITY_NONE,
    ACTIVITY_SCAN,
    ANALYSE_BLOCK,
    ENTERPRISE0,
    MONITOR,
    REMOVE_BLOCK,
    RESTORE_BLOCK,
    SLEEP,
    USER0,
    USER1,
    action_index,
)
from ray_rl.envs.cyborg.blue_policies import Reacting, Seen
from ray_rl.envs.cyborg.recorder import reported_shells
from ray_rl.envs.cyborg.table import EMPTY_TABLES, draw_tables, read_activities

NONE, SCAN, EXPLOIT = ACTIVITY_NONE, ACTIVITY_SCAN, ACTIVITY_EXPLOIT
DECOY = {"PID": 7, "Service Name": "apache2"}


def event(port: int, remote: int | None = 50_000) -> dict[str, Any]:
    connection = {"local_port": port} | ({} if remote is None else {"remote_port": remote})
    return {"Connections": [connection]}


SHELL = {"PID": 9, **event(51_000, 4444)}


@pytest.mark.parametrize(
    ("processes", "stock", "corrected"),
    [
        ([event(22)], SCAN, SCAN),
        ([event(80), SHELL], EXPLOIT, EXPLOIT),
        ([event(22)] * 11, EXPLOIT, EXPLOIT),
        ([event(22), event(80), event(443), SHELL], SCAN, SCAN),
        ([event(22), event(22), event(80)], SCAN, SCAN),
        ([event(80), event(80, None)], SCAN, SCAN),
        ([DECOY], NONE, NONE),
        ([DECOY, event(22)], NONE, SCAN),
        ([DECOY, event(80), event(80, None)], EXPLOIT, EXPLOIT),
        ([DECOY, event(80), SHELL], EXPLOIT, EXPLOIT),
        ([DECOY, event(22), event(80)], NONE, SCAN),
        ([DECOY, event(22), event(80), event(443)], SCAN, SCAN),
    ],
)
def test_a_hosts_events_are_read_as_both_wrappers_read_them(
    processes: list[dict[str, Any]], stock: int, corrected: int
) -> None:
    assert read_activities(processes) == (stock, corrected)


def test_the_compromised_entry_follows_exploits_actions_and_malware() -> None:
    exploited = {"success": None, "Enterprise0": {"Processes": [event(22)] * 11}}
    malware = {"success": None, "Enterprise0": {"Files": [{"Density": 0.9}]}}
    nothing = {"success": None}
    entries = []
    tables = EMPTY_TABLES
    for action, observation in (
        (action_index(REMOVE_BLOCK, ENTERPRISE0), nothing),
        (SLEEP, exploited),
        (SLEEP, nothing),
        (action_index(REMOVE_BLOCK, ENTERPRISE0), nothing),
        (action_index(ANALYSE_BLOCK, ENTERPRISE0), malware),
        (action_index(RESTORE_BLOCK, ENTERPRISE0), nothing),
        (action_index(RESTORE_BLOCK, ENTERPRISE0), exploited),
    ):
        tables = draw_tables(tables, action, observation)
        entries.append(tables.compromised >> (4 * ENTERPRISE0 + 2))
        assert tables.stock == tables.corrected
    assert entries == [0, 2, 2, 1, 3, 0, 2]


def test_only_reverse_shells_are_reported() -> None:
    seen = {"User1": {"Processes": [DECOY, event(80), SHELL]}, "User2": {"Processes": [DECOY, event(22)]}}
    assert reported_shells({"success": None, **seen}) == (USER1,)


def test_reacting_blue_looks_only_after_watching_and_never_at_user0() -> None:
    blue = Reacting(RESTORE_BLOCK)
    assert blue.act(Seen(reported=(USER1,))) == MONITOR
    assert blue.act(Seen(reported=(USER0, USER1, ENTERPRISE0))) == action_index(RESTORE_BLOCK, USER1)
    assert blue.act(Seen(reported=(USER1,))) == action_index(RESTORE_BLOCK, ENTERPRISE0)
    assert blue.act(Seen(reported=(USER1,))) == MONITOR
