"""Ray's autoscaler brings nodes that a run asks for, and takes them away again; nodes are raylets on this machine."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from collectors import indices_of, requests_for, weights_for
from faulty_envs import ENV_ID, Faults
from one_head import free_ports, head_node
from ray._private.services import get_node_ip_address
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FAKE_HEAD_NODE_TYPE
from ray.autoscaler.v2.sdk import get_cluster_status

from ray_rl.collect.ray_tasks import RayTasksCollector
from ray_rl.config import EnvConfig
from ray_rl.ray_runtime import cluster_cpus, connection

_ENV = EnvConfig(env=ENV_ID)
_MOST_CPUS = 4
_PROVIDER = {
    "type": "external",
    "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
    "use_node_id_as_ip": True,
    "disable_node_updaters": True,
    "disable_launch_config_check": True,
    "launch_multiple": True,
    "head_node_id": FAKE_HEAD_NODE_ID,
}
_EMPTY_LISTS = ("initialization_commands", "setup_commands", "cluster_synced_files", "rsync_exclude", "rsync_filter")
_EMPTY_LISTS += tuple(f"{who}_{what}_commands" for who in ("head", "worker") for what in ("setup", "start_ray"))


@pytest.fixture(scope="module")
def autoscaled(fault_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """GCS address of a cluster that begins with a head without CPUs and may get two nodes of two."""
    (gcs,) = free_ports(1)
    node_ip = get_node_ip_address()  # Ray's own clients take no loopback address for what it is
    address = f"{node_ip}:{gcs}"
    node = {"resources": {"CPU": 2, "object_store_memory": 80_000_000}, "node_config": {}}
    config = {
        "cluster_name": "simulated",
        "max_workers": _MOST_CPUS // 2,
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": 0.03,
        "provider": _PROVIDER | {"gcs_address": address},
        "available_node_types": {
            FAKE_HEAD_NODE_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "two_cpus": node | {"min_workers": 0, "max_workers": _MOST_CPUS // 2},
        },
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in _EMPTY_LISTS},
        "file_mounts_sync_continuously": False,
    }
    file = tmp_path_factory.mktemp("autoscaler") / "cluster.json"
    file.write_text(json.dumps(config))
    env = {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    flags = [f"--autoscaling-config={file}", "--num-cpus=0", "--include-dashboard=false"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        # Ray remembers for a whole process which autoscaler the first cluster had that it was asked about.
        patch.setattr("ray.autoscaler.v2.utils.cached_is_autoscaler_v2", None)
        with (
            head_node(flags, lambda: _listens(node_ip, gcs), env, gcs_port=gcs, node_ip=node_ip),
            connection(address, 0),
        ):
            yield address


def _listens(ip: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((ip, port)) == 0


def asked_for(address: str) -> int:
    """CPUs that the autoscaler has been asked for, whatever the tasks that wait."""
    demands = get_cluster_status(address).resource_demands.cluster_constraint_demand
    return sum(bundle.count for demand in demands for bundle in demand.bundles_by_count if "CPU" in bundle.bundle)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.mark.parametrize("autoscale_cpus", [_MOST_CPUS, 0])
def test_nodes_come_as_asked_are_used_and_go_when_the_run_ends(
    autoscaled: str, faults: Faults, autoscale_cpus: int
) -> None:
    """Asked for at once, or by a run that says no number and grows with what is there."""
    requests = requests_for(40)
    for request in requests:
        faults.plant(request, "hold")
    with RayTasksCollector(_ENV, None, 2, 600.0, autoscale_cpus=autoscale_cpus) as collector:
        collector.publish(weights_for(_ENV), 0)
        assert cluster_cpus() == 0
        collector.submit(requests)
        assert asked_for(autoscaled) == autoscale_cpus

        joined_at: dict[int, float] = {}

        def all_are_busy() -> bool:
            assert not list(collector.completed(timeout_s=0.1))
            joined_at.setdefault(cluster_cpus(), time.monotonic())
            return cluster_cpus() == _MOST_CPUS and ray.available_resources().get("CPU", 0) == 0

        wait_until(all_are_busy, "nodes did not come, or stay idle")
        print(f"all CPUs are busy {time.monotonic() - joined_at[_MOST_CPUS]:.1f} s after the last node joined")
        faults.clear()
        assert indices_of(collector.completed()) == list(range(40))
    wait_until(lambda: asked_for(autoscaled) == 0, "the wish outlived the run")
    wait_until(lambda: cluster_cpus() == 0, "nodes stay that nobody uses")
