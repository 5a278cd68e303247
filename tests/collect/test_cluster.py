"""Ray tasks on a cluster of several nodes (raylets on this machine) that come, go, die and fall silent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from collectors import assert_same_episodes, indices_of, joined, requests_for, weights_for
from faulty_envs import ENV_ID, Faults
from ray.cluster_utils import Cluster

from ray_rl.collect.ray_tasks import RayTasksCollector
from ray_rl.collect.sequential import SequentialCollector
from ray_rl.config import EnvConfig
from ray_rl.episodes import EpisodeBatch, EpisodeRequest
from ray_rl.ray_runtime import FAST_FAILURE, cluster_cpus, this_node

_ENV = EnvConfig(env=ENV_ID)
_STORE_BYTES = 80 * 2**20


@pytest.fixture(scope="module")
def cluster(fault_folder: Path) -> Iterator[Cluster]:
    """A head without CPUs; tests add nodes."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    head = {
        "num_cpus": 0,
        "object_store_memory": _STORE_BYTES,
        "include_dashboard": False,
        "_system_config": dict(FAST_FAILURE),
    }
    made = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(autouse=True)
def no_nodes(cluster: Cluster) -> None:
    """Each test begins without CPUs, whatever became of the nodes of the one before, which die after a while only."""
    for node in list(cluster.worker_nodes):
        cluster.remove_node(node, allow_graceful=False)
    give_up_at = time.monotonic() + 60
    while cluster_cpus():
        assert time.monotonic() < give_up_at, "nodes of another test are still alive"
        time.sleep(0.1)


def add_node(cluster: Cluster, n_cpus: int = 1) -> Any:
    return cluster.add_node(num_cpus=n_cpus, object_store_memory=_STORE_BYTES, wait=True)


def collector(**settings: Any) -> RayTasksCollector:
    made = RayTasksCollector(**{"env": _ENV, "n_workers": None, "episodes_per_chunk": 2, "watchdog_s": 60.0} | settings)
    made.publish(weights_for(_ENV), 0)
    return made


def expected(requests: list[EpisodeRequest]) -> EpisodeBatch:
    with SequentialCollector(_ENV, len(requests)) as plain:
        plain.publish(weights_for(_ENV), 0)
        plain.submit(requests)
        return joined(plain.completed())


def test_it_begins_with_the_first_cpu_uses_what_joins_and_goes_on_without_what_dies(
    cluster: Cluster, faults: Faults
) -> None:
    requests = requests_for(40)
    whole = expected(requests)
    for request in requests[6:]:
        faults.plant(request, "hold")
    with collector() as on_cluster:
        on_cluster.submit(requests)
        assert list(on_cluster.completed(timeout_s=0.1)) == []
        first = add_node(cluster)
        under_way = on_cluster.completed()
        chunks = [next(under_way) for _ in range(3)]
        second = add_node(cluster)
        busy_by = time.monotonic() + 60
        while ray.available_resources().get("CPU", 0) > 0:
            chunks += on_cluster.completed(timeout_s=0.1)
            assert time.monotonic() < busy_by, "the node that joined stays idle"
        cluster.remove_node(first, allow_graceful=False)
        faults.clear()
        chunks += on_cluster.completed()
        assert indices_of(chunks) == list(range(40))
        assert_same_episodes(joined(chunks), whole)
    cluster.remove_node(second, allow_graceful=False)


def test_a_cluster_without_cpus_is_waited_for_and_said_to_be(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    gone_by = time.monotonic() + 60
    while cluster_cpus():
        assert time.monotonic() < gone_by, "the nodes of the last test are still counted"
        time.sleep(0.1)
    with collector(watchdog_s=2.0) as on_cluster:
        on_cluster.submit(requests_for(2))
        assert list(on_cluster.completed(timeout_s=5.0)) == []
    assert "waiting for the cluster's first CPU" in caplog.text


def test_a_driver_of_another_ray_is_one_clear_error(cluster: Cluster, tmp_path: Path) -> None:
    code = "import sys, ray; ray.__version__ = '1.0.0'; from ray_rl.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["train", "--address", cluster.address, "--run-dir", str(tmp_path / "run")]
    ended = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "Ray: 1.0.0" in ended.stderr
    assert f"Ray: {ray.__version__}" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@ray.remote(num_cpus=0)
class Guest:
    def node(self) -> str:
        return ray.get_runtime_context().get_node_id()


def test_what_belongs_beside_the_driver_is_there(cluster: Cluster) -> None:
    """The learner, whose machine must not be one that may be called back; Ray takes a mere wish lightly."""
    node = add_node(cluster)
    guests = [Guest.options(scheduling_strategy=this_node()).remote() for _ in range(4)]
    assert {ray.get(guest.node.remote()) for guest in guests} == {ray.get_runtime_context().get_node_id()}
    for guest in guests:
        ray.kill(guest)
    cluster.remove_node(node, allow_graceful=False)


def test_no_task_is_sent_that_no_cpu_is_there_for_and_more_cpus_are_asked_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray would ask all nodes for a worker, again and again; and who adds nodes by the tasks that wait, sees none."""
    asked: list[int] = []
    monkeypatch.setattr("ray_rl.collect.ray_tasks.ask_for_cpus", asked.append)
    nodes = [add_node(cluster), add_node(cluster, 2)]
    requests = requests_for(40)
    for n_workers, n_sent, n_asked in [(None, 3, 6), (2, 2, 2), (5, 3, 5)]:
        with collector(n_workers=n_workers) as on_cluster:
            on_cluster.submit(requests)
            on_cluster.publish(weights_for(_ENV, seed=9), 1)  # acts in what is sent from now on
            chunks = list(on_cluster.completed())
        assert indices_of(chunks) == list(range(40))
        assert [chunk.summary.policy_version for chunk in chunks].count(0) == n_sent
        assert asked == [n_asked, 0]
        asked.clear()
    for node in nodes:
        cluster.remove_node(node, allow_graceful=False)


def test_a_chunk_that_is_late_is_run_elsewhere_with_the_weights_it_was_sent_with(
    cluster: Cluster, faults: Faults
) -> None:
    """An episode that hangs once; then the other node falls silent with all its processes: no CPU is free."""
    nodes = [add_node(cluster), add_node(cluster)]
    requests = requests_for(20)
    whole = expected(requests)
    with collector(late_s=2.0, watchdog_s=40.0) as on_cluster:
        on_cluster.submit(requests)
        list(on_cluster.completed())
        faults.plant(requests[3], "hang", once=True)  # in one of the two chunks that are sent at once
        on_cluster.submit(requests)
        on_cluster.publish(weights_for(_ENV, seed=9), 1)
        chunks = list(on_cluster.completed())
        assert not list(faults.folder.iterdir()), "the episode never hung"
        assert indices_of(chunks) == list(range(20))
        own = {int(i): c.summary.policy_version for c in chunks for i in c.summary.indices}
        hung = next(chunk for chunk in chunks if 3 in chunk.summary.indices)
        assert own[3] == 0
        assert_same_episodes(joined([hung]), expected([requests[int(i)] for i in hung.summary.indices]))

        on_cluster.publish(weights_for(_ENV), 2)
        silent = psutil.Process(hung.summary.pid).parent()
        assert silent in [raylet_of(node) for node in nodes]
        frozen = [*silent.children(recursive=True), silent]
        on_cluster.submit(requests)
        for process in frozen:
            process.suspend()
        try:
            assert_same_episodes(joined(on_cluster.completed()), whole)
        finally:
            for process in frozen:
                process.resume()
    for node in nodes:
        cluster.remove_node(node, allow_graceful=False)


def test_copies_that_were_outrun_and_never_end_do_not_keep_back_what_waits(cluster: Cluster, faults: Faults) -> None:
    node = add_node(cluster)
    never: Any = ray.remote(num_cpus=0, resources={"nowhere": 1})(cluster_cpus).remote()
    with collector() as on_cluster:
        on_cluster._outrun[never] = time.monotonic()
        on_cluster.submit(requests_for(6))
        assert indices_of(on_cluster.completed()) == list(range(6))
    cluster.remove_node(node)


def test_who_was_outrun_has_minutes_before_it_counts_as_stuck(cluster: Cluster) -> None:
    """A worker that starts beside many others, or on a machine that compiles, takes longer than any chunk."""
    node = add_node(cluster)
    starting: Any = ray.remote(num_cpus=0, resources={"nowhere": 1})(cluster_cpus).remote()
    with collector(late_s=0.1) as on_cluster:
        on_cluster.submit(requests_for(6))
        assert indices_of(on_cluster.completed()) == list(range(6))
        for outrun_for_s, given_up in ((200.0, False), (400.0, True)):
            on_cluster._outrun[starting] = time.monotonic() - outrun_for_s
            on_cluster._look_at_outrun()
            assert (starting not in on_cluster._outrun) == given_up
    cluster.remove_node(node)


def test_what_waits_for_a_worker_to_start_is_not_late(
    cluster: Cluster, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of four CPUs have no worker yet."""
    node = add_node(cluster)
    monkeypatch.setattr("ray_rl.collect.ray_tasks.cluster_cpus", lambda: 8)
    requests = requests_for(4)
    with collector(late_s=0.5, episodes_per_chunk=4) as on_cluster:
        on_cluster.submit(requests)
        list(on_cluster.completed())
    with collector(late_s=0.5, episodes_per_chunk=1) as on_cluster:
        on_cluster.submit(requests)
        list(on_cluster.completed())
        faults.plant(requests[0], "hold")
        on_cluster.submit(requests)
        assert list(on_cluster.completed(timeout_s=4.0)) == []
        assert len(on_cluster._running) == 4, "a task that waits was sent again"
        faults.clear()
        assert indices_of(on_cluster.completed()) == list(range(4))
    cluster.remove_node(node, allow_graceful=False)


def test_who_was_outrun_works_on_when_it_was_only_slow_and_is_killed_when_it_is_stuck(
    cluster: Cluster, faults: Faults
) -> None:
    """Killed at once, workers that are slow because they have just started would never get beyond that."""
    node = add_node(cluster, 4)
    requests = requests_for(40)
    with collector(late_s=1.0, stuck_s=4.0, episodes_per_chunk=1) as on_cluster:
        workers: set[int] = set()
        give_up_at = time.monotonic() + 60
        while len(workers) < 4:
            assert time.monotonic() < give_up_at, f"of four workers {workers} have started"
            on_cluster.submit(requests)
            workers |= {chunk.summary.pid for chunk in on_cluster.completed()}
        slow, stuck = requests[7], requests[20]
        for request in (slow, stuck):
            faults.plant(request, "dawdle", once=True)
        on_cluster.submit(requests)
        done = []
        for chunk in on_cluster.completed():
            done.append(chunk)
            if slow.index in chunk.summary.indices:
                slow_pid = faults.dawdler(slow)
                assert chunk.summary.pid != slow_pid
                faults.hurry(slow)
        assert indices_of(done) == list(range(40))
        stuck_pid = faults.dawdler(stuck)
        workers.clear()
        give_up_at = time.monotonic() + 60
        while slow_pid not in workers or psutil.pid_exists(stuck_pid):
            assert time.monotonic() < give_up_at, f"{slow_pid} among {workers}? {stuck_pid} gone?"
            on_cluster.submit(requests)
            workers |= {chunk.summary.pid for chunk in on_cluster.completed()}
    cluster.remove_node(node, allow_graceful=False)


def raylet_of(node: Any) -> psutil.Process:
    (info,) = node.all_processes["raylet"]
    return psutil.Process(info.process.pid)
