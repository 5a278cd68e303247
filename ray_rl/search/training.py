"""One training of a search: an order in, what came of it out."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

from ray_rl.config import TrainConfig, UserError
from ray_rl.episodes import EpisodeError
from ray_rl.failures import RunError
from ray_rl.storage import Location
from ray_rl.trainer import train_silently

Z_95 = 1.96
"""Half widths of intervals are this many standard errors."""
_EXPLAINED = (UserError, EpisodeError, RunError)
"""Errors that say themselves what happened."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of training an order.

    Attributes:
        order: Its index.
        error: Why it failed; empty when it did not.
        score: Mean return of its evaluation, of the environment's reward alone.
        standard_error: Of that mean.
        compliance: Mean compliance of its evaluation.
        fixes: Mean number of fixes of its evaluation.
        episodes: Training episodes.
        seconds: Duration, evaluation included.
        started_at: When it started, in seconds since 1970.
    """

    order: int
    error: str = ""
    score: float = float("nan")
    standard_error: float = float("nan")
    compliance: float = float("nan")
    fixes: float = float("nan")
    episodes: int = 0
    seconds: float = 0.0
    started_at: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; numbers that a failed training lacks are null."""
        return {name: None if value != value else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Outcome:
        """The inverse of `to_json`."""
        known: dict[str, Any] = {name: float("nan") if value is None else value for name, value in values.items()}
        return cls(**known)


def train_order(order: int, config: TrainConfig) -> Outcome:
    """Train an order; whatever goes wrong in it becomes part of the outcome.

    Args:
        order: Its index.
        config: Its training.
    """
    started_at, started = time.time(), time.perf_counter()
    try:
        run_dir = train_silently(config)
        found = _last_evaluation(run_dir)
    except Exception as error:  # whatever it is, the other orders can still be trained
        lines = str(error).splitlines() or [""]
        cause = lines[0] if isinstance(error, _EXPLAINED) else f"{type(error).__name__}: {lines[0]}"
        return Outcome(order, error=cause, seconds=time.perf_counter() - started, started_at=started_at)
    return Outcome(
        order,
        score=found["eval/return_mean"],
        standard_error=found["eval/return_half_width"] / Z_95,
        compliance=found["eval/compliance"],
        fixes=found["eval/fixes"],
        episodes=int(found["episodes"]),
        seconds=time.perf_counter() - started,
        started_at=started_at,
    )


def _last_evaluation(run_dir: Location) -> dict[str, float]:
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    found: dict[str, float] = next(row for row in reversed(rows) if "eval/return_mean" in row)
    return found
