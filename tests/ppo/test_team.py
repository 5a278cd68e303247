"""Several learners on one batch are one learner; and that one is PPO as a textbook has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from made_episodes import MASKED, masked_episodes
from plain_ppo import plain_update
from torch import distributed

from ray_rl.config import PolicyConfig, PpoConfig
from ray_rl.episodes import EpisodeBatch, concatenate_in_order
from ray_rl.ppo.api import Assignment, LearnerState, PolicyMismatchError, UpdateStats
from ray_rl.ppo.batch import split
from ray_rl.ppo.learner import Learner
from ray_rl.ppo.team import ALONE, Team, TeamBrokenError, join_team

POLICY = PolicyConfig(hidden_sizes=(16, 16))
TOLERANCE = {torch.float64: {"rtol": 1e-8, "atol": 1e-10}, torch.float32: {"rtol": 2e-3, "atol": 2e-4}}


def config(**changes: Any) -> PpoConfig:
    return PpoConfig(**{"minibatches": 3, "epochs": 3, "learner_threads": 2} | changes)


def make(team: Team = ALONE, dtype: torch.dtype = torch.float64, **changes: Any) -> Learner:
    return Learner(Assignment(MASKED, POLICY, config(**changes), 10, 0), team, dtype)


def chunks(learner: Learner, count: int = 10) -> list[EpisodeBatch]:
    return [
        masked_episodes(learner.weights(), learner.version, 1000 * learner.version + count * k, count) for k in (0, 1)
    ]


@contextmanager
def a_team(size: int, in_memory: bool = True, **changes: Any) -> Iterator[Callable[..., list[Any]]]:
    """Learners in threads of this process; yields what calls a function for each of them at the same time."""
    store: Any = distributed.HashStore()
    with ThreadPoolExecutor(size) as threads:
        teams = list(threads.map(lambda rank: join_team(store, rank, size, 30.0, in_memory), range(size)))
        learners = [make(team, **changes) for team in teams]
        yield lambda work: list(threads.map(work, range(size), learners))
        for learner in learners:
            learner.close()


def share_update(each: Callable[..., list[Any]], size: int, batches: list[EpisodeBatch]) -> list[UpdateStats]:
    parts = split(concatenate_in_order(batches), size)
    return each(lambda rank, learner: learner.update_part(parts[rank]))


def assert_close(one: LearnerState, two: LearnerState, **tolerance: float) -> None:
    assert one.counters == two.counters
    for name, array in one.arrays.items():
        np.testing.assert_allclose(two.arrays[name], array, err_msg=name, **tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"normalise_advantages": False, "normalise_returns": False},
        {"target_kl": 2e-4, "epochs": 8, "learning_rate": 1e-3},
    ],
)
def test_an_update_is_the_textbooks(dtype: torch.dtype, changes: dict[str, Any]) -> None:
    with closing(make(dtype=dtype, **changes)) as learner:
        before, batches = learner.state(), chunks(learner, 30)
        stats, after = learner.update(batches), learner.state()
    plain = plain_update(before, concatenate_in_order(batches), MASKED, config(**changes), run_seed=0)
    assert stats.epochs == plain.epochs
    assert plain.epochs < config(**changes).epochs or "target_kl" not in changes
    tolerance = TOLERANCE[dtype]
    for name, expected in plain.parameters.items():
        np.testing.assert_allclose(after.arrays[name], expected, err_msg=name, **tolerance)
    for name in ("policy_loss", "value_loss", "entropy", "approx_kl"):
        assert getattr(stats, name) == pytest.approx(getattr(plain, name), rel=tolerance["rtol"], abs=1e-6), name


def test_an_update_from_stale_episodes_is_the_textbooks_with_weighted_advantages() -> None:
    changes = {"final_learning_rate": config().learning_rate, "final_entropy_coefficient": config().entropy_coefficient}
    with closing(make(**changes)) as learner:
        first, batches = learner.state(), chunks(learner, 30)
        for _ in range(4):  # leads the policy far from the one that acted
            learner.update(batches)
        networks = {name: array for name, array in learner.state().arrays.items() if name.startswith("network.")}
        state = LearnerState({**first.arrays, **networks}, {**first.counters, "version": 4})
        learner.load_state(state)
        stats, after = learner.update(batches), learner.state()
    episodes = concatenate_in_order(batches)
    plain = plain_update(state, episodes, MASKED, config(**changes), run_seed=0, version=4)
    for name, expected in plain.parameters.items():
        np.testing.assert_allclose(after.arrays[name], expected, err_msg=name, **TOLERANCE[torch.float64])
    assert stats.policy_loss == pytest.approx(plain.policy_loss, rel=1e-8)
    assert stats.approx_kl == pytest.approx(plain.approx_kl, rel=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("in_memory", [True, False])
def test_several_learners_are_one(size: int, dtype: torch.dtype, in_memory: bool) -> None:
    with closing(make(dtype=dtype)) as alone, a_team(size, in_memory, dtype=dtype) as each:
        for _ in range(3):
            batches = chunks(alone)
            told = share_update(each, size, batches)
            expected = alone.update(batches)
            for name in UpdateStats.__slots__:
                if not name.endswith("_s") and name not in ("n_distinct", "first_ratio_deviation", "spans"):
                    rel, absolute = (1e-2, 1e-6) if dtype == torch.float32 else (1e-7, 0)
                    value = pytest.approx(getattr(expected, name), rel=rel, abs=absolute)
                    assert [getattr(stats, name) for stats in told] == [value] * size, name
            assert {stats.first_ratio_deviation for stats in told} == {0.0}
        states = each(lambda _, learner: learner.state())
        assert_close(alone.state(), states[0], **TOLERANCE[dtype])
        for other in states[1:]:
            assert_close(states[0], other, rtol=0, atol=0)


@pytest.mark.parametrize("in_memory", [True, False])
def test_as_many_learners_give_the_same_bits_every_time(in_memory: bool) -> None:
    states = []
    for _ in range(2):
        with a_team(3, in_memory, dtype=torch.float32) as each, closing(make(dtype=torch.float32)) as acting:
            share_update(each, 3, chunks(acting))
            states.append(each(lambda _, learner: learner.state())[0])
    assert_close(*states, rtol=0, atol=0)


def test_a_learner_may_have_nothing_of_a_minibatch() -> None:
    changes = {"minibatches": 25}
    with closing(make(**changes)) as alone, a_team(3, **changes) as each:
        batches = [masked_episodes(alone.weights(), 0, 4, 3)]
        parts = split(concatenate_in_order(batches), 3)
        assert parts[0].place.n_steps < 3 * 25  # most minibatches have fewer steps than there are learners
        share_update(each, 3, batches)
        alone.update(batches)
        assert_close(alone.state(), each(lambda _, learner: learner.state())[0], **TOLERANCE[torch.float64])


def test_the_kl_target_ends_the_passes_of_all_at_once() -> None:
    changes = {"target_kl": 2e-4, "epochs": 8, "learning_rate": 1e-3}
    with closing(make(**changes)) as alone, a_team(2, **changes) as each:
        batches = chunks(alone, 30)
        told = share_update(each, 2, batches)
        assert {stats.epochs for stats in told} == {alone.update(batches).epochs}
        assert told[0].epochs < 8


def test_what_one_learner_finds_wrong_all_refuse_and_nothing_changes() -> None:
    with a_team(2) as each, closing(make()) as acting:
        batches = chunks(acting)
        wrong = batches[1].behaviour_log_probs.copy()
        wrong[3] = np.nan
        before = each(lambda _, learner: learner.state())
        parts = split(concatenate_in_order([batches[0], replace(batches[1], behaviour_log_probs=wrong)]), 2)

        def refused(rank: int, learner: Learner) -> str:
            with pytest.raises(PolicyMismatchError) as caught:
                learner.update_part(parts[rank])
            return str(caught.value)

        n_steps = parts[0].place.n_steps
        messages = set(each(refused))
        assert len(messages) == 1
        assert messages.pop().startswith(f"1 of {n_steps} recorded log-probabilities")
        for old, new in zip(before, each(lambda _, learner: learner.state()), strict=True):
            assert_close(old, new, rtol=0, atol=0)
        share_update(each, 2, batches)  # and they are still together


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("in_memory", [True, False])
def test_learners_that_lose_one_say_so_at_once_and_stay_as_they_were(size: int, in_memory: bool) -> None:
    store: Any = distributed.HashStore()
    with ThreadPoolExecutor(size) as threads:
        *teams, gone = threads.map(lambda rank: join_team(store, rank, size, 3600.0, in_memory), range(size))
        learners = [make(team) for team in teams]
        before = learners[0].state()
        parts = split(concatenate_in_order(chunks(learners[0])), size)
        gone.close()  # as the end of its process would

        def left_alone(rank: int) -> LearnerState:
            for _ in range(2):
                with pytest.raises(TeamBrokenError, match=r"does not answer|was closed"):
                    learners[rank].update_part(parts[rank])
            return learners[rank].state()

        for state in threads.map(left_alone, range(size - 1)):
            assert_close(before, state, rtol=0, atol=0)
        for learner in learners:
            learner.close()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_episodes_are_shared_out_by_index_and_each_goes_to_one(size: int) -> None:
    with closing(make()) as acting:
        whole = concatenate_in_order(chunks(acting)[::-1])
    parts = split(whole, size)
    assert np.concatenate([part.episodes.indices for part in parts]).tolist() == list(range(20))
    assert {part.place.n_steps for part in parts} == {len(whole.actions)}
    ends = [part.place.first_step + len(part.episodes.actions) for part in parts]
    assert [part.place.first_step for part in parts] == [0, *ends[:-1]]
    assert max(len(part.episodes.indices) for part in parts) - min(len(part.episodes.indices) for part in parts) <= 1
    with pytest.raises(ValueError, match="20 episodes are too few for 21 learners"):
        split(whole, 21)
