"""The true state that a critic is shown: that of the environment, step by step, and of no other episode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ray_rl.envs.cage2.constants import DECOYS, HOSTS, RULE_SETS
from ray_rl.envs.cage2.env import Cage2Env
from ray_rl.envs.cage2.truth import Truth
from ray_rl.envs.true_state import TRUE_STATE_SIZE, TrueState, spec_with_true_state, true_state_names, with_true_state
from ray_rl.episodes import RED_AGENTS, EpisodeBatch, EpisodeRequest, episode_requests
from ray_rl.policy.acting import acting_policy
from ray_rl.policy.random_weights import random_weights
from ray_rl.rollout import run_episodes

N_STEPS = 60
NAMES = true_state_names()


def play(rules: str, actions: str = "compact") -> tuple[Cage2Env, list[EpisodeRequest], EpisodeBatch]:
    env = Cage2Env(rules, "stock", "winner", actions)
    policy = acting_policy(random_weights(env.spec.observation_size, (8,), env.spec.n_actions))
    requests = episode_requests(3, 0, 24, red_agent="mixed", max_steps=N_STEPS)
    return env, requests, run_episodes(env, policy, requests, 0)


def expected_bits(truth: Truth, requests: list[EpisodeRequest]) -> dict[str, np.ndarray]:
    """What some of the names must say of B environments: name → [B]."""
    expected = {}
    for h, host in enumerate(HOSTS):
        for kind in ("privileged", "removable", "hidden"):
            count = getattr(truth, f"n_{kind}")[:, h]
            expected |= {f"{host}: 1 {kind}": count >= 1, f"{host}: 2 {kind}": count >= 2}
        expected[f"{host}: malware of a reverse shell"] = truth.files[:, h] & 1
        expected[f"{host}: malware of an escalation"] = truth.files[:, h] >> 1 & 1
        expected |= {f"{host}: {decoy}": truth.decoys[:, h] >> d & 1 for d, decoy in enumerate(DECOYS)}
        expected[f"{host}: port scan stored"] = truth.ports_seen[:, h] >> 15 & 1
        expected[f"{host}: address known"] = truth.known_addresses[:, h]
        expected[f"{host}: name known"] = truth.known_names[:, h]
    expected |= {f"subnet {n} known": truth.known_subnets[:, n] for n in range(3)}
    services = ("running", "known", "killable", "active")
    expected |= {f"service {what}": truth.service[:, n] for n, what in enumerate(services)}
    return expected | {f"against {name}": np.array([r.red_agent == name for r in requests]) for name in RED_AGENTS}


@pytest.mark.parametrize("rules", RULE_SETS)
def test_it_is_the_state_before_each_step_and_after_the_last(rules: str) -> None:
    env, requests, batch = play(rules)
    shown = with_true_state(batch, TrueState(rules, "compact"))
    width = batch.observations.shape[1]
    np.testing.assert_array_equal(shown.observations[:, :width], batch.observations)
    spec = spec_with_true_state(env.spec)
    assert spec.observation_size == 8 * width + TRUE_STATE_SIZE
    bits = np.unpackbits(shown.observations, axis=1, count=spec.observation_size)[:, 8 * width :]
    bits = bits.reshape(len(requests), N_STEPS, -1)
    final_bits = np.unpackbits(shown.final_observations, axis=1, count=spec.observation_size)[:, 8 * width :]

    env.reset(requests)
    actions = batch.actions.reshape(len(requests), N_STEPS)
    seen = set()
    for step in range(N_STEPS + 1):
        now = bits[:, step] if step < N_STEPS else final_bits
        for name, values in expected_bits(env.truth(), requests).items():
            np.testing.assert_array_equal(now[:, NAMES.index(name)], values, err_msg=f"{name}, step {step}")
            seen |= {name} if np.any(values) else set()
        if step < N_STEPS:
            env.step(actions[:, step].astype(np.int64))
    assert {"Op_Server0: 1 privileged", "subnet 2 known", "service active", "Op_Server0: name known"} <= seen
    assert any(name.endswith("1 removable") for name in seen)
    assert any(name.endswith("1 hidden") for name in seen)


def test_names_are_as_many_as_bits_and_all_different() -> None:
    assert len(set(NAMES)) == TRUE_STATE_SIZE


def test_bits_that_name_one_of_several_exclude_each_other() -> None:
    env, requests, batch = play("head")
    shown = with_true_state(batch, TrueState("head", "compact"))
    bits = np.unpackbits(shown.observations, axis=1)[:, 8 * batch.observations.shape[1] :]
    for prefix, least in (("B_line at ", 1), ("Red's action: ", 1), ("against ", 1), ("B_line enters by ", 0)):
        count = bits[:, [k for k, name in enumerate(NAMES) if name.startswith(prefix)]].sum(axis=1)
        assert (count.min(), count.max()) == (least, 1), prefix
    assert len(requests) == len(batch.lengths)
    assert env.spec.has_action_masks
    assert shown.action_masks is None
    assert shown.mask_rule is None


def test_an_episode_that_comes_out_otherwise_is_refused() -> None:
    _, _, batch = play("head", "all")
    with pytest.raises(ValueError, match=r"episode \d+ comes out otherwise .* rules leaderboard"):
        with_true_state(batch, TrueState("leaderboard", "all"))
    rewards = batch.rewards.copy()
    rewards[7 * N_STEPS + 3] += 1
    with pytest.raises(ValueError, match="episode 7 comes out otherwise"):
        with_true_state(replace(batch, rewards=rewards), TrueState("head", "all"))
