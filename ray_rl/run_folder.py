"""A run is a folder: configuration, metrics, TensorBoard events and checkpoints, and a lock while somebody writes.

In a remote storage the lock is a lease, and metrics and events are copies of files that grow on this machine. They are
sent before each checkpoint: a run that goes on from it finds all rows up to there.

TensorBoard's files are written with its own event writer; nothing here needs torch or tensorflow.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from ray_rl.checkpoint import Checkpoint, checkpoints_in, save_checkpoint
from ray_rl.config import TrainConfig, UserError, load_yaml
from ray_rl.failures import RunError
from ray_rl.lease import Lease, is_lease
from ray_rl.metrics import check_names
from ray_rl.mirror import Mirror
from ray_rl.storage import Location, check_writable, is_remote, location, storage_errors, write_whole

if TYPE_CHECKING:
    from upath import UPath

_CONFIG = "config.yaml"
_METRICS = "metrics.jsonl"
_LOCK = ".lock"
CHECKPOINTS = "checkpoints"
"""Subfolder of a run's checkpoints."""

_MAY_CHANGE_ON_RESUME = {
    "collector",
    "n_workers",
    "episodes_per_chunk",
    "watchdog_s",
    "autoscale_cpus",
    "max_failed_episodes",
    "address",
    "cyborg_path",
    "evaluate_every",
    "evaluate_episodes",
    "run_dir",
    "resume",
    "checkpoint_every",
    "keep_checkpoints",
    "profile",
}
"""Fields that do not change what is learned; all others must be as they were."""


def check_run_folder(config: TrainConfig) -> None:
    """Look whether the run's folder can be used, and leave it as it is.

    Raises:
        UserError: As `RunFolder.open` does.
    """
    if config.run.run_dir is None:
        if config.run.resume:
            raise UserError("--resume needs --run-dir: name the folder of the run to go on with")
        return
    path = location(config.run.run_dir)
    try:
        with storage_errors():
            if path.exists():
                _check_use(path, config)
            elif config.run.resume is True:
                raise UserError(f"--resume: {path} does not exist; name the folder of a run with --run-dir")
        if is_remote(path):
            check_writable(path)
        elif (path / _LOCK).exists():
            _take_lock(path).close()
    except OSError as error:
        raise UserError(f"cannot use --run-dir {path}: {_reason(error)}; {_remedy(path)}") from error


class RunFolder:
    """The folder of a run, open for writing.

    Args:
        path: The folder, locked by `open`.
        config: The run.
        lock: The open lock file, or the lease; closing it gives the folder free.
        resumed: Whether the run goes on in a folder that it already used.

    Attributes:
        path: The folder.
        checkpoints: Its folder of checkpoints.
    """

    def __init__(self, path: Location, config: TrainConfig, lock: IO[str] | Lease, resumed: bool) -> None:
        self.path = path
        self.checkpoints = path / CHECKPOINTS
        self._config = config
        self._lock = lock
        self._copied_from: tempfile.TemporaryDirectory[str] | None = None
        self._mirror: Mirror | None = None
        if is_remote(path):
            assert isinstance(lock, Lease)
            self._copied_from = tempfile.TemporaryDirectory(prefix="ray-rl-run-", ignore_cleanup_errors=True)
            self._here = Path(self._copied_from.name)
            if resumed:
                _fetch(path / _METRICS, self._here / _METRICS)
            self._mirror = Mirror(self._here, path, lock.check)
        else:
            self._here = path
        self._metrics = (self._here / _METRICS).open("a", encoding="utf-8", buffering=1)
        self._events = EventFileWriter(str(self._here))
        if not resumed:
            self._write_config_to_tensorboard()

    @classmethod
    def open(cls, config: TrainConfig, say: Callable[[str], None] = print) -> RunFolder:
        """Make the run's folder, or take it up again for a resumed run.

        Args:
            config: The run.
            say: Told when one has to wait for the folder.

        Raises:
            UserError: When the folder is in use, used before, cannot be written, or belongs to another configuration.
        """
        path = location(config.run.run_dir or Path("runs") / _default_name(config))
        found = True
        try:
            found = is_remote(path) or path.exists()
            lock = Lease.take(path, say) if is_remote(path) else _lock_folder(path)
        except OSError as error:
            _leave_as_found(path, found)
            raise UserError(f"cannot write to --run-dir {path}: {_reason(error)}; {_remedy(path)}") from error
        try:
            with storage_errors():
                _check_use(path, config)
                used = (path / _CONFIG).exists()
                write_whole(path / _CONFIG, config.to_yaml().encode())
                return cls(path, config, lock, used)
        except OSError as error:
            lock.close()
            _leave_as_found(path, found)
            raise UserError(f"cannot write to --run-dir {path}: {_reason(error)}; {_remedy(path)}") from error
        except BaseException:
            lock.close()
            raise

    def save(self, checkpoint: Checkpoint, keep: int) -> None:
        """Write a checkpoint whole, with all that was recorded before it; remove the oldest beyond `keep`.

        Raises:
            OSError: When it cannot be written; older checkpoints are untouched then.
            RunError: When another process has taken the folder over.
        """
        if self._mirror is None:
            save_checkpoint(self.checkpoints, checkpoint, keep)
            return
        self._events.flush()
        self._mirror.send()
        with storage_errors():
            save_checkpoint(self.checkpoints, checkpoint, keep)

    def trouble(self, error: OSError) -> str:
        """What a user is told when the folder cannot be written to any more: what is saved, and how to go on."""
        try:
            with storage_errors():
                saved = checkpoints_in(self.checkpoints)
            last = f"{saved[-1]} is whole" if saved else "no checkpoint was written yet"
        except OSError:
            last = "its last checkpoint is whole"
        remedy = "See that the storage answers" if is_remote(self.path) else "Free some space"
        return (
            f"cannot write to {self.path}: {_reason(error)}; {last}. {remedy}, then go on with "
            f"--run-dir {self.path} --resume"
        )

    def record(
        self, update: int, episodes: int, env_steps: int, elapsed_s: float, metrics: Mapping[str, float]
    ) -> None:
        """Add a row to ``metrics.jsonl`` and its numbers to TensorBoard, at the number of episodes.

        Args:
            update: Number of finished updates.
            episodes: Episodes learned from so far.
            env_steps: Environment steps so far.
            elapsed_s: Seconds of training so far.
            metrics: By name, all of them in `ray_rl.metrics.METRICS`.

        Raises:
            OSError: When the disk is full.
        """
        check_names(metrics)
        row = {"update": update, "episodes": episodes, "env_steps": env_steps, "time_s": round(elapsed_s, 3)}
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._metrics.write(json.dumps(row | finite) + "\n")
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._write_event(Event(step=episodes, summary=Summary(value=values)))

    def drop_metrics_after(self, update: int) -> None:
        """Forget rows of updates that the last checkpoint does not know: they will be done again."""
        path = self._here / _METRICS
        kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _update_of(line) <= update]
        self._metrics.close()
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        temporary.replace(path)
        self._metrics = path.open("a", encoding="utf-8", buffering=1)
        episodes = update * self._config.ppo.episodes_per_update
        # TensorBoard drops what it has read of later steps when a session starts at an earlier one.
        self._write_event(Event(step=episodes + 1, session_log=SessionLog(status=SessionLog.START)))

    def values_of(self, name: str) -> list[float]:
        """What was recorded of a metric so far, in the order of its rows."""
        lines = (self._here / _METRICS).read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        return [float(row[name]) for row in rows if row.get(name) is not None]

    def _write_config_to_tensorboard(self) -> None:
        text = "\n".join(f"    {line}" for line in self._config.to_yaml().splitlines())
        values = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for group in type(self._config).model_fields
            for name, value in getattr(self._config, group).model_dump(mode="json").items()
            if value is not None
        }
        summaries = [_text_summary("config", text), hparams.hparams_pb(values, trial_id=self.path.name)]
        for summary in summaries:
            self._write_event(Event(step=0, summary=summary))

    def _write_event(self, event: Event) -> None:
        event.wall_time = time.time()
        self._events.add_event(event)

    def __enter__(self) -> Self:
        """Return the folder itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the files and give the folder free."""
        try:
            self._metrics.close()
            self._events.close()
            if self._mirror is not None:
                self._mirror.close()
                self._mirror.send()
        except (OSError, RunError):
            if kind is None:  # a full disk: whoever met it first has said so
                raise
        finally:
            self._lock.close()
            if self._copied_from is not None:
                self._copied_from.cleanup()


def _default_name(config: TrainConfig) -> str:
    env = config.env.env.replace("/", "-")
    return f"{env}_{config.env.red_agent}_seed{config.run.seed}_{time.strftime('%Y%m%d-%H%M%S')}"


def _lock_folder(path: Path) -> IO[str]:
    path.mkdir(parents=True, exist_ok=True)
    return _take_lock(path)


def _take_lock(path: Path) -> IO[str]:
    lock = (path / _LOCK).open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise UserError(f"{path} is in use by process {owner}: wait for it, or choose another --run-dir") from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _check_use(path: Location, config: TrainConfig) -> None:
    """Refuse a folder that holds another run, no run to resume, or something else."""
    used = (path / _CONFIG).exists()
    if used and not config.run.resume:
        raise UserError(f"{path} holds a run already: add --resume to go on with it, or choose another --run-dir")
    if config.run.resume is True and not used:
        raise UserError(f"--resume: {path} holds no run; name the folder of one with --run-dir")
    if used:
        _check_same_run(load_yaml(path / _CONFIG), config, path)
    elif path.exists() and any(p.name != _LOCK and not is_lease(p.name) for p in path.iterdir()):
        raise UserError(f"--run-dir {path} is not empty and holds no run: choose another folder")


def _check_same_run(stored: TrainConfig, given: TrainConfig, path: Location) -> None:
    for group in TrainConfig.model_fields:
        before, now = getattr(stored, group).model_dump(), getattr(given, group).model_dump()
        for name, value in before.items():
            if name not in _MAY_CHANGE_ON_RESUME and now[name] != value:
                raise UserError(
                    f"--resume: the run in {path} has {name} = {value}, now it is {now[name]}: "
                    f"resume with the same value (--config {path / _CONFIG} takes them all), or start another run"
                )


def _leave_as_found(path: Location, found: bool) -> None:
    """Take away a folder that was made for a run which cannot be written there."""
    if not found:
        shutil.rmtree(str(path), ignore_errors=True)


def _fetch(source: UPath, target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        target.write_bytes(source.read_bytes())


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _remedy(path: Location) -> str:
    return "check the name, the address and the rights" if is_remote(path) else "choose another folder"


def _update_of(line: str) -> int:
    try:
        return int(json.loads(line)["update"])
    except (ValueError, KeyError, TypeError):
        return 2**62  # a line cut off by a crash


def _text_summary(tag: str, text: str) -> Summary:
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()], tensor_shape=shape)
    return Summary(value=[Summary.Value(tag=f"{tag}/text_summary", metadata=metadata, tensor=tensor)])
