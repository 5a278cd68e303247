"""``ray-rl bench env``: steps per second of the simulator, on one core."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from ray_rl.bench.env import EnvBench, bench_env
from ray_rl.commands.flags import check_files, parse, save_json
from ray_rl.commands.screen import make_console
from ray_rl.config import RuleSet, UserError


@dataclass(frozen=True)
class BenchEnvFlags:
    """Flags of ``ray-rl bench env``."""

    rules: RuleSet = "head"
    """CAGE-2 rule set."""
    rounds: int = 5
    """Measurements of each row, interleaved."""
    hidden_size: int = 64
    """Units of both hidden layers of the policy that acts."""
    cyborg_path: str | None = None
    """Folder of a CybORG 2.1 checkout to measure beside the simulator."""
    minicage_path: str | None = None
    """Folder of a checkout of CybORG_plus_plus, whose MiniCAGE is a public fast re-implementation with other rules."""
    json: Path | None = None
    """File for what the table shows, as JSON."""


def run(words: list[str]) -> int:
    """Measure and show; returns the exit code."""
    flags = parse(BenchEnvFlags, "bench env", "Steps per second of process CPU time, on one core.", words)
    if flags.rounds < 1 or flags.hidden_size < 1:
        raise UserError("--rounds and --hidden-size must be 1 or more")
    check_files(json=flags.json)
    result = bench_env(
        rules=flags.rules,
        rounds=flags.rounds,
        hidden_size=flags.hidden_size,
        cyborg_path=flags.cyborg_path,
        minicage_path=flags.minicage_path,
    )
    console = make_console()
    console.print(_table(result))
    console.print(result.machine.describe(), style="dim", soft_wrap=True)
    save_json(flags.json, result.to_json())
    return 0


def _table(result: EnvBench) -> Table:
    table = Table(title=f"CAGE-2, rules {result.rules}: steps per second on one core", title_justify="left")
    table.add_column("what")
    table.add_column("median", justify="right")
    table.add_column("lowest - highest", justify="right")
    for row in result.rows:
        s = row.steps_per_s
        table.add_row(row.what, f"{s.median:,.0f}", f"{s.low:,.0f} - {s.high:,.0f}")
    for what, reason in result.not_run:
        table.add_row(what, "not run", reason)
    return table
