"""``ray-rl chaos --soak``: what a long training held early and late."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from ray_rl.chaos.plan import Event, FaultName
from ray_rl.chaos.soak import Soak, Watch, run_soak
from ray_rl.config import TrainConfig


def hold_soak(
    config: TrainConfig,
    plan: Sequence[Event],
    run_dir: Path,
    address: str,
    cause: Callable[[FaultName], str],
    cluster: Any,
    say: Callable[[str], None],
) -> Soak:
    """Hold the soak on a cluster of this machine; arguments as `run_soak`."""
    from ray_rl.chaos.ray_watch import look_at, stored_bytes

    watch = Watch(partial(look_at, cluster), stored_bytes, run_dir)
    return run_soak(config, plan, run_dir, address, cause, watch, say)


def tell_soak(soak: Soak) -> list[Table | str]:
    """The table, and what it proves."""
    n_episodes = soak.n_updates * soak.episodes_per_update
    title = f"{n_episodes:,} episodes in {soak.n_updates:,} updates, {soak.seconds:.0f} s"
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    for name in ("lives", "after a tenth", "at the end", "allowed", ""):
        table.add_column(name, justify="right")
    for growth in soak.growths:
        scale, digits, unit = (2**20, 1, "MiB") if growth.unit == "bytes" else (1, 0, growth.unit)
        table.add_row(
            f"{growth.what}, {unit}",
            str(growth.lives),
            f"{growth.early / scale:.{digits}f}",
            f"{growth.late / scale:.{digits}f}",
            f"+{growth.allowed / scale:.{digits}f}",
            "GREW" if growth.grew else "flat",
        )
    faults = ", ".join(f"{fault} after update {update}" for fault, _, update in soak.faults)
    consumed = f"NOT so in updates {soak.wrong_updates}" if soak.wrong_updates else f"all {soak.n_updates:,} updates"
    return [
        table,
        "lives: processes that lasted long enough to tell; shown is the one that grew most\n"
        f"{len(soak.faults)} faults: {faults}\n"
        f"every update consumed exactly its episodes, each once: {consumed}",
    ]
