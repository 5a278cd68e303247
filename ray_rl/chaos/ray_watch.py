"""Looks at the processes and object stores of a cluster of nodes on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import psutil
import ray

from ray_rl.chaos.ray_faults import LEARNER, SAMPLER
from ray_rl.chaos.soak import Look

_LOOKED_CLOSER = ("driver", "learner")
"""Roles of which is kept what their descriptors point to."""


def look_at(cluster: Any, driver: int) -> list[Look]:
    """Driver, learner, workers and raylets; those that end meanwhile are left out."""
    found = []
    for role, process in _roles(cluster, driver):
        try:
            with process.oneshot():
                memory = process.memory_info()
                opened = _opened(process) if role in _LOOKED_CLOSER else ()
                found.append(Look(role, process.pid, memory.rss - memory.shared, process.num_fds(), opened))
        except psutil.Error:
            continue
    return found


def _opened(process: psutil.Process) -> tuple[str, ...]:
    """What the descriptors of a process point to; connections by the address at their other end, sorted."""
    peers = {
        peer.fd: f"{':'.join(map(str, peer.laddr))} to {':'.join(map(str, peer.raddr))} {peer.status}"
        for peer in process.net_connections("inet")
    }
    found = []
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(peers.get(int(link.name)) or str(link.readlink()))
    return tuple(sorted(found))


def _roles(cluster: Any, driver: int) -> Iterator[tuple[str, psutil.Process]]:
    yield from _if_there("driver", driver)
    for node in cluster.list_all_nodes():
        for info in node.all_processes.get("gcs_server", []):
            yield from _if_there("GCS", info.process.pid)
        for info in node.all_processes.get("raylet", []):
            for role, raylet in _if_there("raylet", info.process.pid):
                yield role, raylet
                yield from _children(raylet)


def _if_there(role: str, pid: int) -> Iterator[tuple[str, psutil.Process]]:
    try:
        yield role, psutil.Process(pid)
    except psutil.NoSuchProcess:
        return


def _children(raylet: psutil.Process) -> Iterator[tuple[str, psutil.Process]]:
    """Learner and workers. A worker that has run episodes is one also while it is idle."""
    try:
        children = raylet.children()
    except psutil.NoSuchProcess:
        return
    for child in children:
        try:
            title = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if title.startswith(LEARNER):
            yield "learner", child
        elif title.startswith((SAMPLER, "ray::IDLE")):
            yield "worker", child


def stored_bytes() -> int:
    """What the object stores of all nodes hold."""
    from ray._private.internal_api import node_stats

    nodes = [node for node in cast("Any", ray).nodes() if node["Alive"]]
    return sum(
        cast("Any", node_stats)(
            node["NodeManagerAddress"], node["NodeManagerPort"], False
        ).store_stats.object_store_bytes_used
        for node in nodes
    )
