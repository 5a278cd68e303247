"""``ray-rl bench scale``: one driver and more and more simulated nodes whose environments wait.

Each node is a Ray node of its own (raylet, object store, worker processes) on this machine. Its environments wait and
take next to no CPU, as emulated hosts and remote ranges do; what grows with the nodes is the work of the driver and of
Ray. All processes share this machine's cores: on nodes of their own only the driver's part would stay.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import ray

import ray_rl
from ray_rl.bench.cost_model import CostModel, fit_line
from ray_rl.bench.machine import Machine, this_machine
from ray_rl.bench.ray_limits import FullDriver, fetch_costs, fill_driver, learning_costs
from ray_rl.bench.ray_load import DriverCpu, Load
from ray_rl.config import EnvConfig, UserError
from ray_rl.failures import RunError
from ray_rl.ray_local_cluster import add_nodes, local_cluster

_STORE_BYTES = 80 * 2**20
_HEAD_STORE_BYTES = 4 * _STORE_BYTES
_RESERVE_BYTES = 2 * 2**30
"""Memory that is left to the rest of the machine."""
_NODE_BYTES, _WORKER_BYTES = 300 * 2**20, 120 * 2**20
"""What a node and each of its workers are taken to need, before any has been measured."""

_LEARNED_EPISODES = 200
"""Episodes of an update, where the learner is measured."""


@dataclass(frozen=True, slots=True)
class ScaleSettings:
    """What is measured.

    Attributes:
        nodes: Numbers of nodes, ascending.
        workers_per_node: Workers of each.
        episode_s: Mean duration of an episode, in seconds.
        episode_steps: Steps of an episode, which share that time.
        episodes_per_chunk: Episodes of a task.
        seconds: Length of a measurement.
    """

    nodes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    workers_per_node: int = 6
    episode_s: float = 1.3
    episode_steps: int = 10
    episodes_per_chunk: int = 1
    seconds: float = 20.0

    @property
    def env(self) -> EnvConfig:
        """An environment whose steps wait so long on average, but never more than four times that."""
        wait_s = self.episode_s / self.episode_steps
        return EnvConfig(
            env="latency", episode_steps=self.episode_steps, latency_mean_s=wait_s, latency_max_s=4 * wait_s
        )


@dataclass(frozen=True, slots=True)
class ScaleRow:
    """One number of nodes.

    Attributes:
        nodes: Their number.
        workers: Worker processes on them.
        episodes_per_s: Collected.
        busy_share: Share of the workers' time in which they ran episodes.
        driver_share: Share of one core that the driver's process took.
        machine_share: Share of all cores of this machine that were busy, with whatever.
    """

    nodes: int
    workers: int
    episodes_per_s: float
    busy_share: float
    driver_share: float
    machine_share: float

    def efficiency(self, first: ScaleRow) -> float:
        """Episodes of a worker, relative to those of a worker of another row."""
        return (self.episodes_per_s / self.workers) / (first.episodes_per_s / first.workers)

    def describe(self, first: ScaleRow) -> str:
        """In a line; efficiency is that relative to the first row."""
        return (
            f"{self.episodes_per_s:.1f} episodes/s, efficiency {self.efficiency(first):.1%}, driver "
            f"{self.driver_share:.1%} of a core, all of this machine {self.machine_share:.0%}"
        )


@dataclass(frozen=True, slots=True)
class ScaleBench:
    """Result of the study.

    Attributes:
        machine: Where it was measured.
        settings: What was measured.
        rows: One for each number of nodes.
        not_run: Numbers of nodes that could not be run here, each with the reason.
        full: What the driver does when it has as much to do as it can.
        model: Costs fitted to all of it.
    """

    machine: Machine
    settings: ScaleSettings
    rows: tuple[ScaleRow, ...]
    not_run: tuple[tuple[int, str], ...]
    full: FullDriver
    model: CostModel

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        rows = [
            {
                **asdict(row),
                "efficiency": row.efficiency(self.rows[0]),
                "modelled_episodes_per_s": self.model.collected_per_s(row.workers),
                "modelled_driver_share": self.model.driver_share(row.workers),
            }
            for row in self.rows
        ]
        return {
            "machine": self.machine.to_json(),
            "settings": asdict(self.settings),
            "rows": rows,
            "not_run": list(self.not_run),
            "full_driver": asdict(self.full),
            "model": self.model.to_json(),
        }


def bench_scale(settings: ScaleSettings, say: Callable[[str], None] = lambda _: None) -> ScaleBench:
    """Grow a simulated cluster and measure at each size, then fill each part alone.

    Args:
        settings: What to measure.
        say: Told what happens next, to show progress.

    Raises:
        UserError: When not even the fewest nodes fit into memory.
        RunError: When not even the workers of the fewest nodes start.
    """
    if ray.is_initialized():
        raise UserError("bench scale starts a Ray of its own: it cannot run inside another one")
    lacking = _lacking_bytes(settings.nodes[0], _first_guess(settings))
    if lacking > 0:
        raise UserError(
            f"--nodes {settings.nodes[0]} with {settings.workers_per_node} workers each: about "
            f"{lacking / 2**30:.1f} GiB of memory too little"
        )
    machine = this_machine()
    folder = str(Path(ray_rl.__file__).parent.parent)  # where the workers of all nodes find this package
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
    say("learner")
    learn_s, episode_bytes = learning_costs(_LEARNED_EPISODES)
    with local_cluster({}, _HEAD_STORE_BYTES) as cluster:
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        rows, not_run = _measure_nodes(cluster, settings, say)
        say("object store")
        fetch_s, fetch_s_per_byte = fetch_costs()
        say("driver")
        full = fill_driver(rows[-1].workers, settings.seconds)
    chunks_per_s = [*(row.episodes_per_s / settings.episodes_per_chunk for row in rows), full.chunks_per_s]
    idle_share, chunk_s = fit_line(chunks_per_s, [*(row.driver_share for row in rows), full.chunk_driver_share])
    model = CostModel(
        worker_s_per_episode=rows[0].workers / rows[0].episodes_per_s,
        episodes_per_chunk=settings.episodes_per_chunk,
        episode_bytes=episode_bytes,
        driver_idle_share=idle_share,
        driver_s_per_chunk=chunk_s,
        fetch_s_per_chunk=fetch_s,
        fetch_s_per_byte=fetch_s_per_byte,
        learn_s_per_episode=learn_s,
    )
    return ScaleBench(machine, settings, tuple(rows), tuple(not_run), full, model)


def _measure_nodes(
    cluster: Any, settings: ScaleSettings, say: Callable[[str], None]
) -> tuple[list[ScaleRow], list[tuple[int, str]]]:
    rows: list[ScaleRow] = []
    node_bytes, free_at_first, n_nodes = _first_guess(settings), psutil.virtual_memory().available, 0
    with closing(Load(settings.env, settings.episodes_per_chunk, 1)) as load:
        for position, nodes in enumerate(settings.nodes):
            lacking = _lacking_bytes(nodes - n_nodes, node_bytes)
            if rows and lacking > 0:
                reason = f"{lacking / 2**30:.1f} GiB of memory too little"
                load.finish()
                return rows, [(left_out, reason) for left_out in settings.nodes[position:]]
            say(f"{nodes} nodes: waiting for {nodes * settings.workers_per_node} workers to start")
            add_nodes(cluster, nodes - n_nodes, settings.workers_per_node, _STORE_BYTES)
            n_nodes = nodes
            load.n_workers = nodes * settings.workers_per_node
            try:
                load.warm_up(load.n_workers)
            except RunError as error:
                if not rows:
                    raise
                return rows, [(left_out, str(error)) for left_out in settings.nodes[position:]]
            say(f"{nodes} nodes: measuring")
            rows.append(_measure(load, nodes, settings.seconds))
            say(f"{nodes} nodes: {rows[-1].describe(rows[0])}")
            node_bytes = max(node_bytes, (free_at_first - psutil.virtual_memory().available) // nodes)
        load.finish()
    return rows, []


def _first_guess(settings: ScaleSettings) -> int:
    return _NODE_BYTES + settings.workers_per_node * _WORKER_BYTES


def _lacking_bytes(n_nodes: int, node_bytes: int) -> int:
    """Bytes of memory that so many more nodes need beyond what is free."""
    return n_nodes * node_bytes + _RESERVE_BYTES - psutil.virtual_memory().available


def _measure(load: Load, nodes: int, seconds: float) -> ScaleRow:
    psutil.cpu_percent()
    episodes, busy_s, cpu = 0, 0.0, DriverCpu()
    for chunk in load.chunks(lambda: cpu.seconds >= seconds):
        episodes += len(chunk.summary.indices)
        busy_s += chunk.summary.rollout_s
    taken_s, share = cpu.seconds, cpu.share
    return ScaleRow(
        nodes=nodes,
        workers=load.n_workers,
        episodes_per_s=episodes / taken_s,
        busy_share=busy_s / (taken_s * load.n_workers),
        driver_share=share,
        machine_share=psutil.cpu_percent() / 100,
    )
