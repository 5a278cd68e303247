"""Checkpoints: everything a run needs to go on exactly, in safe formats, whole or absent.

A checkpoint is a folder ``update_000123`` holding ``weights.safetensors`` (actor and critic), ``optimiser.safetensors``
(the rest of the learner's arrays) and ``checkpoint.json`` (counters, configuration, what the policy sees, digests). It
is written under a temporary name, flushed to the disk and renamed, so a crash leaves either all of it or none.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

import ray_rl
from ray_rl.config import TrainConfig, UserError
from ray_rl.envs.api import EnvSpec

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


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
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
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(folder)
    unfinished = folder / f".{target.name}.unfinished"
    unfinished.mkdir()
    try:
        _write(unfinished, checkpoint)
        unfinished.rename(target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _flush(folder)
    for old in checkpoints_in(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def _write(unfinished: Path, checkpoint: Checkpoint) -> None:
    arrays = {name: np.ascontiguousarray(values) for name, values in checkpoint.arrays.items()}
    network = {name: values for name, values in arrays.items() if name.startswith(NETWORK_PREFIX)}
    rest = {name: values for name, values in arrays.items() if name not in network}
    try:
        for name, part in ((_WEIGHTS, network), (_OPTIMISER, rest)):
            save_file(part, unfinished / name)
    except SafetensorError as error:  # what safetensors makes of a full disk
        raise OSError(str(error)) from error
    about = {
        "format_version": FORMAT_VERSION,
        "ray_rl_version": ray_rl.__version__,
        "update": checkpoint.update,
        "env_steps": checkpoint.env_steps,
        "elapsed_s": checkpoint.elapsed_s,
        "spec": asdict(checkpoint.spec),
        "config": checkpoint.config.model_dump(mode="json"),
        "counters": dict(checkpoint.counters),
        "sha256": {name: _digest(unfinished / name) for name in (_WEIGHTS, _OPTIMISER)},
    }
    (unfinished / _ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    for name in (_WEIGHTS, _OPTIMISER, _ABOUT):
        _flush(unfinished / name)
    _flush(unfinished)


def load_checkpoint(path: Path) -> Checkpoint:
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


def _read_arrays(path: Path, digests: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for name in (_WEIGHTS, _OPTIMISER):
        if _digest(path / name) != digests[name]:
            raise ValueError(f"{name} is truncated or was changed (its SHA-256 differs from the recorded one)")
        arrays |= load_file(path / name)
    return arrays


def checkpoints_in(folder: Path) -> list[Path]:
    """The finished checkpoints in a run's checkpoint folder, oldest first."""
    return sorted(p for p in folder.glob("update_*") if p.is_dir())


def find_checkpoint(path: Path) -> Path:
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


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
