"""``ray-rl bench peers``: training beside the PPO of other libraries, on the same simulator."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from ray_rl.bench.peers import OVERLAPPED, OWN, PeersBench, Setting, Task, bench_peers, contestants
from ray_rl.commands.flags import check_files, parse, save_json
from ray_rl.commands.screen import make_console
from ray_rl.config import UserError

_DESCRIPTION = (
    "Trains the same networks on the same simulator with PPO of this package, of Stable-Baselines3, as CleanRL writes "
    "it, and of RLlib: 6 passes over batches of 100-step episodes against B_lineAgent. Each first tries a few numbers "
    "of environments, processes and threads, and runs with the best. What is not installed is named and left out."
)


@dataclass(frozen=True)
class BenchPeersFlags:
    """Flags of ``ray-rl bench peers``."""

    rounds: int = 3
    """Times that everybody is measured, in turn."""
    updates: int = 12
    """Updates of a training; the first fifth is left out of the figures."""
    episodes_per_update: int = 200
    """Episodes that one update learns from."""
    hidden_size: int = 64
    """Units of both hidden layers of actor and critic."""
    json: Path | None = None
    """File for what the table shows, as JSON."""


def run(words: list[str]) -> int:
    """Measure and show; returns the exit code."""
    flags = parse(BenchPeersFlags, "bench peers", _DESCRIPTION, words)
    if flags.rounds < 1 or flags.updates < 2:
        raise UserError("--rounds must be 1 or more, and --updates 2 or more")
    if flags.hidden_size < 1 or flags.episodes_per_update < 4 or flags.episodes_per_update % 4:
        raise UserError("--hidden-size must be 1 or more, and --episodes-per-update a multiple of 4")
    check_files(json=flags.json)
    task = Task(
        hidden_size=flags.hidden_size,
        episodes_per_update=flags.episodes_per_update,
        episode_steps=100,
        epochs=6,
        minibatches=4,
        n_updates=flags.updates,
        n_warm=max(1, flags.updates // 5),
    )
    everybody = contestants(len(os.sched_getaffinity(0)), flags.episodes_per_update)
    console = make_console()
    result = bench_peers(task, everybody, flags.rounds, lambda line: console.print(line, style="dim"))
    console.print(_table(result))
    console.print(result.machine.describe(), style="dim", soft_wrap=True)
    save_json(flags.json, result.to_json())
    return 0


def _table(result: PeersBench) -> Table:
    table = Table(title="Training with PPO: episodes per second of wall-clock time", title_justify="left")
    table.add_column("what")
    table.add_column("median", justify="right")
    table.add_column("lowest - highest", justify="right")
    for own in (OWN, OVERLAPPED):
        table.add_column(f"{own} is", justify="right")
    table.add_column("its best setting")
    for one in result.results:
        figure = one.episodes_per_s
        ratios = [f"{result.times_as_fast(one, own).median:.2f} x" for own in (OWN, OVERLAPPED)]
        spread = f"{figure.low:,.0f} - {figure.high:,.0f}"
        table.add_row(one.name, f"{figure.median:,.0f}", spread, *ratios, _describe(one.setting))
    for name, reason in result.not_installed:
        table.add_row(name, "not installed", "", "", "", reason)
    return table


def _describe(setting: Setting) -> str:
    return ", ".join(f"{name} {value}" for name, value in setting.items())
