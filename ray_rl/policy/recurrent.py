"""The networks that learn with a memory: a GRU under an MLP, for actor and critic alike.

Here PyTorch's own modules do the work, over whole episodes at once; `ray_rl.policy.gru_inference` describes the same
network step by step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ray_rl.policy.actor_critic import ACTOR_OUTPUT_GAIN, CRITIC_OUTPUT_GAIN, HIDDEN_GAIN, draw_orthogonal
from ray_rl.policy.inference import MEMORY_ARRAYS, PolicyWeights


class RecurrentNetwork:
    """A GRU under an MLP with ReLU between its layers.

    Args:
        n_inputs: Inputs at each step.
        memory_size: Units of the memory.
        hidden_sizes: Units of each hidden layer above it.
        n_outputs: Outputs at each step.
        device: Where parameters and passes are.

    Attributes:
        parameters: [P] all weights, of which those of the modules are views.
        gradients: [P] their gradients likewise, which autograd adds to.
        layers: (matrix [in, out], bias [out]) of each layer above the memory, views into `parameters`.
    """

    def __init__(
        self,
        n_inputs: int,
        memory_size: int,
        hidden_sizes: Sequence[int],
        n_outputs: int,
        device: torch.device | None = None,
    ) -> None:
        self._memory = nn.GRU(n_inputs, memory_size)
        widths = (memory_size, *hidden_sizes, n_outputs)
        self._layers = [nn.Linear(n_in, n_out) for n_in, n_out in pairwise(widths)]
        owned = [values for module in (self._memory, *self._layers) for values in module.parameters()]
        self.parameters = torch.zeros(sum(values.numel() for values in owned), device=device)
        self.gradients = torch.zeros_like(self.parameters)
        start = 0
        for values in owned:
            end = start + values.numel()
            values.data = self.parameters[start:end].view(values.shape)
            values.grad = self.gradients[start:end].view(values.shape)
            start = end
        self._gates = {name: values.detach() for name, values in self._memory.named_parameters()}
        self.layers = [(layer.weight.detach().t(), layer.bias.detach()) for layer in self._layers]

    def initialise(self, generator: torch.Generator, output_gain: float) -> None:
        """Draw orthogonal matrices, each gate's by itself; biases become 0."""
        self.parameters.zero_()
        for matrices in (self._gates["weight_ih_l0"], self._gates["weight_hh_l0"]):
            for gate in matrices.chunk(3):
                draw_orthogonal(gate, 1.0, generator)
        for number, (matrix, _) in enumerate(self.layers):
            draw_orthogonal(matrix, output_gain if number == len(self.layers) - 1 else HIDDEN_GAIN, generator)

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs at each step of B episodes: [T, B, n_inputs] to [T, B, n_outputs]; autograd follows."""
        values: Tensor
        values, _ = self._memory(inputs)
        for number, layer in enumerate(self._layers):
            values = layer(torch.relu(values) if number else values)
        return values

    def named(self, prefix: str) -> dict[str, Tensor]:
        """Views of all parameters by name, matrices [in, out] as an MLP's."""
        gates = self._gates
        parts = (gates["weight_ih_l0"].t(), gates["bias_ih_l0"], gates["weight_hh_l0"].t(), gates["bias_hh_l0"])
        names = {f"{prefix}.memory.{name}": part for name, part in zip(MEMORY_ARRAYS, parts, strict=True)}
        for number, (matrix, bias) in enumerate(self.layers):
            names |= {f"{prefix}.{number}.weight": matrix, f"{prefix}.{number}.bias": bias}
        return names


class RecurrentActorCritic:
    """An actor and a critic that each remember the episode: what was seen and what was done.

    Args:
        observation_size: D.
        n_actions: A.
        memory_size: Units of the memory, the same for both.
        hidden_sizes: Units of each hidden layer above it, the same for both.
        seed: Decides the first weights; the global random numbers of torch are not touched.
        critic_size: Size of observations of a critic that sees other things than the actor; None: D.
        device: Where parameters and passes are.
    """

    def __init__(
        self,
        observation_size: int,
        n_actions: int,
        memory_size: int,
        hidden_sizes: Sequence[int],
        seed: int,
        critic_size: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        n_inputs = observation_size + n_actions
        n_critic_inputs = (critic_size or observation_size) + n_actions
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            self.actor = RecurrentNetwork(n_inputs, memory_size, hidden_sizes, n_actions, device)
            self.critic = RecurrentNetwork(n_critic_inputs, memory_size, hidden_sizes, 1, device)
        self.actor.initialise(generator, ACTOR_OUTPUT_GAIN)
        self.critic.initialise(generator, CRITIC_OUTPUT_GAIN)

    def actor_weights(self) -> PolicyWeights:
        """The policy for acting without torch; a copy."""
        return PolicyWeights.from_network(self.arrays())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of all parameters by name."""
        return {name: np.ascontiguousarray(values.cpu().numpy()).copy() for name, values in self._named().items()}

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over parameters as `arrays` gives them; names and shapes are right."""
        for name, values in self._named().items():
            values.copy_(torch.tensor(arrays[name]))

    def _named(self) -> dict[str, Tensor]:
        return self.actor.named("network.actor") | self.critic.named("network.critic")
