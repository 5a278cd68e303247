"""A cluster of several Ray nodes on this machine: a raylet, an object store and worker processes for each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import ray

from ray_rl.ray_start import UNWATCHED

_JOIN_S = 120.0
"""How long a node may take to join, in seconds; on a busy machine many start at once."""
STORE_BYTES = 200 * 2**20
"""Object store of a node, unless one asks for another."""


@contextmanager
def local_cluster(system_config: Mapping[str, int], store_bytes: int = STORE_BYTES) -> Iterator[Any]:
    """Start a head without CPUs; it ends with all nodes that joined, and so does this process's connection.

    Args:
        system_config: Of Ray, for all nodes.
        store_bytes: Object store of the head's node.
    """
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": store_bytes}
    cluster: Any = cast("Any", Cluster)(
        initialize_head=True, head_node_args={**head, "_system_config": {**UNWATCHED, **system_config}}
    )
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def add_nodes(cluster: Any, count: int = 1, n_cpus: int = 1, store_bytes: int = STORE_BYTES) -> list[Any]:
    """Let nodes join; returns them once all are there."""
    nodes = [cluster.add_node(wait=False, num_cpus=n_cpus, object_store_memory=store_bytes) for _ in range(count)]
    for node in nodes:  # not `wait_for_nodes`: it would wait in vain beside a node that died
        cluster._wait_for_node(node, timeout=_JOIN_S)
    return nodes
