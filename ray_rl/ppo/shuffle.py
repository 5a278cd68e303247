"""The minibatches of an update, which actor and critic read side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from threading import Lock
from typing import Generic, TypeVar

Batch = TypeVar("Batch")
Part = TypeVar("Part")


class Shuffle(Generic[Batch, Part]):
    """Cuts each minibatch once, for whoever asks first; safe to use from several threads.

    The two networks need not keep pace. Who falls behind by more epochs than are kept has them cut once more, alike.

    Args:
        batch: The steps of the update.
        cut: Cuts the minibatches of an epoch, whose number from 0 it is given, one after another.
        n_kept: Epochs kept; the first that were cut are forgotten first.

    Attributes:
        batch: As given.
    """

    def __init__(self, batch: Batch, cut: Callable[[int], Iterator[Part]], n_kept: int) -> None:
        self.batch = batch
        self._cut = cut
        self._n_kept = n_kept
        self._epochs: dict[int, _Epoch[Part]] = {}
        self._turn = Lock()

    def minibatches(self, epoch: int) -> Iterator[Part]:
        """The minibatches of an epoch, each as soon as it is cut."""
        with self._turn:
            if epoch not in self._epochs:
                if len(self._epochs) == self._n_kept:
                    del self._epochs[next(iter(self._epochs))]
                self._epochs[epoch] = _Epoch([], self._cut(epoch))
            cut = self._epochs[epoch]
        for number in count():
            if number == len(cut.parts):
                with self._turn:
                    if number == len(cut.parts):  # nobody was faster
                        part = next(cut.rest, None)
                        if part is None:
                            return
                        cut.parts.append(part)
            yield cut.parts[number]


@dataclass(frozen=True, slots=True)
class _Epoch(Generic[Part]):
    parts: list[Part]
    rest: Iterator[Part]
