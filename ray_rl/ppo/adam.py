"""Adam over one flat vector of parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_DECAY_1 = 0.9
_DECAY_2 = 0.999
_EPSILON = 1e-5
"""Larger than Adam's usual 1e-8, as is customary in PPO: it damps steps where gradients are tiny."""


@dataclass(slots=True)
class Adam:
    """State of the optimiser (Kingma and Ba 2015, algorithm 1).

    Attributes:
        first_moment: [P] running mean of gradients.
        second_moment: [P] running mean of squared gradients.
        n_steps: Steps taken.
    """

    first_moment: Tensor
    second_moment: Tensor
    n_steps: int = 0

    @classmethod
    def fresh(cls, parameters: Tensor) -> Adam:
        """The state before the first step."""
        return cls(torch.zeros_like(parameters), torch.zeros_like(parameters))

    def step(self, parameters: Tensor, gradients: Tensor, learning_rate: float) -> None:
        """Move parameters against their gradients.

        Args:
            parameters: [P], changed in place.
            gradients: [P].
            learning_rate: Step size.
        """
        self.n_steps += 1
        self.first_moment.lerp_(gradients, 1 - _DECAY_1)
        self.second_moment.mul_(_DECAY_2).addcmul_(gradients, gradients, value=1 - _DECAY_2)
        correction_1 = 1 - _DECAY_1**self.n_steps
        correction_2 = 1 - _DECAY_2**self.n_steps
        denominator = self.second_moment.sqrt().div_(math.sqrt(correction_2)).add_(_EPSILON)
        parameters.addcdiv_(self.first_moment, denominator, value=-learning_rate / correction_1)


def scale_down(gradients: Tensor, max_norm: float) -> Tensor:
    """Scale gradients in place so that their norm is at most `max_norm`.

    Args:
        gradients: [P].
        max_norm: Upper bound.

    Returns:
        The norm before (scalar tensor).
    """
    norm: Tensor = torch.linalg.vector_norm(gradients)
    gradients.mul_((max_norm / (norm + 1e-6)).clamp_(max=1.0))
    return norm
