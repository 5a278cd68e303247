"""Trained policies by name: a run, a checkpoint, a saved policy, or one that ships with the package.

A saved policy is a folder of two files: ``policy.safetensors`` (the actor, half precision) and ``policy.json`` (what it
sees, what it was trained on, how it was made). It cannot be trained further; it can be played, evaluated and exported.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

import ray_rl
from ray_rl.checkpoint import find_checkpoint, load_checkpoint
from ray_rl.config import EnvConfig, UserError, suggest
from ray_rl.envs.api import EnvSpec
from ray_rl.policy.inference import PolicyWeights
from ray_rl.storage import Location, is_remote

SHIPPED = Path(ray_rl.__file__).parent / "pretrained"
"""Folder of the policies that ship with the package."""

FORMAT_VERSION = 1
_WEIGHTS = "policy.safetensors"
_ABOUT = "policy.json"


@dataclass(frozen=True, slots=True)
class TrainedPolicy:
    """A policy, and what one must know to play it.

    Attributes:
        source: Folder that it was read from.
        weights: The actor.
        env: What it was trained on.
        spec: What it sees.
        update: Updates behind it.
        made_by: How it was trained, in words; empty where nobody said.
    """

    source: Location
    weights: PolicyWeights
    env: EnvConfig
    spec: EnvSpec
    update: int
    made_by: str = ""


def shipped_names() -> list[str]:
    """Names of the policies that ship with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{_ABOUT}"))


def load_policy(name: Location) -> TrainedPolicy:
    """Read a policy.

    Args:
        name: Folder of a run (its latest checkpoint is taken), of a checkpoint or of a saved policy, or the name of a
            shipped one.

    Raises:
        UserError: When there is none, or it is damaged.
    """
    if (name / _ABOUT).exists():
        return _load_saved(name)
    if not is_remote(name) and not name.exists() and len(name.parts) == 1:
        if str(name) in shipped_names():
            return _load_saved(SHIPPED / name)
        raise UserError(
            f"{name} does not exist: name a run's folder (runs/NAME), a checkpoint (runs/NAME/checkpoints/update_…) or "
            f"a policy that ships with ray_rl{suggest(str(name), shipped_names())}"
        )
    folder = find_checkpoint(name)
    checkpoint = load_checkpoint(folder)
    weights = PolicyWeights.from_network(checkpoint.arrays)
    return TrainedPolicy(folder, weights, checkpoint.config.env, checkpoint.spec, checkpoint.update)


def save_policy(policy: TrainedPolicy, folder: Path, made_by: str) -> None:
    """Write a policy without what only training needs.

    Args:
        policy: What to write; its weights are rounded to half precision.
        folder: New or empty folder.
        made_by: How it was trained, in words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"actor": policy.weights.values.astype(np.float16)}, folder / _WEIGHTS)
    about = {
        "format_version": FORMAT_VERSION,
        "made_by": made_by,
        "update": policy.update,
        "sizes": policy.weights.sizes.tolist(),
        "spec": asdict(policy.spec),
        "env": policy.env.model_dump(mode="json"),
        "sha256": hashlib.sha256((folder / _WEIGHTS).read_bytes()).hexdigest(),
    }
    (folder / _ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _load_saved(folder: Location) -> TrainedPolicy:
    try:
        about: dict[str, Any] = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        if about["format_version"] != FORMAT_VERSION:
            raise ValueError(
                f"format {about['format_version']}, this ray_rl {ray_rl.__version__} reads {FORMAT_VERSION}"
            )
        content = (folder / _WEIGHTS).read_bytes()
        if hashlib.sha256(content).hexdigest() != about["sha256"]:
            raise ValueError(f"{_WEIGHTS} is truncated or was changed (its SHA-256 differs from the recorded one)")
        values = load(content)["actor"].astype(np.float32)
        return TrainedPolicy(
            source=folder,
            weights=PolicyWeights(np.array(about["sizes"], dtype=np.int64), values),
            env=EnvConfig.model_validate(about["env"]),
            spec=EnvSpec(**about["spec"]),
            update=int(about["update"]),
            made_by=str(about["made_by"]),
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"the policy in {folder} is damaged: {error}") from error
