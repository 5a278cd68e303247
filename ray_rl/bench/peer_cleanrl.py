"""PPO as CleanRL writes it, as one of the contestants of ``ray-rl bench peers``.

Two plain torch networks, autograd and `torch.optim.Adam` over tensors that hold a whole batch, as in its single-file
``ppo.py``; written for this benchmark, with what makes that style quick: one compiled batch of environments, tensors
that are allocated once, and no conversion of a step that is not needed.
"""

from __future__ import annotations

import time

import gymnasium
import torch
from gymnasium.spaces import flatdim
from torch import Tensor, nn, optim
from torch.distributions import Categorical

from ray_rl.bench.peers import Task
from ray_rl.envs import CAGE2_ID

_DISCOUNT, _GAE_LAMBDA, _CLIP, _ENTROPY, _VALUE, _MAX_NORM = 0.99, 0.95, 0.2, 0.01, 0.5, 0.5


class CleanPpo:
    """Networks, environments and the tensors of a batch.

    Args:
        task: What to train.
        n_envs: Environments; divides the episodes of an update.
        seed: Decides episodes, weights and minibatches.
    """

    def __init__(self, task: Task, n_envs: int, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self._task = task
        self._envs = gymnasium.make_vec(CAGE2_ID, num_envs=n_envs, **task.game)
        n_in, n_actions = flatdim(self._envs.single_observation_space), flatdim(self._envs.single_action_space)
        self._actor, self._critic = (_mlp(n_in, task.hidden_size, n_out) for n_out in (n_actions, 1))
        self._parameters = [*self._actor.parameters(), *self._critic.parameters()]
        self._optimiser = optim.Adam(self._parameters, lr=1e-3, eps=1e-5)
        shape = (task.steps_per_update // n_envs, n_envs)
        self._observations = torch.zeros(*shape, n_in)
        self._actions = torch.zeros(shape, dtype=torch.int64)
        self._log_probs, self._rewards, self._values, self._next_values = (torch.zeros(shape) for _ in range(4))
        self._now: Tensor = torch.from_numpy(self._envs.reset(seed=seed)[0]).float()

    def update(self) -> float:
        """Collect a batch and learn from it; returns the mean return of its episodes."""
        with torch.no_grad():
            self._collect()
            advantages = self._advantages()
        self._learn(advantages.flatten(), (advantages + self._values).flatten())
        return float(self._rewards.sum()) / self._task.episodes_per_update

    def _collect(self) -> None:
        for step in range(len(self._rewards)):
            policy = Categorical(logits=self._actor(self._now))
            action = policy.sample()
            self._observations[step], self._actions[step] = self._now, action
            self._log_probs[step] = policy.log_prob(action)
            self._values[step] = self._critic(self._now)[:, 0]
            seen, reward, _, ended, _ = self._envs.step(action.numpy())
            self._rewards[step] = torch.from_numpy(reward)
            if step > 0:
                self._next_values[step - 1] = self._values[step]
            if ended[0]:  # all together: the value of what would have come next, then new episodes
                self._next_values[step] = self._critic(torch.from_numpy(seen).float())[:, 0]
                seen = self._envs.step(action.numpy())[0]
            self._now = torch.from_numpy(seen).float()

    def _advantages(self) -> Tensor:
        advantages = torch.zeros_like(self._rewards)
        following = torch.zeros(self._rewards.shape[1])
        for step in reversed(range(len(advantages))):
            if (step + 1) % self._task.episode_steps == 0:
                following = torch.zeros_like(following)
            surprise = self._rewards[step] + _DISCOUNT * self._next_values[step] - self._values[step]
            advantages[step] = following = surprise + _DISCOUNT * _GAE_LAMBDA * following
        return advantages

    def _learn(self, advantages: Tensor, returns: Tensor) -> None:
        n_steps, size = len(returns), self._task.steps_per_update // self._task.minibatches
        observations, actions = self._observations.flatten(0, 1), self._actions.flatten()
        log_probs = self._log_probs.flatten()
        for _ in range(self._task.epochs):
            for part in torch.randperm(n_steps).split(size):
                policy = Categorical(logits=self._actor(observations[part]))
                ratios = (policy.log_prob(actions[part]) - log_probs[part]).exp()
                gains = advantages[part]
                gains = (gains - gains.mean()) / (gains.std() + 1e-8)
                surrogate = torch.min(ratios * gains, ratios.clamp(1 - _CLIP, 1 + _CLIP) * gains).mean()
                value_loss = (self._critic(observations[part])[:, 0] - returns[part]).square().mean()
                loss = _VALUE * value_loss - surrogate - _ENTROPY * policy.entropy().mean()
                self._optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self._parameters, _MAX_NORM)
                self._optimiser.step()


def train(task: Task, n_envs: int, n_threads: int) -> float:
    """Train in this process; returns episodes per second. Arguments as those of `ray_rl.bench.peer_sb3.train`."""
    torch.set_num_threads(n_threads)
    ppo = CleanPpo(task, n_envs)
    for _ in range(task.n_warm):
        ppo.update()
    started = time.perf_counter()
    for _ in range(task.n_measured):
        ppo.update()
    return task.episodes_per_s(time.perf_counter() - started)


def _mlp(n_in: int, hidden: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_in, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, n_out)
    )
