"""Compiled kernels are kept, and never those of other sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import ray_rl
from ray_rl.envs.cage2.constants import DEFENDER

PACKAGE = Path(ray_rl.__file__).parent
ASK = f"from ray_rl.envs.cage2.simulator import decoy_fits; print(decoy_fits(0, 0, {DEFENDER}))"


def ask(folder: Path, cache: Path | None = None) -> str:
    env = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    env |= {"PYTHONPATH": str(folder), "XDG_CACHE_HOME": str(cache or folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", ASK], cwd=folder, env=env, capture_output=True, text=True
    ).stdout.strip()


def install(folder: Path) -> None:
    shutil.copytree(PACKAGE, folder / "ray_rl", ignore=shutil.ignore_patterns("__pycache__"))


def kernels(kept: Path) -> dict[Path, int]:
    """When each compiled kernel was written."""
    return {path: path.stat().st_mtime_ns for path in kept.rglob("*.nbc")}


def test_a_rule_that_changes_in_another_file_reaches_kernels_that_were_compiled_before(tmp_path: Path) -> None:
    install(tmp_path)
    assert ask(tmp_path) == "True"
    (kept,) = (tmp_path / "cache" / "ray_rl" / "kernels").iterdir()
    compiled = kernels(kept)
    assert compiled
    assert ask(tmp_path) == "True"
    assert kernels(kept) == compiled
    install(tmp_path / "elsewhere")
    assert ask(tmp_path / "elsewhere", tmp_path / "cache") == "True"
    assert kernels(kept) == compiled  # as on a cluster, where each session has the package in a place of its own
    with (tmp_path / "ray_rl" / "envs" / "cage2" / "constants.py").open("a") as rules:
        rules.write("\nDECOY_HOSTS[:] = 0\n")
    assert ask(tmp_path) == "False"
