"""PPO: advantage estimation, batches, loss and the learner. Knows no environment and no collector."""
