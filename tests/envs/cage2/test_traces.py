"""Recorded CybORG episodes replay without a single difference, in the compiled simulator and in the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ray_rl.config import UserError
from ray_rl.envs.cage2.constants import N_HOSTS, RULE_SETS
from ray_rl.envs.cage2.reference import ReferenceGame
from ray_rl.envs.cage2.simulator import FORCED_REUSE, N_FORCED
from ray_rl.envs.cage2.traces import forced_outcomes, load_trace, replay, replay_folder

DATA = Path(__file__).parents[2] / "data" / "cage2"
TRACES = sorted(DATA.rglob("*.npz"))


class Recorded:
    """An oracle that repeats one recorded step."""

    def __init__(self) -> None:
        self.outcome = np.full(N_FORCED, -1)

    def exploit(self, options: list[int]) -> int:
        assert self.outcome[0] in options
        return int(self.outcome[0])

    def detected(self) -> bool:
        return bool(self.outcome[1])

    def reuses_number(self, reports: int) -> bool:
        return bool(self.outcome[FORCED_REUSE])

    def escalates_removable(self, removable: int, hidden: int) -> bool:
        raise AssertionError("no recorded host ever has both kinds of session when Red escalates")

    def target(self, hosts: list[int]) -> int:
        assert self.outcome[3] in hosts
        return int(self.outcome[3])


def test_golden_set_covers_both_rule_sets_and_all_red_agents() -> None:
    for rules in RULE_SETS:
        red_agents = {load_trace(path).red_agent for path in TRACES if path.parent.name == rules}
        assert red_agents >= {"bline", "meander"}
    assert sum(path.stat().st_size for path in TRACES) < 3_000_000


@pytest.mark.parametrize("path", TRACES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_compiled_simulator_replays_every_step(path: Path) -> None:
    report = replay(load_trace(path), path.parent.name)
    assert report.n_steps > 1000
    assert report.n_mismatches == 0, report.first_difference


@pytest.mark.parametrize("path", TRACES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_reference_replays_every_step(path: Path) -> None:
    trace = load_trace(path)
    recorded, forced = trace.arrays, forced_outcomes(trace)
    for episode in range(4):
        oracle = Recorded()
        game = ReferenceGame(trace.red_agent, path.parent.name, oracle)
        for step, action in enumerate(recorded["blue_action"][episode]):
            oracle.outcome = forced[episode, step]
            shown = game.step(int(action))
            where = f"episode {episode}, step {step + 1}"
            assert shown.reward == recorded["reward"][episode, step], where
            for activity, name in zip(shown.activity, ("obs_stock", "obs_corr"), strict=True):
                bits = [
                    code >> bit & 1
                    for host in range(N_HOSTS)
                    for code in (activity[host], shown.compromised[host])
                    for bit in (0, 1)
                ]
                assert bits == recorded[name][episode, step + 1].tolist(), where
            for name, expected in (("privileged", "n_priv"), ("removable", "n_user_rem"), ("hidden", "n_user_hid")):
                found = [getattr(sessions, name) for sessions in game.sessions]
                assert found == recorded[expected][episode, step + 1].tolist(), where
            assert game.red_action == recorded["red_action"][episode, step], where
            assert game.red_success == recorded["red_success"][episode, step], where
            assert game.blue_success == recorded["blue_success"][episode, step], where


def test_the_other_rule_set_does_not_replay() -> None:
    """The two differ, and the replay sees it."""
    trace = load_trace(DATA / "leaderboard" / "bline__mixed__T100.npz")
    report = replay(trace, "head")
    assert report.n_mismatches > 0
    assert "episode" in report.first_difference
    assert "recorded" in report.first_difference


def test_a_changed_recording_is_found_at_the_step_that_was_changed(tmp_path: Path) -> None:
    with np.load(TRACES[0]) as stored:
        arrays = {name: stored[name].copy() for name in stored.files}
    arrays["reward"][3, 41] += 0.1
    np.savez(tmp_path / "changed.npz", **arrays)
    report = replay(load_trace(tmp_path / "changed.npz"), "head")
    assert report.n_mismatches == 1
    assert "episode 3, step 42" in report.first_difference


def test_what_is_no_trace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is no trace"):
        load_trace(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", meta=np.array(["red=bline"]))
    with pytest.raises(UserError, match="blue_action"):
        load_trace(tmp_path / "x.npz")
    with pytest.raises(UserError, match="no traces"):
        replay_folder(tmp_path / "empty")
    with pytest.raises(UserError, match="--rules"):
        replay_folder(tmp_path)
