"""ray_rl: distributed PPO on Ray for training autonomous cyber defenders on CAGE Challenge 2."""

from pathlib import Path

from ray_rl.kernel_cache import keep_kernels

__version__ = "0.1.0"

keep_kernels(Path(__file__).parent)
