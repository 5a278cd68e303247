"""One method, measured once: start it, wait until every worker works, then count what it finishes in a time.

Episodes are asked for all at once, and the clock runs while all workers are busy, so that neither the start nor the
tail counts: what is measured is the pace that a long collection has. Only where the episodes run out before the time
does the tail count.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import psutil

from ray_rl.collect.api import ChunkSummary, Collector, PublishCosts
from ray_rl.config import EnvConfig, UserError
from ray_rl.envs.latency_env import LatencyEnv
from ray_rl.episodes import EpisodeRequest, episode_requests
from ray_rl.policy.inference import PolicyWeights
from ray_rl.seeding import Purpose

_WARM_EPISODES = 10
"""Episodes per worker that are queued at a time until every worker has brought one; those left then are counted."""
_WARM_S = 300.0
"""Seconds that the workers have for that."""


@dataclass(frozen=True, slots=True)
class TimeShares:
    """Where the workers' time went, as shares of workers × wall time; together 1.

    Attributes:
        stepping: In the environment. Where one kernel does everything, the whole rollout.
        inference: Picking actions.
        barriers: Waiting for the slowest environment of a step.
        weights: Waiting while the driver writes weights.
        rest: Scheduling, moving episodes, starting and ending unevenly.
    """

    stepping: float
    inference: float
    barriers: float
    weights: float
    rest: float


@dataclass(frozen=True, slots=True)
class MethodRun:
    """One measurement of one method.

    Attributes:
        n_episodes: Episodes that were finished while the clock ran.
        wall_s: Seconds that it ran.
        startup_s: Seconds from nothing to the first finished episodes of every worker.
        pss_bytes: Proportional set size of this process and all that it started.
        ideal_episode_s: Mean seconds that these episodes take where nothing is waited for but the environment; None
            where only the measurement of a single worker tells.
        shares: Where the time went.
        weights_bytes_per_update: Bytes of weights that the driver serialised for one update.
        episode_bytes: Bytes of one episode's data.
        mean_step_s: Synchronous only: mean step of one environment, in seconds; else 0.
        slowest_step_s: Synchronous only: mean of the slowest environment of each step; else 0.
    """

    n_episodes: int
    wall_s: float
    startup_s: float
    pss_bytes: int
    ideal_episode_s: float | None
    shares: TimeShares
    weights_bytes_per_update: float
    episode_bytes: float
    mean_step_s: float
    slowest_step_s: float

    @property
    def episodes_per_s(self) -> float:
        """The figure that counts."""
        return self.n_episodes / self.wall_s


def measure_method(
    method: AbstractContextManager[Collector],
    env: EnvConfig,
    weights: PolicyWeights,
    *,
    n_workers: int,
    n_episodes: int,
    seconds: float,
    n_updates: int,
    seed: int,
) -> MethodRun:
    """Measure one method once.

    Args:
        method: Makes its collector when it is entered, and releases everything at the end.
        env: What the episodes run in.
        weights: What acts in them.
        n_workers: Workers that the method uses (1 for the sequential one).
        n_episodes: Most episodes to run, besides those that warm up.
        seconds: Time to count for, in seconds; shorter when the episodes run out.
        n_updates: Number of times that weights are published meanwhile.
        seed: Decides the episodes; every method gets the same ones, in the same order.
    """
    n_warm = _WARM_EPISODES * n_workers
    requests = episode_requests(
        seed, 0, n_warm + n_episodes, red_agent=env.red_agent, max_steps=env.episode_steps, purpose=Purpose.BENCH
    )
    started = time.perf_counter()
    with method as collector:
        collector.publish(weights, 0)
        _wait_until_all_work(collector, requests[:n_warm], n_workers)
        before = collector.publish_costs
        clock = time.perf_counter()
        collector.submit(requests[n_warm:])  # counts: what finishes while it lasts is counted, too
        summaries: list[ChunkSummary] = []
        wall_s, published = 0.0, 0
        for chunk in collector.completed():
            wall_s = time.perf_counter() - clock
            summaries.append(chunk.summary)
            if published < n_updates and wall_s >= published * seconds / n_updates:
                published += 1
                collector.publish(weights, published)
            if wall_s >= seconds:
                break
        costs = collector.publish_costs
        pss_bytes = tree_pss_bytes()
    ideal_s = _ideal_episode_s(env, requests, summaries)
    return _account(summaries, wall_s, clock - started, pss_bytes, n_workers, ideal_s, before, costs)


def _wait_until_all_work(
    collector: Collector, requests: Sequence[EpisodeRequest], n_workers: int, limit_s: float = _WARM_S
) -> None:
    """Run episodes until every worker has brought one: one that is still loading would count as a slow one.

    Whatever the first ones bring meanwhile, there are always more; what is queued at the end goes on running, so that
    all workers are in the midst of their work when the clock starts.

    Raises:
        UserError: When `limit_s` seconds were not enough.
    """
    seen: set[tuple[str, int]] = set()
    deadline = time.perf_counter() + limit_s
    while (left_s := deadline - time.perf_counter()) > 0:
        collector.submit(requests)
        for chunk in collector.completed(timeout_s=left_s):
            summary = chunk.summary
            seen.add((summary.node, summary.pid))
            if len(seen) >= n_workers or summary.n_together == n_workers:
                return
            if time.perf_counter() > deadline:
                break
    raise UserError(
        f"{len(seen)} of {n_workers} workers brought an episode within {limit_s:.0f} s: ask for fewer workers "
        "or fewer --episode-steps"
    )


def _ideal_episode_s(
    env: EnvConfig, requests: Sequence[EpisodeRequest], summaries: Sequence[ChunkSummary]
) -> float | None:
    """Mean of the finished episodes' own waits, where waiting is all that they do."""
    if env.env != "latency":
        return None
    latency = LatencyEnv(env.latency_mean_s, env.latency_max_s)
    indices = np.concatenate([s.indices for s in summaries]).tolist()
    return float(np.mean([latency.waits_s(requests[index]).sum() for index in indices]))


def _account(
    summaries: Sequence[ChunkSummary],
    wall_s: float,
    startup_s: float,
    pss_bytes: int,
    n_workers: int,
    ideal_episode_s: float | None,
    before: PublishCosts,
    after: PublishCosts,
) -> MethodRun:
    n_episodes = sum(len(s.indices) for s in summaries)
    n_published = after.n_published - before.n_published
    together = [s.n_together for s in summaries]
    busy_s = n_workers * wall_s
    barrier_s = sum(s.barrier_s for s in summaries)
    rollout_s = sum(s.rollout_s * n for s, n in zip(summaries, together, strict=True))
    policy_s = sum(s.policy_s * n for s, n in zip(summaries, together, strict=True))
    stepping_s = rollout_s - policy_s - barrier_s
    weights_s = (after.publish_s - before.publish_s) * n_workers
    known_s = stepping_s + policy_s + barrier_s + weights_s
    n_steps = sum(int(s.lengths.sum()) for s in summaries)
    n_rounds = sum(int(s.lengths.sum()) / n for s, n in zip(summaries, together, strict=True))
    return MethodRun(
        n_episodes=n_episodes,
        wall_s=wall_s,
        startup_s=startup_s,
        pss_bytes=pss_bytes,
        ideal_episode_s=ideal_episode_s,
        shares=TimeShares(
            stepping=stepping_s / busy_s,
            inference=policy_s / busy_s,
            barriers=barrier_s / busy_s,
            weights=weights_s / busy_s,
            rest=max(0.0, 1.0 - known_s / busy_s),
        ),
        weights_bytes_per_update=(after.serialised_bytes - before.serialised_bytes) / n_published,
        episode_bytes=sum(s.n_bytes for s in summaries) / n_episodes,
        mean_step_s=stepping_s / n_steps if barrier_s else 0.0,
        slowest_step_s=(rollout_s - policy_s) / max(together) / n_rounds if barrier_s else 0.0,
    )


def tree_pss_bytes() -> int:
    """Proportional set size of this process and all its descendants, in bytes: shared pages are counted once."""
    me = psutil.Process()
    total = 0
    for process in [me, *me.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total
