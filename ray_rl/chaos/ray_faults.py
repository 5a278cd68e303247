"""Causes faults on the connected Ray, whichever machines it spans: tasks look for processes on their node and hit them.

The head's node and the drill's own are spared, except for the learner's process.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_rl.chaos.plan import STANDSTILL_S, FaultName
from ray_rl.collect.ray_tasks import collect_chunk
from ray_rl.failures import RunError
from ray_rl.ppo.ray_learner import _LearnerProcess

_ANSWER_S = 60.0
# How Ray titles processes that run episodes, and that of a learner.
SAMPLER = f"ray::{cast('Any', collect_chunk)._function_name.rpartition('.')[2]}"
LEARNER = f"ray::{_LearnerProcess.__name__}"


@dataclass(frozen=True, slots=True)
class Processes:
    """What runs on a node, by process id.

    Attributes:
        raylet: Ray's own process, the parent of all others.
        samplers: Processes that run episodes, or have.
        learners: Processes of learners.
    """

    raylet: int
    samplers: list[int]
    learners: list[int]


def cause(fault: FaultName, rng: np.random.Generator) -> str:
    """Cause a fault at a node and process that the generator picks; says whom it hit.

    Raises:
        RunError: When there is nothing to hit.
    """
    nodes = [node for node in cast("Any", ray).nodes() if node["Alive"]]
    here = ray.get_runtime_context().get_node_id()
    if fault == "learner":
        for node in nodes:
            if learners := _processes(node["NodeID"]).learners:
                _hit.options(**_on(node["NodeID"])).remote(learners, signal.SIGKILL)
                return f"process {learners[0]} on {node['NodeManagerHostname']}"
        raise RunError("no learner is running on the cluster")
    others = [node for node in nodes if node["NodeID"] != here and node["Resources"].get("CPU", 0) > 0]
    rng.shuffle(others)
    for node in others:
        found = _processes(node["NodeID"])
        if fault in ("node", "silence"):
            number, pids = (signal.SIGKILL, [found.raylet]) if fault == "node" else (signal.SIGSTOP, [found.raylet])
            _hit.options(**_on(node["NodeID"])).remote(pids, number)
            return f"node {node['NodeID'][:8]} on {node['NodeManagerHostname']}"
        if found.samplers:
            pid = int(rng.choice(found.samplers))
            number = signal.SIGKILL if fault == "worker" else signal.SIGSTOP
            ray.get(_hit.options(**_on(node["NodeID"])).remote([pid], number), timeout=_ANSWER_S)
            return f"process {pid} on {node['NodeManagerHostname']}"
    raise RunError(f"nothing on the cluster can suffer the fault '{fault}': it needs nodes besides the head's")


def _on(node_id: str) -> dict[str, Any]:
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}


def _processes(node_id: str) -> Processes:
    found: Processes = ray.get(_look.options(**_on(node_id)).remote(), timeout=_ANSWER_S)
    return found


@ray.remote(num_cpus=0, max_retries=0)
def _look() -> Processes:
    raylet = next(process for process in psutil.Process().parents() if process.name() == "raylet")
    titles = {child.pid: " ".join(child.cmdline()) for child in raylet.children()}
    busy = [pid for pid, title in titles.items() if title.startswith(SAMPLER)]
    return Processes(
        raylet.pid,
        busy or [pid for pid, title in titles.items() if title.startswith("ray::IDLE")],
        [pid for pid, title in titles.items() if title.startswith(LEARNER)],
    )


@ray.remote(num_cpus=0, max_retries=0)
def _hit(pids: Sequence[int], number: signal.Signals) -> None:
    """Send a signal; what is stopped goes on by itself after a while. A stopped raylet stops with all its processes."""
    if number is not signal.SIGSTOP:
        for pid in pids:
            os.kill(pid, number)
        return
    everyone = [p for pid in pids for p in (pid, *(c.pid for c in psutil.Process(pid).children(recursive=True)))]
    words = " ".join(map(str, everyone))
    script = f"kill -STOP {words}; sleep {STANDSTILL_S}; kill -CONT {words}"
    subprocess.Popen(["sh", "-c", script], start_new_session=True, stderr=subprocess.DEVNULL)
