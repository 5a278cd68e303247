"""Compiled kernels are kept, and never those of other sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import ray_rl
from ray_rl.envs.cage2.constants import DEFENDER

ASK = f"from ray_rl.envs.cage2.simulator import decoy_fits; print(decoy_fits(0, 0, {DEFENDER}))"


def ask(folder: Path) -> str:
    env = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    env |= {"PYTHONPATH": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", ASK], cwd=folder, env=env, capture_output=True, text=True
    ).stdout.strip()


def test_a_rule_that_changes_in_another_file_reaches_kernels_that_were_compiled_before(tmp_path: Path) -> None:
    shutil.copytree(Path(ray_rl.__file__).parent, tmp_path / "ray_rl", ignore=shutil.ignore_patterns("__pycache__"))
    assert ask(tmp_path) == "True"
    (kept,) = (tmp_path / "cache" / "ray_rl" / "kernels").iterdir()
    compiled = {path: path.stat().st_mtime_ns for path in kept.rglob("*.nbc")}
    assert compiled
    assert ask(tmp_path) == "True"
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*.nbc")} == compiled
    with (tmp_path / "ray_rl" / "envs" / "cage2" / "constants.py").open("a") as rules:
        rules.write("\nDECOY_HOSTS[:] = 0\n")
    assert ask(tmp_path) == "False"
