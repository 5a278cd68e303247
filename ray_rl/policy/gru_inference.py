"""Acting without torch with a GRU below an MLP: a policy that remembers its episode.

At each step the memory h takes in x, the observation followed by a one at the place of the policy's own last action
(no such one at the first step), and the MLP gives the logits of h (Cho et al. 2014, in the form that reads a product
of the memory before the reset gate is applied):

    a = x·U + u      b = h·V + v      [3H] each: reset gate, update gate, candidate
    r = σ(a_r + b_r)   z = σ(a_z + b_z)   n = tanh(a_n + r·b_n)      h ← n + z·(h − n)

`PolicyWeights.values` holds U [D+A, 3H], u, V [H, 3H], v, then the MLP. Each row is computed alone, in a fixed order,
so the batch size changes no bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ray_rl.policy.inference import PolicyWeights, Scratch, add_rows, add_scaled, choose_row, forward_row, make_scratch

_NO_ACTION = -1


class GruPolicy:
    """Picks actions with a memory of the episode; `begin` comes before the first step of episodes.

    Args:
        weights: The network.
    """

    def __init__(self, weights: PolicyWeights) -> None:
        self.weights = weights
        self._head_sizes = weights.sizes[1:].copy()
        self._scratch = make_scratch(self._head_sizes)
        self._memories = np.empty((0, int(weights.sizes[1])), dtype=np.float32)
        self._last_actions = np.empty(0, dtype=np.int64)

    def begin(self, n_episodes: int) -> None:
        """Forget everything: that many episodes start."""
        self._memories = np.zeros((n_episodes, int(self.weights.sizes[1])), dtype=np.float32)
        self._last_actions = np.full(n_episodes, _NO_ACTION, dtype=np.int64)

    def act(
        self,
        observations: NDArray[Any],
        action_masks: NDArray[np.bool_] | None,
        uniforms: NDArray[np.float64],
        greedy: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Pick one action per episode and remember the step; arguments and result as `MlpPolicy.act`.

        Raises:
            ValueError: When the number of rows is not that of the episodes begun.
        """
        if len(observations) != len(self._memories):
            raise ValueError(f"{len(self._memories)} episodes were begun, {len(observations)} observations came")
        if action_masks is None:
            action_masks = np.ones((len(observations), int(self.weights.sizes[-1])), dtype=np.bool_)
        log_probs = np.empty(len(observations), dtype=np.float32)
        _act_rows(
            np.ascontiguousarray(observations, dtype=np.float32),
            action_masks,
            uniforms,
            greedy,
            self.weights.sizes,
            self._head_sizes,
            self.weights.values,
            self._scratch,
            self._memories,
            self._last_actions,
            log_probs,
        )
        return self._last_actions.copy(), log_probs


@njit(cache=True, nogil=True)
def _act_rows(
    observations: NDArray[np.float32],
    action_masks: NDArray[np.bool_],
    uniforms: NDArray[np.float64],
    greedy: NDArray[np.bool_],
    sizes: NDArray[np.int64],
    head_sizes: NDArray[np.int64],
    values: NDArray[np.float32],
    scratch: Scratch,
    memories: NDArray[np.float32],
    last_actions: NDArray[np.int64],
    log_probs: NDArray[np.float32],
) -> None:
    n_inputs, n_units = sizes[0] + sizes[-1], sizes[1]
    width = 3 * n_units
    end = n_inputs * width
    input_matrix, input_bias = values[:end].reshape(n_inputs, width), values[end : end + width]
    start = end + width
    end = start + n_units * width
    memory_matrix, memory_bias = values[start:end].reshape(n_units, width), values[end : end + width]
    head = values[end + width :]
    every_unit = np.arange(n_units).astype(np.int32)
    a = np.empty(width, np.float32)
    b = np.empty(width, np.float32)
    for row in range(observations.shape[0]):
        a[:] = input_bias
        x = observations[row]
        for i in range(sizes[0]):
            if x[i] != 0.0:
                add_scaled(a, input_matrix[i], x[i])
        if last_actions[row] != _NO_ACTION:
            add_scaled(a, input_matrix[sizes[0] + last_actions[row]], np.float32(1.0))
        h = memories[row]
        b[:] = memory_bias
        add_rows(b, memory_matrix, h, every_unit, n_units)
        for i in range(n_units):
            reset = _sigmoid(a[i] + b[i])
            keep = _sigmoid(a[n_units + i] + b[n_units + i])
            candidate = np.float32(np.tanh(a[2 * n_units + i] + reset * b[2 * n_units + i]))
            h[i] = candidate + keep * (h[i] - candidate)
        logits = forward_row(h, every_unit, n_units, head_sizes, head, scratch)
        last_actions[row], log_probs[row] = choose_row(logits, action_masks[row], uniforms[row], greedy[row], scratch)


@njit(cache=True, nogil=True, inline="always")
def _sigmoid(x: np.float32) -> np.float32:
    return np.float32(1.0) / (np.float32(1.0) + np.exp(-x))
