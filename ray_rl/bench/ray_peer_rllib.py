"""PPO of RLlib, as one of the contestants of ``ray-rl bench peers``."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np
import ray
import torch
from gymnasium.spaces import flatdim
from gymnasium.wrappers.vector import TransformObservation
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env

from ray_rl.bench.peers import Task
from ray_rl.envs import CAGE2_ID


def make_envs(arguments: dict[str, Any]) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    """One compiled batch; RLlib's networks take numbers instead of bits."""
    envs = gymnasium.make_vec(CAGE2_ID, **arguments)
    numbers = gymnasium.spaces.Box(0.0, 1.0, (flatdim(envs.single_observation_space),))
    return TransformObservation(envs, lambda bits: bits.astype(np.float32), single_observation_space=numbers)


def train(task: Task, n_processes: int, n_envs: int, n_threads: int) -> float:
    """Train by RLlib's new API stack; returns episodes per second.

    Args:
        task: What to train.
        n_processes: Processes that sample; 0: this one.
        n_envs: Environments of each of them.
        n_threads: Of torch, for learning.
    """
    torch.set_num_threads(n_threads)
    register_env("cage2", make_envs)
    sizes = [task.hidden_size] * 2
    config = (
        PPOConfig()
        .environment("cage2", env_config=task.game)
        .env_runners(
            num_env_runners=n_processes,
            num_envs_per_env_runner=n_envs,
            gym_env_vectorize_mode=gymnasium.VectorizeMode.VECTOR_ENTRY_POINT,
        )
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=sizes, fcnet_activation="relu", vf_share_layers=False))
        .training(
            train_batch_size_per_learner=task.steps_per_update,
            minibatch_size=task.steps_per_update // task.minibatches,
            num_epochs=task.epochs,
            lr=1e-3,
            entropy_coeff=0.01,
            grad_clip=0.5,
        )
        .debugging(seed=0, log_level="ERROR")
    )
    algorithm = config.build_algo()
    try:
        for _ in range(task.n_warm):
            algorithm.train()
        started = time.perf_counter()
        for _ in range(task.n_measured):
            algorithm.train()
        return task.episodes_per_s(time.perf_counter() - started)
    finally:
        algorithm.stop()
        ray.shutdown()
