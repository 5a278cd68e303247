"""Checkpoints: everything a run needs to go on exactly, in safe formats, whole or absent.

A checkpoint is a folder ``update_000123`` holding ``weights.safetensors`` (actor and critic), ``optimiser.safetensors``
(the rest of the learner's arrays) and ``checkpoint.json`` (counters, configuration, what the policy sees, digests).
Only a folder with a ``checkpoint.json`` is a checkpoint. On a disk all three are written under a temporary name,
flushed and renamed; in a remote storage, which cannot rename a folder, ``checkpoint.json`` is written last and removed
first. Either way a crash leaves all of it or none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

import ray_rl
from ray_rl.config import TrainConfig, UserError
from ray_rl.envs.api import EnvSpec
from ray_rl.storage import Location, Where, is_remote, storage_errors, write_whole

if TYPE_CHECKING:
    from upath import UPath

FORMAT_VERSION = 1
"""Raised whenever older readers could misread a checkpoint."""

NETWORK_PREFIX = "network."
"""Names of the arrays that make up actor and critic start with this; they go into ``weights.safetensors``."""

_WEIGHTS = "weights.safetensors"
_OPTIMISER = "optimiser.safetensors"
_ABOUT = "checkpoint.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A run after some update.

    Attributes:
        update: Number of finished updates.
        env_steps: Environment steps taken so far.
        elapsed_s: Seconds of training so far, pauses between resumed parts left out.
        config: The run's configuration.
        spec: What the policy sees; tells whether a policy fits an environment.
        arrays: The learner's arrays by name; those of the networks start with `NETWORK_PREFIX`.
        counters: The learner's numbers, as JSON holds them.
    """

    update: int
    env_steps: int
    elapsed_s: float
    config: TrainConfig
    spec: EnvSpec
    arrays: Mapping[str, NDArray[Any]]
    counters: Mapping[str, Any]


def save_checkpoint(folder: Location, checkpoint: Checkpoint, keep: int) -> Location:
    """Write a checkpoint whole, then remove the oldest beyond `keep`.

    Args:
        folder: Folder of the run's checkpoints; made when absent.
        checkpoint: What to write.
        keep: Number of checkpoints that stay, this one included.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: When it cannot be written (a full disk); older checkpoints are untouched then.
    """
    target = folder / f"update_{checkpoint.update:06d}"
    if (target / _ABOUT).exists():
        return target
    files = _files_of(checkpoint)
    if is_remote(target):
        _write_marker_last(target, files)
    else:
        _write_and_rename(target, files)
    for old in checkpoints_in(folder)[:-keep]:
        _remove(old)
    return target


def _files_of(checkpoint: Checkpoint) -> dict[str, bytes]:
    """The files of a checkpoint in the order in which they are written; `_ABOUT` is the last."""
    arrays = {name: np.ascontiguousarray(values) for name, values in checkpoint.arrays.items()}
    network = {name: values for name, values in arrays.items() if name.startswith(NETWORK_PREFIX)}
    rest = {name: values for name, values in arrays.items() if name not in network}
    files = {_WEIGHTS: save(network), _OPTIMISER: save(rest)}
    about = {
        "format_version": FORMAT_VERSION,
        "ray_rl_version": ray_rl.__version__,
        "update": checkpoint.update,
        "env_steps": checkpoint.env_steps,
        "elapsed_s": checkpoint.elapsed_s,
        "spec": asdict(checkpoint.spec),
        "config": checkpoint.config.model_dump(mode="json"),
        "counters": dict(checkpoint.counters),
        "sha256": {name: _digest(content) for name, content in files.items()},
    }
    return files | {_ABOUT: (json.dumps(about, indent=2) + "\n").encode()}


def _write_and_rename(target: Path, files: Mapping[str, bytes]) -> None:
    folder = target.parent
    folder.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(folder)
    unfinished = folder / f".{target.name}.unfinished"
    unfinished.mkdir()
    try:
        for name, content in files.items():
            (unfinished / name).write_bytes(content)
            _flush(unfinished / name)
        _flush(unfinished)
        unfinished.rename(target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _flush(folder)


def _write_marker_last(target: UPath, files: Mapping[str, bytes]) -> None:
    folder = target.parent
    for leftover in folder.glob("update_*"):
        if not (leftover / _ABOUT).exists():
            _remove(leftover)
    for name, content in files.items():
        write_whole(target / name, content)


def load_checkpoint(path: Location) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: The checkpoint's folder.

    Raises:
        UserError: When a file is missing or damaged, or another version wrote it; says which and what to do.
    """
    remedy = "; use an older checkpoint of the run" if len(checkpoints_in(path.parent)) > 1 else ""
    try:
        about = json.loads((path / _ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no checkpoint or is damaged: cannot read {_ABOUT} ({error}){remedy}") from error
    version = about.get("format_version") if isinstance(about, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has checkpoint format {version}, this ray_rl {ray_rl.__version__} reads format {FORMAT_VERSION}: "
            f"use the ray_rl version that wrote it ({about.get('ray_rl_version') if isinstance(about, dict) else '?'})"
        )
    try:
        arrays = _read_arrays(path, about["sha256"])
        return Checkpoint(
            update=int(about["update"]),
            env_steps=int(about["env_steps"]),
            elapsed_s=float(about["elapsed_s"]),
            config=TrainConfig.model_validate(about["config"]),
            spec=EnvSpec(**about["spec"]),
            arrays=arrays,
            counters=about["counters"],
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}{remedy}") from error


def _read_arrays(path: Location, digests: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for name in (_WEIGHTS, _OPTIMISER):
        content = (path / name).read_bytes()
        if _digest(content) != digests[name]:
            raise ValueError(f"{name} is truncated or was changed (its SHA-256 differs from the recorded one)")
        arrays |= load(content)
    return arrays


def checkpoints_in(folder: Where) -> list[Where]:
    """The finished checkpoints in a run's checkpoint folder, oldest first."""
    whole = [path for path in folder.glob("update_*") if (path / _ABOUT).exists()]
    return cast("list[Where]", sorted(whole, key=lambda path: path.name))


def find_checkpoint(path: Location) -> Location:
    """Resolve what a user names: a checkpoint's folder, or a run's folder (then its latest checkpoint).

    Raises:
        UserError: When neither is there.
    """
    if (path / _ABOUT).exists():
        return path
    found = checkpoints_in(path / "checkpoints")
    if found:
        return found[-1]
    what = "does not exist" if not path.exists() else "holds neither a checkpoint nor a run with one"
    raise UserError(f"{path} {what}: name a run's folder (runs/NAME) or a checkpoint (runs/NAME/checkpoints/update_…)")


def _remove_unfinished(folder: Path) -> None:
    for leftover in folder.glob(".update_*.unfinished"):
        shutil.rmtree(leftover)


def _remove(checkpoint: Location) -> None:
    if not is_remote(checkpoint):
        shutil.rmtree(checkpoint)
        return
    with storage_errors():
        for name in (_ABOUT, _OPTIMISER, _WEIGHTS):
            with contextlib.suppress(FileNotFoundError):
                checkpoint.fs.rm_file((checkpoint / name).path)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
