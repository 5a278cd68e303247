"""Episodes that are asked to follow an order: the same numbers from every way of running them, and from the oracle."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from ray_rl.config import EnvConfig, TrainConfig, UserError
from ray_rl.envs.cage2.action_sets import game_action
from ray_rl.envs.cage2.constants import ACTION_NAMES, HOSTS
from ray_rl.envs.cage2.env import Cage2Env
from ray_rl.envs.cyborg.find import load
from ray_rl.envs.cyborg.game import Game
from ray_rl.envs.cyborg.rule_set import identify
from ray_rl.envs.cyborg_env import CyborgEnv
from ray_rl.envs.registry import env_of_this_process
from ray_rl.episodes import EpisodeBatch, EpisodeRequest, concatenate_in_order, episode_requests
from ray_rl.policy.inference import MlpPolicy, PolicyWeights
from ray_rl.policy.random_weights import random_weights
from ray_rl.rollout import run_episodes, step_episodes
from ray_rl.workflow.orders import ORDER_CODE_SIZE, order_code, order_name, parse_order
from ray_rl.workflow.reference import reference_alignment
from ray_rl.workflow.rule import AlignmentRule

RULE = AlignmentRule(30.0, 0.5, 0.25)


def make_pair(view: str = "winner", actions: str = "compact") -> tuple[Cage2Env, MlpPolicy]:
    env = Cage2Env("head", "stock", view, actions, RULE)
    rng = np.random.default_rng(0)
    sizes = (env.spec.observation_size, 24, 16, env.spec.n_actions)
    layers = [
        (rng.normal(0, 0.5, (a, b)).astype(np.float32), rng.normal(0, 0.5, b).astype(np.float32))
        for a, b in itertools.pairwise(sizes)
    ]
    return env, MlpPolicy(PolicyWeights.from_layers(layers))


def assert_same(a: EpisodeBatch, b: EpisodeBatch) -> None:
    for name in (
        "observations",
        "actions",
        "behaviour_log_probs",
        "rewards",
        "alignment_rewards",
        "final_observations",
    ):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert a.extras.keys() == b.extras.keys()
    for name in a.extras:
        np.testing.assert_array_equal(a.extras[name], b.extras[name], err_msg=name)


@pytest.mark.parametrize(("view", "actions"), [("table", "all"), ("winner", "compact"), ("memory", "compact")])
def test_kernel_and_stepping_loop_agree_to_the_bit(view: str, actions: str) -> None:
    env, policy = make_pair(view, actions)
    requests = episode_requests(5, 0, 20, red_agent="mixed", max_steps=40, order="random")
    kernel = run_episodes(env, policy, requests, 2)
    assert_same(kernel, step_episodes(env, policy, requests, 2))
    assert {"order_index", "compliance", "fixes", "alignment_return"} <= kernel.extras.keys()


def test_alignment_is_what_the_oracle_says_of_the_true_state() -> None:
    env, policy = make_pair("winner", "all")
    requests = episode_requests(9, 0, 60, red_agent="mixed", max_steps=50, order="random")
    assert_alignment_is_the_oracles(env, policy, requests)


@pytest.mark.cyborg
def test_so_it_is_in_cyborg(cyborg_path: str) -> None:
    upstream = load(cyborg_path)
    rules = identify(Game(upstream), upstream)
    env = CyborgEnv(cyborg_path, rules, "stock", "winner", "all", RULE)
    policy = MlpPolicy(random_weights(env.spec.observation_size, (16,), env.spec.n_actions))
    requests = episode_requests(9, 0, env.max_batch, red_agent="mixed", max_steps=50, order="random")
    assert_alignment_is_the_oracles(env, policy, requests)


def assert_alignment_is_the_oracles(
    env: Cage2Env | CyborgEnv, policy: MlpPolicy, requests: list[EpisodeRequest]
) -> None:
    """Play the episodes twice: once for the rewards, once for the true state before every action."""
    n, n_steps = len(requests), requests[0].max_steps
    batch = run_episodes(env, policy, requests, 0)
    actions = batch.actions.reshape(n, n_steps).astype(np.int64)
    assert batch.alignment_rewards is not None
    env.reset(requests)
    red_hosts: list[list[set[str]]] = [[] for _ in requests]
    for step in range(n_steps):
        truth = env.truth()
        sessions = truth.n_privileged + truth.n_removable + truth.n_hidden
        for episode, row in enumerate(sessions):
            red_hosts[episode].append({HOSTS[h] for h in np.flatnonzero(row)})
        env.step(actions[:, step])
    for episode, request in enumerate(requests):
        names = [ACTION_NAMES[game_action(env.action_set_code, int(a))] for a in actions[episode]]
        assert request.order_index is not None
        expected = reference_alignment(order_name(request.order_index).split(","), names, red_hosts[episode], *RULE)
        rewards = batch.alignment_rewards[n_steps * episode : n_steps * (episode + 1)]
        np.testing.assert_allclose(rewards, expected.rewards, rtol=1e-5, atol=1e-5)
        assert batch.extras["compliance"][episode] == pytest.approx(expected.compliance)
        assert batch.extras["fixes"][episode] == expected.fixes
        assert batch.extras["alignment_return"][episode] == pytest.approx(sum(expected.rewards))
    assert 0.05 < batch.extras["compliance"].mean() < 0.95


def test_the_policy_sees_the_order_behind_the_view() -> None:
    env, policy = make_pair()
    requests = episode_requests(5, 0, 3, red_agent="B_lineAgent", max_steps=4, order=77)
    bits = np.unpackbits(run_episodes(env, policy, requests, 0).observations, axis=1, count=env.spec.observation_size)
    assert (bits[:, -ORDER_CODE_SIZE:] == order_code(77)).all()
    plain = Cage2Env("head", "stock", "winner", "compact")
    np.testing.assert_array_equal(plain.reset(requests), env.reset(requests)[:, :-ORDER_CODE_SIZE])


def test_without_an_order_nothing_is_added() -> None:
    env = Cage2Env("head", "stock", "winner", "compact")
    _, policy = make_pair()
    layers = policy.weights.sizes.copy()
    layers[0] = env.spec.observation_size
    weights = PolicyWeights(layers, policy.weights.values[ORDER_CODE_SIZE * int(layers[1]) :])
    batch = run_episodes(env, MlpPolicy(weights), episode_requests(5, 0, 3, red_agent="mixed", max_steps=9), 0)
    assert batch.alignment_rewards is None
    assert batch.extras.keys() == {"red_agent", "seed"}


def test_random_orders_belong_to_the_episode_and_are_spread_evenly() -> None:
    requests = episode_requests(3, 0, 12_000, red_agent="mixed", max_steps=5, order="random")
    assert requests[100:103] == episode_requests(3, 100, 3, red_agent="mixed", max_steps=5, order="random")
    counts = np.bincount([r.order_index for r in requests if r.order_index is not None], minlength=120)
    assert counts.min() > 60
    assert counts.max() < 140


def test_alignment_travels_through_joining_and_picking() -> None:
    env, policy = make_pair()
    requests = episode_requests(5, 0, 8, red_agent="mixed", max_steps=10, order="random")
    whole = run_episodes(env, policy, requests, 0)
    parts = [run_episodes(env, policy, requests[a:b], 0) for a, b in ((4, 8), (0, 4))]
    joined = concatenate_in_order(parts)
    np.testing.assert_array_equal(joined.alignment_rewards, whole.alignment_rewards)
    np.testing.assert_array_equal(joined.extras["compliance"], whole.extras["compliance"])


def test_an_episode_without_an_order_is_refused_where_one_is_needed() -> None:
    env, policy = make_pair()
    requests = episode_requests(5, 0, 2, red_agent="mixed", max_steps=10)
    for wrong in (requests, [replace(r, order_index=120) for r in requests]):
        with pytest.raises(ValueError, match="names order"):
            run_episodes(env, policy, wrong, 0)


def test_a_worker_keeps_its_environment_from_order_to_order() -> None:
    assert env_of_this_process(EnvConfig(workflow="3").options) is env_of_this_process(
        EnvConfig(workflow="119").options
    )
    assert env_of_this_process(EnvConfig().options).spec.follows_order is False


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"workflow": "user,op_host"}, "exactly once"),
        ({"workflow": 120}, "outside"),
        ({"workflow": "op_server,enterprise,defender,op_host,usr"}, "'usr'"),
        ({"workflow": "random", "env": "latency"}, "needs env cage2 or cyborg"),
        ({"workflow": 3, "alignment_weight": -1}, "alignment_weight"),
        ({"workflow": 3, "until_compliance": 1.5}, "until_compliance"),
        ({"until_compliance": 0.9}, "needs a workflow"),
    ],
)
def test_what_cannot_work_is_refused(values: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        TrainConfig.from_mapping(values, "here")


def test_every_name_of_an_order_is_the_same_configuration() -> None:
    index = parse_order("op_server,enterprise,defender,op_host,user")
    configs = {EnvConfig(workflow=w) for w in (str(index), index, "Op-Server, enterprise,defender,op_host,user")}
    assert len(configs) == 1
    assert configs.pop().order == index
    assert EnvConfig(workflow="RANDOM").order == "random"
    assert EnvConfig().order is None
