"""What every collector promises, asked of all five: the same episodes, each once, whatever goes wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from collectors import (
    ALL_COLLECTORS,
    assert_same_episodes,
    batch_of,
    indices_of,
    joined,
    remembering_weights_for,
    requests_for,
    weights_for,
)
from faulty_envs import ENV_ID, Faults

from ray_rl.collect.api import Chunk, Collector
from ray_rl.collect.factory import make_collector
from ray_rl.collect.worker import NICENESS
from ray_rl.config import CollectConfig, EnvConfig
from ray_rl.episodes import EpisodeBatch, EpisodeError, EpisodeRequest
from ray_rl.policy.inference import PolicyWeights
from ray_rl.seeding import Purpose

FAULTY = EnvConfig(env=ENV_ID)
IN_PROCESSES = [name for name in ALL_COLLECTORS if name != "sequential"]
RUNS_AGAIN = ["executor", "ray-actors", "ray-tasks"]

pytestmark = pytest.mark.usefixtures("fault_folder")


@pytest.fixture(autouse=True)
def ray_if_needed(request: pytest.FixtureRequest) -> None:
    """Start the module's Ray only when a test of one of Ray's collectors runs."""
    if "ray-" in request.node.name:
        request.getfixturevalue("local_ray")


def made(name: str, env: EnvConfig = FAULTY, n_workers: int = 2, **settings: Any) -> AbstractContextManager[Collector]:
    config = CollectConfig.model_validate({"collector": name, "n_workers": n_workers, **settings})
    return make_collector(config, env)


@pytest.fixture(scope="module")
def kept(fault_folder: Path) -> Iterator[Callable[[str], Collector]]:
    """One collector of each kind, two episodes per chunk, made when first asked for and used by many tests."""
    yield from _keeping()


@pytest.fixture(scope="module")
def kept_on_ray(local_ray: None) -> Iterator[Callable[[str], Collector]]:
    """The same for Ray's collectors, which must end before Ray does."""
    yield from _keeping()


def _keeping() -> Iterator[Callable[[str], Collector]]:
    with ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(made(name, episodes_per_chunk=2)))


@pytest.fixture(params=ALL_COLLECTORS)
def collector(request: pytest.FixtureRequest, faults: Faults) -> Iterator[Collector]:
    """The kept collector of each kind with weights of version 0; nothing may be pending when the test is over."""
    get = request.getfixturevalue("kept_on_ray" if request.param.startswith("ray") else "kept")
    chosen: Collector = get(request.param)
    publish(chosen)
    yield chosen
    assert list(chosen.completed()) == [], "the test, or a failure in it, left episodes behind"


@cache
def _weights(env: EnvConfig, seed: int) -> PolicyWeights:
    return weights_for(env, seed)


def publish(collector: Collector, env: EnvConfig = FAULTY, seed: int = 0, version: int = 0) -> None:
    collector.publish(_weights(env, seed), version)


def expected(requests: list[EpisodeRequest], env: EnvConfig = FAULTY, seed: int = 0) -> EpisodeBatch:
    """The episodes as run here, one chunk for all."""
    with made("sequential", env, episodes_per_chunk=len(requests)) as collector:
        publish(collector, env, seed)
        collector.submit(requests)
        (chunk,) = collector.completed()
        return batch_of(chunk)


@pytest.mark.parametrize("name", ALL_COLLECTORS)
def test_a_policy_that_remembers_gives_the_same_episodes(name: str) -> None:
    env, requests = EnvConfig(env="cage2"), requests_for(10)
    weights = remembering_weights_for(env)

    def collected(collector: Collector) -> EpisodeBatch:
        collector.publish(weights, 0)
        collector.submit(requests)
        return joined(collector.completed())

    with (
        made(name, env, episodes_per_chunk=3) as several,
        made("sequential", env, episodes_per_chunk=len(requests)) as whole,
    ):
        assert_same_episodes(collected(several), collected(whole))


@pytest.mark.parametrize("name", ALL_COLLECTORS)
@pytest.mark.parametrize(
    ("env_id", "n_workers", "episodes_per_chunk"), [("cage2", 1, 3), ("cage2", 3, None), ("CartPole-v1", 3, 4)]
)
def test_same_requests_give_the_same_episodes(
    name: str, env_id: str, n_workers: int, episodes_per_chunk: int | None
) -> None:
    env, requests = EnvConfig(env=env_id), requests_for(10)
    with made(name, env, n_workers, episodes_per_chunk=episodes_per_chunk) as collector:
        publish(collector, env)
        collector.submit(requests)
        chunks = list(collector.completed())
        assert indices_of(chunks) == list(range(10))
        assert_same_episodes(joined(chunks), expected(requests, env))


def test_summaries_agree_with_the_episodes(collector: Collector) -> None:
    publish(collector, version=4)
    collector.submit(requests_for(5, purpose=Purpose.VALIDATE))
    chunks = list(collector.completed())
    assert len(chunks) == 3
    for chunk in chunks:
        summary, batch = chunk.summary, batch_of(chunk)
        np.testing.assert_array_equal(summary.indices, batch.indices)
        np.testing.assert_array_equal(summary.lengths, batch.lengths)
        np.testing.assert_array_equal(summary.returns, batch.returns())
        np.testing.assert_array_equal(summary.extras["red_agent"], batch.extras["red_agent"])
        assert summary.purpose is Purpose.VALIDATE
        assert summary.policy_version == batch.policy_version == 4
        assert summary.n_bytes == batch.n_bytes > 0
        assert (summary.pid, summary.node) == (batch.pid, batch.node)
        assert summary.worker_rss_bytes > 1e6
        assert summary.rollout_s >= summary.env_s + summary.policy_s > 0


def test_new_weights_act_from_then_on(collector: Collector) -> None:
    requests = requests_for(6)
    published_before = collector.publish_costs.n_published
    for version, seed in ((7, 0), (8, 1), (8, 2)):
        publish(collector, seed=seed, version=version)
        collector.submit(requests)
        chunks = list(collector.completed())
        assert {chunk.summary.policy_version for chunk in chunks} == {version}
        np.testing.assert_array_equal(joined(chunks).actions, expected(requests, seed=seed).actions)
    assert collector.publish_costs.n_published == published_before + 3
    actions = [expected(requests, seed=seed).actions for seed in (0, 1, 2)]
    assert not np.array_equal(actions[0], actions[1])
    assert not np.array_equal(actions[1], actions[2])


def test_each_episode_has_the_version_that_its_chunk_says(collector: Collector) -> None:
    """Weights are published under way, also anew with the same version."""
    requests = requests_for(40)
    collector.submit(requests)
    publish(collector, seed=0, version=0)
    under_way = collector.completed()
    chunks = [next(under_way)]
    publish(collector, seed=1, version=1)
    chunks += under_way
    assert indices_of(chunks) == list(range(40))
    assert {chunk.summary.policy_version for chunk in chunks} == {0, 1}
    for chunk in chunks:
        own = [requests[index] for index in chunk.summary.indices]
        assert_same_episodes(batch_of(chunk), expected(own, seed=chunk.summary.policy_version))


def test_several_submissions_of_two_purposes_at_once(collector: Collector) -> None:
    for requests in (requests_for(7), requests_for(5, purpose=Purpose.VALIDATE), [], requests_for(4, first=7)):
        collector.submit(requests)
    chunks = list(collector.completed())
    by_purpose = {p: [c for c in chunks if c.summary.purpose is p] for p in (Purpose.TRAIN, Purpose.VALIDATE)}
    assert indices_of(by_purpose[Purpose.TRAIN]) == list(range(11))
    assert indices_of(by_purpose[Purpose.VALIDATE]) == list(range(5))
    assert_same_episodes(joined(by_purpose[Purpose.VALIDATE]), expected(requests_for(5, purpose=Purpose.VALIDATE)))


def test_running_out_of_time_keeps_what_is_pending(collector: Collector) -> None:
    requests = requests_for(40)
    collector.submit(requests)
    chunks = list(collector.completed(timeout_s=0.0))
    assert len(chunks) < 20
    chunks += collector.completed()
    assert indices_of(chunks) == list(range(40))
    assert_same_episodes(joined(chunks), expected(requests))


def test_an_abandoned_iterator_loses_nothing(collector: Collector) -> None:
    collector.submit(requests_for(8))
    first = next(collector.completed())
    assert indices_of([first, *collector.completed()]) == list(range(8))


def test_failing_episodes_are_named_and_all_others_delivered(collector: Collector, faults: Faults) -> None:
    requests = requests_for(20)
    whole = expected(requests)
    causes: dict[int, str] = {}
    for index, kind, at_step, cause in (
        (1, "raise", 2, "ValueError: no step 2 today"),
        (4, "raise", 0, "ValueError: no step 0 today"),
        (9, "nan-observation", 3, "not finite"),
        (14, "nan-reward", 1, "reward"),
        (19, "shape", 2, "(5,)"),
    ):
        faults.plant(requests[index], kind, at_step)
        causes[index] = cause
    collector.submit(requests)
    chunks: list[Chunk] = []
    for _ in range(len(causes)):
        with pytest.raises(EpisodeError) as failure:
            _move(collector.completed(), chunks)
        failed = failure.value.request
        assert failed == requests[failed.index]
        assert f"episode {failed.index} (seed {failed.seed}" in str(failure.value)
        assert causes.pop(failed.index) in failure.value.cause
    _move(collector.completed(), chunks)
    lost = [0, 1, 4, 5, 8, 9, 14, 15, 18, 19]
    assert indices_of(chunks) == [index for index in range(20) if index not in lost]
    np.testing.assert_array_equal(joined(chunks).returns(), np.delete(whole.returns(), lost))


def test_when_every_chunk_fails_each_is_reported_and_the_queue_empties(collector: Collector, faults: Faults) -> None:
    requests = requests_for(20)
    for request in requests:
        faults.plant(request, "raise")
    collector.submit(requests)
    failed = []
    for _ in range(10):
        with pytest.raises(EpisodeError) as failure:
            next(collector.completed())
        failed.append(failure.value.request.index // 2)
    assert sorted(failed) == list(range(10))


def _move(source: Iterator[Chunk], target: list[Chunk]) -> None:
    """One by one, so that what came before an error is kept."""
    for chunk in source:
        target.append(chunk)


@pytest.mark.parametrize("name", ALL_COLLECTORS)
def test_from_before_the_first_weights_to_after_the_end(name: str) -> None:
    with made(name, episodes_per_chunk=2) as collector:
        assert list(collector.completed()) == []
        with pytest.raises(ValueError, match="publish weights"):
            collector.submit(requests_for(4))
        publish(collector)
        assert list(collector.completed()) == [], "what was refused is not queued"
        collector.submit(requests_for(8, first=8))
        next(collector.completed())
        collector.close()
        assert list(collector.completed()) == []
        collector.close()


@pytest.mark.parametrize("name", RUNS_AGAIN)
def test_workers_let_the_learner_go_first(name: str) -> None:
    own = os.nice(0)
    with made(name) as collector:
        publish(collector)
        collector.submit(requests_for(4))
        for chunk in collector.completed():
            assert psutil.Process(chunk.summary.pid).nice() == max(own, NICENESS)


@pytest.mark.parametrize("name", IN_PROCESSES)
def test_a_hanging_episode_is_named_and_closing_ends_it(name: str, faults: Faults) -> None:
    requests = requests_for(4)
    with made(name, watchdog_s=3, episodes_per_chunk=1) as collector:
        publish(collector)
        _warm_up(collector)
        faults.plant(requests[1], "hang")
        collector.submit(requests)
        with pytest.raises(EpisodeError, match="for 3 s") as failure:
            list(collector.completed())
        assert failure.value.request == requests[1]


def _warm_up(collector: Collector) -> None:
    """Run an episode in each worker; the watchdog may bark while processes start, which loses nothing."""
    collector.submit(requests_for(2, first=90))
    while True:
        try:
            list(collector.completed())
        except EpisodeError:
            continue
        return


@pytest.mark.parametrize("name", RUNS_AGAIN)
def test_episodes_of_a_worker_that_died_run_again_with_the_same_bits(name: str, faults: Faults) -> None:
    requests = requests_for(10)
    whole = expected(requests)
    faults.plant(requests[3], "die", once=True)
    with made(name, episodes_per_chunk=2) as collector:
        publish(collector)
        collector.submit(requests)
        chunks = list(collector.completed())
        assert not list(faults.folder.iterdir()), "the worker never died"
        assert indices_of(chunks) == list(range(10))
        assert_same_episodes(joined(chunks), whole)


@pytest.mark.parametrize("name", IN_PROCESSES)
def test_a_worker_that_always_dies_is_a_clear_error_and_the_collector_goes_on(name: str, faults: Faults) -> None:
    requests = requests_for(1)
    faults.plant(requests[0], "die")
    with made(name, n_workers=1) as collector:
        publish(collector)
        collector.submit(requests)
        with pytest.raises(EpisodeError, match="died") as failure:
            list(collector.completed())
        assert failure.value.request == requests[0]
        faults.clear()
        collector.submit(requests)
        assert_same_episodes(joined(collector.completed()), expected(requests))
