"""The stepping loop over environments written down in full: what is gathered, what is checked, who is blamed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ray_rl.envs.api import EnvError, EnvSpec, StepResult
from ray_rl.episodes import EpisodeError, EpisodeRequest, concatenate_in_order
from ray_rl.policy.inference import MlpPolicy, PolicyWeights
from ray_rl.rollout import run_episodes
from ray_rl.seeding import policy_uniforms

N_ACTIONS = 3


@dataclass
class Counting:
    """Shows (seed, step); rewards seed + step; episodes end after as many steps as the seed's last digit says.

    Attributes:
        max_batch: Episodes stepped together.
        masked: Allows only action (seed + step) % 3 when set.
        bits: Shows the five lowest bits of seed + step instead.
        spoil: A fault: its kind, the slot, and the step in whose answer it appears (0: reset).
    """

    max_batch: int = 2
    masked: bool = False
    bits: bool = False
    spoil: tuple[str, int, int] = ("", 0, 0)
    taken: list[list[int]] = field(default_factory=list)

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec("counting", 5 if self.bits else 2, self.bits, N_ACTIONS, self.masked)

    def reset(self, requests: Sequence[EpisodeRequest]) -> NDArray[Any]:
        self._requests = list(requests)
        self._step = 0
        return self._seen()

    def action_masks(self) -> NDArray[np.bool_] | None:
        if not self.masked:
            return None
        masks = np.array([[(r.seed + self._step) % 3 == a for a in range(N_ACTIONS)] for r in self._requests])
        if self._spoiled("stuck"):
            masks[self.spoil[1]] = False
        return masks[:, :2] if self._spoiled("mask shape") else masks

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        self.taken.append(actions.tolist())
        self._step += 1
        rewards = np.array([r.seed + self._step for r in self._requests], dtype=np.float32)
        terminated = np.array([self._step >= r.seed % 10 for r in self._requests])
        truncated = np.array([self._step >= r.max_steps for r in self._requests])
        if self._spoiled("reward"):
            rewards[self.spoil[1]] = np.inf
        if self._spoiled("raise"):
            raise EnvError(self.spoil[1], "out of order")
        if self._spoiled("bare raise"):
            raise ZeroDivisionError("by nothing")
        if self.spoil[0] == "endless":
            terminated[self.spoil[1]] = truncated[self.spoil[1]] = False
        if self._spoiled("reward shape"):
            rewards = rewards[:, None]
        return StepResult(self._seen(), rewards, terminated, truncated)

    def close(self) -> None:
        pass

    def _spoiled(self, kind: str) -> bool:
        return self.spoil[0] == kind and self.spoil[2] == self._step

    def _seen(self) -> NDArray[Any]:
        if self.bits:
            return np.array(
                [[(r.seed + self._step) >> k & 1 for k in range(5)] for r in self._requests], dtype=np.uint8
            )
        seen = np.array([[r.seed, self._step] for r in self._requests], dtype=np.float32)
        if self._spoiled("observation"):
            seen[self.spoil[1], 1] = np.nan
        return seen[:, :1] if self._spoiled("observation shape") else seen


def requests(*seeds: int, max_steps: int = 6, greedy: bool = False) -> list[EpisodeRequest]:
    return [EpisodeRequest(10 + k, seed, max_steps, greedy=greedy) for k, seed in enumerate(seeds)]


def policy_for(env: Counting, bias: Sequence[float] = (0.0, 0.0, 0.0)) -> MlpPolicy:
    """Has the same logits everywhere."""
    matrix = np.zeros((env.spec.observation_size, N_ACTIONS), dtype=np.float32)
    return MlpPolicy(PolicyWeights.from_layers([(matrix, np.array(bias, dtype=np.float32))]))


def test_episodes_hold_what_was_seen_step_by_step() -> None:
    """Lengths by hand: seed 13 ends itself after 3 steps, seed 29 is cut off after 6, seed 5 ends itself after 5."""
    env = Counting(max_batch=2)
    batch = run_episodes(env, policy_for(env), requests(13, 29, 5), policy_version=4)
    assert batch.lengths.tolist() == [3, 6, 5]
    assert batch.terminated.tolist() == [True, False, True]
    seeds = [13] * 3 + [29] * 6 + [5] * 5
    steps = [*range(3), *range(6), *range(5)]
    assert batch.observations.tolist() == [[s, t] for s, t in zip(seeds, steps, strict=True)]
    assert batch.rewards.tolist() == [s + t + 1 for s, t in zip(seeds, steps, strict=True)]
    assert batch.final_observations.tolist() == [[13, 3], [29, 6], [5, 5]]
    assert batch.indices.tolist() == [10, 11, 12]
    assert batch.returns().tolist() == [14 + 15 + 16, sum(range(30, 36)), sum(range(6, 11))]
    assert batch.policy_version == 4
    assert batch.action_masks is None
    assert batch.rollout_s >= batch.env_s + batch.policy_s > 0


def test_an_episode_that_ends_itself_at_the_limit_is_terminated() -> None:
    env = Counting()
    assert run_episodes(env, policy_for(env), requests(6), 0).terminated.tolist() == [True]


def test_actions_come_from_the_episodes_own_uniforms() -> None:
    """Equal logits: action k is taken when the uniform of (seed, step) lies in the k-th third."""
    env = Counting()
    batch = run_episodes(env, policy_for(env), requests(29, 18), 0)
    own = np.array([29, 18], dtype=np.uint64)
    expected = np.array([np.floor(policy_uniforms(own, step) * 3) for step in range(6)]).T.ravel()
    np.testing.assert_array_equal(batch.actions, expected)
    assert len(set(batch.actions.tolist())) == 3
    np.testing.assert_allclose(batch.behaviour_log_probs, -math.log(3), rtol=1e-6)
    assert env.taken == batch.actions.reshape(2, 6).T.tolist()


def test_greedy_episodes_take_the_likeliest() -> None:
    env = Counting()
    batch = run_episodes(env, policy_for(env, (0.0, 0.2, 0.1)), requests(29, greedy=True), 0)
    assert set(batch.actions.tolist()) == {1}


def test_masks_bind_the_policy_and_travel_packed() -> None:
    env = Counting(masked=True)
    batch = run_episodes(env, policy_for(env, (9.0, 0.0, 0.0)), requests(29, 14), 0)
    allowed = [(29 + t) % 3 for t in range(6)] + [(14 + t) % 3 for t in range(4)]
    assert batch.actions.tolist() == allowed
    assert batch.behaviour_log_probs.tolist() == [0.0] * 10
    assert batch.action_masks is not None
    assert batch.action_masks.shape == (10, 1)
    assert np.unpackbits(batch.action_masks, axis=1)[:, :3].argmax(axis=1).tolist() == allowed


def test_bits_travel_packed() -> None:
    env = Counting(bits=True)
    batch = run_episodes(env, policy_for(env), requests(13), 0)
    assert batch.observations.shape == (3, 1)
    bits = np.unpackbits(batch.observations, axis=1)[:, :5]
    assert (bits @ (1 << np.arange(5))).tolist() == [13, 14, 15]
    assert (np.unpackbits(batch.final_observations, axis=1)[0, :5] @ (1 << np.arange(5))) == 16


@pytest.mark.parametrize("max_batch", [1, 2, 5])
def test_company_changes_nothing(max_batch: int) -> None:
    asked = requests(13, 29, 5, 27, 1)
    env = Counting(max_batch=max_batch, masked=True)
    rng = np.random.default_rng(0)
    policy = MlpPolicy(PolicyWeights.from_layers([(rng.normal(size=(2, 3)), rng.normal(size=3))]))
    together = run_episodes(env, policy, asked, 0)
    alone = concatenate_in_order([run_episodes(env, policy, [request], 0) for request in asked])
    for name in ("observations", "action_masks", "actions", "behaviour_log_probs", "rewards", "lengths"):
        np.testing.assert_array_equal(getattr(together, name), getattr(alone, name), err_msg=name)


@pytest.mark.parametrize(
    ("kind", "at_step", "cause"),
    [
        ("observation", 0, "observations hold a number that is not finite"),
        ("observation", 2, "observations hold a number that is not finite"),
        ("reward", 3, "rewards hold a number that is not finite"),
        ("stuck", 1, "no action is allowed"),
        ("raise", 2, "out of order"),
        ("endless", 0, "goes on after 6 steps"),
    ],
)
def test_the_episode_of_the_faulty_slot_is_blamed(kind: str, at_step: int, cause: str) -> None:
    env = Counting(max_batch=2, masked=kind == "stuck", spoil=(kind, 1, at_step))
    with pytest.raises(EpisodeError, match=cause) as failure:
        run_episodes(env, policy_for(env), requests(29, 19), 0)
    assert failure.value.request.index == 11
    assert failure.value.request.seed == 19


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("observation shape", r"observations have shape \(2, 1\).*\(2, 2\)"),
        ("reward shape", r"rewards have shape \(2, 1\)"),
        ("mask shape", r"action masks have shape \(2, 2\).*\(2, 3\)"),
        ("bare raise", "ZeroDivisionError: by nothing"),
    ],
)
def test_faults_of_a_whole_group_name_its_first_episode(kind: str, cause: str) -> None:
    env = Counting(max_batch=2, masked=True, spoil=(kind, 0, 2))
    with pytest.raises(EpisodeError, match=cause) as failure:
        run_episodes(env, policy_for(env), requests(29, 19), 0)
    assert failure.value.request.index == 10
    assert "Traceback" in failure.value.details


def test_what_an_episode_that_is_over_shows_is_ignored() -> None:
    """Slot 0 ends after 3 steps; later its observation and reward are not numbers, and it has no action."""
    for kind in ("observation", "reward", "stuck"):
        env = Counting(max_batch=2, masked=True, spoil=(kind, 0, 4))
        batch = run_episodes(env, policy_for(env), requests(13, 29), 0)
        assert batch.lengths.tolist() == [3, 6]
        assert np.isfinite(batch.observations).all()
        assert np.isfinite(batch.rewards).all()
