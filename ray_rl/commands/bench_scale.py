"""``ray-rl bench scale``: how far one driver carries, on simulated nodes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from ray_rl.commands.flags import check_files, parse, save_json
from ray_rl.commands.screen import make_console
from ray_rl.config import UserError

if TYPE_CHECKING:
    from ray_rl.bench.ray_scale import ScaleBench

_DESCRIPTION = (
    "Collect on more and more simulated nodes of this machine, whose environments wait, and fit what each part costs: "
    "says where driver, object store and learner are full, and what to do then. A worker needs about 120 MB of memory "
    "and, until it has started, 3 s of a core."
)


@dataclass(frozen=True)
class BenchScaleFlags:
    """Flags of ``ray-rl bench scale``."""

    nodes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Numbers of nodes, ascending; those that do not fit into memory are left out."""
    workers_per_node: int = 6
    """Worker processes of a node."""
    episode_s: float = 1.3
    """Mean duration of an episode, in seconds: all of it waits."""
    episode_steps: int = 10
    """Steps of an episode. More of them cost CPU on all simulated nodes, which share this machine's cores."""
    episodes_per_chunk: int = 1
    """Episodes that one task runs."""
    seconds: float = 20.0
    """Length of each measurement, in seconds."""
    json: Path | None = None
    """File for what the tables show, as JSON."""


def run(words: list[str]) -> int:
    """Run the study; returns the exit code."""
    flags = parse(BenchScaleFlags, "bench scale", _DESCRIPTION, words)
    if not flags.nodes or flags.nodes[0] < 1 or any(b <= a for a, b in pairwise(flags.nodes)):
        raise UserError(f"--nodes takes ascending numbers from 1, not '{' '.join(map(str, flags.nodes))}'")
    for name in ("workers_per_node", "episode_s", "episode_steps", "episodes_per_chunk", "seconds"):
        if not getattr(flags, name) > 0:
            raise UserError(f"--{name.replace('_', '-')} must be more than 0, not {getattr(flags, name)}")
    check_files(json=flags.json)
    from ray_rl.bench.ray_scale import ScaleSettings, bench_scale  # Ray, only when it is needed

    console = make_console()
    result = bench_scale(
        ScaleSettings(
            flags.nodes,
            flags.workers_per_node,
            flags.episode_s,
            flags.episode_steps,
            flags.episodes_per_chunk,
            flags.seconds,
        ),
        lambda part: console.print(part, style="dim"),
    )
    console.print(_nodes_table(result))
    console.print(
        "modelled: as the first row's workers and the costs below have it; driver: of one core;\n"
        "machine: of all cores, which the simulated nodes share",
        style="dim",
    )
    console.print(_limits_table(result))
    full = result.full
    console.print(
        f"chunks that cost the workers next to nothing: {full.chunks_per_s:,.0f}/s, with the driver at "
        f"{full.chunk_driver_share:.0%} of a core, its main thread at {full.chunk_thread_share:.0%}; Ray's empty "
        f"tasks: {full.tasks_per_s:,.0f}/s, driver at {full.task_driver_share:.0%}"
    )
    console.print(result.machine.describe(), style="dim", soft_wrap=True)
    save_json(flags.json, result.to_json())
    return 0


def _nodes_table(result: ScaleBench) -> Table:
    settings, model, first = result.settings, result.model, result.rows[0]
    title = f"{settings.workers_per_node} workers a node, episodes that wait for {settings.episode_s:g} s"
    table = Table(title=title, title_justify="left")
    for name in ("nodes", "workers", "episodes/s", "modelled", "efficiency", "busy", "driver", "modelled", "machine"):
        table.add_column(name, justify="right")
    for row in result.rows:
        table.add_row(
            f"{row.nodes}",
            f"{row.workers}",
            f"{row.episodes_per_s:.1f}",
            f"{model.collected_per_s(row.workers):.1f}",
            f"{row.efficiency(first):.0%}",
            f"{row.busy_share:.0%}",
            f"{row.driver_share:.1%}",
            f"{model.driver_share(row.workers):.1%}",
            f"{row.machine_share:.0%}",
        )
    for nodes, reason in result.not_run:
        table.add_row(f"{nodes}", "not run", reason)
    return table


def _limits_table(result: ScaleBench) -> Table:
    title = f"Where each part is full, with chunks of {result.settings.episodes_per_chunk} and episodes of CAGE-2"
    table = Table(title=title, title_justify="left")
    table.add_column("part")
    table.add_column("episodes/s", justify="right")
    table.add_column("why")
    table.add_column("then")
    for limit in result.model.limits():
        table.add_row(limit.part, f"{limit.episodes_per_s:,.0f}", limit.why, limit.remedy)
    return table
