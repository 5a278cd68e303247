"""PPO of RLlib on CAGE Challenge 2: two workers with 100 compiled environments each.

pip install "ray[rllib]"
python examples/rllib_ppo.py
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers.vector import TransformObservation
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env


def make_envs(arguments: dict[str, Any]) -> gymnasium.vector.VectorEnv:
    """One compiled batch; RLlib's networks take numbers instead of bits."""
    envs = gymnasium.make_vec("ray_rl.envs:ray_rl/CAGE2-v0", view="winner", actions="compact", **arguments)
    numbers = gymnasium.spaces.Box(0.0, 1.0, (int(envs.single_observation_space.n),))
    return TransformObservation(envs, lambda bits: bits.astype(np.float32), single_observation_space=numbers)


def configure(num_env_runners: int = 2, num_envs: int = 100, episode_steps: int = 100) -> PPOConfig:
    """An update learns from one episode of every environment."""
    register_env("cage2", make_envs)
    steps = max(num_env_runners, 1) * num_envs * episode_steps
    return (
        PPOConfig()
        .environment("cage2", env_config={"red_agent": "B_lineAgent", "episode_steps": episode_steps})
        .env_runners(
            num_env_runners=num_env_runners,
            num_envs_per_env_runner=num_envs,
            gym_env_vectorize_mode=gymnasium.VectorizeMode.VECTOR_ENTRY_POINT,
        )
        .rl_module(
            model_config=DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="relu", vf_share_layers=False)
        )
        .training(train_batch_size_per_learner=steps, minibatch_size=steps // 4, num_epochs=6, lr=1e-3)
        .training(lambda_=0.95, clip_param=0.2, entropy_coeff=0.01, grad_clip=0.5)
        .training(vf_clip_param=1e9, vf_loss_coeff=1e-4)  # returns are in the hundreds
        .debugging(seed=0)
    )


def train(config: PPOConfig, n_updates: int = 20) -> list[float]:
    """Mean returns of the episodes after each update."""
    algorithm = config.build_algo()
    returns = [float(algorithm.train()["env_runners"]["episode_return_mean"]) for _ in range(n_updates)]
    algorithm.stop()
    return returns


if __name__ == "__main__":
    print([round(mean, 1) for mean in train(configure())])
