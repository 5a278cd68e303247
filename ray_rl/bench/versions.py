"""Running a benchmark of two versions of this package in turn, so that a machine that slows down slows both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray_rl
from ray_rl.failures import RunError, UserError

OWN_FOLDER = Path(ray_rl.__file__).resolve().parents[1]
"""Folder that holds this version."""


def check_version(folder: Path) -> Path:
    """The folder, made absolute.

    Raises:
        UserError: When no other version of this package is in it.
    """
    found = folder.resolve()
    if not (found / "ray_rl" / "__main__.py").is_file():
        raise UserError(f"{folder} is not a checkout of ray_rl: it holds no package of that name")
    if found == OWN_FOLDER:
        raise UserError(f"{folder} is this very version: name the checkout of another one")
    return found


def in_turn(
    command: Sequence[str], folders: Sequence[Path], rounds: int, say: Callable[[str], None] = print
) -> list[list[dict[str, Any]]]:
    """Run a command of each version once a round, each time in a process of its own.

    Args:
        command: What follows ``ray-rl``; it takes ``--json``.
        folders: What holds each version.
        rounds: Times that each runs.
        say: Told of every step.

    Returns:
        For each version what it saved, round by round.

    Raises:
        RunError: When a version does not finish.
    """
    results: list[list[dict[str, Any]]] = [[] for _ in folders]
    for number in range(1, rounds + 1):
        for found, folder in zip(results, folders, strict=True):
            say(f"round {number} of {rounds}: {folder}")
            found.append(_run(command, folder))
    return results


def _run(command: Sequence[str], folder: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ray-rl-bench-") as work:
        saved = Path(work) / "result.json"
        # Python finds the package in the folder where it starts; Ray's workers find it by the variable.
        ended = subprocess.run(
            [sys.executable, "-m", "ray_rl", *command, "--json", str(saved)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode != 0:
            lines = (ended.stderr.strip() or ended.stdout.strip() or "it says nothing").splitlines()
            raise RunError(f"the version in {folder} does not finish its benchmark: {lines[-1]}")
        result: dict[str, Any] = json.loads(saved.read_text(encoding="utf-8"))
        return result
