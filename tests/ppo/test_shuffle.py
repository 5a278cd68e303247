"""Minibatches that two threads read are cut once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from ray_rl.ppo.shuffle import Shuffle


def test_whoever_asks_gets_the_same_minibatches() -> None:
    cut: list[int] = []
    both = Barrier(2)

    def cut_one(epoch: int) -> Iterator[list[int]]:
        for number in range(2):
            cut.append(10 * epoch + number)
            yield [10 * epoch + number]

    shuffle = Shuffle("batch", cut_one, n_kept=3)

    def read(order: tuple[int, ...]) -> list[list[int]]:
        both.wait(timeout=60)
        return [part for epoch in order for part in shuffle.minibatches(epoch)]

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(read, [(0, 1, 2), (0, 0, 1, 2)])
    assert first == [[0], [1], [10], [11], [20], [21]]
    assert all(a is b for a, b in zip(first, second[2:], strict=True))
    assert cut == [0, 1, 10, 11, 20, 21]


def test_a_minibatch_is_there_before_the_next_is_cut() -> None:
    cut: list[int] = []

    def cut_one(epoch: int) -> Iterator[int]:
        for number in range(3):
            cut.append(number)
            yield number

    parts = Shuffle("batch", cut_one, n_kept=1).minibatches(0)
    assert (next(parts), cut) == (0, [0])
    assert (next(parts), cut) == (1, [0, 1])


def test_no_more_epochs_are_kept_than_asked_for() -> None:
    cut: list[int] = []

    def cut_one(epoch: int) -> Iterator[int]:
        cut.append(epoch)
        yield epoch

    shuffle = Shuffle("batch", cut_one, n_kept=2)
    assert [list(shuffle.minibatches(epoch)) for epoch in (0, 1, 2, 1, 2, 0)] == [[0], [1], [2], [1], [2], [0]]
    assert cut == [0, 1, 2, 0]
