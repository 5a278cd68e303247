"""``ray-rl bench train``: training end to end, beside what its parts allow on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ray_rl.bench.rounds import Spread
from ray_rl.bench.time_account import PARTS
from ray_rl.bench.train import MODES, TrainBench, bench_train
from ray_rl.commands.flags import check_files, parse, save_json
from ray_rl.commands.screen import make_console
from ray_rl.config import ActionSetName, TrainConfig, UserError, ViewName

_DESCRIPTION = (
    "Measures in alternating rounds the learner alone (a), the collectors alone (b) and both together, strict and "
    "overlapped, and sets the latter beside the bound that (a) and (b) imply on these cores: 1/(1/a + 1/b) strict, and "
    "the smaller of a, b and cores per core-seconds of an episode overlapped."
)
_MATTERS = ("processor", "cores", "versions")
"""What must be the same for two results to be compared."""


@dataclass(frozen=True)
class BenchTrainFlags:
    """Flags of ``ray-rl bench train``."""

    rounds: int = 3
    """Times that everything is measured."""
    updates: int = 40
    """Updates of a training; the first fifth is left out of the figures."""
    episodes_per_update: int = 200
    """Episodes that one update learns from."""
    view: ViewName = "winner"
    """What Blue sees."""
    actions: ActionSetName = "compact"
    """What Blue may do."""
    hidden_size: int = 64
    """Units of both hidden layers of the networks."""
    n_workers: int | None = None
    """Worker processes; none: one per CPU."""
    n_learners: int = 1
    """Learner processes that share the episodes of an update."""
    learner_threads: int = 2
    """Threads of each learner."""
    seed: int = 0
    """Decides the episodes, first weights and minibatches."""
    json: Path | None = None
    """File for what the tables show, as JSON."""
    against: Path | None = None
    """File that an earlier run wrote by --json, to compare with."""


def run(words: list[str]) -> int:
    """Measure and show; returns the exit code."""
    flags = parse(BenchTrainFlags, "bench train", _DESCRIPTION, words)
    if flags.rounds < 1 or flags.updates < 2:
        raise UserError("--rounds must be 1 or more, and --updates 2 or more")
    check_files(json=flags.json)
    earlier = None if flags.against is None else _earlier(flags.against)
    console = make_console()
    result = bench_train(_config(flags), flags.rounds, lambda line: console.print(line, style="dim"))
    console.print(_figures_table(result, earlier))
    console.print(_parts_table(result))
    console.print(result.machine.describe(), style="dim", soft_wrap=True)
    if earlier is not None:
        for line in _differences(result.to_json(), earlier):
            console.print(line, soft_wrap=True)
    save_json(flags.json, result.to_json())
    return 0


def _config(flags: BenchTrainFlags) -> TrainConfig:
    values = {
        "view": flags.view,
        "actions": flags.actions,
        "hidden_sizes": (flags.hidden_size, flags.hidden_size),
        "n_workers": flags.n_workers,
        "n_learners": flags.n_learners,
        "learner_threads": flags.learner_threads,
        "episodes_per_update": flags.episodes_per_update,
        "total_episodes": flags.updates * flags.episodes_per_update,
        "evaluate_every": 0,
        "seed": flags.seed,
    }
    return TrainConfig.from_mapping(values, "bench train")


def _earlier(path: Path) -> dict[str, Any]:
    """What an earlier run saved.

    Raises:
        UserError: When the file cannot be read, or is nothing that this command wrote.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read --against {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"--against {path} is no JSON file") from error
    if not isinstance(found, dict) or found.get("bench") != "train":
        raise UserError(f"--against {path} was not written by ray-rl bench train --json")
    return found


def _figures_table(result: TrainBench, earlier: Mapping[str, Any] | None) -> Table:
    table = Table(title="Training: episodes per second, and core-milliseconds of an episode", title_justify="left")
    table.add_column("what")
    table.add_column("median", justify="right")
    table.add_column("lowest - highest", justify="right")
    table.add_column("core-ms", justify="right")
    if earlier is not None:
        table.add_column("earlier", justify="right")
        table.add_column("now / earlier", justify="right")
    core_s = result.core_s()
    for name, figure in result.figures().items():
        style = "{:.1%}" if name.startswith("share") else "{:,.0f}"
        cells = [name, *_cells(figure, style), f"{1e3 * core_s[name].median:.2f}" if name in core_s else ""]
        if earlier is not None:
            before = earlier["figures"][name]["median"]
            cells += [style.format(before), f"{figure.median / before:.2f}"]
        table.add_row(*cells)
    return table


def _cells(figure: Spread, style: str) -> tuple[str, str]:
    return style.format(figure.median), f"{style.format(figure.low)} - {style.format(figure.high)}"


def _parts_table(result: TrainBench) -> Table:
    table = Table(title="Where the time of an update goes, on the driver's clock", title_justify="left")
    table.add_column("part")
    for mode in MODES:
        table.add_column(f"{mode}, ms", justify="right")
        table.add_column("share", justify="right")
    table.add_column("what it is")
    parts_s = {mode: result.parts_s(mode) for mode in MODES}
    totals_s = {mode: sum(part.median for part in parts.values()) for mode, parts in parts_s.items()}
    for part, meaning in PARTS.items():
        cells = []
        for mode in MODES:
            seconds = parts_s[mode][part].median
            cells += [f"{1e3 * seconds:.1f}", f"{seconds / totals_s[mode]:.1%}"]
        table.add_row(part, *cells, meaning)
    return table


def _differences(now: Mapping[str, Any], earlier: Mapping[str, Any]) -> list[str]:
    """What makes two results hard to compare."""
    lines = [
        f"careful: {name} was {earlier['machine'][name]}, and is {now['machine'][name]}"
        for name in _MATTERS
        if now["machine"][name] != earlier["machine"][name]
    ]
    for group, fields in now["config"].items():
        before = earlier["config"].get(group, {})
        lines += [
            f"careful: {name} was {before.get(name)}, and is {value}"
            for name, value in fields.items()
            if value != before.get(name)
        ]
    return lines
