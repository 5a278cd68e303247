"""What acts in a rollout, whatever its network."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ray_rl.policy.gru_inference import GruPolicy
from ray_rl.policy.inference import MlpPolicy, PolicyWeights


class ActingPolicy(Protocol):
    """Picks actions for episodes that are stepped together."""

    weights: PolicyWeights

    def begin(self, n_episodes: int) -> None:
        """That many episodes start: what was remembered of others is forgotten."""
        ...

    def act(
        self,
        observations: NDArray[Any],
        action_masks: NDArray[np.bool_] | None,
        uniforms: NDArray[np.float64],
        greedy: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """One action per episode [B] and its log-probability [B]; arguments as `MlpPolicy.act`."""
        ...


def acting_policy(weights: PolicyWeights) -> ActingPolicy:
    """The policy that acts with these weights."""
    return GruPolicy(weights) if weights.kind == "gru" else MlpPolicy(weights)
