"""The learner in a Ray actor: the same bits, by reference, and errors as they were raised."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from made_episodes import MASKED, masked_episodes

from ray_rl.config import PolicyConfig, PpoConfig, TrainConfig
from ray_rl.ppo.api import Assignment, EpisodesLostError, LearnerDiedError, LearnerSilentError, LearnerState
from ray_rl.ppo.factory import make_learner
from ray_rl.ppo.learner import Learner
from ray_rl.ppo.local_learner import LocalLearner
from ray_rl.ppo.ray_learner import RayLearner, fetch_batches
from ray_rl.ray_runtime import connection

POLICY = PolicyConfig(hidden_sizes=(16,))
PPO = PpoConfig(minibatches=2, epochs=2, learner_threads=1)


@pytest.fixture(scope="module")
def connected() -> Iterator[None]:
    with connection(None, 1):
        yield


@pytest.fixture
def learner(connected: None) -> Iterator[RayLearner]:
    with RayLearner(Assignment(MASKED, POLICY, PPO, 10, 0)) as made:
        yield made


def test_it_is_not_behind_other_processes(learner: RayLearner) -> None:
    assert psutil.Process(learner.pid()).nice() == os.nice(0)


def test_in_an_actor_it_gives_the_same_bits(learner: RayLearner) -> None:
    with closing(Learner(Assignment(MASKED, POLICY, PPO, 10, 0))) as plain:
        chunks = [masked_episodes(plain.weights(), 0, 10 * k, 10) for k in range(3)]
        expected = plain.update(chunks)
        pending = learner.update([ray.put(chunks[0]), chunks[1], ray.put(chunks[2])])
        stats = pending.result(timeout=120)
        assert pending.done()
        assert stats.policy_loss == expected.policy_loss
        assert stats.first_ratio_deviation == 0.0
        np.testing.assert_array_equal(learner.state().weights().values, plain.weights().values)
        saved = learner.state()
        assert saved.version == 1
        for name, values in plain.state().arrays.items():
            np.testing.assert_array_equal(saved.arrays[name], values, err_msg=name)


def test_errors_come_home_as_they_were_raised(learner: RayLearner) -> None:
    chunk = masked_episodes(learner.state().weights(), 7, 0, 10)
    with pytest.raises(ValueError, match="claims policy version 7") as caught:
        learner.update([ray.put(chunk)]).result(timeout=120)
    assert type(caught.value) is ValueError
    with pytest.raises(ValueError, match="is missing") as caught:
        learner.load_state(LearnerState({}, {}))
    assert type(caught.value) is ValueError


def test_another_takes_over_when_it_dies_and_every_bit_is_the_same(learner: RayLearner) -> None:
    """Killed with its first update under way, and between two updates."""
    with closing(Learner(Assignment(MASKED, POLICY, PPO, 10, 0))) as plain:
        pid, first = learner.pid(), masked_episodes(plain.weights(), 0, 0, 10)
        pending = learner.update([ray.put(first)])
        os.kill(pid, signal.SIGKILL)
        assert pending.result(timeout=120).policy_loss == plain.update([first]).policy_loss
        killed = learner.pid()
        os.kill(killed, signal.SIGKILL)
        assert learner.pid() != killed
        np.testing.assert_array_equal(learner.state().weights().values, plain.weights().values)
        second = masked_episodes(plain.weights(), 1, 10, 10)
        assert learner.update([second]).result(timeout=120).policy_loss == plain.update([second]).policy_loss
        for name, values in plain.state().arrays.items():
            np.testing.assert_array_equal(learner.state().arrays[name], values, err_msg=name)


class Deadly:
    """Kills the process that unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return signal.raise_signal, (signal.SIGKILL,)


def test_a_learner_that_dies_again_and_again_says_so(learner: RayLearner) -> None:
    with pytest.raises(LearnerDiedError, match=r"died 3 times .*--resume"):
        learner.update([Deadly()]).result(timeout=120)
    learner.close()
    learner.close()


def test_a_learner_that_falls_silent_is_given_up_and_what_it_had_learned_is_kept(
    connected: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RayLearner(Assignment(MASKED, POLICY, PPO, 10, 0), limit_s=0.5) as learner:
        first = masked_episodes(learner.state().weights(), 0, 0, 10)
        learner.update([first]).result(timeout=120)
        second = masked_episodes(learner.state().weights(), 1, 10, 10)
        pid = learner.pid()
        monkeypatch.setattr("ray_rl.ppo.ray_learner.START_S", 0.0)  # it has started
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(LearnerSilentError, match=r"has not answered for 0.5 s: .* --resume"):
                learner.pid()
            pending = learner.update([second])
            with pytest.raises(TimeoutError):
                pending.result(timeout=0.1)
            assert learner.state().version == 1
            with pytest.raises(LearnerSilentError):
                learner.update([second])
        finally:
            os.kill(pid, signal.SIGCONT)
        assert pending.result(timeout=120).n_episodes == 10
        assert learner.state().version == 2


@ray.remote(num_cpus=0, max_retries=0)
def dying_chunk() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_episodes_that_cannot_be_fetched_are_named_and_the_learner_stays_as_it_was(learner: RayLearner) -> None:
    before = learner.state().weights()
    chunks = [ray.put(masked_episodes(before, 0, 10 * k, 10)) for k in range(3)]
    never = make_never.remote()
    with pytest.raises(EpisodesLostError) as lost:
        fetch_batches([chunks[0], never, chunks[1]], timeout_s=0.2)
    assert list(lost.value.positions) == [1]
    ray.cancel(never)
    gone = dying_chunk.remote()
    with pytest.raises(EpisodesLostError) as lost:
        learner.update([chunks[0], gone, chunks[1], chunks[2]]).result(timeout=120)
    assert list(lost.value.positions) == [1]
    assert "WorkerCrashed" in str(lost.value)
    np.testing.assert_array_equal(learner.state().weights().values, before.values)
    assert learner.update(chunks).result(timeout=120).n_episodes == 30


@ray.remote(num_cpus=100)
def make_never() -> None:
    """No node has so many CPUs."""


@pytest.mark.parametrize(("collector", "kind"), [("ray-tasks", RayLearner), ("sequential", LocalLearner)])
def test_the_collector_decides_where_the_learner_lives(connected: None, collector: str, kind: type) -> None:
    config = TrainConfig.from_mapping({"collector": collector, "hidden_sizes": (8,)}, "test")
    with make_learner(MASKED, config) as learner:
        assert isinstance(learner, kind)
        assert learner.state().weights().sizes.tolist() == [MASKED.observation_size, 8, MASKED.n_actions]
