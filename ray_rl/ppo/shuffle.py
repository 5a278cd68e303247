"""The minibatches of an update, which actor and critic read side by side."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

Batch = TypeVar("Batch")
Part = TypeVar("Part")


class Shuffle(Generic[Batch, Part]):
    """Cuts the minibatches of each epoch once, for whoever asks first; safe to use from several threads.

    The two networks need not keep pace. Who falls behind by more epochs than are kept has them cut once more, alike.

    Args:
        batch: The steps of the update.
        cut: Cuts the minibatches of an epoch, whose number from 0 it is given.
        n_kept: Epochs kept; the first that were cut are forgotten first.

    Attributes:
        batch: As given.
    """

    def __init__(self, batch: Batch, cut: Callable[[int], list[Part]], n_kept: int) -> None:
        self.batch = batch
        self._cut = cut
        self._n_kept = n_kept
        self._epochs: dict[int, list[Part]] = {}
        self._turn = Lock()

    def minibatches(self, epoch: int) -> list[Part]:
        """The minibatches of an epoch."""
        with self._turn:
            if epoch not in self._epochs:
                if len(self._epochs) == self._n_kept:
                    del self._epochs[next(iter(self._epochs))]
                self._epochs[epoch] = self._cut(epoch)
            return self._epochs[epoch]
