"""The adapter to real CybORG: the contract of environments, and CybORG's own wrappers as the reference."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ray_rl.collect.factory import make_collector
from ray_rl.config import CollectConfig, EnvConfig, UserError
from ray_rl.envs.cage2.env import Cage2Env
from ray_rl.envs.cage2.notebook import pack_table
from ray_rl.envs.cyborg.find import Upstream
from ray_rl.envs.cyborg.game import Game
from ray_rl.envs.cyborg.table import EMPTY_TABLES, draw_tables
from ray_rl.envs.cyborg.wrapper_stack import WrapperStack
from ray_rl.envs.cyborg_env import CyborgEnv
from ray_rl.envs.masks import restore_masks
from ray_rl.envs.registry import make_env
from ray_rl.episodes import RED_AGENTS, EpisodeBatch, EpisodeRequest, concatenate_in_order, episode_requests
from ray_rl.policy.inference import MlpPolicy, PolicyWeights
from ray_rl.policy.random_weights import random_weights
from ray_rl.rollout import run_episodes

pytestmark = pytest.mark.cyborg

OTHER = {"head": "leaderboard", "leaderboard": "head"}


@pytest.fixture(scope="module")
def config(cyborg_path: str, rules: str) -> EnvConfig:
    return EnvConfig.model_validate({"env": "cyborg", "cyborg_path": cyborg_path, "rules": rules})


@pytest.fixture(scope="module")
def env(config: EnvConfig) -> CyborgEnv:
    made = make_env(config)
    assert isinstance(made, CyborgEnv)
    return made


@pytest.fixture(scope="module")
def weights(env: CyborgEnv) -> PolicyWeights:
    return random_weights(env.spec.observation_size, (16,), env.spec.n_actions)


REQUESTS = episode_requests(3, 0, 5, red_agent="mixed", max_steps=25)


def same_bits(a: EpisodeBatch, b: EpisodeBatch) -> bool:
    names = ("observations", "action_masks", "actions", "behaviour_log_probs", "rewards", "lengths", "indices")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


@pytest.mark.parametrize("red_agent", RED_AGENTS)
def test_table_and_reward_are_those_of_cyborgs_own_wrappers(upstream: Upstream, game: Game, red_agent: str) -> None:
    stack = WrapperStack(upstream, red_agent)
    for seed in range(2):
        tables = EMPTY_TABLES
        assert not stack.reset(seed).any()
        game.reset(seed, red_agent)
        for action in np.random.default_rng(seed).integers(145, size=80).tolist():
            expected, reward = stack.step(action)
            observation, found = game.step(action)
            tables = draw_tables(tables, action, observation)
            assert (tables.stock, found) == (pack_table(expected), reward)


def test_the_spec_is_that_of_the_built_in_simulator_but_for_its_name(env: CyborgEnv, rules: str) -> None:
    simulator = Cage2Env(rules, "stock", "winner", "compact").spec
    assert env.spec == replace(simulator, name=simulator.name.replace("cage2", "cyborg"))


def test_an_episode_is_a_function_of_its_request_alone(env: CyborgEnv, weights: PolicyWeights) -> None:
    policy = MlpPolicy(weights)
    together = run_episodes(env, policy, REQUESTS, 0)
    random.seed(1)
    alone = [run_episodes(env, policy, [request], 0) for request in reversed(REQUESTS)]
    assert same_bits(concatenate_in_order(alone), together)


def test_a_collector_with_worker_processes_runs_the_same_episodes(
    env: CyborgEnv, config: EnvConfig, weights: PolicyWeights
) -> None:
    here = run_episodes(env, MlpPolicy(weights), REQUESTS, 0)
    with make_collector(CollectConfig(collector="executor", n_workers=2, episodes_per_chunk=2), config) as collector:
        collector.publish(weights, 0)
        collector.submit(REQUESTS)
        chunks = [chunk.batch for chunk in collector.completed()]
    assert same_bits(concatenate_in_order(chunks), here)


def test_pythons_own_random_numbers_are_left_alone(env: CyborgEnv) -> None:
    random.seed(5)
    before = random.getstate()
    env.reset(REQUESTS[:2])
    env.step(np.array([0, 0]))
    env.truth()
    assert random.getstate() == before


def test_slots_whose_episode_is_over_stay_as_they_are(env: CyborgEnv) -> None:
    env.reset([EpisodeRequest(0, 1, 2), EpisodeRequest(1, 2, 9)])
    for _ in range(2):
        result = env.step(np.array([3, 3]))
    assert result.truncated.tolist() == [True, False]
    frozen = env.truth().ports_seen[0].copy()
    for _ in range(5):
        result = env.step(np.array([3, 3]))
    assert result.rewards[0] == 0
    assert np.array_equal(env.truth().ports_seen[0], frozen)


def test_the_raw_events_of_a_step_are_offered(env: CyborgEnv) -> None:
    env.reset([EpisodeRequest(0, 4, 9, "B_lineAgent")])
    env.step(np.array([0]))
    env.step(np.array([0]))
    (raw,) = env.raw_observations()
    (events,) = env.events()
    (host,) = (name for name in raw if name != "success")
    assert host.startswith("User")
    assert {event.kind for event in events} == {"connection"}
    assert {process["Connections"][0]["local_port"] for process in raw[host]["Processes"]} <= set(range(1, 4000))


def test_what_does_not_fit_is_refused(config: EnvConfig) -> None:
    env = make_env(config)
    with pytest.raises(ValueError, match="call reset"):
        env.step(np.zeros(1, dtype=np.int64))
    with pytest.raises(ValueError, match="1 to 8"):
        env.reset([])
    with pytest.raises(ValueError, match="outside"):
        env.reset([EpisodeRequest(0, 2**63, 10)])
    with pytest.raises(ValueError, match="unknown red agent 'x'"):
        env.reset([EpisodeRequest(0, 0, 10, "x")])
    env.reset([EpisodeRequest(0, 0, 10)])
    with pytest.raises(ValueError, match="one action for each of 1"):
        env.step(np.zeros(2, dtype=np.int64))
    with pytest.raises(ValueError, match="from 0 to"):
        env.step(np.array([env.spec.n_actions]))
    with pytest.raises(ValueError, match="whole numbers"):
        env.step(np.array([0.5]))
    with pytest.raises(ValueError, match="0 steps"):
        env.reset([EpisodeRequest(0, 0, 0)])


def test_the_other_rule_set_is_refused_naming_both_and_the_remedy(config: EnvConfig, rules: str) -> None:
    wrong = config.model_copy(update={"rules": OTHER[rules]})
    with pytest.raises(UserError, match=f"plays by the rules '{rules}', asked for was '{OTHER[rules]}'.*--rules"):
        make_env(wrong)


HARAKA = "Shared/Actions/ConcreteActions/HarakaRCE.py"
HARAKA_TEST = "return vuln_proc.version.value < ProcessVersion.HARAKA_2_8_9.value"


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("Shared/Scenarios/Scenario2.yaml", "ConfidentialityValue: Medium", "ConfidentialityValue: High", "changed"),
        ("Shared/Scenarios/Scenario2.yaml", "      - DecoyVsftpd\n", "", "Blue's actions are"),
        (HARAKA, HARAKA_TEST, "return RULES == 'leaderboard'", "is neither rule set"),
        (HARAKA, HARAKA_TEST, "return 1 / 0", "cannot play: ZeroDivisionError"),
    ],
    ids=["other values", "an action less", "mixed versions", "broken"],
)
def test_a_modified_cyborg_is_refused_with_a_reason(
    upstream: Upstream, rules: str, tmp_path: Path, file: str, old: str, new: str, reason: str
) -> None:
    """In a process of its own, for a process imports one CybORG."""
    new = new.replace("RULES", repr(rules))
    package = tmp_path / "CybORG"
    shutil.copytree(upstream.folder, package, ignore=shutil.ignore_patterns("Tests", "Tutorial", "__pycache__"))
    text = (package / file).read_text(encoding="utf-8")
    assert old in text
    (package / file).write_text(text.replace(old, new), encoding="utf-8")
    program = f"from ray_rl.envs.cyborg_env import CyborgEnv; CyborgEnv({str(tmp_path)!r})"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    last = ended.stderr.strip().splitlines()[-1]
    assert "UserError" in last
    assert reason in last


@pytest.mark.parametrize(("view", "actions"), [("table", "all"), ("winner", "compact")])
def test_masks_follow_from_what_blue_saw_and_did(config: EnvConfig, view: str, actions: str) -> None:
    made = make_env(config.model_copy(update={"view": view, "actions": actions}))
    weights = random_weights(made.spec.observation_size, (16,), made.spec.n_actions)
    acted = run_episodes(made, MlpPolicy(weights), REQUESTS, 0)
    derived = restore_masks(replace(acted, action_masks=None, mask_rule=actions))
    assert acted.action_masks is not None
    np.testing.assert_array_equal(derived.action_masks, acted.action_masks)
