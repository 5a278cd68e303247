"""One method, measured once: start it, let every worker warm up, time its episodes, account for every second."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from ray_rl.collect.api import ChunkSummary, Collector, PublishCosts
from ray_rl.collect.factory import make_collector
from ray_rl.config import CollectConfig, EnvConfig
from ray_rl.episodes import EpisodeRequest, episode_requests
from ray_rl.policy.inference import PolicyWeights
from ray_rl.seeding import Purpose


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
        n_episodes: Episodes timed.
        wall_s: Seconds from the first publication to the last chunk.
        startup_s: Seconds from nothing to the first finished episode of every worker.
        pss_bytes: Proportional set size of this process and all that it started.
        episode_s: Mean seconds that one episode takes a worker that never waits.
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
    episode_s: float
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
    collect: CollectConfig,
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

    A short pilot tells how many of the episodes fit the time; slow methods run the first of them only.

    Args:
        collect: The method and its workers.
        env: What the episodes run in.
        weights: What acts in them.
        n_workers: Workers that the method uses (1 for the sequential one).
        n_episodes: Most episodes to time, all updates together.
        seconds: Aim for the duration of the measurement.
        n_updates: Number of times that weights are published meanwhile.
        seed: Decides the episodes; every method gets the same ones.
    """
    started = time.perf_counter()
    with make_collector(collect, env) as collector:
        collector.publish(weights, 0)
        _drain(collector, _requests(env, seed, 0, n_workers))
        startup_s = time.perf_counter() - started
        pilot = time.perf_counter()
        _drain(collector, _requests(env, seed, n_workers, 2 * n_workers))
        affordable = 2 * n_workers * seconds / (time.perf_counter() - pilot)
        n_episodes = min(n_episodes, max(2 * n_workers, round(affordable / n_workers) * n_workers))
        pss_bytes = tree_pss_bytes()
        costs_before = collector.publish_costs
        per_update = -(-n_episodes // n_updates)
        summaries: list[ChunkSummary] = []
        clock = time.perf_counter()
        for update in range(n_updates):
            first = update * per_update
            count = min(per_update, n_episodes - first)
            collector.publish(weights, update + 1)
            summaries += _drain(collector, _requests(env, seed, 3 * n_workers + first, count))
        wall_s = time.perf_counter() - clock
        costs = collector.publish_costs
    return _account(summaries, wall_s, startup_s, pss_bytes, n_workers, costs_before, costs)


def _account(
    summaries: Sequence[ChunkSummary],
    wall_s: float,
    startup_s: float,
    pss_bytes: int,
    n_workers: int,
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
    shares = TimeShares(
        stepping=stepping_s / busy_s,
        inference=policy_s / busy_s,
        barriers=barrier_s / busy_s,
        weights=weights_s / busy_s,
        rest=max(0.0, 1.0 - known_s / busy_s),
    )
    n_steps = sum(int(s.lengths.sum()) for s in summaries)
    n_rounds = sum(int(s.lengths.sum()) / n for s, n in zip(summaries, together, strict=True))
    mean_step_s = stepping_s / n_steps if barrier_s else 0.0
    return MethodRun(
        n_episodes=n_episodes,
        wall_s=wall_s,
        startup_s=startup_s,
        pss_bytes=pss_bytes,
        episode_s=(stepping_s + policy_s / max(together)) / n_episodes,
        shares=shares,
        weights_bytes_per_update=(after.serialised_bytes - before.serialised_bytes) / n_published,
        episode_bytes=sum(s.n_bytes for s in summaries) / n_episodes,
        mean_step_s=mean_step_s,
        slowest_step_s=(rollout_s - policy_s) / max(together) / n_rounds if barrier_s else 0.0,
    )


def _requests(env: EnvConfig, seed: int, first: int, count: int) -> list[EpisodeRequest]:
    return episode_requests(
        seed, first, count, red_agent=env.red_agent, max_steps=env.episode_steps, purpose=Purpose.BENCH
    )


def _drain(collector: Collector, requests: list[EpisodeRequest]) -> list[ChunkSummary]:
    collector.submit(requests)
    return [chunk.summary for chunk in collector.completed()]


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
