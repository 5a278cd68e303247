"""The learner in a Ray actor: the same bits, by reference, and errors as they were raised."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
import ray
from made_episodes import MASKED, masked_episodes

from ray_rl.config import PolicyConfig, PpoConfig, TrainConfig
from ray_rl.ppo.api import LearnerDiedError, LearnerState
from ray_rl.ppo.factory import make_learner
from ray_rl.ppo.learner import Learner
from ray_rl.ppo.local_learner import LocalLearner
from ray_rl.ppo.ray_learner import RayLearner

POLICY = PolicyConfig(hidden_sizes=(16,))
PPO = PpoConfig(minibatches=2, epochs=2, learner_threads=1)


@pytest.fixture(scope="module")
def connected() -> Iterator[None]:
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture
def learner(connected: None) -> Iterator[RayLearner]:
    with RayLearner(MASKED, POLICY, PPO, 10, 0) as made:
        yield made


def test_in_an_actor_it_gives_the_same_bits(learner: RayLearner) -> None:
    with closing(Learner(MASKED, POLICY, PPO, 10, 0)) as plain:
        chunks = [masked_episodes(plain.weights(), 0, 10 * k, 10) for k in range(3)]
        expected = plain.update(chunks)
        pending = learner.update([ray.put(chunks[0]), chunks[1], ray.put(chunks[2])])
        stats = pending.result(timeout=120)
        assert pending.done()
        assert stats.policy_loss == expected.policy_loss
        assert stats.first_ratio_deviation == 0.0
        np.testing.assert_array_equal(learner.weights().values, plain.weights().values)
        saved = learner.state()
        assert saved.version == 1
        for name, values in plain.state().arrays.items():
            np.testing.assert_array_equal(saved.arrays[name], values, err_msg=name)


def test_errors_come_home_as_they_were_raised(learner: RayLearner) -> None:
    chunk = masked_episodes(learner.weights(), 7, 0, 10)
    with pytest.raises(ValueError, match="claims policy version 7") as caught:
        learner.update([ray.put(chunk)]).result(timeout=120)
    assert type(caught.value) is ValueError
    with pytest.raises(ValueError, match="is missing") as caught:
        learner.load_state(LearnerState({}, {}))
    assert type(caught.value) is ValueError


def test_a_learner_that_died_says_so(learner: RayLearner) -> None:
    os.kill(learner.pid(), signal.SIGKILL)
    with pytest.raises(LearnerDiedError, match="--resume"):
        learner.update([]).result(timeout=120)
    learner.close()
    learner.close()


@pytest.mark.parametrize(("collector", "kind"), [("ray-tasks", RayLearner), ("sequential", LocalLearner)])
def test_the_collector_decides_where_the_learner_lives(connected: None, collector: str, kind: type) -> None:
    config = TrainConfig.from_mapping({"collector": collector, "hidden_sizes": (8,)}, "test")
    with make_learner(MASKED, config) as learner:
        assert isinstance(learner, kind)
        assert learner.weights().sizes.tolist() == [MASKED.observation_size, 8, MASKED.n_actions]
