"""The exported agent under CybORG's own wrapper: the policy's actions and rewards, step by step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ray_rl.config import EnvConfig
from ray_rl.envs.cage2.action_sets import COMPACT_ACTIONS, game_action
from ray_rl.envs.cyborg.find import Upstream
from ray_rl.envs.cyborg.wrapper_stack import WrapperStack
from ray_rl.envs.registry import make_env
from ray_rl.episodes import RED_AGENTS, episode_requests
from ray_rl.evaluate.cage2_agent import Agent
from ray_rl.evaluate.cage2_wrapper import SightingWrapper
from ray_rl.evaluate.policies import TrainedPolicy
from ray_rl.evaluate.submission import export_agent
from ray_rl.policy.inference import MlpPolicy
from ray_rl.policy.random_weights import random_weights
from ray_rl.rollout import run_episodes
from ray_rl.seeding import Purpose

pytestmark = pytest.mark.cyborg


@pytest.mark.parametrize(("red_agent", "view"), [*((name, "memory") for name in RED_AGENTS), ("B_lineAgent", "raw")])
def test_it_plays_in_the_challenges_wrapper_as_the_policy_in_the_adapter(
    red_agent: str, view: str, cyborg_path: str, rules: str, upstream: Upstream, tmp_path: Path
) -> None:
    config = EnvConfig.model_validate({"env": "cyborg", "cyborg_path": cyborg_path, "rules": rules, "view": view})
    env = make_env(config)
    policy = TrainedPolicy(
        Path("x"), random_weights(env.spec.observation_size, (32,), env.spec.n_actions), config, env.spec, 0
    )
    export_agent(policy, tmp_path, "")
    agent = Agent(tmp_path)
    stack = WrapperStack(upstream, red_agent)
    if view == "raw":
        stack.env = SightingWrapper(stack.cyborg, stack.env)
    requests = episode_requests(0, 0, 3, red_agent=red_agent, max_steps=40, purpose=Purpose.VERIFY, greedy=True)
    for request in requests:
        batch = run_episodes(env, MlpPolicy(policy.weights), [replace(request, index=0)], 0)
        table = stack.reset(request.seed)
        actions, rewards = [], []
        for _ in range(request.max_steps):
            actions.append(agent.get_action(table, None))
            table, reward = stack.step(actions[-1])
            rewards.append(reward)
        agent.end_episode()
        assert actions == [game_action(COMPACT_ACTIONS, int(a)) for a in batch.actions]
        assert rewards == pytest.approx(batch.rewards.tolist())
