"""A search in TensorBoard: scores over the training episodes spent."""

from __future__ import annotations

import math
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from ray_rl.metrics import check_names
from ray_rl.search.journal import History
from ray_rl.search.training import Outcome


class Board:
    """Writes events to a search's folder.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self._events = EventFileWriter(str(path))

    def record(self, outcome: Outcome, history: History, threshold: float) -> None:
        """Note an outcome.

        Args:
            outcome: What came of a training.
            history: All outcomes, this one included.
            threshold: Compliance from which on a score counts.
        """
        best = history.best(threshold)
        values = {
            "search/score": outcome.score,
            "search/compliance": outcome.compliance,
            "search/best_score": math.nan if best is None else best.score,
            "search/orders": float(len(history.outcomes)),
            "search/seconds": outcome.seconds,
        }
        check_names(values)
        summary = Summary(
            value=[Summary.Value(tag=tag, simple_value=v) for tag, v in values.items() if math.isfinite(v)]
        )
        self._events.add_event(Event(wall_time=time.time(), step=history.episodes, summary=summary))

    def __enter__(self) -> Self:
        """Return the board itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file."""
        self._events.close()
