"""PPO as CleanRL writes it, on 200 compiled environments of CAGE Challenge 2: ``python examples/cleanrl_ppo.py``."""

from __future__ import annotations

import gymnasium
import torch
from torch import nn, optim
from torch.distributions import Categorical

CAGE2 = "ray_rl.envs:ray_rl/CAGE2-v0"


def network(n_in: int, n_out: int) -> nn.Sequential:
    """A multilayer perceptron with two hidden layers of 64."""
    return nn.Sequential(nn.Linear(n_in, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, n_out))


def train(n_updates: int = 20, n_envs: int = 200, n_steps: int = 100, gamma: float = 0.99, lam: float = 0.95) -> float:
    """Train a defender against B_lineAgent; returns the mean return of the last update's episodes."""
    torch.manual_seed(0)
    envs = gymnasium.make_vec(CAGE2, n_envs, view="winner", actions="compact", episode_steps=n_steps)
    n_in, n_actions = int(envs.single_observation_space.n), int(envs.single_action_space.n)
    actor, critic = network(n_in, n_actions), network(n_in, 1)
    optimiser = optim.Adam(parameters := [*actor.parameters(), *critic.parameters()], lr=1e-3, eps=1e-5)
    obs, masks = torch.zeros(n_steps + 1, n_envs, n_in), torch.ones(n_steps, n_envs, n_actions).bool()
    actions, log_probs, rewards, gains = (torch.zeros(n_steps, n_envs) for _ in range(4))
    seen, info = envs.reset(seed=0)
    for _ in range(n_updates):
        for t in range(n_steps):  # one episode in every environment; all end together, cut off
            obs[t], masks[t] = torch.from_numpy(seen), torch.from_numpy(info["action_mask"])
            with torch.no_grad():
                policy = Categorical(logits=actor(obs[t]).masked_fill(~masks[t], -1e9))
                actions[t] = action = policy.sample()
                log_probs[t] = policy.log_prob(action)
            seen, reward, _, _, info = envs.step(action.numpy())
            rewards[t] = torch.from_numpy(reward)
        obs[n_steps] = torch.from_numpy(seen)
        seen, _, _, _, info = envs.step(action.numpy())  # begins new episodes, whatever the action
        values = 100.0 * critic(obs).detach()[..., 0]  # returns are in the hundreds, outputs of networks are not
        gain = torch.zeros(n_envs)
        for t in reversed(range(n_steps)):
            gains[t] = gain = rewards[t] + gamma * values[t + 1] - values[t] + gamma * lam * gain
        targets, scaled = (gains + values[:-1]) / 100.0, (gains - gains.mean()) / (gains.std() + 1e-8)
        flat = [x.flatten(0, 1) for x in (obs[:-1], masks, actions, log_probs, scaled, targets)]
        for part in [p for _ in range(6) for p in torch.randperm(n_steps * n_envs).chunk(4)]:
            rows, allowed, taken, before, gain, target = (x[part] for x in flat)
            policy = Categorical(logits=actor(rows).masked_fill(~allowed, -1e9))
            ratios = (policy.log_prob(taken) - before).exp()
            surrogate = torch.min(ratios * gain, ratios.clamp(0.8, 1.2) * gain).mean()
            value_loss = (critic(rows)[:, 0] - target).square().mean()
            optimiser.zero_grad()
            (0.5 * value_loss - surrogate - 0.01 * policy.entropy().mean()).backward()
            nn.utils.clip_grad_norm_(parameters, 0.5)
            optimiser.step()
    return float(rewards.sum(0).mean())


if __name__ == "__main__":
    print(f"mean return {train(100):.1f}")
