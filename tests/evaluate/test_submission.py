"""The exported agent: the same actions as the policy it came from, in the simulator and in CybORG's own wrapper."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ray_rl.config import EnvConfig, UserError
from ray_rl.envs.cage2.action_sets import ACTION_SETS, game_action
from ray_rl.envs.cage2.env import Cage2Env
from ray_rl.envs.cage2.notebook import SIGHTING, TABLE, unpack_table
from ray_rl.envs.cage2.views import RAW_VIEW
from ray_rl.envs.registry import make_env
from ray_rl.episodes import episode_requests
from ray_rl.evaluate import cage2_agent, cage2_wrapper
from ray_rl.evaluate.cage2_agent import Agent
from ray_rl.evaluate.policies import TrainedPolicy
from ray_rl.evaluate.submission import export_agent
from ray_rl.policy.inference import MlpPolicy
from ray_rl.policy.random_weights import random_weights
from ray_rl.policy.recurrent import RecurrentActorCritic
from ray_rl.seeding import Purpose


def made_policy(**env: str) -> TrainedPolicy:
    config = EnvConfig.model_validate(env)
    spec = make_env(config).spec
    return TrainedPolicy(Path("x"), random_weights(spec.observation_size, (32, 24), spec.n_actions), config, spec, 7)


def shown(env: Cage2Env) -> np.ndarray:
    """What the wrapper shows of the only environment."""
    table = unpack_table(int(env._notebooks[0, TABLE]))
    return np.append(table.astype(int), env._notebooks[0, SIGHTING]) if env.view_code == RAW_VIEW else table


@pytest.mark.parametrize(
    ("view", "actions"), [("memory", "compact"), ("winner", "all"), ("table", "compact"), ("raw", "compact")]
)
def test_the_agent_acts_as_the_policy_does(view: str, actions: str, tmp_path: Path) -> None:
    policy = made_policy(view=view, actions=actions)
    export_agent(policy, tmp_path, "")
    agent = Agent(tmp_path)
    env = make_env(policy.env)
    assert isinstance(env, Cage2Env)
    requests = episode_requests(0, 0, 12, red_agent="mixed", max_steps=60, purpose=Purpose.VALIDATE, greedy=True)
    distinct = set()
    for request in requests:
        observations = env.reset([request])
        acting = MlpPolicy(policy.weights)
        for step in range(request.max_steps):
            chosen, _ = acting.act(observations, env.action_masks(), np.array([0.5]), np.array([True]))
            expected = game_action(ACTION_SETS.index(actions), int(chosen[0]))
            assert agent.get_action(shown(env), None) == expected, (request.index, step)
            distinct.add(expected)
            observations = env.step(chosen).observations
        agent.end_episode()
    assert len(distinct) > 3


@pytest.mark.parametrize("view", ["memory", "raw"])
def test_the_agent_remembers_what_any_action_does(view: str, tmp_path: Path) -> None:
    """Random actions of all kinds, in place of its own."""
    policy = made_policy(view=view, actions="all")
    export_agent(policy, tmp_path, "")
    agent, env, rng = Agent(tmp_path), make_env(policy.env), np.random.default_rng(0)
    assert isinstance(env, Cage2Env)
    for request in episode_requests(1, 0, 10, red_agent="mixed", max_steps=80, purpose=Purpose.VALIDATE):
        observations = env.reset([request])
        agent.end_episode()
        for _ in range(request.max_steps):
            agent.get_action(shown(env))
            assert agent._active() == np.flatnonzero(observations[0]).tolist()
            assert [agent._may_help(a) for a in range(145)] == env.action_masks()[0].tolist()
            agent._last_action = int(rng.integers(145))
            observations = env.step(np.array([agent._last_action])).observations


def test_it_needs_numpy_alone_and_says_what_it_takes(tmp_path: Path) -> None:
    export_agent(made_policy(view="memory"), tmp_path, "Total -1.23 ± 0.45")
    code = (
        "import sys; from agent import Agent; print(Agent().get_action([0] * 52, None)); "
        "print([m for m in ('ray_rl', 'numba', 'torch', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "[]"
    assert "Total -1.23 ± 0.45" in (tmp_path / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="52 bits"):
        Agent(tmp_path).get_action([0] * 11)


@pytest.mark.parametrize(
    ("env", "says"), [({"table": "corrected"}, "stock table"), ({"env": "latency"}, "was trained on latency")]
)
def test_what_the_format_cannot_hold_is_refused(env: dict[str, str], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        export_agent(made_policy(**env), tmp_path / "out", "")
    assert not (tmp_path / "out").exists()


def test_an_agent_of_raw_events_says_so_and_brings_its_wrapper(tmp_path: Path) -> None:
    export_agent(made_policy(view="raw"), tmp_path, "")
    assert "not to be compared with agents of the table alone" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert (tmp_path / "wrapper.py").read_bytes() == Path(cage2_wrapper.__file__).read_bytes()
    with pytest.raises(ValueError, match="53 numbers of wrapper"):
        Agent(tmp_path).get_action([0] * 52)


def test_a_policy_that_remembers_is_refused(tmp_path: Path) -> None:
    policy = made_policy(view="table")
    gru = RecurrentActorCritic(52, policy.spec.n_actions, 4, (8,), 0).actor_weights()
    with pytest.raises(UserError, match="remembers in a GRU: --format cage2 holds MLPs only"):
        export_agent(replace(policy, weights=gru), tmp_path / "out", "")


def test_the_exported_file_is_the_tested_one(tmp_path: Path) -> None:
    export_agent(made_policy(), tmp_path, "")
    module: ModuleType = cage2_agent
    assert module.__file__ is not None
    assert (tmp_path / "agent.py").read_bytes() == Path(module.__file__).read_bytes()
