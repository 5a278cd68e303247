"""PPO of Stable-Baselines3, as one of the contestants of ``ray-rl bench peers``."""

from __future__ import annotations

import time

import torch
from stable_baselines3 import PPO

from ray_rl.bench.peers import Task
from ray_rl.envs.sb3_vec_env import Cage2VecEnv


def train(task: Task, n_envs: int, n_threads: int) -> float:
    """Train in this process; returns episodes per second.

    Args:
        task: What to train.
        n_envs: Environments of the compiled batch; divides the episodes of an update.
        n_threads: Of torch.
    """
    torch.set_num_threads(n_threads)
    sizes = [task.hidden_size] * 2
    model = PPO(
        "MlpPolicy",
        Cage2VecEnv(n_envs, **task.game),
        n_steps=task.steps_per_update // n_envs,
        batch_size=task.steps_per_update // task.minibatches,
        n_epochs=task.epochs,
        learning_rate=1e-3,
        ent_coef=0.01,
        policy_kwargs={"net_arch": {"pi": sizes, "vf": sizes}, "activation_fn": torch.nn.ReLU},
        seed=0,
        device="cpu",
    )
    model.learn(task.n_warm * task.steps_per_update)
    started = time.perf_counter()
    model.learn(task.n_measured * task.steps_per_update, reset_num_timesteps=False)
    return task.episodes_per_s(time.perf_counter() - started)
