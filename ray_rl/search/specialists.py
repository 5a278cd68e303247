"""One policy that follows any order, beside the specialists that an exhaustive search trained: score and compliance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from ray_rl.collect.factory import make_collector
from ray_rl.config import CollectConfig
from ray_rl.evaluate.policies import TrainedPolicy
from ray_rl.evaluate.protocol import CellScore, play_cells, with_workflow
from ray_rl.search.report import read_rows
from ray_rl.search.training import Z_95
from ray_rl.workflow.orders import N_ORDERS, RANDOM_ORDER, order_name


@dataclass(frozen=True, slots=True)
class OrderRow:
    """An order, followed by the one policy and by its specialist.

    Attributes:
        order: Its index.
        name: Its types.
        score: Mean return of the one policy.
        half_width: Of its 95 % interval.
        compliance: Of the one policy, 0…1.
        specialist_score: Mean return of the specialist; None without one.
        specialist_half_width: Of its 95 % interval.
        specialist_compliance: Of the specialist.
    """

    order: int
    name: str
    score: float
    half_width: float
    compliance: float
    specialist_score: float | None = None
    specialist_half_width: float | None = None
    specialist_compliance: float | None = None


def compare_with_specialists(
    policy: TrainedPolicy, truth: Path, *, n_episodes: int, seed: int, greedy: bool = False
) -> list[OrderRow]:
    """Play a policy on every order, and set it beside the specialists.

    Args:
        policy: Follows orders.
        truth: JSON of an exhaustive search; its scores are those of the specialists' own evaluations.
        n_episodes: Episodes of each order, on seeds that training never uses.
        seed: Seed of the evaluation.
        greedy: Take the likeliest action instead of drawing it, as the specialists' evaluations do.

    Raises:
        UserError: When the policy follows no order, or the file holds no search.
    """
    specialists = {row["order"]: row for row in read_rows(truth) if not row["error"]}
    return [
        OrderRow(order, order_name(order), cell.mean, cell.half_width, cell.compliance or 0.0, *_of(specialists, order))
        for order, cell in _play_all(policy, n_episodes, seed, greedy)
    ]


def _play_all(policy: TrainedPolicy, n_episodes: int, seed: int, greedy: bool) -> Iterator[tuple[int, CellScore]]:
    env = with_workflow(policy, policy.env, RANDOM_ORDER)
    with make_collector(CollectConfig(collector="sequential"), env) as collector:
        collector.publish(policy.weights, policy.update)
        for order in range(N_ORDERS):
            (cell,) = play_cells(
                collector,
                seed=seed,
                n_episodes=n_episodes,
                greedy=greedy,
                steps=(env.episode_steps,),
                agents=(env.red_agent,),
                order=order,
            )
            yield order, cell


def _of(specialists: dict[int, dict[str, Any]], order: int) -> tuple[float, float, float] | tuple[()]:
    row = specialists.get(order)
    return () if row is None else (row["score"], Z_95 * row["standard_error"], row["compliance"])


def summary(rows: list[OrderRow], threshold: float) -> dict[str, float]:
    """What the rows say together.

    Args:
        rows: One per order.
        threshold: Compliance that counts as following.
    """
    found = {
        "orders": float(len(rows)),
        "orders_followed": float(sum(row.compliance >= threshold for row in rows)),
        "least_compliance": min(row.compliance for row in rows),
        "mean_compliance": float(np.mean([row.compliance for row in rows])),
        "mean_score": float(np.mean([row.score for row in rows])),
    }
    trained = [row for row in rows if row.specialist_score is not None]
    if trained:
        compliance = [row.specialist_compliance or 0.0 for row in trained]
        found |= {
            "specialists": float(len(trained)),
            "specialists_followed": float(sum(value >= threshold for value in compliance)),
            "specialists_mean_compliance": float(np.mean(compliance)),
            "specialists_mean_score": float(np.mean([row.specialist_score for row in trained if row.specialist_score])),
        }
    return found


def to_json(rows: list[OrderRow], threshold: float) -> dict[str, Any]:
    """Everything as plain JSON values."""
    return {"threshold": threshold, "summary": summary(rows, threshold), "orders": [asdict(row) for row in rows]}


def table(rows: list[OrderRow]) -> Table:
    """One row per order, the specialists' best first."""
    shown = Table()
    shown.add_column("order")
    for name in ("score", "compliance", "specialist's score", "its compliance"):
        shown.add_column(name, justify="right")
    for row in sorted(rows, key=lambda row: -(row.score if row.specialist_score is None else row.specialist_score)):
        own = ["–", "–"]
        if row.specialist_score is not None:
            own = [f"{row.specialist_score:.2f} ± {row.specialist_half_width:.2f}", f"{row.specialist_compliance:.3f}"]
        shown.add_row(row.name, f"{row.score:.2f} ± {row.half_width:.2f}", f"{row.compliance:.3f}", *own)
    return shown
