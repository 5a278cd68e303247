"""Minibatches that two threads read are cut once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from ray_rl.ppo.shuffle import Shuffle


def test_whoever_asks_gets_the_same_minibatches() -> None:
    cut: list[int] = []
    both = Barrier(2)

    def cut_one(epoch: int) -> list[int]:
        cut.append(epoch)
        return [10 * epoch, 10 * epoch + 1]

    shuffle = Shuffle("batch", cut_one, n_kept=3)

    def read(order: tuple[int, ...]) -> list[list[int]]:
        both.wait(timeout=60)
        return [shuffle.minibatches(epoch) for epoch in order]

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(read, [(0, 1, 2), (0, 0, 1, 2)])
    assert first == [[0, 1], [10, 11], [20, 21]]
    assert all(a is b for a, b in zip(first, second[1:], strict=True))
    assert cut == [0, 1, 2]


def test_no_more_epochs_are_kept_than_asked_for() -> None:
    cut: list[int] = []

    def cut_one(epoch: int) -> list[int]:
        cut.append(epoch)
        return [epoch]

    shuffle = Shuffle("batch", cut_one, n_kept=2)
    assert [shuffle.minibatches(epoch) for epoch in (0, 1, 2, 1, 2, 0)] == [[0], [1], [2], [1], [2], [0]]
    assert cut == [0, 1, 2, 0]
