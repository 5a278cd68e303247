"""Where the time of an update went, second by second, on the clock of the driver that everything else waits for.

What happens beside it (workers that roll while the learner works, the shorter of the learner's two threads, the driver
while the learner is ahead) costs no time of its own and is left out, so that the parts add up to the update.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ray_rl.spans import Span
from ray_rl.training_metrics import UpdateReport

PARTS = {
    "publishing": "weights to the object store, tasks sent",
    "stepping": "the simulator, at the pace that it has alone",
    "inference": "the rest of the rollout: view, mask, network, bits packed",
    "packing": "a worker's chunk summed up",
    "waiting": "for episodes, while fewer workers had any: tasks on their way, the last chunk",
    "transport": "the learner called, episodes fetched by it, its state brought back",
    "unpacking": "chunks joined, masks derived, equal rows found",
    "GAE": "values of all rows, advantages",
    "forward": "networks; the longer of the learner's two threads, as are the following",
    "backward": "gradients through the networks",
    "optimiser": "gradients scaled down, Adam",
    "loss": "the rest of the passes: minibatches cut, losses and their gradients",
    "logging": "metrics, TensorBoard, screen",
    "checkpointing": "checkpoints written",
    "other": "everything else",
}
"""Part of an update, and what it holds."""

_PASSES = ("forward", "backward", "optimiser")


def account(reports: Sequence[UpdateReport], n_workers: int, step_s: float) -> dict[str, float]:
    """Mean seconds of an update by part; together they are the mean duration of an update.

    Args:
        reports: Of one or more updates.
        n_workers: Workers that shared the episodes.
        step_s: Seconds that a step of the simulator takes alone.
    """
    totals = dict.fromkeys(PARTS, 0.0)
    for report in reports:
        for part, seconds in _account_of(report, n_workers, step_s).items():
            totals[part] += seconds / len(reports)
    return totals


def _account_of(report: UpdateReport, n_workers: int, step_s: float) -> dict[str, float]:
    seconds = _by_name(report.spans)
    driver, learner = seconds["driver"], seconds["learner"]
    passes = max(seconds["actor"], seconds["critic"], key=lambda spans: sum(spans.values()))
    epochs_s = min(sum(passes[name] for name in _PASSES), learner["epochs"])
    learner_s = sum(learner.values())
    ahead_s = max(0.0, learner_s - driver["learn"])
    for what in ("publish", "collect", "record", "checkpoint"):  # while the learner was ahead they cost nothing
        driver[what] *= max(0.0, 1 - ahead_s / (report.total_s - driver["learn"]))

    collect_s = driver["collect"]
    chunks_s = sum(chunk.chunk_s for chunk in report.chunks) / n_workers
    waited_for = min(1.0, collect_s / chunks_s) if chunks_s else 0.0
    rollout_s = waited_for * sum(chunk.rollout_s for chunk in report.chunks) / n_workers
    n_steps = sum(int(chunk.lengths.sum()) for chunk in report.chunks)
    stepping_s = min(waited_for * n_steps * step_s / n_workers, rollout_s)

    parts = {
        "publishing": driver["publish"],
        "stepping": stepping_s,
        "inference": rollout_s - stepping_s,
        "packing": waited_for * chunks_s - rollout_s,
        "waiting": collect_s - waited_for * chunks_s,
        "transport": max(0.0, driver["learn"] - learner_s) + learner["fetch"],
        "unpacking": learner["join"] + learner["unpack"],
        "GAE": learner["advantages"],
        **{name: passes[name] for name in _PASSES},
        "loss": learner["epochs"] - epochs_s,
        "logging": driver["record"] - driver["checkpoint"],
        "checkpointing": driver["checkpoint"],
    }
    return {**parts, "other": report.total_s - sum(parts.values())}


def _by_name(spans: Sequence[Span]) -> dict[str, dict[str, float]]:
    """Seconds by who spent them on what."""
    seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for span in spans:
        seconds[span.who][span.what] += span.duration_s
    return seconds
