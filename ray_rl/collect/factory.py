"""Makes the collector that a configuration names; Ray is imported only when it is one of Ray's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ray_rl.collect.api import Collector
from ray_rl.config import CollectConfig, EnvConfig, UserError


def default_n_workers() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def make_collector(collect: CollectConfig, env: EnvConfig) -> Iterator[Collector]:
    """Make a collector, with the Ray that it needs; everything is released at the end.

    Args:
        collect: The method and its workers.
        env: What the episodes run in.

    Raises:
        UserError: When the method cannot run as configured.
    """
    if collect.address is not None and not collect.collector.startswith("ray"):
        raise UserError(f"--address needs a collector on Ray (ray-tasks, ray-actors), not {collect.collector}")
    if collect.collector.startswith("ray"):
        try:
            from ray_rl.ray_runtime import connection
        except ModuleNotFoundError as error:
            raise UserError(
                f"--collector {collect.collector} needs {error.name}, which is not installed: "
                "pip install 'ray[default]', or use --collector executor"
            ) from error

        py_modules, env_vars = _luggage(collect, env)
        n_workers = collect.n_workers or default_n_workers()
        with (
            connection(collect.address, n_workers, py_modules=py_modules, env_vars=env_vars) as ray_is_own,
            _on_ray(collect, env, ray_is_own) as collector,
        ):
            yield collector
    else:
        with _in_processes(collect, env) as collector:
            yield collector


def _luggage(collect: CollectConfig, env: EnvConfig) -> tuple[list[str], dict[str, str]]:
    """Packages and environment variables that the workers of a cluster need for an environment: CybORG's."""
    if collect.address is None or env.env != "cyborg":
        return [], {}
    from ray_rl.envs.cyborg.find import shipment

    sent = shipment(env.cyborg_path)
    return [str(sent.package)], sent.env_vars


def _on_ray(collect: CollectConfig, env: EnvConfig, ray_is_own: bool) -> Collector:
    from ray_rl.ray_runtime import cluster_cpus

    size, watchdog_s = collect.episodes_per_chunk, collect.watchdog_s
    if collect.collector == "ray-actors":
        from ray_rl.collect.ray_actors import RayActorsCollector

        return RayActorsCollector(env, collect.n_workers or max(1, cluster_cpus()), size, watchdog_s)
    from ray_rl.collect.ray_tasks import RayTasksCollector

    return RayTasksCollector(
        env, collect.n_workers, size, watchdog_s, collect.autoscale_cpus, ray_outlives_it=not ray_is_own
    )


def _in_processes(collect: CollectConfig, env: EnvConfig) -> Collector:
    n_workers = collect.n_workers or default_n_workers()
    if collect.collector == "executor":
        from ray_rl.collect.executor import ExecutorCollector

        return ExecutorCollector(env, n_workers, collect.episodes_per_chunk, collect.watchdog_s)
    if collect.collector == "synchronous":
        from ray_rl.collect.synchronous import SynchronousCollector

        return SynchronousCollector(env, n_workers, collect.watchdog_s)
    from ray_rl.collect.sequential import SequentialCollector

    return SequentialCollector(env, collect.episodes_per_chunk)
