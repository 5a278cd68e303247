"""ray_rl: distributed PPO on Ray for training autonomous cyber defenders on CAGE Challenge 2."""

__version__ = "0.1.0"
