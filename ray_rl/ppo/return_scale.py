"""Running mean and deviation of returns, so that the critic learns numbers of the order of 1."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ray_rl.policy.actor_critic import Mlp
from ray_rl.policy.recurrent import RecurrentNetwork

_LEAST_WEIGHT = 0.2
"""Weight of a new batch once many were seen: the statistics follow the last five updates or so, so that
the critic learns numbers of the order of 1 while returns fall by a factor of ten within a minute."""
_LEAST_DEVIATION = 1e-2
"""Returns that vary less than this are not magnified."""


@dataclass(frozen=True, slots=True)
class ReturnScale:
    """Value = `mean` + `deviation` · output of the critic.

    Attributes:
        mean: Running mean of returns.
        mean_square: Running mean of their squares.
        n_batches: Batches seen; before the first, values are the critic's outputs.
    """

    mean: float = 0.0
    mean_square: float = 1.0
    n_batches: int = 0

    @property
    def deviation(self) -> float:
        """Standard deviation of returns."""
        return max(math.sqrt(max(self.mean_square - self.mean**2, 0.0)), _LEAST_DEVIATION)

    def with_batch(self, mean: float, variance: float) -> ReturnScale:
        """The scale after one more batch.

        Args:
            mean: Mean of its returns.
            variance: Their variance.
        """
        weight = max(1.0 / (self.n_batches + 1), _LEAST_WEIGHT)
        return ReturnScale(
            (1 - weight) * self.mean + weight * mean,
            (1 - weight) * self.mean_square + weight * (variance + mean**2),
            self.n_batches + 1,
        )

    def values(self, outputs: Tensor) -> Tensor:
        """Values from the critic's outputs."""
        return outputs * self.deviation + self.mean

    def normalised(self, values: Tensor) -> Tensor:
        """Values or returns in the units of the critic's outputs."""
        return (values - self.mean) / self.deviation


def rescale_critic(critic: Mlp | RecurrentNetwork, before: ReturnScale, after: ReturnScale) -> None:
    """Change the last layer so that a changed scale leaves every value as it was.

    Source: van Hasselt et al. 2016, "Learning values across many orders of magnitude", proposition 1.

    Args:
        critic: Network with one output; changed in place.
        before: The scale that its outputs have.
        after: The scale that they get.
    """
    matrix, bias = critic.layers[-1]
    matrix.mul_(before.deviation / after.deviation)
    bias.mul_(before.deviation).add_(before.mean - after.mean).div_(after.deviation)
