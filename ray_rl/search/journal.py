"""What a search did so far, written down line by line, so that it goes on exactly where it was stopped."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import yaml

from ray_rl.config import UserError
from ray_rl.failures import RunError
from ray_rl.search.config import SearchRun
from ray_rl.search.gaussian_process import Observations
from ray_rl.search.training import Outcome

_CONFIG = "search.yaml"
_JOURNAL = "journal.jsonl"
_LOCK = ".search.lock"
_MAY_CHANGE = {
    "collector",
    "n_workers",
    "address",
    "watchdog_s",
    "parallel",
    "budget_episodes",
    "max_orders",
    "truth",
    "json_file",
    "run_dir",
    "resume",
    "cyborg_path",
}
"""Fields that neither the trainings nor the choice among them depend on; a larger budget continues a search."""


@dataclass(slots=True)
class History:
    """What is known of a search.

    Attributes:
        asked: Orders whose training was started, in that order, with the order whose networks it started from.
        outcomes: What came of those that are over, by order.
    """

    asked: dict[int, int | None] = field(default_factory=dict)
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    @property
    def pending(self) -> list[int]:
        """Orders whose training is under way."""
        return [order for order in self.asked if order not in self.outcomes]

    def succeeded(self) -> list[Outcome]:
        """Outcomes of trainings that did not fail, in the order in which they were asked for."""
        return [self.outcomes[o] for o in self.asked if o in self.outcomes and not self.outcomes[o].error]

    def informative(self, threshold: float) -> list[Outcome]:
        """Those whose order was followed well enough for their score to count."""
        return [outcome for outcome in self.succeeded() if outcome.compliance >= threshold]

    def observations(self, threshold: float) -> Observations:
        """Their scores, for the Gaussian process."""
        known = self.informative(threshold)
        return Observations(
            np.array([o.order for o in known], dtype=np.int64),
            np.array([o.score for o in known], dtype=np.float64),
            np.array([o.standard_error**2 for o in known], dtype=np.float64),
        )

    def best(self, threshold: float) -> Outcome | None:
        """The outcome with the greatest score among those that count."""
        return max(self.informative(threshold), key=lambda outcome: outcome.score, default=None)

    @property
    def episodes(self) -> int:
        """Training episodes of the trainings that are over."""
        return sum(outcome.episodes for outcome in self.outcomes.values())


class Journal:
    """The folder of a search, open for writing.

    Args:
        path: The folder.
        history: What was done in it so far.
        lock: The open lock file; closing it gives the folder free.
    """

    def __init__(self, path: Path, history: History, lock: IO[str]) -> None:
        self.path = path
        self.history = history
        self._lock = lock
        self._lines = (path / _JOURNAL).open("a", encoding="utf-8")

    @classmethod
    def open(cls, config: SearchRun, path: Path) -> Journal:
        """Start a search in a new folder, or take one up again.

        Raises:
            UserError: When the folder holds another search or something else, is in use, or cannot be written.
        """
        _check_use(config, path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = (path / _LOCK).open("a", encoding="utf-8")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"{path} is in use by another search: wait for it, or choose another folder") from error
            history = _read(path / _JOURNAL)
            (path / _CONFIG).write_text(config.to_yaml(), encoding="utf-8")
            return cls(path, history, lock)
        except OSError as error:
            raise UserError(f"cannot write to --run-dir {path}: {error.strerror}; choose another folder") from error

    def ask(self, order: int, nearest: int | None) -> None:
        """Note that a training starts.

        Args:
            order: Its order.
            nearest: The order whose networks it starts from, if any.
        """
        self._write({"asked": order, "nearest": nearest})
        self.history.asked[order] = nearest

    def finish(self, outcome: Outcome) -> None:
        """Note what came of a training."""
        self._write({"outcome": outcome.to_json()})
        self.history.outcomes[outcome.order] = outcome

    def _write(self, line: dict[str, Any]) -> None:
        try:
            self._lines.write(json.dumps(line) + "\n")
            self._lines.flush()
            os.fsync(self._lines.fileno())
        except OSError as error:
            raise RunError(
                f"cannot write to {self.path}: {error.strerror}; what was written before is whole. Free some space, "
                f"then go on with --run-dir {self.path} --resume"
            ) from error

    def __enter__(self) -> Self:
        """Return the journal itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self._lines.close()
        self._lock.close()


def _check_use(config: SearchRun, path: Path) -> None:
    stored = path / _CONFIG
    if not stored.exists():
        if config.run.resume is True:
            raise UserError(f"--resume: {path} holds no search; name the folder of one with --run-dir")
        if path.is_dir() and any(p.name != _LOCK for p in path.iterdir()):
            raise UserError(f"--run-dir {path} is not empty and holds no search: choose another folder")
        return
    if not config.run.resume:
        raise UserError(f"{path} holds a search already: add --resume to go on with it, or choose another --run-dir")
    before, now = _flat(stored.read_text(encoding="utf-8"), stored), _flat(config.to_yaml(), stored)
    for name, value in now.items():
        if name not in _MAY_CHANGE and before.get(name, value) != value:
            raise UserError(
                f"--resume: the search in {path} has {name} = {before[name]}, now it is {value}: resume with the same "
                "value, or start another search"
            )


def _flat(text: str, source: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        values = None
    if not isinstance(values, dict):
        raise UserError(f"{source} holds no configuration: it is damaged, start another search")
    return values


def _read(path: Path) -> History:
    """Read a journal; a last line that a crash cut off is removed.

    Raises:
        UserError: When a line before the last cannot be read.
    """
    history = History()
    if not path.exists():
        return history
    whole = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            _take(json.loads(line), history)
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise UserError(f"{path} is damaged in line {number}: mend it, or start another search") from error
            break
        whole.append(line)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(line + "\n" for line in whole), encoding="utf-8")
    temporary.replace(path)
    return history


def _take(entry: dict[str, Any], history: History) -> None:
    if "asked" in entry:
        history.asked[int(entry["asked"])] = entry["nearest"]
    else:
        outcome = Outcome.from_json(entry["outcome"])
        history.outcomes[outcome.order] = outcome
