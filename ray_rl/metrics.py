"""Names of everything a run logs, with meaning and unit. One table: what is not in it cannot be logged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ray_rl.config import suggest
from ray_rl.episodes import RED_AGENTS


class Metric(NamedTuple):
    """A logged quantity."""

    meaning: str
    unit: str


def _returns(group: str, what: str) -> dict[str, Metric]:
    named = {
        f"{group}/return_mean": Metric(f"mean return of the {what}", "reward"),
        f"{group}/return_min": Metric("smallest of them", "reward"),
        f"{group}/return_max": Metric("largest of them", "reward"),
    }
    for name in RED_AGENTS:
        named[f"{group}/return_mean/{name}"] = Metric(f"mean return of the {what} against {name}", "reward")
    return named


def _alignments(group: str, what: str) -> dict[str, Metric]:
    return {
        f"{group}/compliance": Metric(f"mean share of fixes that followed the order of repair, of the {what}", "0…1"),
        f"{group}/fixes": Metric("their mean number of fixes (Remove, Restore)", ""),
        f"{group}/alignment_return_mean": Metric("their mean return for following the order alone", "reward"),
        f"{group}/total_return_mean": Metric("their mean return, environment and alignment together", "reward"),
    }


METRICS: dict[str, Metric] = {
    **_returns("rollout", "episodes of an update"),
    **_alignments("rollout", "episodes of an update"),
    "rollout/episode_length": Metric("mean length of the episodes of an update", "steps"),
    **_returns("eval", "evaluation episodes, played greedily on seeds that training never uses"),
    **_alignments("eval", "evaluation episodes"),
    "eval/return_half_width": Metric("half the width of the 95 % interval of their mean", "reward"),
    "eval/protocol_total": Metric("their returns over 30, 50 and 100 steps, summed over lengths and agents", "reward"),
    "eval/protocol_half_width": Metric("half the width of its 95 % interval", "reward"),
    "train/policy_loss": Metric("clipped surrogate objective, negated", ""),
    "train/value_loss": Metric("squared error of the critic, on normalised returns", ""),
    "train/entropy": Metric("mean entropy of the policy over the allowed actions", "nats"),
    "train/approx_kl": Metric("KL divergence from the policy before the update, in the last epoch", "nats"),
    "train/clip_fraction": Metric("share of steps outside the clip range, in the last epoch", "0…1"),
    "train/explained_variance": Metric("share of the variance of returns that the critic explained", "…1"),
    "train/first_ratio_deviation": Metric("largest |ratio - 1| in the first minibatch; exactly 0 if all is well", ""),
    "train/learning_rate": Metric("step size of Adam", ""),
    "train/entropy_coefficient": Metric("weight of the entropy bonus", ""),
    "train/actor_gradient_norm": Metric("norm of the actor's gradient before clipping", ""),
    "train/critic_gradient_norm": Metric("norm of the critic's gradient before clipping", ""),
    "train/epochs": Metric("passes over the batch; fewer than configured when target_kl ended them", ""),
    "staleness/mean": Metric("updates that the policy of an episode lay behind the learner, mean", "updates"),
    "staleness/max": Metric("the same, largest", "updates"),
    "time/episodes_per_s": Metric("episodes learned from per second of wall time", "1/s"),
    "time/env_steps_per_s": Metric("environment steps learned from per second of wall time", "1/s"),
    "time/update_s": Metric("duration of an update, from publishing to learning", "s"),
    "time/share_collecting": Metric("share of it in which the driver waited for episodes", "0…1"),
    "time/share_learning": Metric("share of it in which the driver waited for the learner", "0…1"),
    "time/share_other": Metric("the rest of it: publishing, recording", "0…1"),
    "time/rollout_s": Metric("time that workers spent running the episodes, added up", "s"),
    "data/bytes_per_update": Metric("episode data that went from workers to the learner", "bytes"),
    "data/bytes_per_step": Metric("the same, per environment step", "bytes"),
    "data/chunks": Metric("chunks that brought the episodes", ""),
    "data/first_episode": Metric("smallest index of the episodes that the learner consumed, each once", ""),
    "data/last_episode": Metric("largest index of them", ""),
    "data/replaced_episodes": Metric(
        "episodes so far whose environment failed twice and that another took the place of", ""
    ),
    "data/hosts": Metric("machines on which episodes ran", ""),
    "data/workers": Metric("worker processes that ran them", ""),
    "search/score": Metric("mean return of an order's evaluation, the environment's reward alone", "reward"),
    "search/compliance": Metric("mean compliance of that evaluation", "0…1"),
    "search/best_score": Metric("best score so far of an order that met the gate", "reward"),
    "search/orders": Metric("orders trained so far", ""),
    "search/seconds": Metric("duration of an order's training", "s"),
    "memory/worker_rss_bytes": Metric("resident memory of the largest worker", "bytes"),
}


def check_names(names: Iterable[str]) -> None:
    """Refuse names that are not in `METRICS`.

    Raises:
        KeyError: Names the first one, and the nearest known.
    """
    for name in names:
        if name not in METRICS:
            raise KeyError(f"unknown metric {name!r}{suggest(name, METRICS)}")


def reference_table() -> str:
    """The table in Markdown, for the documentation."""
    lines = ["| metric | meaning | unit |", "|---|---|---|"]
    lines += [f"| `{name}` | {metric.meaning} | {metric.unit} |" for name, metric in METRICS.items()]
    return "\n".join(lines) + "\n"
