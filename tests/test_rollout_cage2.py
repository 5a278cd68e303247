"""The compiled rollout is the stepping loop: same bits, for every view, action set, table and rule set."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from ray_rl.envs.cage2.action_sets import ACTION_SETS
from ray_rl.envs.cage2.constants import RULE_SETS
from ray_rl.envs.cage2.env import Cage2Env
from ray_rl.envs.cage2.views import VIEWS
from ray_rl.envs.masks import restore_masks
from ray_rl.episodes import EpisodeBatch, EpisodeRequest, concatenate_in_order, episode_requests, take_episodes
from ray_rl.policy.inference import MlpPolicy, PolicyWeights
from ray_rl.rollout import run_episodes, step_episodes
from ray_rl.workflow.rule import AlignmentRule

_ARRAYS = (
    "observations",
    "action_masks",
    "actions",
    "behaviour_log_probs",
    "rewards",
    "lengths",
    "terminated",
    "final_observations",
    "indices",
)


def random_policy(env: Cage2Env, seed: int = 0) -> MlpPolicy:
    rng = np.random.default_rng(seed)
    sizes = (env.spec.observation_size, 24, 16, env.spec.n_actions)
    layers = [
        (rng.normal(0, 0.5, (a, b)).astype(np.float32), rng.normal(0, 0.5, b).astype(np.float32))
        for a, b in itertools.pairwise(sizes)
    ]
    return MlpPolicy(PolicyWeights.from_layers(layers))


def assert_same_episodes(a: EpisodeBatch, b: EpisodeBatch) -> None:
    """Equal in every bit, once masks that did not travel are derived."""
    a, b = restore_masks(a), restore_masks(b)
    for name in _ARRAYS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
        assert getattr(a, name).dtype == getattr(b, name).dtype, name
    assert a.extras.keys() == b.extras.keys()


@pytest.mark.parametrize("rules", ["head", "leaderboard"])
@pytest.mark.parametrize(
    ("view", "actions", "table"),
    [("table", "all", "stock"), ("winner", "compact", "corrected"), ("memory", "compact", "stock")],
)
def test_kernel_computes_the_bits_of_the_stepping_loop(rules: str, view: str, actions: str, table: str) -> None:
    env = Cage2Env(rules=rules, table=table, view=view, actions=actions)
    policy = random_policy(env)
    sampled = episode_requests(7, 0, 24, red_agent="mixed", max_steps=40)
    greedy = episode_requests(7, 24, 6, red_agent="RedMeanderAgent", max_steps=55, greedy=True)
    for requests in (sampled, greedy):
        assert_same_episodes(run_episodes(env, policy, requests, 3), step_episodes(env, policy, requests, 3))


def test_an_episode_does_not_depend_on_its_company() -> None:
    env = Cage2Env(rules="head", table="stock", view="winner", actions="compact")
    policy = random_policy(env)
    requests = episode_requests(1, 0, 12, red_agent="mixed", max_steps=30)
    together = run_episodes(env, policy, requests, 0)
    for position in (0, 5, 11):
        alone = run_episodes(env, policy, [requests[position]], 0)
        steps = slice(position * 30, (position + 1) * 30)
        np.testing.assert_array_equal(alone.observations, together.observations[steps])
        np.testing.assert_array_equal(alone.behaviour_log_probs, together.behaviour_log_probs[steps])


def test_lengths_may_differ_between_episodes() -> None:
    env = Cage2Env(rules="head", table="stock", view="table", actions="all")
    policy = random_policy(env)
    requests = [EpisodeRequest(i, 100 + i, steps) for i, steps in enumerate((30, 1, 100, 50))]
    batch = run_episodes(env, policy, requests, 0)
    assert batch.lengths.tolist() == [30, 1, 100, 50]
    assert not batch.terminated.any()
    assert_same_episodes(batch, step_episodes(env, policy, requests, 0))


def test_every_action_taken_was_allowed_and_sampling_follows_the_seed() -> None:
    env = Cage2Env(rules="head", table="stock", view="winner", actions="compact")
    policy = random_policy(env)
    requests = episode_requests(3, 0, 40, red_agent="B_lineAgent", max_steps=100)
    batch = restore_masks(run_episodes(env, policy, requests, 0))
    assert batch.action_masks is not None
    allowed = np.unpackbits(batch.action_masks, axis=1)[:, : env.spec.n_actions].astype(bool)
    assert allowed[np.arange(len(batch.actions)), batch.actions].all()
    assert len(np.unique(batch.actions)) > 10
    others = run_episodes(env, policy, episode_requests(4, 0, 40, red_agent="B_lineAgent", max_steps=100), 0)
    assert not np.array_equal(batch.actions, others.actions)


@pytest.mark.parametrize("order", [None, "random"])
@pytest.mark.parametrize("rules", RULE_SETS)
@pytest.mark.parametrize("actions", ACTION_SETS)
@pytest.mark.parametrize("view", VIEWS)
def test_derived_masks_are_those_that_were_acted_with(
    view: str, actions: str, rules: str, order: Literal["random"] | None
) -> None:
    env = Cage2Env(rules, "stock", view, actions, AlignmentRule() if order else None)
    requests = episode_requests(5, 0, 12, red_agent="mixed", max_steps=70, order=order)
    acted = step_episodes(env, random_policy(env), requests, 0)
    derived = restore_masks(replace(acted, action_masks=None, mask_rule=actions)).action_masks
    assert acted.action_masks is not None
    assert (np.unpackbits(acted.action_masks, axis=1)[:, : env.spec.n_actions] == 0).any()
    np.testing.assert_array_equal(derived, acted.action_masks)


@pytest.mark.parametrize("view", VIEWS)
def test_a_step_costs_little_more_than_the_bits_of_its_view(view: str) -> None:
    env = Cage2Env(view=view, actions="compact")
    batch = run_episodes(env, random_policy(env), episode_requests(3, 0, 20, red_agent="mixed", max_steps=100), 0)
    assert batch.n_bytes / len(batch.actions) < env.spec.observation_size / 8 * 1.01 + 11


def test_masks_are_derived_from_episodes_in_any_order_and_company() -> None:
    env = Cage2Env(view="table", actions="all")
    policy, requests = random_policy(env), episode_requests(3, 0, 9, red_agent="mixed", max_steps=60)
    whole = concatenate_in_order([restore_masks(run_episodes(env, policy, requests, 0))])
    parts = [run_episodes(env, policy, requests[a:b], 0) for a, b in ((4, 9), (0, 4))]
    assert_same_episodes(whole, concatenate_in_order(parts))
    picked = np.array([7, 2])
    assert_same_episodes(take_episodes(whole, picked), take_episodes(concatenate_in_order(parts), picked))


def test_an_unknown_mask_rule_is_refused() -> None:
    env = Cage2Env()
    batch = run_episodes(env, random_policy(env), episode_requests(3, 0, 1, red_agent="mixed", max_steps=5), 0)
    with pytest.raises(ValueError, match="unknown mask rule 'none'"):
        restore_masks(replace(batch, mask_rule="none"))
