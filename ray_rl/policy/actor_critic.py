"""The networks that learn: an actor and a critic, each an MLP of its own with ReLU between the layers.

Forward and backward passes are written out over reused memory instead of recorded by autograd: the learner is the
slowest part of a run, and most of what autograd adds is fresh memory. The tests hold the gradients against autograd's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_rl.policy.inference import PolicyWeights
from ray_rl.policy.network_inputs import NetworkInputs, NumberInputs

MASKED_LOGIT = -1e9
"""Added to the logits of actions that are not allowed: finite, and their probability is exactly 0."""

HIDDEN_GAIN = math.sqrt(2.0)
ACTOR_OUTPUT_GAIN = 0.01
"""Small, so that the first policy is nearly uniform (Andrychowicz et al. 2021, section 3.2)."""
CRITIC_OUTPUT_GAIN = 1.0


class Mlp:
    """An MLP with ReLU between its layers.

    Args:
        sizes: Inputs, units of each hidden layer, outputs.
        dtype: Of parameters and passes.
        device: Where they are.
        factors: What matrices and activations are rounded to before they are multiplied, but for the first layer, which
            adds up what its inputs pick, and the outputs of the last; None: `dtype`.

    Attributes:
        sizes: As given.
        parameters: [P] for each layer its matrix [in, out] row by row, then its bias [out].
        gradients: [P] filled by `backward`.
        layers: Views into `parameters`: (matrix [in, out], bias [out]) of each layer.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        factors: torch.dtype | None = None,
    ) -> None:
        self.sizes = tuple(sizes)
        n_parameters = sum((n_in + 1) * n_out for n_in, n_out in pairwise(self.sizes))
        self.parameters = torch.zeros(n_parameters, dtype=dtype, device=device)
        self.gradients = torch.zeros_like(self.parameters)
        self.layers = _split_layers(self.parameters, self.sizes)
        self._gradient_layers = _split_layers(self.gradients, self.sizes)
        self._factors = factors or dtype
        self._inputs: NetworkInputs = NumberInputs(torch.empty(0))
        self._activations: list[Tensor] = []
        self._deltas: list[Tensor] = []
        self._sums: list[Tensor] = []

    def initialise(self, generator: torch.Generator, output_gain: float) -> None:
        """Draw orthogonal matrices, scaled by √2 and in the last layer by `output_gain`; biases become 0."""
        for number, (matrix, bias) in enumerate(self.layers):
            gain = output_gain if number == len(self.layers) - 1 else HIDDEN_GAIN
            draw_orthogonal(matrix, gain, generator)
            bias.zero_()

    def forward(self, inputs: NetworkInputs) -> Tensor:
        """Evaluate the network.

        Args:
            inputs: R rows.

        Returns:
            [R, out], valid until the next call.
        """
        n_rows = len(inputs)
        self._reserve(n_rows)
        self._inputs = inputs
        values = inputs.affine(*self.layers[0], out=self._sums[0][:n_rows])
        for number, (matrix, bias) in enumerate(self.layers[1:], start=1):
            below = torch.clamp(values.to(self._factors), min=0, out=self._activations[number - 1][:n_rows])
            sums = self._sums[number][:n_rows]
            values = torch.addmm(bias.to(sums.dtype), below.to(sums.dtype), matrix.to(sums.dtype), out=sums)
        return values

    def backward(self, output_gradient: Tensor) -> None:
        """Fill `gradients` for the inputs of the last `forward`.

        Args:
            output_gradient: [R, out], derivative of the loss by the outputs.
        """
        n_rows = len(output_gradient)
        delta = output_gradient
        for number in range(len(self.layers) - 1, 0, -1):
            below = self._activations[number - 1][:n_rows]
            matrix_gradient, bias_gradient = self._gradient_layers[number]
            torch.sum(delta, 0, dtype=bias_gradient.dtype, out=bias_gradient)
            delta = delta.to(below.dtype)
            _multiply(below.t(), delta, out=matrix_gradient)
            matrix = self.layers[number][0].to(below.dtype)
            delta = torch.mm(delta, matrix.t(), out=self._deltas[number - 1][:n_rows])
            torch.ops.aten.threshold_backward.grad_input(delta, below, 0, grad_input=delta)
        matrix_gradient, bias_gradient = self._gradient_layers[0]
        delta = delta.to(self.parameters.dtype)
        self._inputs.transposed_product(delta, matrix_gradient)
        torch.sum(delta, 0, out=bias_gradient)

    def _reserve(self, n_rows: int) -> None:
        """Make room for passes over this many rows."""
        if not self._sums or len(self._sums[0]) < n_rows:
            new = self.parameters.new_empty
            self._activations = [new((n_rows, width), dtype=self._factors) for width in self.sizes[1:-1]]
            self._deltas = [torch.empty_like(activations) for activations in self._activations]
            # What a layer adds up becomes its activations in place, where both are of one type.
            self._sums = [*self._activations, new((n_rows, self.sizes[-1]))]
            if self._factors != self.parameters.dtype:
                self._sums[0] = new((n_rows, self.sizes[1]))


def _multiply(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Write a product of matrices to `out`, whose type may be another one."""
    if left.dtype == out.dtype:
        torch.mm(left, right, out=out)
    else:
        out.copy_(torch.mm(left, right))


def draw_orthogonal(matrix: Tensor, gain: float, generator: torch.Generator) -> None:
    """Fill a matrix, wherever it is, with an orthogonal one times a gain; the CPU's generator decides it."""
    drawn = torch.empty(matrix.shape, dtype=matrix.dtype)
    torch.nn.init.orthogonal_(drawn, gain, generator)
    matrix.copy_(drawn)


def _split_layers(flat: Tensor, sizes: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Views of a flat vector as (matrix [in, out], bias [out]) of each layer."""
    layers = []
    start = 0
    for n_in, n_out in pairwise(sizes):
        end = start + n_in * n_out
        layers.append((flat[start:end].view(n_in, n_out), flat[end : end + n_out]))
        start = end + n_out
    return layers


class ActorCritic:
    """An actor [D → A logits] and a critic [C → 1 value].

    Args:
        observation_size: D.
        n_actions: A.
        hidden_sizes: Units of each hidden layer, the same for both.
        seed: Decides the first weights; the global random numbers of torch are not touched.
        dtype: Of parameters and passes.
        critic_size: C, inputs of a critic that sees other things than the actor; None: D.
        device: Where parameters and passes are.
        factors: As of `Mlp`.
    """

    def __init__(
        self,
        observation_size: int,
        n_actions: int,
        hidden_sizes: Sequence[int],
        seed: int,
        dtype: torch.dtype = torch.float32,
        critic_size: int | None = None,
        device: torch.device | None = None,
        factors: torch.dtype | None = None,
    ) -> None:
        self.actor = Mlp((observation_size, *hidden_sizes, n_actions), dtype, device, factors)
        self.critic = Mlp((critic_size or observation_size, *hidden_sizes, 1), dtype, device, factors)
        generator = torch.Generator().manual_seed(seed)
        self.actor.initialise(generator, ACTOR_OUTPUT_GAIN)
        self.critic.initialise(generator, CRITIC_OUTPUT_GAIN)

    def actor_weights(self) -> PolicyWeights:
        """The policy for acting without torch; a copy."""
        return PolicyWeights(
            np.array(self.actor.sizes, dtype=np.int64),
            self.actor.parameters.cpu().numpy().astype(np.float32, copy=True),
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of all parameters: ``network.actor.0.weight`` [in, out], ``network.actor.0.bias`` [out], and so on."""
        return {name: values.cpu().numpy().copy() for name, values in self._named()}

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over parameters as `arrays` gives them; names and shapes are right."""
        for name, values in self._named():
            values.copy_(torch.tensor(arrays[name]))

    def _named(self) -> list[tuple[str, Tensor]]:
        return [
            (f"network.{network}.{number}.{part}", values)
            for network, mlp in (("actor", self.actor), ("critic", self.critic))
            for number, layer in enumerate(mlp.layers)
            for part, values in zip(("weight", "bias"), layer, strict=True)
        ]

    def log_probs_entropy_values(
        self, observations: NetworkInputs, action_masks: Tensor | None, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate actions, without preparing gradients.

        Args:
            observations: R rows.
            action_masks: [R, A] bool, True where allowed; None when every action is.
            actions: [R] int64.

        Returns:
            log π(a|s) [R], entropy of π(·|s) in nats [R], value (in units of what the critic learns) [R].
        """
        logits = self.actor.forward(observations)
        if action_masks is not None:
            logits = logits + mask_bias(action_masks, logits.dtype)
        log_probs = torch.log_softmax(logits, 1)
        values = self.critic.forward(observations)[:, 0].clone()
        return log_probs.gather(1, actions[:, None])[:, 0], entropies(log_probs, torch.softmax(logits, 1)), values


def mask_bias(action_masks: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """What to add to logits: 0 where an action is allowed, `MASKED_LOGIT` where not.

    Args:
        action_masks: [R, A] bool.
        dtype: Of the result.
    """
    zeros = torch.zeros(action_masks.shape, dtype=dtype, device=action_masks.device)
    return zeros.masked_fill_(~action_masks, MASKED_LOGIT)


def entropies(log_probs: Tensor, probs: Tensor) -> Tensor:
    """Entropy of each row, in nats; log-probabilities are finite, so actions of probability 0 add 0.

    Args:
        log_probs: [R, A].
        probs: [R, A].
    """
    return -(probs * log_probs).sum(1)
