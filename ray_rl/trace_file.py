"""A training as a trace that Perfetto and Chrome show: driver, learner and workers, one under the other on one clock.

The file holds an array of events of the Trace Event Format, written as the run goes on. One that a killed run leaves
lacks its last bracket; the viewers open it all the same.

Source of the format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ray_rl.collect.api import ChunkSummary
from ray_rl.config import UserError
from ray_rl.spans import Span
from ray_rl.training_metrics import UpdateReport

_DRIVER = "driver"
_LEARNER = "learner"


class TraceFile:
    """Writes where the time of every update went; a context manager.

    Args:
        path: The file; one that is there is replaced.

    Raises:
        UserError: When it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"cannot write --profile {path}: {error.strerror}; name a file in a folder of yours"
            ) from error
        self._is_empty = True
        self._processes: dict[str, int] = {}
        self._threads: dict[tuple[str, str], int] = {}

    def add(self, report: UpdateReport) -> None:
        """Write what driver, learner and workers did for an update."""
        for span in report.spans:
            self._write_span(_DRIVER if span.who == _DRIVER else _LEARNER, span, {})
        for chunk in report.chunks:
            self._write_chunk(chunk)
        self._file.flush()

    def _write_chunk(self, chunk: ChunkSummary) -> None:
        process = f"worker {chunk.node} {chunk.pid}"
        told = {"episodes": len(chunk.indices), "policy_version": chunk.policy_version, "bytes": chunk.n_bytes}
        self._write_span(process, Span("chunk", process, chunk.began_s, chunk.chunk_s), told)
        self._write_span(process, Span("rollout", process, chunk.began_s, chunk.rollout_s), {})

    def _write_span(self, process: str, span: Span, told: dict[str, Any]) -> None:
        place = {"pid": self._number_of(process), "tid": self._thread_of(process, span.who)}
        times = {"ts": round(1e6 * span.started_s, 1), "dur": round(1e6 * span.duration_s, 1)}
        self._write({"name": span.what, "ph": "X", **times, **place, "args": told})

    def _number_of(self, process: str) -> int:
        """A number for a process, which the viewer shows with its name."""
        if process not in self._processes:
            self._processes[process] = len(self._processes) + 1
            self._name("process_name", process, self._processes[process], 0)
        return self._processes[process]

    def _thread_of(self, process: str, who: str) -> int:
        if (process, who) not in self._threads:
            self._threads[process, who] = len(self._threads) + 1
            self._name("thread_name", who, self._processes[process], self._threads[process, who])
        return self._threads[process, who]

    def _name(self, what: str, name: str, process: int, thread: int) -> None:
        self._write({"name": what, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}})

    def _write(self, event: dict[str, Any]) -> None:
        self._file.write(("[\n" if self._is_empty else ",\n") + json.dumps(event))
        self._is_empty = False

    def close(self) -> None:
        """End the file; safe to call twice."""
        if not self._file.closed:
            self._file.write("[]\n" if self._is_empty else "\n]\n")
            self._file.close()

    def __enter__(self) -> Self:
        """Return the file itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
