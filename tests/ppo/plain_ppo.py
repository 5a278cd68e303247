"""One update of PPO as a textbook has it, in float64: every step by itself, gradients by autograd, Adam by torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_rl.config import PpoConfig
from ray_rl.envs.api import EnvSpec
from ray_rl.episodes import EpisodeBatch
from ray_rl.ppo.api import LearnerState
from ray_rl.seeding import Purpose, derive_seed


@dataclass
class PlainUpdate:
    """What an update left behind.

    Attributes:
        parameters: By name, as in `LearnerState`.
        epochs: Passes of the actor.
        policy_loss: Mean over all minibatches, as are the others.
        value_loss: See `UpdateStats`.
        entropy: See `UpdateStats`.
        approx_kl: Over the last epoch.
    """

    parameters: dict[str, NDArray[np.float64]]
    epochs: int
    policy_loss: float
    value_loss: float
    entropy: float
    approx_kl: float


def plain_update(
    before: LearnerState, episodes: EpisodeBatch, spec: EnvSpec, ppo: PpoConfig, run_seed: int, version: int = 0
) -> PlainUpdate:
    """An update from a state whose optimisers have done nothing yet; all episodes are of version 0.

    At a later version their advantages are weighted by how likely the policy before the update takes their actions.
    """
    networks = {
        name: torch.nn.Parameter(torch.tensor(array, dtype=torch.float64))
        for name, array in before.arrays.items()
        if name.startswith("network.")
    }
    states = bits(episodes.observations, spec.observation_size)
    finals = bits(episodes.final_observations, spec.observation_size)
    assert episodes.action_masks is not None
    allowed = torch.from_numpy(np.unpackbits(episodes.action_masks, axis=1, count=spec.n_actions)).bool()
    actions = torch.from_numpy(episodes.actions.astype(np.int64))

    with torch.no_grad():
        values, final_values = (mlp(networks, "critic", s)[:, 0] for s in (states, finals))
        advantages = plain_gae(episodes, values.numpy(), final_values.numpy(), ppo)
        returns = advantages + values
        old = log_probabilities(networks, states, allowed).gather(1, actions[:, None])[:, 0]
    if ppo.normalise_advantages:
        advantages = (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8)
    if version > 0:
        advantages = advantages * (old - torch.from_numpy(episodes.behaviour_log_probs).double()).exp().clamp(max=2)
    mean, deviation = 0.0, 1.0
    if ppo.normalise_returns:
        mean, deviation = float(returns.mean()), float(returns.std(correction=0))
        last = max(int(name.split(".")[2]) for name in networks)
        with torch.no_grad():
            networks[f"network.critic.{last}.weight"] /= deviation
            networks[f"network.critic.{last}.bias"].sub_(mean).div_(deviation)
    targets = (returns - mean) / deviation

    groups = {who: [p for name, p in networks.items() if f".{who}." in name] for who in ("actor", "critic")}
    adams = {who: torch.optim.Adam(group, lr=ppo.learning_rate, eps=1e-5) for who, group in groups.items()}
    history: dict[str, list[float]] = {"policy": [], "value": [], "entropy": [], "kl": []}
    epochs, actor_learns = 0, True
    for epoch in range(ppo.epochs):
        order = np.random.default_rng(derive_seed(run_seed, Purpose.MINIBATCH, version, epoch)).permutation(
            len(actions)
        )
        epochs += actor_learns
        for part in np.array_split(order, ppo.minibatches):
            value_loss = (mlp(networks, "critic", states[part])[:, 0] - targets[part]).square().mean()
            history["value"].append(value_loss.item())
            step(adams["critic"], groups["critic"], ppo.value_coefficient * value_loss, ppo)
            if actor_learns:
                every = log_probabilities(networks, states[part], allowed[part])
                log_ratios = every.gather(1, actions[part][:, None])[:, 0] - old[part]
                ratios, gain = log_ratios.exp(), advantages[part]
                clipped = ratios.clamp(1 - ppo.clip_range, 1 + ppo.clip_range) * gain
                policy_loss = -torch.minimum(ratios * gain, clipped).mean()
                entropy = -(every.exp() * every.clamp(min=-1e9)).sum(1).mean()
                step(adams["actor"], groups["actor"], policy_loss - ppo.entropy_coefficient * entropy, ppo)
                history["policy"].append(policy_loss.item())
                history["entropy"].append(entropy.item())
                history["kl"].append((ratios - 1 - log_ratios).mean().item())
        if ppo.target_kl is not None and np.mean(history["kl"][-ppo.minibatches :]) > ppo.target_kl:
            actor_learns = False
    return PlainUpdate(
        {name: parameter.detach().numpy() for name, parameter in networks.items()},
        epochs,
        float(np.mean(history["policy"])),
        float(np.mean(history["value"])),
        float(np.mean(history["entropy"])),
        float(np.mean(history["kl"][-ppo.minibatches :])),
    )


def plain_gae(
    episodes: EpisodeBatch, values: NDArray[np.float64], final_values: NDArray[np.float64], ppo: PpoConfig
) -> Tensor:
    """Advantages of every step, backwards through each episode."""
    advantages = np.zeros(len(values))
    end = 0
    for number, length in enumerate(episodes.lengths.tolist()):
        start, end = end, end + length
        following = 0.0 if episodes.terminated[number] else final_values[number]
        advantage = 0.0
        for t in range(end - 1, start - 1, -1):
            surprise = float(episodes.rewards[t]) + ppo.discount * following - values[t]
            advantage = surprise + ppo.discount * ppo.gae_lambda * advantage
            advantages[t] = advantage
            following = values[t]
    return torch.from_numpy(advantages)


def step(adam: torch.optim.Adam, parameters: list[torch.nn.Parameter], loss: Tensor, ppo: PpoConfig) -> None:
    adam.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, ppo.max_gradient_norm)
    adam.step()


def log_probabilities(networks: dict[str, Any], states: Tensor, allowed: Tensor) -> Tensor:
    return torch.log_softmax(mlp(networks, "actor", states).masked_fill(~allowed, -1e9), 1)


def mlp(networks: dict[str, Any], who: str, states: Tensor) -> Tensor:
    values, number = states, 0
    while f"network.{who}.{number}.weight" in networks:
        values = values.relu() if number else values
        values = values @ networks[f"network.{who}.{number}.weight"] + networks[f"network.{who}.{number}.bias"]
        number += 1
    return values


def bits(packed: NDArray[np.uint8], size: int) -> Tensor:
    return torch.from_numpy(np.unpackbits(packed, axis=1, count=size).astype(np.float64))
