"""What a search found, as a table, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from ray_rl.bench.machine import this_machine
from ray_rl.config import UserError
from ray_rl.search.gaussian_process import Observations
from ray_rl.search.study import SearchResult
from ray_rl.search.training import Z_95, Outcome
from ray_rl.workflow.orders import N_ORDERS, order_name


def load_truth(path: Path) -> Observations:
    """Read the scores that a search found: those of orders that met its gate.

    Args:
        path: JSON as `to_json` gives it.

    Raises:
        UserError: When it cannot be read or holds something else.
    """
    known = [row for row in read_rows(path) if row["met_gate"]]
    return Observations(
        np.array([row["order"] for row in known], dtype=np.int64),
        np.array([row["score"] for row in known], dtype=np.float64),
        np.array([row["standard_error"] ** 2 for row in known], dtype=np.float64),
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read what a search found of each order, failed ones included; errors as in `load_truth`."""
    needed = {"order", "error", "met_gate", "score", "standard_error", "compliance"}
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["orders"]
        for row in rows:
            if missing := needed - row.keys():
                raise ValueError(f"a row has no {', '.join(sorted(missing))}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--truth {path} holds no scores of a search: {error}") from error
    return rows


def scores_by_order(observed: Observations) -> NDArray[np.float64]:
    """Scores of all orders [120]; NaN where there is none."""
    scores = np.full(N_ORDERS, np.nan)
    scores[observed.orders] = observed.scores
    return scores


def rows_of(result: SearchResult, truth: Observations | None) -> list[dict[str, Any]]:
    """One row per trained order, in the order in which they were asked for."""
    true_scores = None if truth is None else scores_by_order(truth)
    rows = []
    for number, (order, nearest) in enumerate(result.history.asked.items(), 1):
        if order not in result.history.outcomes:
            continue
        outcome = result.history.outcomes[order]
        row: dict[str, Any] = {"number": number, "name": order_name(order), **outcome.to_json()}
        row |= {"met_gate": met_gate(outcome, result), "started_from": nearest}
        if result.belief is not None:
            row |= {
                "posterior_mean": float(result.belief[1].mean[order]),
                "posterior_deviation": float(result.belief[1].deviation[order]),
            }
        if true_scores is not None:
            row["true_score"] = None if math.isnan(true_scores[order]) else float(true_scores[order])
        rows.append(row)
    return rows


def met_gate(outcome: Outcome, result: SearchResult) -> bool:
    """Whether an order was followed well enough for its score to count."""
    return not outcome.error and outcome.compliance >= result.threshold


def to_json(result: SearchResult, truth: Observations | None = None) -> dict[str, Any]:
    """Everything that a search found, as plain JSON values."""
    best = result.history.best(result.threshold)
    belief = None
    if result.belief is not None:
        hyper, known = result.belief
        belief = {**asdict(hyper), "mean": known.mean.tolist(), "deviation": known.deviation.tolist()}
    return {
        "method": result.config.search.method,
        "best": None if best is None else {"name": order_name(best.order), **best.to_json()},
        "episodes": result.history.episodes,
        "seconds": result.seconds,
        "gaps_s": gaps_s(result),
        "orders": rows_of(result, truth),
        "posterior": belief,
        "config": result.config.model_dump(mode="json"),
        "machine": this_machine().to_json(),
    }


def gaps_s(result: SearchResult) -> list[float]:
    """Seconds from the end of one training to the start of the next, where trainings ran one after another."""
    if result.config.search.parallel > 1:
        return []
    over = sorted(result.history.outcomes.values(), key=lambda outcome: outcome.started_at)
    return [round(after.started_at - before.started_at - before.seconds, 3) for before, after in pairwise(over)]


def to_csv(result: SearchResult, truth: Observations | None = None) -> str:
    """One line per trained order."""
    rows = rows_of(result, truth)
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def table(result: SearchResult, truth: Observations | None = None) -> Table:
    """The trained orders, best first; those that did not meet the gate or failed at the end."""
    shown = Table()
    names = ["order", "score", "compliance", "fixes", "episodes", "posterior", *(["truth"] if truth else [])]
    for name in names:
        shown.add_column(name, justify="left" if name == "order" else "right")
    rows = rows_of(result, truth)
    for row in sorted(rows, key=lambda r: (not r["met_gate"], -(r["score"] if r["score"] is not None else -math.inf))):
        if row["error"]:
            shown.add_row(row["name"], f"failed: {row['error'][:60]}", style="red")
            continue
        cells = [
            row["name"],
            f"{row['score']:.2f} ± {Z_95 * row['standard_error']:.2f}",
            f"{row['compliance']:.2f}{'' if row['met_gate'] else ' (below the gate)'}",
            f"{row['fixes']:.1f}",
            str(row["episodes"]),
            f"{row['posterior_mean']:.2f} ± {Z_95 * row['posterior_deviation']:.2f}" if "posterior_mean" in row else "",
        ]
        if truth:
            cells.append("" if row["true_score"] is None else f"{row['true_score']:.2f}")
        shown.add_row(*cells, style=None if row["met_gate"] else "dim")
    return shown
