"""The queue of requests, its chunk sizes, and the watchdog."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
from collectors import requests_for, weights_for
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_rl.collect.api import ChunkSummary, split_into_chunks
from ray_rl.collect.backlog import Backlog, Punctuality, Watchdog
from ray_rl.collect.sequential import SequentialCollector
from ray_rl.config import EnvConfig
from ray_rl.episodes import EpisodeError, EpisodeRequest
from ray_rl.seeding import Purpose


def summary_of_four(episode_s: float) -> ChunkSummary:
    """Of a chunk of four episodes that took so long each."""
    return dataclasses.replace(_four_episodes(), rollout_s=4 * episode_s)


@cache
def _four_episodes() -> ChunkSummary:
    env = EnvConfig(env="CartPole-v1")
    with SequentialCollector(env, 4) as collector:
        collector.publish(weights_for(env), 0)
        collector.submit(requests_for(4))
        (chunk,) = collector.completed()
        return chunk.summary


def drained(backlog: Backlog) -> list[list[EpisodeRequest]]:
    chunks = []
    while backlog:
        chunks.append(backlog.take())
    return chunks


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(0, 50), max_size=4),
    n_workers=st.integers(1, 9),
    fixed_size=st.none() | st.integers(1, 60),
    episode_s=st.none() | st.floats(0, 10),
)
def test_every_request_comes_out_once_in_order_and_submissions_do_not_mix(
    counts: list[int], n_workers: int, fixed_size: int | None, episode_s: float | None
) -> None:
    backlog = Backlog(n_workers, fixed_size)
    if episode_s is not None:
        backlog.learn_from(summary_of_four(episode_s))
    submissions = [
        requests_for(count, purpose=Purpose.VALIDATE if k % 2 else Purpose.TRAIN) for k, count in enumerate(counts)
    ]
    for requests in submissions:
        backlog.add(requests)
    chunks = drained(backlog)
    assert [r for chunk in chunks for r in chunk] == [r for requests in submissions for r in requests]
    assert all(len({r.purpose for r in chunk}) == 1 for chunk in chunks)
    if fixed_size is not None:
        assert all(len(chunk) <= fixed_size for chunk in chunks)


def test_a_fixed_size_is_kept_whatever_was_measured() -> None:
    backlog = Backlog(3, 4)
    backlog.learn_from(summary_of_four(250.0))
    backlog.add(requests_for(10))
    assert [len(chunk) for chunk in drained(backlog)] == [4, 4, 2]


@pytest.mark.parametrize(
    ("episode_s", "n_workers", "sizes"),
    [
        (None, 1, [2] * 50),  # nothing is known yet: small chunks
        (0.03, 1, [10] * 10),  # a third of a second
        (5.0, 1, [1] * 100),  # an episode alone takes longer than that
        (1e-3, 1, [50, 50]),  # fast: still two chunks for each worker
        (1e-3, 5, [20] * 5),  # so fast that a second chunk costs more than it saves
        (1e-4, 1, [100]),
    ],
)
def test_chunks_take_a_third_of_a_second_but_leave_work_for_all(
    episode_s: float | None, n_workers: int, sizes: list[int]
) -> None:
    backlog = Backlog(n_workers, None)
    if episode_s is not None:
        backlog.learn_from(summary_of_four(episode_s))
    backlog.add(requests_for(100))
    assert [len(chunk) for chunk in drained(backlog)] == sizes


def test_sizes_follow_episodes_that_become_slower() -> None:
    backlog = Backlog(1, None)
    backlog.add(requests_for(1000))
    sizes = []
    for episode_s in (0.001, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1):
        backlog.learn_from(summary_of_four(episode_s))
        sizes.append(len(backlog.take()))
    assert sizes[0] == 300
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] in (3, 4)


def test_what_is_cleared_does_not_come_back() -> None:
    backlog = Backlog(1, 2)
    backlog.add(requests_for(4))
    backlog.clear()
    assert not backlog
    backlog.add(requests_for(1, first=7))
    assert [chunk[0].index for chunk in drained(backlog)] == [7]


@pytest.mark.parametrize(("count", "size", "sizes"), [(10, 4, [3, 3, 4]), (4, 4, [4]), (3, 9, [3]), (0, 5, [])])
def test_split_chunks_are_as_equal_as_can_be(count: int, size: int, sizes: list[int]) -> None:
    requests = requests_for(count)
    chunks = split_into_chunks(requests, size)
    assert [len(chunk) for chunk in chunks] == sizes
    assert [r for chunk in chunks for r in chunk] == requests


class Clock:
    """Time that a test sets."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("ray_rl.collect.backlog.time", made)
    return made


def test_watchdog_names_what_is_pending_once_the_silence_is_too_long(clock: Clock) -> None:
    watchdog = Watchdog(10.0)
    pending = [requests_for(3, first=5), requests_for(2)]
    clock.now += 9.9
    watchdog.check(pending)
    clock.now += 0.1
    watchdog.check([])
    with pytest.raises(EpisodeError, match=r"no chunk finished for 10 s; 5 episodes in 2 chunks") as failure:
        watchdog.check(pending)
    assert failure.value.request.index == 5
    clock.now += 9.9
    watchdog.check(pending)
    watchdog.heard()
    clock.now += 9.9
    watchdog.check(pending)
    clock.now += 0.1
    with pytest.raises(EpisodeError):
        watchdog.check(pending)


def test_watchdog_waits_until_the_deadline_or_its_own_limit(clock: Clock) -> None:
    watchdog = Watchdog(10.0)
    assert watchdog.wait_s(None) == pytest.approx(10.0)
    assert watchdog.wait_s(clock.now + 3) == pytest.approx(3.0)
    assert watchdog.wait_s(clock.now + 30) == pytest.approx(10.0)
    clock.now += 50
    assert watchdog.wait_s(None) == 0.0
    watchdog.heard()
    assert watchdog.wait_s(None) == pytest.approx(10.0)


def test_the_watchdog_says_what_it_is_told_of_the_circumstances(clock: Clock) -> None:
    watchdog = Watchdog(10.0)
    clock.now += 10.0
    with pytest.raises(EpisodeError, match=r"are pending \(2 nodes are gone\)"):
        watchdog.check([requests_for(1)], lambda: "2 nodes are gone")


def test_nothing_is_late_before_it_is_known_how_long_chunks_take() -> None:
    punctuality = Punctuality(5.0)
    assert not punctuality.is_late(1e6, 1)
    punctuality.learn_from(0.1)
    assert not punctuality.is_late(4.9, 1)
    assert punctuality.is_late(5.1, 1)
    assert not punctuality.is_late(9.9, 2)
    assert punctuality.is_late(10.1, 2)


def test_long_chunks_get_longer_and_scattered_ones_longer_still() -> None:
    steady, scattered = Punctuality(5.0), Punctuality(5.0)
    for number in range(100):
        steady.learn_from(20.0)
        scattered.learn_from(5.0 if number % 2 else 35.0)
    assert steady.is_late(21.0, 1)
    assert not steady.is_late(19.0, 1)
    assert not scattered.is_late(60.0, 1)
    assert scattered.is_late(120.0, 1)
