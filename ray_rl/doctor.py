"""Checks of the machine that a run depends on; each says what it found and what to do."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import Requirement

from ray_rl.config import UserError

Level = Literal["ok", "warning", "failure"]

_HEAD_PORTS = {6379: "cluster", 8265: "dashboard", 10001: "client"}
"""Ports of ``ray start --head`` that other machines and people need to know."""
_OPEN_FILES = 65_536
"""What Ray asks for on machines with many workers."""
_FEW_OPEN_FILES = 4_096
_STORE_BYTES = 2**30
"""Object store of a run's own Ray."""
_SMALLEST_STORE_BYTES = 160 * 2**20
_RUN_BYTES = 2**30
"""Free space for checkpoints, logs and Ray's session; a run with default settings needs a tenth of it."""
_RAY_STOPS_AT = 0.95
"""Share of a full disk at which Ray refuses to store objects there."""
_WORKER_BYTES = 250 * 2**20
_KNOCK_S = 60.0
"""Longest wait for a cluster to answer a stranger."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        what: The thing checked.
        level: ``ok``, ``warning`` (works, but not as well or not for everything) or ``failure`` (training cannot run).
        found: What is there.
        remedy: What to do about it; empty when nothing is needed.
    """

    what: str
    level: Level
    found: str
    remedy: str = ""


def examine(run_dir: Path, address: str | None) -> list[Finding]:
    """Check everything, cheapest first; the last check starts Ray and runs a task.

    Args:
        run_dir: Folder in which runs will be written.
        address: Of the Ray cluster to try; None tries a Ray of its own.
    """
    checks: Sequence[Callable[[], Finding]] = (
        _python,
        _packages,
        _cyborg,
        _processors,
        _threads,
        _memory,
        _shared_memory,
        _open_files,
        lambda: _disk("disk of runs", run_dir),
        lambda: _disk("disk of Ray's session", Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()))),
        _ports,
        _simulator,
        *([lambda: _guard(address)] if address is not None else []),
        lambda: _ray(address),
    )
    return [check() for check in checks]


def _python() -> Finding:
    return Finding("Python", "ok", f"{platform.python_version()} at {sys.executable}")


def _packages() -> Finding:
    """Every package that ray_rl asks for, in a version that it asks for."""
    wrong = []
    wanted = [Requirement(text) for text in requires("ray-rl") or ()]
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            have = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(have, prereleases=True):
            wrong.append(f"{requirement.name} {have} is not {requirement.specifier}")
    if wrong:
        remedy = "run ./scripts/setup.sh, or pip install --constraint constraints.txt --editable ."
        return Finding("packages", "failure", "; ".join(wrong), remedy)
    return Finding("packages", "ok", f"ray {version('ray')}, torch {version('torch')}, numpy {version('numpy')}")


def _cyborg() -> Finding:
    """CybORG is wanted for ``--env cyborg`` alone; the package index has an unrelated project of that name."""
    try:
        summary = str(distribution("cyborg").metadata["Summary"])
        if "cage" not in summary.lower() and find_spec("CybORG") is None:
            return Finding(
                "CybORG",
                "warning",
                f"the package 'cyborg' is installed, which is something else ({summary})",
                "pip uninstall cyborg; clone cage-challenge/cage-challenge-2 and name its folder with --cyborg-path",
            )
    except PackageNotFoundError:
        pass
    if find_spec("CybORG") is None:
        return Finding("CybORG", "ok", "not installed; needed for --env cyborg only, where --cyborg-path names it")
    return Finding("CybORG", "ok", "importable")


def _processors() -> Finding:
    n = len(os.sched_getaffinity(0))
    quota = _cpu_quota()
    if quota is not None and quota < n - 0.5:
        remedy = f"--n-workers {max(1, round(quota))}: more workers than that would wait for each other"
        return Finding("processors", "warning", f"{n} visible, but this container may use {quota:g}", remedy)
    load = os.getloadavg()[0]
    if load > n / 2:
        return Finding("processors", "warning", f"{n}, load {load:.1f}", "others are at work: figures will be lower")
    return Finding("processors", "ok", str(n))


def _cpu_quota() -> float | None:
    """CPUs that the control group grants, or None where it grants all."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _threads() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and soft < 4096:
        return Finding("threads", "warning", f"limit {soft}", "Ray starts hundreds: raise it with ulimit -u 16384")
    forced = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ}
    if any(value != "1" for value in forced.values()):
        text = ", ".join(f"{name}={value}" for name, value in forced.items())
        return Finding("threads", "warning", text, "unset them: the learner has --learner-threads, workers need one")
    return Finding("threads", "ok", "no limit in the way")


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    n = len(os.sched_getaffinity(0))
    found = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    if memory.available < 2**30 + n * _WORKER_BYTES:
        fits = max(1, (memory.available - 2**30) // _WORKER_BYTES)
        return Finding("memory", "warning", found, f"--n-workers {fits} leaves room for the learner")
    return Finding("memory", "ok", found)


def _shared_memory() -> Finding:
    shm = Path("/dev/shm")
    if not shm.is_dir():
        return Finding("shared memory", "warning", "no /dev/shm", "Ray uses the disk instead, which is slower")
    free = shutil.disk_usage(shm).free
    found = f"{free / 2**30:.1f} GiB free in /dev/shm"
    if free < _SMALLEST_STORE_BYTES:
        return Finding("shared memory", "failure", found, "start the container with --shm-size=2g, or empty /dev/shm")
    if free < _STORE_BYTES:
        return Finding(
            "shared memory", "warning", found, "enough for small runs; --shm-size=2g gives Ray what it likes"
        )
    return Finding("shared memory", "ok", found)


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"limit {soft}" if soft == hard else f"limit {soft}, may be raised to {hard}"
    if soft < _FEW_OPEN_FILES <= hard:
        return Finding("open files", "warning", found, f"ulimit -n {min(hard, _OPEN_FILES)} before 50 workers or more")
    if soft < _FEW_OPEN_FILES:
        return Finding("open files", "warning", found, f"ask the administrator for {_OPEN_FILES} (limits.conf)")
    return Finding("open files", "ok", found)


def _disk(what: str, folder: Path) -> Finding:
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    usage = shutil.disk_usage(existing)
    found = f"{usage.free / 2**30:.1f} GiB free in {existing}"
    if not os.access(existing, os.W_OK):
        return Finding(what, "failure", f"{existing} cannot be written", "name another folder with --run-dir")
    if usage.free < _RUN_BYTES:
        return Finding(what, "failure", found, "free at least 1 GiB, or name another folder")
    if usage.used / usage.total > _RAY_STOPS_AT:
        return Finding(what, "warning", f"{found}, {usage.used / usage.total:.0%} used", "Ray wants 5 % free")
    return Finding(what, "ok", found)


def _ports() -> Finding:
    taken = [f"{port} ({use})" for port, use in _HEAD_PORTS.items() if _answers(port)]
    if taken:
        remedy = "fine if that is your cluster; else `ray start --head` needs --port and --dashboard-port"
        return Finding("ports", "warning", f"in use: {', '.join(taken)}", remedy)
    return Finding("ports", "ok", f"{', '.join(map(str, _HEAD_PORTS))} are free for a cluster's head")


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _simulator() -> Finding:
    """Play an episode: this compiles the simulator, or reads it from the cache."""
    from ray_rl.collect.worker import run_chunk
    from ray_rl.config import EnvConfig
    from ray_rl.envs.registry import make_env
    from ray_rl.episodes import episode_requests
    from ray_rl.policy.random_weights import random_weights

    env = EnvConfig()
    spec = make_env(env).spec
    weights = random_weights(spec.observation_size, (64, 64), spec.n_actions)
    requests = episode_requests(0, 0, 1, red_agent=env.red_agent, max_steps=env.episode_steps)
    try:
        _, batch = run_chunk(env.options, weights, requests, 0)
    except Exception as error:
        remedy = "numba cannot compile here: check that NUMBA_DISABLE_JIT is unset and NUMBA_CACHE_DIR can be written"
        return Finding("simulator", "failure", f"{type(error).__name__}: {error}", remedy)
    return Finding("simulator", "ok", f"played {int(batch.lengths.sum())} steps of CAGE-2")


def _guard(address: str) -> Finding:
    """Whether a cluster lets in whoever comes: knock as a stranger, who has no token."""
    from ray_rl.ray_runtime import check_reachable

    what = f"access to {address}"
    if "://" in address:
        return Finding(what, "ok", "not tried: name the cluster as HOST:PORT (6379) to have it tried")
    try:
        check_reachable(address)
    except UserError:
        return Finding(what, "ok", "not tried: no Ray answers there")
    stranger = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    knock = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "status",
        *(() if address == "auto" else ("--address", address)),
    ]
    try:
        answer = subprocess.run(
            knock, env={**stranger, "RAY_AUTH_MODE": "disabled"}, capture_output=True, timeout=_KNOCK_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding(what, "ok", f"a stranger got no answer within {_KNOCK_S:.0f} s")
    if answer.returncode == 0:
        return Finding(
            what,
            "warning",
            "open: whoever reaches its ports can run code on all its machines",
            "ray get-auth-token --generate, the same token on all machines, RAY_AUTH_MODE=token; see cluster/README.md",
        )
    return Finding(what, "ok", "a stranger without a token is refused")


def _ray(address: str | None) -> Finding:
    from ray_rl.ray_runtime import connection, round_trip

    what = "Ray" if address is None else f"Ray at {address}"
    try:
        with connection(address, n_workers=1):
            trip = round_trip()
    except UserError as error:
        return Finding(what, "failure", str(error).split(": ")[0], str(error))
    except Exception as error:
        text = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        return Finding(what, "failure", text, "see the logs in /tmp/ray/session_latest/logs")
    return Finding(what, "ok", f"a task came back in {trip.seconds:.1f} s; {trip.n_nodes} nodes, {trip.n_cpus} CPUs")
