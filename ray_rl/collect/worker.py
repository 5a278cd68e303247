"""What a worker process does, whichever method started it: run a chunk of episodes and sum it up."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import replace

import psutil

from ray_rl.collect.api import ChunkSummary, summarise
from ray_rl.env_options import EnvOptions
from ray_rl.envs.registry import env_of_this_process, forget_env_of_this_process
from ray_rl.episodes import EpisodeBatch, EpisodeError, EpisodeRequest
from ray_rl.policy.acting import acting_policy
from ray_rl.policy.inference import PolicyWeights
from ray_rl.rollout import run_episodes

NICENESS = 15
"""What Ray gives its workers, so that a machine that is sampling still answers."""


def step_back() -> None:
    """Let the learner, and whoever else is on this machine, go first; for a process that only runs episodes.

    Beside a learner that trains meanwhile, workers of the same priority take the cores that it needs for the next
    weights, which they then wait for.
    """
    os.nice(max(0, NICENESS - os.nice(0)))


def run_chunk(
    env: EnvOptions, weights: PolicyWeights, requests: Sequence[EpisodeRequest], policy_version: int
) -> tuple[ChunkSummary, EpisodeBatch]:
    """Run episodes in this process. The result depends on the arguments alone.

    Args:
        env: The environment; built at the first call and kept.
        weights: What acts.
        requests: One or more episodes of one purpose.
        policy_version: Number of finished updates behind the weights.

    Raises:
        EpisodeError: When an episode cannot be run.
    """
    began_s, began = time.time(), time.perf_counter()
    kept = env_of_this_process(env)
    try:
        batch = run_episodes(kept, acting_policy(weights), requests, policy_version)
    except EpisodeError:
        forget_env_of_this_process()
        with contextlib.suppress(Exception):
            kept.close()
        raise
    summary = summarise(batch, requests[0].purpose, psutil.Process().memory_info().rss)
    return replace(summary, began_s=began_s, chunk_s=time.perf_counter() - began), batch
