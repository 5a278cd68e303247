"""The learner: it learns, repeats itself bit for bit, and refuses what does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from made_episodes import IDENTITY, MASKED, identity_episodes, masked_episodes

from ray_rl.config import PolicyConfig, PpoConfig
from ray_rl.envs.api import EnvSpec
from ray_rl.episodes import EpisodeBatch
from ray_rl.policy.inference import MlpPolicy
from ray_rl.ppo.api import Assignment, DivergedError, LearnerState, PolicyMismatchError
from ray_rl.ppo.learner import Learner
from ray_rl.ppo.local_learner import LocalLearner

POLICY = PolicyConfig(hidden_sizes=(16, 16))


def config(**changes: Any) -> PpoConfig:
    return PpoConfig(**{"minibatches": 2, "epochs": 3, "learner_threads": 1} | changes)


def masked_learner(seed: int = 0, n_updates: int = 10, **changes: Any) -> Learner:
    return Learner(Assignment(MASKED, POLICY, config(**changes), n_updates, seed))


def masked_chunks(learner: Learner, version: int | None = None) -> list[EpisodeBatch]:
    acting = learner.version if version is None else version
    return [masked_episodes(learner.weights(), acting, 1000 * learner.version + 10 * k, 10) for k in range(3)]


def run(learner: Learner, n_updates: int) -> Learner:
    for _ in range(n_updates):
        learner.update(masked_chunks(learner))
    return learner


def assert_same(one: LearnerState, two: LearnerState) -> None:
    assert one.counters == two.counters
    assert one.arrays.keys() == two.arrays.keys()
    for name in one.arrays:
        np.testing.assert_array_equal(one.arrays[name], two.arrays[name], err_msg=name)


@pytest.fixture
def learner() -> Iterator[Learner]:
    with closing(masked_learner()) as made:
        yield made


def test_it_learns_to_name_the_symbol() -> None:
    with closing(Learner(Assignment(IDENTITY, POLICY, config(minibatches=4, learning_rate=1e-2), 30, 1))) as learner:
        first = learner.update([identity_episodes(learner.weights(), 0, 0, 64)])
        while learner.version < 30:
            learner.update([identity_episodes(learner.weights(), learner.version, 1000 * learner.version, 64)])
        symbols = np.eye(IDENTITY.observation_size, dtype=np.uint8)
        actions, log_probs = MlpPolicy(learner.weights()).act(symbols, None, np.zeros(5), np.ones(5, np.bool_))
    assert actions.tolist() == [0, 1, 2, 3, 4]
    assert np.exp(log_probs).min() > 0.9
    assert first.entropy == pytest.approx(np.log(5), abs=0.1)


# Reward 1 at each step of 8, observations that never change, γ = 0.8, λ = 1. An episode that would have gone on is
# worth 1/(1 − γ) = 5. One that terminates is worth, on average over its steps, (1/8)·Σ (1 − 0.8^k)/0.2 over the
# k = 1…8 steps that are left, which is 5 − 0.625·Σ 0.8^k = 5 − 0.625·3.3289 = 2.9194.
@pytest.mark.parametrize(("terminated", "expected"), [(False, 5.0), (True, 2.9194)])
@pytest.mark.parametrize("normalise_returns", [True, False])
def test_an_episode_that_never_ends_needs_its_truncation_to_bootstrap(
    terminated: bool, expected: float, normalise_returns: bool
) -> None:
    spec = EnvSpec("still", 1, True, 2, False)
    ppo = config(
        discount=0.8, gae_lambda=1.0, learning_rate=1e-2, final_learning_rate=1e-4, normalise_returns=normalise_returns
    )
    with closing(Learner(Assignment(spec, POLICY, ppo, 150, 0))) as learner:
        for version in range(150):
            learner.update([_still_episodes(learner, version, terminated)])
        state = learner.state()
    assert _value(state, np.ones(1)) == pytest.approx(expected, rel=0.02)


def _value(state: LearnerState, observation: np.ndarray) -> float:
    """The critic's value, worked out from the saved arrays."""
    values, number = observation, 0
    while f"network.critic.{number}.weight" in state.arrays:
        values = np.maximum(values, 0) if number else values
        layer = f"network.critic.{number}"
        values = values @ state.arrays[f"{layer}.weight"] + state.arrays[f"{layer}.bias"]
        number += 1
    mean, mean_square = state.arrays["returns.moments"]
    return float(values[0] * max(np.sqrt(max(mean_square - mean**2, 0)), 1e-2) + mean)


def _still_episodes(learner: Learner, version: int, terminated: bool) -> EpisodeBatch:
    n, length = 8, 8
    ones = np.ones((n * length, 1), np.uint8)
    uniforms = np.random.default_rng(version).random(n * length)
    actions, log_probs = MlpPolicy(learner.weights()).act(ones, None, uniforms, np.zeros(n * length, np.bool_))
    return EpisodeBatch(
        observations=np.packbits(ones, axis=1),
        action_masks=None,
        actions=actions.astype(np.uint8),
        behaviour_log_probs=log_probs,
        rewards=np.ones(n * length, np.float32),
        lengths=np.full(n, length, np.int32),
        terminated=np.full(n, terminated),
        final_observations=np.packbits(ones[:n], axis=1),
        indices=np.arange(n),
        policy_version=version,
    )


def test_the_first_ratio_is_exactly_one(learner: Learner) -> None:
    for _ in range(4):
        stats = learner.update(masked_chunks(learner))
        assert stats.first_ratio_deviation == 0.0
        assert 0 < stats.log_prob_difference < 1e-5  # acting does round otherwise


def test_the_ratios_of_stale_steps_begin_at_one_as_well(learner: Learner) -> None:
    learner.update(masked_chunks(learner))
    acted = masked_episodes(learner.weights(), 1, 5000, 20)
    run(learner, 2)
    stats = learner.update([acted])
    assert (stats.staleness_mean, stats.staleness_max) == (2.0, 2)
    assert stats.first_ratio_deviation == 0.0
    assert stats.log_prob_difference == 0.0  # none was fresh


def test_a_stale_step_counts_as_often_as_the_policy_would_take_it_at_most_twice(learner: Learner) -> None:
    """Without a change of the policy, a record that is lower by log 3/2 counts 3/2 times, and one lower by 1 twice."""

    def learned(lowered: float, version: int) -> float:
        with closing(masked_learner(epochs=1, minibatches=1, max_gradient_norm=1e9, entropy_coefficient=0)) as other:
            state = other.state()
            other.load_state(LearnerState(state.arrays, {**state.counters, "version": 1}))
            acted = masked_episodes(other.weights(), version, 0, 20)
            records = acted.behaviour_log_probs - np.float32(lowered)
            return other.update([replace(acted, behaviour_log_probs=records)]).actor_gradient_norm

    once = learned(0.0, version=1)
    assert learned(np.log(1.5), version=0) == pytest.approx(1.5 * once, rel=1e-4)
    assert learned(1.0, version=0) == pytest.approx(2 * once, rel=1e-4)


def test_staleness_is_told_over_episodes(learner: Learner) -> None:
    old = masked_episodes(learner.weights(), 0, 1000, 30)
    learner.update(masked_chunks(learner))
    stats = learner.update([masked_episodes(learner.weights(), 1, 2000, 10), old])
    assert (stats.staleness_mean, stats.staleness_max) == (0.75, 1)


def test_log_probabilities_of_other_weights_are_refused_and_nothing_changes(learner: Learner) -> None:
    run(learner, 1)
    before = learner.state()
    chunks = masked_chunks(learner)
    wrong = chunks[1].behaviour_log_probs.copy()
    wrong[3] += 0.01
    with pytest.raises(PolicyMismatchError, match=r"^1 of .* version 1 by up to 0\.01"):
        learner.update([chunks[0], replace(chunks[1], behaviour_log_probs=wrong), chunks[2]])
    wrong[3] = np.nan
    with pytest.raises(PolicyMismatchError):
        learner.update([replace(chunks[1], behaviour_log_probs=wrong)])
    assert_same(learner.state(), before)
    with pytest.raises(ValueError, match="claims policy version 2, the learner is at 1"):
        learner.update(masked_chunks(learner, version=2))
    assert_same(learner.state(), before)


def test_divergence_is_an_error_and_leaves_the_last_good_weights(learner: Learner) -> None:
    before = learner.state()
    chunks = masked_chunks(learner)
    with pytest.raises(DivergedError, match="diverged in update 1"):
        learner.update([replace(chunks[0], rewards=np.full_like(chunks[0].rewards, np.inf))])
    assert_same(learner.state(), before)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_seed_decides_every_bit_and_threads_none(threads: int) -> None:
    with (
        closing(masked_learner(seed=1)) as one,
        closing(masked_learner(seed=1, learner_threads=threads)) as two,
        closing(masked_learner(seed=2)) as other,
    ):
        assert_same(run(one, 3).state(), run(two, 3).state())
        assert not np.array_equal(one.weights().values, run(other, 3).weights().values)


def test_the_order_of_chunks_changes_no_bit() -> None:
    with closing(masked_learner()) as one, closing(masked_learner()) as two:
        chunks = masked_chunks(one)
        one.update(chunks)
        two.update(chunks[::-1])
        assert_same(one.state(), two.state())


def test_going_on_from_a_saved_state_changes_no_bit() -> None:
    with closing(masked_learner(target_kl=0.01)) as whole, closing(masked_learner(target_kl=0.01)) as first:
        run(whole, 6)
        saved = run(first, 3).state()
    with closing(masked_learner(target_kl=0.01)) as second:
        second.load_state(saved)
        assert second.version == 3
        assert_same(run(second, 3).state(), whole.state())


@pytest.mark.parametrize(
    ("arrays", "counters", "message"),
    [
        (
            {"network.actor.1.weight": np.zeros((16, 17), np.float32)},
            {},
            r"'network.actor.1.weight' is float32 of shape",
        ),
        ({"optimiser.critic.first_moment": np.zeros(3, np.float32)}, {}, r"'optimiser.critic.first_moment'"),
        ({"returns.moments": np.zeros(2, np.float32)}, {}, r"'returns.moments' is float32 .* needs float64"),
        ({"network.actor.9.weight": np.zeros(1, np.float32)}, {}, r"'network.actor.9.weight' is unknown"),
        ({"network.actor.0.bias": None}, {}, r"'network.actor.0.bias' is missing"),
        ({}, {"actor_steps": None}, r"counter 'actor_steps' is missing"),
    ],
)
def test_a_state_that_does_not_fit_is_named_and_refused(
    learner: Learner, arrays: dict[str, Any], counters: dict[str, Any], message: str
) -> None:
    state = learner.state()
    changed = {k: v for k, v in ({**state.arrays, **arrays}).items() if v is not None}
    counted = {k: v for k, v in ({**state.counters, **counters}).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        learner.load_state(LearnerState(changed, counted))
    assert_same(learner.state(), state)


def test_a_small_kl_target_ends_the_passes_early() -> None:
    with closing(masked_learner(epochs=6)) as free, closing(masked_learner(epochs=6, target_kl=1e-9)) as bound:
        assert free.update(masked_chunks(free)).epochs == 6
        stopped = bound.update(masked_chunks(bound))
        assert stopped.epochs == 1
        assert stopped.approx_kl > 1e-9


def test_schedules_run_from_the_first_update_to_the_last() -> None:
    changes = {
        "learning_rate": 1e-3,
        "final_learning_rate": 1e-4,
        "entropy_coefficient": 0.3,
        "final_entropy_coefficient": 0.1,
    }
    with closing(masked_learner(n_updates=3, **changes)) as learner:
        stats = [learner.update(masked_chunks(learner)) for _ in range(4)]
    assert [s.learning_rate for s in stats] == pytest.approx([1e-3, 5.5e-4, 1e-4, 1e-4])
    assert [s.entropy_coefficient for s in stats] == pytest.approx([0.3, 0.2, 0.1, 0.1])


def test_value_clipping_holds_the_critic_back() -> None:
    with closing(masked_learner(epochs=20)) as free, closing(masked_learner(epochs=20, value_clip_range=0.01)) as held:
        before = free.state()
        chunks = masked_chunks(free)
        free.update(chunks)
        held.update(chunks)
        rows = np.unpackbits(chunks[0].observations, axis=1, count=MASKED.observation_size).astype(float)
        moved = [np.mean([abs(_value(s.state(), r) - _value(before, r)) for r in rows]) for s in (free, held)]
    assert moved[1] < 0.5 * moved[0]


def test_statistics_describe_the_batch(learner: Learner) -> None:
    chunks = masked_chunks(learner)
    stats = learner.update(chunks)
    assert stats.n_episodes == 30
    assert stats.n_steps == sum(len(c.actions) for c in chunks)
    assert 0 < stats.n_distinct <= stats.n_steps
    numbers = [getattr(stats, name) for name in stats.__slots__ if name != "spans"]
    assert np.isfinite(numbers).all()
    assert [span.what for span in stats.spans if span.who == "learner"] == ["join", "unpack", "advantages", "epochs"]
    for who in ("actor", "critic"):
        passes = [span.what for span in stats.spans if span.who == who]
        assert passes.count("forward") == passes.count("backward") == passes.count("optimiser") == 3 * 2
    assert stats.epochs == 3
    assert learner.version == 1


def test_the_callers_thread_and_torchs_random_numbers_stay_as_they_are() -> None:
    tiny = torch.tensor([1e-40])
    state = torch.get_rng_state()
    with closing(masked_learner()) as learner:
        run(learner, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert float(tiny * 0.5) > 0


def test_in_a_thread_it_gives_the_same_bits_and_the_error_comes_out_of_the_result() -> None:
    with closing(masked_learner()) as plain, LocalLearner(Assignment(MASKED, POLICY, config(), 10, 0)) as threaded:
        chunks = masked_chunks(plain)
        pending = threaded.update(chunks)
        expected = plain.update(chunks)
        assert pending.result(timeout=60).policy_loss == expected.policy_loss
        assert pending.done()
        assert_same(threaded.state(), plain.state())
        with pytest.raises(ValueError, match="claims policy version"):
            threaded.update(masked_chunks(plain, version=5)).result()
        saved = plain.state()
        threaded.load_state(saved)
        np.testing.assert_array_equal(threaded.state().weights().values, plain.weights().values)
    threaded.close()


def test_the_objective_of_the_protocol_counts_early_rewards_three_times_and_ends_with_the_episode() -> None:
    """Episodes of 20 steps at most: all their rewards count three times."""
    with closing(masked_learner(objective="protocol")) as one, closing(masked_learner()) as two:
        chunks = masked_chunks(one)
        one.update(chunks)
        two.update([replace(c, rewards=3 * c.rewards, terminated=np.ones_like(c.terminated)) for c in chunks])
        assert_same(one.state(), two.state())
