"""The page of a defender: the replayed episodes are the real ones, and the page holds what it promises."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ray_rl.cli import main
from ray_rl.config import CollectConfig, EnvConfig
from ray_rl.envs.cage2.constants import HOSTS, USER0
from ray_rl.envs.registry import make_env
from ray_rl.episodes import RED_AGENTS, episode_requests
from ray_rl.evaluate.policies import TrainedPolicy, save_policy
from ray_rl.evaluate.protocol import evaluate_checkpoint
from ray_rl.evaluate.replay import PRIVILEGED_HELD, replay
from ray_rl.evaluate.report import page, write_report
from ray_rl.policy.inference import MlpPolicy
from ray_rl.policy.random_weights import random_weights
from ray_rl.rollout import run_episodes
from ray_rl.seeding import Purpose


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    env = EnvConfig(view="memory")
    spec = make_env(env).spec
    weights = random_weights(spec.observation_size, (16,), spec.n_actions)
    save_policy(TrainedPolicy(tmp_path, weights, env, spec, 3), tmp_path / "saved", "drawn at random")
    return tmp_path / "saved"


def test_replayed_episodes_are_those_of_the_rollout() -> None:
    env = EnvConfig(view="memory", red_agent="mixed")
    spec = make_env(env).spec
    policy = MlpPolicy(random_weights(spec.observation_size, (16,), spec.n_actions))
    requests = episode_requests(0, 0, 9, red_agent="mixed", max_steps=40, purpose=Purpose.VALIDATE)
    replays = replay(env, policy, requests)
    np.testing.assert_array_equal(replays.rewards.ravel(), run_episodes(make_env(env), policy, requests, 0).rewards)
    assert replays.attacked.any()
    assert (replays.held[:, :, USER0] == PRIVILEGED_HELD).all()  # Red's own host


class _Reader(HTMLParser):
    """Checks that the page asks for nothing from elsewhere, and counts what it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_stands_alone_and_shows_every_part(saved: Path, tmp_path: Path) -> None:
    arguments = {"greedy": True, "seed": 0, "collect": CollectConfig(collector="sequential")}
    for rules in ("head", "leaderboard"):
        scores = evaluate_checkpoint(saved, n_episodes=5, rules=rules, **arguments)  # type: ignore[arg-type]
        target = tmp_path / f"{rules}.html"
        write_report(scores, target, saved, 6)
        text = target.read_text(encoding="utf-8")
        reader = _Reader()
        reader.feed(text)
        assert reader.links == []
        assert "script" not in reader.tags
        # rewards, three maps against each red agent that attacks, three episodes
        assert reader.tags.count("svg") == 1 + 3 * (len(RED_AGENTS) - 1) + 3
        assert f"rules {rules}" in text
        assert f"{scores.total:.2f}" in text
        assert all(name in text for name in (*HOSTS, "median", "worst", "best"))
        assert ("CardiffUni" in text) == (rules == "leaderboard")


def test_a_part_of_the_cells_has_no_place_in_the_table(saved: Path) -> None:
    scores = evaluate_checkpoint(
        saved,
        n_episodes=4,
        greedy=True,
        seed=0,
        collect=CollectConfig(collector="sequential"),
        steps=(30,),
        red_agents=("B_lineAgent",),
    )
    requests = episode_requests(0, 0, 2, red_agent="B_lineAgent", max_steps=100, purpose=Purpose.EVALUATE, greedy=True)
    weights = random_weights(make_env(EnvConfig()).spec.observation_size, (8,), 53)
    text = page(scores, {"B_lineAgent": replay(EnvConfig(), MlpPolicy(weights), requests)})
    assert "place" not in text


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_played(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(saved), "--report", str(tmp_path / "nowhere" / "page.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err
