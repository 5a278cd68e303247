"""Acting without torch: an MLP policy in numpy and numba.

The same weights, observation and uniform give the same action and the same bits of its log-probability whatever the
batch size, because every row is summed alone and in a fixed order: inputs in ascending order, one output per lane. No
fast-math, so nothing is reassociated or fused. Layers are padded to whole vectors of lanes, which stay 0. The compiled
rollout calls the same row functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ray_rl.config import PolicyKind

MEMORY_ARRAYS = ("input_weight", "input_bias", "memory_weight", "memory_bias")
"""The parts of a GRU, in the order in which they lie in `PolicyWeights.values`."""

_LANES = 16
"""Numbers in the widest vector of a CPU (AVX-512)."""


@dataclass(frozen=True, slots=True)
class PolicyWeights:
    """Weights of a policy as one flat array: an MLP with ReLU between its layers, or a GRU under such an MLP.

    Attributes:
        sizes: [L+1] int64: observation size, units of each hidden layer, number of actions. The first hidden layer of
            a GRU policy is its memory.
        values: [P] float32: for each layer its matrix [in, out] row by row, then its bias [out]. The memory of a GRU
            policy has two such pairs, as `ray_rl.policy.gru_inference` describes.
    """

    sizes: NDArray[np.int64]
    values: NDArray[np.float32]

    @classmethod
    def from_layers(cls, layers: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> PolicyWeights:
        """Pack layers given as (matrix [in, out], bias [out])."""
        sizes = np.array([layers[0][0].shape[0], *(bias.shape[0] for _, bias in layers)], dtype=np.int64)
        flat = [part.astype(np.float32).ravel() for layer in layers for part in layer]
        return cls(sizes, np.concatenate(flat))

    @classmethod
    def from_network(cls, arrays: Mapping[str, NDArray[Any]]) -> PolicyWeights:
        """Take the actor out of a learner's arrays.

        Args:
            arrays: ``network.actor.0.weight`` [in, out], ``network.actor.0.bias`` [out], … among others; with a GRU
                also ``network.actor.memory.input_weight`` and the like.
        """
        parts = {name.split(".")[2] for name in arrays if name.startswith("network.actor.")}
        numbers = sorted(int(part) for part in parts if part.isdigit())
        layers = cls.from_layers(
            [(arrays[f"network.actor.{n}.weight"], arrays[f"network.actor.{n}.bias"]) for n in numbers]
        )
        if "memory" not in parts:
            return layers
        memory = [arrays[f"network.actor.memory.{name}"] for name in MEMORY_ARRAYS]
        observation_size = len(memory[0]) - int(layers.sizes[-1])
        flat = [part.astype(np.float32).ravel() for part in memory]
        return cls(np.concatenate(([observation_size], layers.sizes)), np.concatenate((*flat, layers.values)))

    @property
    def kind(self) -> PolicyKind:
        """``mlp`` or ``gru``: a GRU has more weights than an MLP of the same sizes."""
        sizes = self.sizes.tolist()
        return "mlp" if len(self.values) == sum((a + 1) * b for a, b in pairwise(sizes)) else "gru"

    @property
    def n_bytes(self) -> int:
        """Bytes of the weights."""
        return self.values.nbytes


class MlpPolicy:
    """Picks actions with an MLP.

    Args:
        weights: The network.

    Attributes:
        weights: As given.
        padded: The same network as `forward_row` takes it.
    """

    def __init__(self, weights: PolicyWeights) -> None:
        self.weights = weights
        self.padded = _padded(weights)
        self._scratch = make_scratch(self.padded.sizes)
        self._inputs = np.empty((0, int(weights.sizes[0])), dtype=np.float32)

    def begin(self, n_episodes: int) -> None:
        """Nothing to forget: an MLP remembers nothing."""

    def act(
        self,
        observations: NDArray[Any],
        action_masks: NDArray[np.bool_] | None,
        uniforms: NDArray[np.float64],
        greedy: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Pick one action per row.

        Args:
            observations: [B, D] uint8 bits or float32.
            action_masks: [B, A] True where allowed, or None.
            uniforms: [B] in [0, 1), one per row; decides a sampled action.
            greedy: [B], True takes the likeliest action (the first of equals).

        Returns:
            Actions [B] int64 and their log-probabilities [B] float32.
        """
        if action_masks is None:
            action_masks = np.ones((len(observations), int(self.weights.sizes[-1])), dtype=np.bool_)
        actions = np.empty(len(observations), dtype=np.int64)
        log_probs = np.empty(len(observations), dtype=np.float32)
        if len(self._inputs) != len(observations):
            self._inputs = np.empty((len(observations), self._inputs.shape[1]), dtype=np.float32)
        self._inputs[...] = observations
        _act_rows(
            self._inputs,
            action_masks,
            uniforms,
            greedy,
            self.padded.sizes,
            self.padded.values,
            self._scratch,
            actions,
            log_probs,
        )
        return actions, log_probs


def _padded(weights: PolicyWeights) -> PolicyWeights:
    """The same MLP with layers of a multiple of `_LANES` units, of which the last are 0 whatever the input."""
    values, layers, offset = weights.values, [], 0
    n_rows = int(weights.sizes[0])
    for n_in, n_out in pairwise(weights.sizes.tolist()):
        end = offset + n_in * n_out
        n_columns = -(-n_out // _LANES) * _LANES
        matrix, bias = np.zeros((n_rows, n_columns), np.float32), np.zeros(n_columns, np.float32)
        matrix[:n_in, :n_out] = values[offset:end].reshape(n_in, n_out)
        bias[:n_out] = values[end : end + n_out]
        layers.append((matrix, bias))
        n_rows, offset = n_columns, end + n_out
    return PolicyWeights.from_layers(layers)


class Scratch(NamedTuple):
    """Working memory for one row.

    Attributes:
        units: [2, W] float32; W is the width of the widest layer.
        numbers: [W] int32.
        exponentials: [W] float64.
    """

    units: NDArray[np.float32]
    numbers: NDArray[np.int32]
    exponentials: NDArray[np.float64]


def make_scratch(sizes: NDArray[np.int64]) -> Scratch:
    """Working memory for a network of these sizes."""
    width = int(sizes.max())
    return Scratch(np.empty((2, width), np.float32), np.empty(width, np.int32), np.empty(width, np.float64))


@njit(cache=True, nogil=True)
def _act_rows(
    observations: NDArray[np.float32],
    action_masks: NDArray[np.bool_],
    uniforms: NDArray[np.float64],
    greedy: NDArray[np.bool_],
    sizes: NDArray[np.int64],
    values: NDArray[np.float32],
    scratch: Scratch,
    actions: NDArray[np.int64],
    log_probs: NDArray[np.float32],
) -> None:
    active = np.empty(sizes[0], np.int32)
    for row in range(observations.shape[0]):
        x = observations[row]
        n_active = 0
        for i in range(sizes[0]):
            if x[i] != 0.0:
                active[n_active] = i
                n_active += 1
        logits = forward_row(x, active, n_active, sizes, values, scratch)
        actions[row], log_probs[row] = choose_row(logits, action_masks[row], uniforms[row], greedy[row], scratch)


@njit(cache=True, nogil=True, inline="never")
def forward_row(
    x: NDArray[np.float32],
    active: NDArray[np.int32],
    n_active: int,
    sizes: NDArray[np.int64],
    values: NDArray[np.float32],
    scratch: Scratch,
) -> NDArray[np.float32]:
    """Logits of one observation.

    Args:
        x: [D] float32; read at the active inputs only.
        active: Indices of the inputs that are not 0, ascending.
        n_active: How many of `active` count.
        sizes: `PolicyWeights.sizes`.
        values: `PolicyWeights.values`.
        scratch: From `make_scratch`; the result is a view into it.

    Returns:
        [A] float32.
    """
    units, positive = scratch.units, scratch.numbers
    n_layers = sizes.shape[0] - 1
    offset = 0
    for layer in range(n_layers):
        n_in, n_out = sizes[layer], sizes[layer + 1]
        out = units[layer & 1][:n_out]
        matrix = values[offset : offset + n_in * n_out].reshape(n_in, n_out)
        out[:] = values[offset + n_in * n_out : offset + (n_in + 1) * n_out]
        if layer == 0:
            add_rows(out, matrix, x, active, n_active)
        else:
            hidden = units[(layer - 1) & 1]
            n_positive = 0
            for i in range(n_in):
                positive[n_positive] = i
                n_positive += hidden[i] > 0.0
            add_rows(out, matrix, hidden, positive, n_positive)
        offset += (n_in + 1) * n_out
    return units[(n_layers - 1) & 1][: sizes[n_layers]]


@njit(cache=True, nogil=True, inline="always")
def add_rows(
    out: NDArray[np.float32],
    matrix: NDArray[np.float32],
    scales: NDArray[np.float32],
    chosen: NDArray[np.int32],
    n_chosen: int,
) -> None:
    """``out += scales[i] * matrix[i]`` for each chosen i, one after the other in every lane."""
    k = 0
    while k + 4 <= n_chosen:  # four while an output is in a register
        a, b, c, d = chosen[k], chosen[k + 1], chosen[k + 2], chosen[k + 3]
        by_a, by_b, by_c, by_d = scales[a], scales[b], scales[c], scales[d]
        for j in range(out.shape[0]):
            total = out[j] + by_a * matrix[a, j]
            total += by_b * matrix[b, j]
            total += by_c * matrix[c, j]
            total += by_d * matrix[d, j]
            out[j] = total
        k += 4
    while k < n_chosen:
        add_scaled(out, matrix[chosen[k]], scales[chosen[k]])
        k += 1


@njit(cache=True, nogil=True, inline="always")
def add_scaled(out: NDArray[np.float32], row: NDArray[np.float32], scale: np.float32) -> None:
    """``out += scale * row``, lane by lane."""
    for j in range(out.shape[0]):
        out[j] += scale * row[j]


@njit(cache=True, nogil=True, inline="never")
def choose_row(
    logits: NDArray[np.float32], allowed: NDArray[np.bool_], uniform: float, greedy: bool, scratch: Scratch
) -> tuple[int, np.float32]:
    """Pick an action from logits by inverting the cumulative distribution.

    Args:
        logits: [A] float32, or longer.
        allowed: [A] bool, at least one True.
        uniform: float64 in [0, 1).
        greedy: True takes the largest allowed logit, the first of equals.
        scratch: From `make_scratch`.

    Returns:
        The action and its float32 log-probability among the allowed actions.
    """
    actions, exponentials = scratch.numbers, scratch.exponentials
    n_allowed = 0
    for a in range(allowed.shape[0]):
        actions[n_allowed] = a
        n_allowed += allowed[a]
    best = actions[0]
    for k in range(1, n_allowed):
        if logits[actions[k]] > logits[best]:
            best = actions[k]
    total = 0.0
    for k in range(n_allowed):
        exponentials[k] = np.exp(np.float64(logits[actions[k]] - logits[best]))
        total += exponentials[k]
    chosen = best
    if not greedy:
        threshold = uniform * total
        running = 0.0
        for k in range(n_allowed):
            running += exponentials[k]
            chosen = actions[k]
            if running > threshold:
                break
    return chosen, np.float32(np.float64(logits[chosen] - logits[best]) - np.log(total))
