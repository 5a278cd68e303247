"""PPO of Stable-Baselines3 on CAGE Challenge 2, 200 compiled environments at once.

pip install stable-baselines3
python examples/stable_baselines3_ppo.py
"""

from __future__ import annotations

from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor
from torch import nn

from ray_rl.envs.sb3_vec_env import Cage2VecEnv


def train(total_episodes: int = 4000, num_envs: int = 200, episode_steps: int = 100) -> tuple[PPO, float]:
    """Train a defender against B_lineAgent; returns it and its mean return over new episodes, acting greedily."""
    game = {"view": "winner", "actions": "compact", "red_agent": "B_lineAgent", "episode_steps": episode_steps}
    model = PPO(
        "MlpPolicy",
        VecMonitor(Cage2VecEnv(num_envs, **game)),
        n_steps=episode_steps,  # one episode of every environment per update
        batch_size=num_envs * episode_steps // 4,
        n_epochs=6,
        learning_rate=1e-3,
        ent_coef=0.01,
        policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": nn.ReLU},
        seed=0,
        device="cpu",
        verbose=1,
    )
    model.learn(total_episodes * episode_steps)
    score, _ = evaluate_policy(model, VecMonitor(Cage2VecEnv(num_envs, **game)), n_eval_episodes=num_envs)
    return model, float(score)


if __name__ == "__main__":
    print(f"mean return {train()[1]:.1f}")
