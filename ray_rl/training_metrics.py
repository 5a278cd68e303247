"""Turns what an update returned into named metrics; the names and their meaning are in `ray_rl.metrics`."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ray_rl.collect.api import ChunkSummary
from ray_rl.episodes import RED_AGENTS
from ray_rl.ppo.api import UpdateStats
from ray_rl.spans import Span, Spans


class Stopwatch(Spans):
    """Measures the parts of one update, in seconds."""

    def __init__(self) -> None:
        super().__init__("driver")
        self._started = time.monotonic()

    @property
    def parts_s(self) -> dict[str, float]:
        """Seconds spent on each part so far."""
        parts_s: dict[str, float] = {}
        for span in self.taken():
            parts_s[span.what] = parts_s.get(span.what, 0.0) + span.duration_s
        return parts_s

    @property
    def total_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """Where the time of one update went.

    Attributes:
        total_s: Seconds from publishing to the end of recording.
        spans: What driver and learner did.
        chunks: Of the episodes that it learned from.
    """

    total_s: float
    spans: tuple[Span, ...]
    chunks: tuple[ChunkSummary, ...]


def update_metrics(summaries: Sequence[ChunkSummary], stats: UpdateStats, watch: Stopwatch) -> dict[str, float]:
    """Metrics of one update.

    Args:
        summaries: Of the chunks that it learned from.
        stats: What the learner says of it.
        watch: Its parts ``publish``, ``collect`` and ``learn``; the rest of its time counts as other.
    """
    total_s = watch.total_s
    parts = watch.parts_s
    n_bytes = sum(s.n_bytes for s in summaries)
    return {
        **return_metrics("rollout", summaries),
        "rollout/episode_length": float(np.mean(np.concatenate([s.lengths for s in summaries]))),
        "train/policy_loss": stats.policy_loss,
        "train/value_loss": stats.value_loss,
        "train/entropy": stats.entropy,
        "train/approx_kl": stats.approx_kl,
        "train/clip_fraction": stats.clip_fraction,
        "train/explained_variance": stats.explained_variance,
        "train/learning_rate": stats.learning_rate,
        "train/entropy_coefficient": stats.entropy_coefficient,
        "train/actor_gradient_norm": stats.actor_gradient_norm,
        "train/critic_gradient_norm": stats.critic_gradient_norm,
        "train/epochs": float(stats.epochs),
        "staleness/mean": stats.staleness_mean,
        "staleness/max": float(stats.staleness_max),
        "time/episodes_per_s": stats.n_episodes / total_s,
        "time/env_steps_per_s": stats.n_steps / total_s,
        "time/update_s": total_s,
        "time/share_collecting": parts["collect"] / total_s,
        "time/share_learning": parts["learn"] / total_s,
        "time/share_other": max(0.0, 1.0 - (parts["collect"] + parts["learn"]) / total_s),
        "time/rollout_s": sum(s.rollout_s for s in summaries),
        "data/bytes_per_update": float(n_bytes),
        "data/bytes_per_step": n_bytes / stats.n_steps,
        "data/chunks": float(len(summaries)),
        "data/first_episode": float(stats.first_episode),
        "data/last_episode": float(stats.last_episode),
        "data/hosts": float(len({s.node for s in summaries})),
        "data/workers": float(len({(s.node, s.pid) for s in summaries})),
        "memory/worker_rss_bytes": float(max(s.worker_rss_bytes for s in summaries)),
    }


def evaluation_metrics(summaries: Sequence[ChunkSummary], protocol: bool) -> dict[str, float]:
    """Metrics of one evaluation during training.

    Args:
        summaries: Of all its chunks.
        protocol: Whether the episodes are as long as the protocol's longest, so that its total can be told.
    """
    returns = np.concatenate([s.returns for s in summaries])
    half_width = 1.96 * float(returns.std(ddof=1)) / math.sqrt(len(returns)) if len(returns) > 1 else math.nan
    metrics = {**return_metrics("eval", summaries), "eval/return_half_width": half_width}
    if protocol:
        totals = np.concatenate([s.protocol_returns for s in summaries])
        red_agents = np.concatenate([s.extras["red_agent"] for s in summaries])
        by_agent = [totals[red_agents == number] for number in np.unique(red_agents)]
        variance = sum(theirs.var(ddof=1) / len(theirs) if len(theirs) > 1 else math.nan for theirs in by_agent)
        metrics["eval/protocol_total"] = float(sum(theirs.mean() for theirs in by_agent))
        metrics["eval/protocol_half_width"] = 1.96 * math.sqrt(variance)
    return metrics


def return_metrics(group: str, summaries: Sequence[ChunkSummary]) -> dict[str, float]:
    """Mean return over all episodes, and over those of each red agent that took part.

    Args:
        group: First part of the names, ``rollout`` or ``eval``.
        summaries: Of the chunks.
    """
    returns = np.concatenate([s.returns for s in summaries])
    red_agents = np.concatenate([s.extras["red_agent"] for s in summaries])
    metrics = {
        f"{group}/return_mean": float(returns.mean()),
        f"{group}/return_min": float(returns.min()),
        f"{group}/return_max": float(returns.max()),
    }
    for number, name in enumerate(RED_AGENTS):
        theirs = returns[red_agents == number]
        if len(theirs):
            metrics[f"{group}/return_mean/{name}"] = float(theirs.mean())
    if all("compliance" in s.extras for s in summaries):
        metrics |= alignment_metrics(group, summaries)
    return metrics


def alignment_metrics(group: str, summaries: Sequence[ChunkSummary]) -> dict[str, float]:
    """How the episodes followed their orders of repair, and what the learner earned in all.

    Args:
        group: First part of the names, ``rollout`` or ``eval``.
        summaries: Of chunks whose episodes were asked to follow orders.
    """
    alignment = np.concatenate([s.extras["alignment_return"] for s in summaries])
    total = np.concatenate([s.returns for s in summaries]) + alignment
    return {
        f"{group}/alignment_return_mean": float(alignment.mean()),
        f"{group}/total_return_mean": float(total.mean()),
        f"{group}/compliance": float(np.concatenate([s.extras["compliance"] for s in summaries]).mean()),
        f"{group}/fixes": float(np.concatenate([s.extras["fixes"] for s in summaries]).mean()),
    }
