"""Who may import whom: a room imports only what lies below it, Ray stays at the rim, sampling knows no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ray_rl

ROOT = Path(ray_rl.__file__).parent
ROOMS = (
    (
        "",
        "kernel_cache",
        "config",
        "seeding",
        "episodes",
        "metrics",
        "failures",
        "env_options",
        "interruption",
        "process_guard",
        "spans",
        "storage",
        "workflow",
    ),
    ("ray_runtime", "ray_start", "ray_local_cluster", "lease", "mirror"),
    ("envs", "checkpoint"),  # a checkpoint holds what the policy sees; evaluation and training read it
    ("policy",),
    ("rollout", "rollout_cage2"),
    ("ppo",),
    ("collect",),
    ("evaluate",),
    ("trainer", "quarantine", "training_metrics", "trace_file", "run_folder", "console"),
    ("compare", "search", "bench", "doctor", "ssh_hosts", "ray_jobs", "ray_cluster_file", "chaos"),
    ("commands", "cli", "__main__"),
)
HEIGHT = {name: height for height, rooms in enumerate(ROOMS) for name in rooms}
HEAVY = {"ray", "torch", "tensorboard", "CybORG", "matplotlib"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip(".")


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


MODULES = {module_name(path): imports_of(path) for path in sorted(ROOT.rglob("*.py"))}


def inside(imported: str) -> str | None:
    """The module of the package that an import names."""
    parts = imported.split(".")
    if parts[0] != "ray_rl":
        return None
    return next((name for n in (len(parts), len(parts) - 1) if (name := ".".join(parts[1:n])) in MODULES), "")


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_what_lies_below(module: str) -> None:
    height = HEIGHT[module.split(".")[0]]
    below = {target for imported in MODULES[module] if (target := inside(imported)) is not None}
    assert [target for target in below if HEIGHT[target.split(".")[0]] > height] == []


def test_imports_have_no_cycle() -> None:
    graph = {m: {t for i in found if (t := inside(i)) is not None and t != m} for m, found in MODULES.items()}
    TopologicalSorter(graph).prepare()


def test_only_files_at_the_rim_import_ray() -> None:
    importing = {m for m, found in MODULES.items() if any(i == "ray" or i.startswith("ray.") for i in found)}
    assert importing
    assert [m for m in importing if not m.split(".")[-1].startswith("ray_")] == []


@pytest.mark.parametrize(
    ("module", "allowed"), [("collect.worker", ()), ("cli", ()), ("commands.train", ()), ("trainer", ("tensorboard",))]
)
def test_nothing_heavy_is_loaded_before_it_is_needed(module: str, allowed: tuple[str, ...]) -> None:
    code = f"import sys, ray_rl.{module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert HEAVY & set(loaded) <= set(allowed)


@pytest.mark.parametrize("module", ["collect.worker", "envs.latency_env", "envs.cyborg_env"])
def test_a_worker_loads_nothing_that_only_reads_flags_and_draws_screens(module: str) -> None:
    code = f"import sys, ray_rl.collect.worker, ray_rl.{module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"pydantic", "rich", "tyro", "fsspec", "grpc", "ray_rl.config"} & set(loaded) == set()
