"""CybORG, live, against the simulator: nothing may differ; and what differs is found and described."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ray_rl.cli import main
from ray_rl.envs.cage2 import simulator as s
from ray_rl.envs.cage2.constants import RULE_SETS
from ray_rl.envs.cage2.events import events_of
from ray_rl.envs.cage2.sightings import sighting_in, sighting_of
from ray_rl.envs.cage2.traces import RED_CODES, forced_outcomes, load_trace, replay
from ray_rl.envs.cyborg.blue_policies import BLUE_POLICIES, Seen
from ray_rl.envs.cyborg.game import Game
from ray_rl.envs.cyborg.raw_events import events_in
from ray_rl.envs.cyborg.recorder import record_episodes, save_trace
from ray_rl.envs.cyborg.side_by_side import play_side_by_side
from ray_rl.episodes import RED_AGENTS
from ray_rl.evaluate.cage2_wrapper import sighting

pytestmark = pytest.mark.cyborg

RECORDED = Path(__file__).parents[2] / "data" / "cage2"


class Given:
    """Plays recorded actions."""

    def __init__(self, actions: np.ndarray) -> None:
        self._actions = iter(actions.tolist())

    def act(self, seen: Seen) -> int:
        return next(self._actions)


def test_no_step_differs_in_any_pair_of_agents(game: Game, rules: str) -> None:
    pairs = list(play_side_by_side(game, rules, BLUE_POLICIES, 60, seed=7))
    assert len(pairs) == 18
    assert sum(pair.n_steps for pair in pairs) >= 6000
    assert "".join(pair.first_difference for pair in pairs) == ""
    assert sum(pair.n_mismatches for pair in pairs) == 0


@pytest.mark.parametrize("red", ["bline", "meander"])
def test_the_raw_events_are_the_same_in_both(game: Game, rules: str, red: str) -> None:
    make_blue, seeds = BLUE_POLICIES["mixed"], range(100, 104)
    trace = record_episodes(game, red, make_blue, seeds, 60)
    forced, state = forced_outcomes(trace), np.empty(s.STATE_SIZE, dtype=np.int64)
    n_events = 0
    for episode, seed in enumerate(seeds):
        game.reset(seed, RED_AGENTS[RED_CODES[red]])
        s.reset_state(state, np.uint64(0), RED_CODES[red], RULE_SETS.index(rules))
        for step, action in enumerate(trace.arrays["blue_action"][episode].tolist()):
            observation, _ = game.step(action)
            s.step_state(state, action, forced[episode, step])
            events = events_in(observation)
            assert events_of(state, action) == events
            assert sighting_in(events) == sighting_of(state) == sighting(observation)
            n_events += len(events)
    assert n_events > 200


@pytest.mark.parametrize("name", ["bline__mixed__T100", "meander__mixed__T100", "meander__react_restore__T100"])
def test_recorded_episodes_are_recorded_alike_again(game: Game, rules: str, name: str) -> None:
    golden = load_trace(RECORDED / rules / f"{name}.npz")
    seeds = golden.arrays["seed"][:2].tolist()
    actions = dict(zip(seeds, golden.arrays["blue_action"], strict=False))
    trace = record_episodes(game, golden.red_agent, lambda seed: Given(actions[seed]), seeds, 100)
    per_episode = [n for n, values in golden.arrays.items() if not n.startswith("tbl_") and n != "meta"]
    differing = [n for n in per_episode if not np.array_equal(golden.arrays[n][:2], trace.arrays[n])]
    assert differing == []


def test_the_wrong_rule_set_is_noticed_and_the_first_step_described(game: Game, rules: str, tmp_path: Path) -> None:
    make_blue = BLUE_POLICIES["mixed"]
    trace = load_trace(save_trace(record_episodes(game, "bline", make_blue, range(8), 100, "mixed"), tmp_path))
    assert replay(trace, rules).n_mismatches == 0
    report = replay(trace, {"head": "leaderboard", "leaderboard": "head"}[rules])
    assert report.n_mismatches > 0
    assert "bline__mixed__T100.npz: episode " in report.first_difference
    assert "Red: " in report.first_difference


def test_the_command_records_what_it_compares(cyborg_path: str, rules: str, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    live = ["--cyborg-path", cyborg_path, "--episodes", "18", "--episode-steps", "30"]
    assert main(["verify-env", *live, "--record", str(tmp_path / "recorded"), "--json", str(result)]) == 0
    content = json.loads(result.read_text())
    assert content["n_mismatches"] == 0
    assert content["live"]["rules"] == rules
    assert len(content["live"]["pairs"]) == 18
    assert main(["verify-env", "--traces", str(tmp_path / "recorded")]) == 0


def test_the_command_refuses_the_other_rule_set(
    cyborg_path: str, rules: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"head": "leaderboard", "leaderboard": "head"}[rules]
    assert main(["verify-env", "--cyborg-path", cyborg_path, "--rules", other]) == 2
    assert f"plays by the rules '{rules}', --rules says '{other}'" in capsys.readouterr().err
