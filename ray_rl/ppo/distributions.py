"""What the policy says of each row of a minibatch, and the derivative of its loss by the logits.

In float32 on the CPU each is compiled, one pass over memory in place of half a dozen; elsewhere torch's operations
follow one another. The tests hold both against autograd.

R distinct rows of network inputs, each standing for one or more steps; A actions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from ray_rl.policy.actor_critic import MASKED_LOGIT, entropies
from ray_rl.ppo.device import CPU

_ROWS_AT_ONCE = 32
"""Rows whose numbers stay close to the processor between the steps of the arithmetic."""
_LANES = 16
"""Numbers of one vector register at most; rows of whole registers leave no rest that is worked off one by one."""
_MASKED = np.float32(MASKED_LOGIT)


class Distributions(NamedTuple):
    """Over the actions, in each row; what is not allowed has probability 0.

    Attributes:
        log_probs: [R, A] log π(·|s).
        probs: [R, A] π(·|s).
        entropies: [R], in nats.
    """

    log_probs: Tensor
    probs: Tensor
    entropies: Tensor


def distributions(logits: Tensor, allowed: Tensor | None) -> Distributions:
    """What the policy says of each row.

    Args:
        logits: [R, A].
        allowed: [R, A] bool, or None where every action is always allowed.
    """
    if _is_compiled_for(logits):
        found = Distributions(torch.empty_like(logits), torch.empty_like(logits), logits.new_empty(len(logits)))
        _distributions(logits.numpy(), None if allowed is None else allowed.numpy(), *(part.numpy() for part in found))
        return found
    if allowed is not None:
        logits = logits.masked_fill(~allowed, MASKED_LOGIT)
    log_probs, probs = torch.log_softmax(logits, 1), torch.softmax(logits, 1)
    return Distributions(log_probs, probs, entropies(log_probs, probs))


def logit_gradient(found: Distributions, entropy_weights: Tensor, row_gradients: Tensor) -> Tensor:
    """Derivative by the logits of −Σ wᵣ·Hᵣ, and of the part of Σ gᵢ·log π(aᵢ|sᵢ) that every action of a row shares.

    The rest of the latter is gᵢ itself, at the logit of aᵢ: the caller adds it there.

    Args:
        found: The distributions, of entropies H; their log-probabilities are overwritten by the result.
        entropy_weights: [R] w.
        row_gradients: [R] sum of g over the steps of a row.

    Returns:
        [R, A].
    """
    # dH/dz = −p·(log p + H);  d log p(a)/dz = [z is a] − p
    log_probs, probs, row_entropies = found
    if _is_compiled_for(log_probs):
        _logit_gradient(*(part.numpy() for part in (*found, entropy_weights, row_gradients)))
        return log_probs
    log_probs.add_(row_entropies[:, None]).mul_(entropy_weights[:, None])
    return log_probs.sub_(row_gradients[:, None]).mul_(probs)


def _is_compiled_for(numbers: Tensor) -> bool:
    return numbers.device == CPU and numbers.dtype == torch.float32


# The exponential of Cephes' expf (Moshier 1992): eˣ = 2ᵏ·eᶠ with |f| ≤ ln 2 / 2, and a polynomial for eᶠ. Written out,
# the compiler takes sixteen numbers at once, which it cannot with a call of the C library.
_LOG2_E = np.float32(1.44269504088896341)
_LN_2_HIGH, _LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_C7, _C6, _C5 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_C4, _C3, _C2 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
_LEAST = np.float32(-87.0)
"""Of less the exponential is no normal float32, and counts as 0."""
_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)


@njit(inline="always")
def _exp(x: np.float32) -> np.float32:
    """The exponential of x ≤ 0; of NaN it is NaN."""
    held = _LEAST if x < _LEAST else x
    k = np.floor(held * _LOG2_E + _HALF)
    f = held - k * _LN_2_HIGH - k * _LN_2_LOW
    rest = ((((_C7 * f + _C6) * f + _C5) * f + _C4) * f + _C3) * f + _C2
    power = np.int32((np.int32(k) + 127) << 23).view(np.float32)
    return _ZERO if x < _LEAST else (rest * f * f + f + _ONE) * power


@njit(inline="always")
def _in_order(bits: np.int32) -> np.int32:
    """Of the bits of a float an integer that is larger where the float is; undoes itself.

    The largest of integers the compiler finds sixteen at once, the largest of floats one by one.
    """
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
def _distributions(
    logits: NDArray[np.float32],
    allowed: NDArray[np.bool_] | None,
    log_probs: NDArray[np.float32],
    probs: NDArray[np.float32],
    row_entropies: NDArray[np.float32],
) -> None:
    """`distributions` into the last three.

    One step of the arithmetic after another for a few rows together: what a step does to one row does not wait for
    what it does to another.
    """
    n_rows, n_actions = logits.shape
    width = (n_actions + _LANES - 1) // _LANES * _LANES
    shifted = np.full((_ROWS_AT_ONCE, width), _MASKED)
    exponentials = np.empty_like(shifted)
    largest = np.empty(_ROWS_AT_ONCE, dtype=np.float32)
    bits, largest_bits = shifted.view(np.int32), largest.view(np.int32)
    for first in range(0, n_rows, _ROWS_AT_ONCE):
        n = min(_ROWS_AT_ONCE, n_rows - first)
        for i in range(n):
            for a in range(n_actions):
                if allowed is None:
                    shifted[i, a] = logits[first + i, a]
                else:
                    shifted[i, a] = logits[first + i, a] if allowed[first + i, a] else _MASKED
            shifted[i, n_actions:] = _MASKED
        for i in range(n):
            most = _in_order(bits[i, 0])
            for a in range(width):
                most = max(most, _in_order(bits[i, a]))
            largest_bits[i] = _in_order(most)
        for i in range(n):
            for a in range(width):
                shifted[i, a] -= largest[i]
                exponentials[i, a] = _exp(shifted[i, a])
        for i in range(n):
            total = weighted = _ZERO
            for a in range(width):
                total += exponentials[i, a]
                weighted += exponentials[i, a] * shifted[i, a]
            log_total, share = np.log(total), _ONE / total
            row_entropies[first + i] = log_total - weighted * share
            for a in range(n_actions):
                log_probs[first + i, a] = shifted[i, a] - log_total
                probs[first + i, a] = exponentials[i, a] * share


@njit(cache=True, nogil=True)
def _logit_gradient(
    log_probs: NDArray[np.float32],
    probs: NDArray[np.float32],
    row_entropies: NDArray[np.float32],
    entropy_weights: NDArray[np.float32],
    row_gradients: NDArray[np.float32],
) -> None:
    """`logit_gradient` into `log_probs`."""
    n_rows, n_actions = log_probs.shape
    for row in range(n_rows):
        entropy, weight, gradient = row_entropies[row], entropy_weights[row], row_gradients[row]
        for a in range(n_actions):
            log_probs[row, a] = ((log_probs[row, a] + entropy) * weight - gradient) * probs[row, a]
