"""What the policy before the update says of the steps: worked out by one thread, while another learns already."""

from __future__ import annotations

from concurrent.futures import Future

from torch import Tensor


class OldPolicy:
    """The policy that the ratios of an update are taken against; what is said of a minibatch counts once it is there.

    Args:
        log_probs: [M] room for log π(a|s) of each step.
        n_minibatches: Minibatches of an epoch; those of the first are worked out one by one.

    Attributes:
        log_probs: As given.
        corrections: [M] how often the advantage of each step counts.
    """

    def __init__(self, log_probs: Tensor, n_minibatches: int) -> None:
        self.log_probs = log_probs
        self.corrections = log_probs.new_ones(len(log_probs))
        self._known: list[Future[None]] = [Future() for _ in range(n_minibatches)]

    def tell(self, steps: Tensor, log_probs: Tensor, corrections: Tensor, number: int) -> None:
        """Fill in what belongs to a minibatch of the first epoch.

        Args:
            steps: [m] int64, positions of its steps.
            log_probs: [m].
            corrections: [m].
            number: Of the minibatch, from 0; those before it are told already.
        """
        self.log_probs[steps] = log_probs
        self.corrections[steps] = corrections
        self._known[number].set_result(None)

    def fail(self, error: BaseException) -> None:
        """Let whoever waits fail: nothing more will be told."""
        for known in self._known:
            if not known.done():
                known.set_exception(error)

    def wait(self, number: int = -1) -> None:
        """Wait until a minibatch of the first epoch is told, by default the last; raises why it never will be."""
        self._known[number].result()
